//! The runtimes that everything here runs on: one thread each.

use std::io;

use quoit::{RingChoice, Runtime};

/// The contender that is 1.
pub const TOKIO: &str = "tokio";
pub const URING: &str = "quoit-uring";
pub const READINESS: &str = "quoit-readiness";
/// On io_uring, with every send a submission: those of a turn go to the kernel in one call.
pub const SUBMIT: &str = "uring-submit";

/// The runtime of a contender of that name on quoit; `None` for any other name.
pub fn quoit(contender: &str) -> Option<io::Result<Runtime>> {
    let builder = Runtime::builder();
    let builder = match contender {
        URING => builder.ring(RingChoice::Uring),
        READINESS => builder.ring(RingChoice::Readiness),
        SUBMIT => builder.ring(RingChoice::Uring).send_inline(false),
        _ => return None,
    };
    Some(builder.build())
}

/// tokio's `current_thread`.
pub fn tokio() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// For names that a suite does not know.
pub fn unknown(contender: &str) -> io::Error {
    io::Error::other(format!("there is no contender {contender}"))
}
