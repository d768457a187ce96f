//! Tasks and cores. It knows the proactor as something that turns; it names no request.
//!
//! ```text
//!   builder ─ makes ─► core ─ runs ─► tasks ─ hold ─► task (state, waker, join)
//!   handle ─── inbox ───►│                run_queue
//! ```

mod blocking;
mod builder;
mod core;
mod cores;
mod handle;
mod hooks;
#[cfg(feature = "hyper")]
pub(crate) mod hyper;
mod id;
mod inbox;
mod join;
mod join_set;
mod local;
pub(crate) mod macro_support;
pub(crate) mod metrics;
#[cfg(all(test, loom))]
mod models;
mod named;
mod one;
mod run_queue;
pub mod sim;
pub(crate) mod simulate;
mod spawn;
pub(crate) mod stall;
mod state;
mod sync;
mod task;
mod tasks;
#[cfg(test)]
mod tests;
pub mod time;
mod traced;
mod waker;

pub use self::blocking::spawn_blocking;
pub use self::builder::Builder;
pub use self::cores::{CoreHandle, Cores};
pub use self::handle::Handle;
pub use self::id::{TaskId, id, try_id};
pub use self::join::{AbortHandle, JoinError, JoinHandle};
pub use self::join_set::JoinSet;
pub use self::local::{AccessError, LocalKey, Scope};
pub use self::metrics::Metrics;
pub use self::named::TaskBuilder;
pub use self::one::{Report, Runtime, block_on, run};
pub use self::spawn::{spawn, yield_now};
