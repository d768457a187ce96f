//! The proactor and all that does I/O. It knows `Waker`, never a task.
//!
//! ```text
//!   net/ fs/ ...    resources: state machines that own their requests
//!       │  ▲
//!       ▼  │ dispatch
//!   tables.rs       who waits for what
//!   proactor.rs     the turn
//!       │  ▲
//!       ▼  │ completions
//!   ring/    who answers: io_uring, epoll, a simulation    request/  what can be asked, both forms
//! ```
//!
//! The words: a *request* is asked of the kernel, and a *submission* is a request handed in; a
//! *completion* is its answer, and the *terminal* one is the last. *Readiness* says that a request
//! may be tried. *Multishot* requests have many answers. A *lease* is a provided buffer that the
//! kernel filled, lent to the program until it is dropped. A *core* is one thread with its own
//! proactor.

mod alarm;
pub(crate) mod allowance;
pub(crate) mod buffer;
pub(crate) mod clock;
mod descriptor;
pub(crate) mod dns;
pub(crate) mod fs;
pub(crate) mod histogram;
pub(crate) mod mailbox;
pub(crate) mod net;
pub(crate) mod operation;
mod payload;
pub(crate) mod planted;
pub(crate) mod pool;
pub(crate) mod proactor;
mod request;
pub(crate) mod ring;
pub(crate) mod services;
pub(crate) mod signal;
mod slab;
mod sync;
pub(crate) mod system;
pub(crate) mod tables;
pub(crate) mod timed;
pub(crate) mod timers;
pub mod trace;
pub(crate) mod waiters;
