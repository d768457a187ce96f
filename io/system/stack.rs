//! What another thread is doing right now: its number, its name, and where it stands.
//!
//! ```text
//!   this thread                              the other one
//!   ask for it ──► tgkill ──► wait ──┐       handler: registers and stack bytes into a buffer
//!   unwind the copy ◄────────────────┘◄──────── done          (and nothing else)
//! ```
//!
//! The other thread may be anywhere: in the allocator, in the loader, with any lock held. So its
//! handler takes no lock, allocates nothing and follows no pointer of the stack: a system call
//! copies the bytes, which answers an error where there is no memory. All that unwinding and names
//! take (the loader's list of modules, debug information, memory) happens here, with the other
//! thread long gone on.

#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
mod unwind;

use std::ffi::c_int;

/// A thread of this process.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    number: c_int,
    name: String,
}

impl Thread {
    pub(crate) fn current() -> Self {
        // SAFETY: it takes nothing and cannot fail.
        let number = unsafe { libc::syscall(libc::SYS_gettid) } as c_int;
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        Self { number, name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// One call of a stack: see [`Stall`](crate::stall::Stall).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The function, as far as the program's symbols tell.
    pub function: Option<String>,
    /// The file of its source, as far as the debug information tells.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// Where it goes on, or, innermost, what it was about to do.
    pub address: usize,
}

/// The calls that a thread is in, innermost first, or why they cannot be told.
#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
pub(crate) fn of(thread: &Thread) -> Result<Vec<Frame>, &'static str> {
    unwind::capture(thread.number).map(|copy| unwind::frames(&copy))
}

/// The same, for a build that cannot.
#[cfg(not(all(feature = "stacks", target_arch = "x86_64")))]
pub(crate) fn of(thread: &Thread) -> Result<Vec<Frame>, &'static str> {
    let _ = thread.number;
    Err(if cfg!(feature = "stacks") {
        "stacks are taken on x86-64 only"
    } else {
        "the feature `stacks` of quoit shows where it stands"
    })
}
