//! A crate named `tokio` whose runtime is quoit, so that the test files of the published tokio
//! compile unchanged against it.
//!
//! ```text
//!   tokio's test file ──► this crate ─┬─ sync, io traits and utilities, join!, select!, LocalSet
//!                                     │      of the real tokio: they need no runtime of their own
//!                                     ├─ runtime, spawn, JoinHandle, JoinSet, time, TCP,
//!                                     │      whole files over quoit
//!                                     └─ UDP, Unix sockets, pipes, open files, processes, signals
//!                                            of the real tokio, which fails: no runtime of it runs
//! ```
//!
//! No runtime of the real tokio ever runs in here, so a test cannot pass by using it. It translates
//! names and shapes, and no more: where quoit behaves in another way than tokio does, so does this.
//! What tokio's *contexts* mean (`enter`, a handle on another thread) stands in `runtime/`, because
//! quoit has no such thing.
//!
//! A runtime of the multi-thread flavour ends the process with [`SKIPPED`], and so says that the
//! test is not for us.

pub use tokio_real::{
    io, join, macros, main, pin, process, select, signal, stream, sync, test, try_join,
};

pub mod fs;
pub mod net;
pub mod runtime;
pub mod task;
pub mod time;

pub use quoit::task_local;
pub use task::spawn;

/// The exit status of a test that needs what quoit does not offer by design.
pub const SKIPPED: i32 = 77;

/// Ends the test process: it is not for us, for this `reason`.
pub(crate) fn skip(reason: &str) -> ! {
    eprintln!("skipped: {reason}");
    std::process::exit(SKIPPED)
}
