//! The reads themselves. The library has no files yet, so there are none to measure.

use std::io;

use quoit::Runtime;

use crate::files::{BLOCK, Job, Reads};

/// Whether file cells are planned.
pub(crate) const AVAILABLE: bool = false;

/// Would warm up, then measure.
pub(crate) async fn all(job: &Job, runtime: &Runtime) -> io::Result<Reads> {
    let text = format!("{}: no reads of {BLOCK} bytes on {} yet", job.ring, runtime.ring().kind());
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}
