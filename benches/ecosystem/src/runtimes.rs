//! The runtimes that everything here runs on: one thread each.

use std::io;

use quoit::{RingChoice, Runtime};

/// The contender that is 1.
pub const TOKIO: &str = "tokio";
pub const URING: &str = "quoit-uring";
pub const READINESS: &str = "quoit-readiness";

/// The runtime of a contender of that name on quoit; `None` for any other name.
pub fn quoit(contender: &str) -> Option<io::Result<Runtime>> {
    let ring = match contender {
        URING => RingChoice::Uring,
        READINESS => RingChoice::Readiness,
        _ => return None,
    };
    Some(Runtime::builder().ring(ring).build())
}

/// tokio's `current_thread`.
pub fn tokio() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// For names that a suite does not know.
pub fn unknown(contender: &str) -> io::Error {
    io::Error::other(format!("there is no contender {contender}"))
}
