//! The deadline of a gRPC call, as a layer that server and client use alike.
//!
//! ```text
//!   request ── grpc-timeout: 250m ──► inner ──► response ──► its messages ──► its trailers
//!   └───────────── one timer of the core: until the last message ─────────────┘
//!                  over: grpc-status 4 instead of what is missing; inner is dropped
//! ```
//!
//! tonic writes the header and reads statuses. To watch the time is its transport's part, which
//! sleeps on tokio's timer, and stops watching when the messages begin. A response that is nothing
//! but trailers, and trailers in place of messages, are what gRPC answers errors with, so the same
//! layer serves both sides.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::{HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use quoit::time::{Sleep, sleep};
use tonic::Status;
use tower::Service;

/// A service whose calls end in time.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    at_most: Option<Duration>,
}

impl<S> Deadline<S> {
    /// Each call has the time that its own header says.
    pub fn new(inner: S) -> Self {
        Self { inner, at_most: None }
    }

    /// And no call more than this, whatever its header says.
    pub fn at_most(self, limit: Duration) -> Self {
        Self { at_most: Some(limit), ..self }
    }
}

impl<S, A, B> Service<Request<A>> for Deadline<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<Timed<B>>;
    type Error = S::Error;
    type Future = Call<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Call<S::Future> {
        let said = match request.headers().get("grpc-timeout") {
            None => None,
            Some(value) => match parse(value.as_bytes()) {
                Some(limit) => Some(limit),
                None => return Call { inner: None, time: None },
            },
        };
        let limit = said.into_iter().chain(self.at_most).min();
        Call { inner: Some(self.inner.call(request)), time: limit.map(sleep) }
    }
}

/// A number of at most eight digits, and its unit.
fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

fn is_over(time: &mut Option<Sleep>, cx: &mut Context<'_>) -> bool {
    time.as_mut().is_some_and(|time| Pin::new(time).poll(cx).is_ready())
}

fn late() -> Status {
    Status::deadline_exceeded("the deadline has passed")
}

pin_project! {
    /// The response to come, or what is said instead of it.
    pub struct Call<F> {
        // None: the header was not to be understood, or the time is over.
        #[pin]
        inner: Option<F>,
        time: Option<Sleep>,
    }
}

impl<F, B, E> Future for Call<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Timed<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let nothing = |status: Status| status.into_http::<()>().map(|()| Timed::empty());
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            let text = "grpc-timeout: at most 8 digits, and one of H, M, S, m, u, n";
            let status = Status::invalid_argument(text);
            return Poll::Ready(Ok(nothing(status)));
        };
        if let Poll::Ready(response) = inner.poll(cx)? {
            let time = this.time.take();
            return Poll::Ready(Ok(response.map(|body| Timed { body: Some(body), time })));
        }
        if !is_over(this.time, cx) {
            return Poll::Pending;
        }
        this.inner.set(None);
        Poll::Ready(Ok(nothing(late())))
    }
}

pin_project! {
    /// A response's body that ends in time.
    pub struct Timed<B> {
        // None: there is nothing more.
        #[pin]
        body: Option<B>,
        time: Option<Sleep>,
    }
}

impl<B> Timed<B> {
    fn empty() -> Self {
        Self { body: None, time: None }
    }
}

impl<B: Body> Body for Timed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        // The time first: a stream that is always ready has to end, too.
        if !is_over(this.time, cx) {
            let frame = ready!(body.poll_frame(cx));
            if frame.is_none() {
                this.body.set(None);
            }
            return Poll::Ready(frame);
        }
        this.body.set(None);
        let mut trailers = HeaderMap::new();
        // It fails for metadata that is no header, and there is none.
        let _ = late().add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // It may end before its length.
        match (&self.body, &self.time) {
            (Some(body), None) => body.size_hint(),
            (Some(_), Some(_)) => SizeHint::default(),
            (None, _) => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read() {
        let limits = [
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999H", Some(Duration::from_secs(359_999_996_400))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("00000009n", Some(Duration::from_nanos(9))),
        ];
        let nonsense = ["", "S", "1", "1s", "-1S", "+1S", "1 S", "123456789S", "1.5S", "S1"];
        for (text, limit) in limits.into_iter().chain(nonsense.map(|text| (text, None))) {
            assert_eq!(parse(text.as_bytes()), limit, "{text:?}");
        }
    }
}
