//! An io_uring completion-based, thread-per-core async runtime for Linux, with a readiness (epoll)
//! twin that is chosen at run time.
//!
//! ```
//! use quoit::net::{TcpListener, TcpStream};
//!
//! quoit::block_on(async {
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     let address = listener.local_addr()?;
//!     quoit::spawn(async move {
//!         let (stream, _) = listener.accept().await?;
//!         let lease = stream.recv().await?;
//!         stream.send_all(lease).await
//!     });
//!     let stream = TcpStream::connect(address).await?;
//!     stream.send_all("around the ring").await?;
//!     assert_eq!(&stream.recv().await?[..], b"around the ring");
//!     std::io::Result::Ok(())
//! })
//! # .unwrap();
//! ```
//!
//! Guides, for those who come from elsewhere and for those who deploy, are in [`guide`].
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `macros` (default) | `#[quoit::main]` and `#[quoit::test]` |
//! | `tokio-io` | tokio's `AsyncRead`, `AsyncBufRead`, `AsyncWrite` on the streams |
//! | `futures-io` | those of `futures-io` |
//! | `futures-core` | `Stream` of connections, leases, ticks |
//! | `hyper` | hyper's `Read` and `Write` on the streams; `rt`, with its `Executor` and `Timer` |
//! | `bytes` | a lease is `Bytes` and a `Buf`; `Bytes` and `BytesMut` are buffers |
//! | `tracing` | tasks are spans, as tokio-console wants them |
//! | `stacks` | the stall detector tells where a core stands |
//!
//! # Reading the code
//!
//! The folders are the architecture: `io/` is the proactor and everything that does I/O, `runtime/`
//! is tasks, cores and time. Read `lib.rs`, `runtime/core.rs` (the loop), `io/proactor.rs` (who
//! waits for which request), `io/request/` (what can be asked, in both forms) and `io/ring/` (who
//! answers).

extern crate self as quoit;

pub mod io;
mod runtime;

pub use io::buffer::BufferCounters;
pub use io::histogram::Histogram;
pub use io::ring::{RingChoice, RingCounters, RingKind, RingReport};
pub use io::services::{ErrorCounters, ResourceCounters};
#[cfg(feature = "macros")]
pub use quoit_macros::{main, test};
pub use runtime::{
    Builder, CoreHandle, Cores, Handle, Metrics, Report, Runtime, block_on, run, spawn,
};

/// Buffers: leases from the core's pool, and buffers of yours that are lent to the kernel.
pub mod buffer {
    pub use crate::io::buffer::{AlignedBuf, BufError, IoBuf, IoBufMut, Lease, Slice};
}

pub mod fs {
    #![doc = include_str!("io/fs/guide.md")]
    pub use crate::io::fs::{File, Metadata, OpenOptions, Operation, Timed, read, write};
}

pub mod net {
    #![doc = include_str!("io/net/guide.md")]
    pub use crate::io::dns::lookup_host;
    pub use crate::io::net::{
        Accept, DetachError, OwnedReadHalf, OwnedWriteHalf, Placement, ReadHalf, Recv,
        ReuniteError, SendBuffer, TcpListener, TcpSocket, TcpStream, Timed, ToSocketAddrs,
        WriteHalf,
    };
    #[cfg(feature = "futures-core")]
    pub use crate::io::net::{Incoming, IntoIncoming, IntoLeases, Leases};
}

/// Signals of the process.
pub mod signal {
    pub use crate::io::signal::{ctrl_c, terminate};
}

/// What the stall detector reports: see [`Builder::stall_limit`].
pub mod stall {
    pub use crate::io::system::stack::Frame;
    pub use crate::runtime::stall::{Stall, StallState};
}

/// Tasks: spawning, joining, blocking work.
pub mod task {
    pub use crate::runtime::{
        AbortHandle, AccessError, JoinError, JoinHandle, JoinSet, LocalKey, Scope,
        TaskBuilder as Builder, TaskId, id, spawn, spawn_blocking, try_id, yield_now,
    };
}

pub use runtime::{sim, time};

/// What hyper asks of a runtime. The streams are its I/O as they are.
#[cfg(feature = "hyper")]
pub mod rt {
    pub use crate::runtime::hyper::{QuoitExecutor, QuoitTimer};
}

/// Guides: what is different from what you know, and how to run it where you do.
///
/// They are in `docs/`, too. Their programs are compiled and, where that can be, run as
/// documentation tests.
#[cfg(any(doc, doctest))]
pub mod guide {
    // The first definition of a link counts: that in `links.md` leads to a page, that at the end of
    // a guide to a file. Tests shall be named after the guide, so they are without the former.
    #[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
    #[doc = include_str!("docs/coming-from-tokio.md")]
    pub mod coming_from_tokio {}

    #[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
    #[doc = include_str!("docs/coming-from-node.md")]
    pub mod coming_from_node {}

    #[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
    #[doc = include_str!("docs/coming-from-asyncio.md")]
    pub mod coming_from_asyncio {}

    #[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
    #[doc = include_str!("docs/sharing-and-moving.md")]
    pub mod sharing_and_moving {}

    #[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
    #[doc = include_str!("docs/containers.md")]
    pub mod containers {}

    #[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
    #[doc = include_str!("docs/limits.md")]
    pub mod limits {}

    #[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
    #[doc = include_str!("docs/observability.md")]
    pub mod observability {}
}

#[doc(hidden)]
pub mod __private {
    pub use crate::io::operation::nop;
    #[cfg(feature = "planted")]
    pub mod planted {
        pub use crate::io::planted::{Bug, Planted, plant};
    }
    pub use crate::io::ring::simulated::{
        Disk, DiskOptions, Outsider, Survival, is_simulated, with_disk,
    };
    pub use crate::io::trace;
    pub use crate::runtime::macro_support::*;
    pub use crate::runtime::metrics::books_here;
    pub use crate::runtime::sim::further::{FurtherCore, outside_of_cores};
    pub use crate::runtime::simulate::{Books, Chance, Simulation, simulate};
}

/// The README's programs are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("README.md")]
mod readme {}
