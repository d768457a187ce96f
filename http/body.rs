//! A request's body as the service gets it: hyper's own, whose end is noted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::activity::Activity;

/// The body of a request, as it comes: what [`serve`](crate::serve) gives to its service.
///
/// It is [`Incoming`], and knows when it is over: until then, or until it is dropped, its
/// connection is not idle, though the response may have ended long before. It may be taken to
/// another thread.
///
/// # Examples
///
/// ```
/// use std::convert::Infallible;
/// use http_body_util::{BodyExt, Full};
/// use hyper::{Request, Response, body::Bytes};
/// use quoit_http::RequestBody;
/// use tower::service_fn;
///
/// let length = service_fn(async |request: Request<RequestBody>| {
///     let whole = request.into_body().collect().await?.to_bytes();
///     let text = format!("{} bytes\n", whole.len());
///     Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(text))))
/// });
/// # let serve = async |listener| quoit_http::serve(listener, length).await;
/// # drop(serve);
/// ```
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// There until the end, over HTTP/1 and with a body.
    message: Option<Message>,
}

/// A request of HTTP/1 whose body has not come to its end.
#[derive(Debug)]
struct Message {
    activity: Arc<Activity>,
    number: u64,
    is_complete: bool,
    /// The peer waits for "100 Continue" with it.
    is_expected: bool,
}

impl RequestBody {
    /// Of HTTP/1: what comes on its connection until the end is of this request.
    pub(crate) fn of_message(
        incoming: Incoming,
        activity: &Arc<Activity>,
        is_expected: bool,
    ) -> Self {
        activity.forget_message();
        let message = (!incoming.is_end_stream()).then(|| Message {
            activity: activity.clone(),
            number: activity.begin_message(),
            is_complete: false,
            is_expected,
        });
        Self { incoming, message }
    }

    /// Of HTTP/2, where others may come at the same time.
    pub(crate) fn of_stream(incoming: Incoming) -> Self {
        Self { incoming, message: None }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || this.incoming.is_end_stream() {
            if let Some(mut message) = this.message.take() {
                message.is_complete = true;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    /// hyper may have had the end long before the service looked for it: then nothing is left to be
    /// read.
    fn drop(&mut self) {
        let Self { incoming, message: Some(message) } = self else { return };
        // To look for the end of such a body would ask the peer for it.
        if message.is_expected {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(&mut cx) {
            if !matches!(frame, Some(Ok(_))) || incoming.is_end_stream() {
                message.is_complete = true;
                break;
            }
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.activity.end_message(self.number, self.is_complete);
    }
}
