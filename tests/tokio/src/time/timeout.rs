//! `Timeout`: quoit's, but for being `Unpin`, which tokio's never is.

use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use quoit::time::Elapsed;

pin_project! {
    /// A future with a deadline.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited or polled"]
    pub struct Timeout<F> {
        #[pin]
        timeout: quoit::time::Timeout<F>,
        #[pin]
        pinned: PhantomPinned,
    }
}

impl<F> Timeout<F> {
    pub(super) fn new(timeout: quoit::time::Timeout<F>) -> Self {
        Self { timeout, pinned: PhantomPinned }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().timeout.poll(cx)
    }
}
