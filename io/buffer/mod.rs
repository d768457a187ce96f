//! Buffers: what users lend to the kernel, and what the kernel lends to users.
//!
//! ```text
//!  owned buffers   user ── B: IoBuf ──► in-flight slot ── pointer ──► kernel
//!                  user ◄── (n, B) or BufError<B> ◄── terminal completion
//!
//!  leases          BufferPool ── Provided ──► ring ── completion(id, length) ──► Lease ──► user
//!                  BufferPool ◄── take_returned ◄── dropped, on any thread ◄──────────────┘
//! ```
//!
//! An owned buffer moves into the slot of its operation and comes back with the result, so that no
//! dropped future can free memory that the kernel still uses. A lease goes the other way: a core's
//! pool owns equal buffers, the kernel picks one when bytes arrive, and an idle connection holds
//! none.

mod aligned;
#[cfg(feature = "bytes")]
mod bytes;
mod error;
mod iobuf;
mod lease;
mod pool;
mod private;
mod region;
mod shared;
mod slice;

pub use self::aligned::AlignedBuf;
pub use self::error::BufError;
pub use self::iobuf::{IoBuf, IoBufMut};
pub use self::lease::Lease;
pub use self::pool::BufferCounters;
pub(crate) use self::pool::{BufferPool, PoolConfig};

pub use self::slice::Slice;
