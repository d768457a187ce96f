//! The task of one connection: the protocol and the watch over it, polled in turns.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, Write};
use pin_project_lite::pin_project;

use crate::protocol::{Fault, Protocol};
use crate::report::BoxError;
use crate::service::Application;
use crate::watch::{Step, Watch};

/// How a connection came to its end.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself, or handed on.
    Done,
    Failed(BoxError),
    /// Before anything of HTTP.
    Unshaken(io::Error),
    Silent,
    Idle,
}

pin_project! {
    pub(crate) struct Connection<T, S>
    where
        S: Application,
    {
        // Before the watch, which reports the requests when it goes.
        #[pin]
        protocol: Protocol<T, S>,
        watch: Watch,
    }
}

impl<T, S: Application> Connection<T, S> {
    pub(crate) fn new(protocol: Protocol<T, S>, watch: Watch) -> Self {
        Self { protocol, watch }
    }
}

impl<T, S> Connection<T, S>
where
    T: Read + Write + Unpin + Send + 'static,
    S: Application,
{
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let mut this = self.project();
        loop {
            this.watch.look(cx);
            match this.protocol.as_mut().poll(cx) {
                Poll::Ready(Ok(())) if this.watch.was_idle() => return Poll::Ready(End::Idle),
                Poll::Ready(Ok(())) => return Poll::Ready(End::Done),
                Poll::Ready(Err(Fault::Http(error))) => return Poll::Ready(End::Failed(error)),
                Poll::Ready(Err(Fault::Handshake(error))) => {
                    return Poll::Ready(End::Unshaken(error));
                }
                Poll::Pending => {}
            }
            match this.watch.poll(this.protocol.version(), cx) {
                Poll::Ready(Step::Close) => this.protocol.as_mut().shut_down(),
                Poll::Ready(Step::CutSilent) => return Poll::Ready(End::Silent),
                Poll::Ready(Step::CutIdle) => return Poll::Ready(End::Idle),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The task itself: an `async` block around it would keep room for it twice.
impl<T, S> Future for Connection<T, S>
where
    T: Read + Write + Unpin + Send + 'static,
    S: Application,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let end = ready!(self.as_mut().poll_end(cx));
        // What is left of it goes now, so that a panic of that is one of this task.
        let mut this = self.project();
        this.protocol.set(Protocol::Over);
        this.watch.end(end);
        Poll::Ready(())
    }
}
