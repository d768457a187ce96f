//! The streams as readers and writers of other crates: tokio's, futures', hyper's; and what keeps
//! coming as `futures_core::Stream`.
//!
//! ```text
//!   tokio.rs    futures.rs    hyper.rs      each trait's own words for the same six calls
//!        └──────────┼──────────────┘
//!            poll.rs, lend.rs               read, write, flush, shut down; fill, consume
//!                   │
//!        stream/receive.rs, stream/send.rs  as for the native slice calls
//! ```
//!
//! They stand directly on the handles, so nothing is wrapped and all tiers can be mixed on one
//! stream. The kernel never sees a slice across a return from `poll`. The streams of items are in
//! `streams.rs`.

#[cfg(feature = "futures-io")]
mod futures;
#[cfg(feature = "hyper")]
mod hyper;
#[cfg(any(feature = "tokio-io", feature = "futures-io"))]
mod lend;
#[cfg(any(feature = "tokio-io", feature = "futures-io", feature = "hyper"))]
mod poll;
#[cfg(feature = "futures-core")]
pub(super) mod streams;
#[cfg(feature = "tokio-io")]
mod tokio;

use super::handle::StreamHandle;
#[cfg(any(feature = "tokio-io", feature = "futures-io", feature = "hyper"))]
use super::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpStream, WriteHalf};

/// A handle on a stream, or on one of its directions.
trait Handle {
    fn handle(&self) -> &StreamHandle;
}

impl Handle for TcpStream {
    fn handle(&self) -> &StreamHandle {
        &self.handle
    }
}

impl<T: Handle> Handle for &T {
    fn handle(&self) -> &StreamHandle {
        (**self).handle()
    }
}

impl Handle for ReadHalf<'_> {
    fn handle(&self) -> &StreamHandle {
        &self.0.handle
    }
}

impl Handle for WriteHalf<'_> {
    fn handle(&self) -> &StreamHandle {
        &self.0.handle
    }
}

impl Handle for OwnedReadHalf {
    fn handle(&self) -> &StreamHandle {
        &self.handle
    }
}

impl Handle for OwnedWriteHalf {
    fn handle(&self) -> &StreamHandle {
        &self.handle
    }
}
