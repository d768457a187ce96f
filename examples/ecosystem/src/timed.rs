//! Layers of tower that need a timer, on quoit's: those of tower and tower-http sleep on tokio's.
//!
//! | here | there |
//! |---|---|
//! | [`TimeoutLayer`] | `tower::timeout::TimeoutLayer` |
//! | [`RateLimitLayer`]; its clones share the rate | `tower::limit::RateLimitLayer`, and a buffer |
//! | [`Backoff`], for `tower::retry::RetryLayer` as it is | `tower::retry::backoff` |

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use pin_project_lite::pin_project;
use quoit::time::{self, Instant, Sleep, sleep, sleep_until};
use tower::retry::Policy;
use tower::{BoxError, Layer, Service};

/// Gives up a response that takes too long, with `quoit::time::Elapsed`. The response's body has
/// the time it wants.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer(Duration);

impl TimeoutLayer {
    pub fn new(limit: Duration) -> Self {
        Self(limit)
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, limit: self.0 }
    }
}

#[derive(Clone, Debug)]
pub struct Timeout<S> {
    inner: S,
    limit: Duration,
}

impl<S: Service<R, Error: Into<BoxError>>, R> Service<R> for Timeout<S> {
    type Response = S::Response;
    type Error = BoxError;
    type Future = TimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        TimeoutFuture { inner: time::timeout(self.limit, self.inner.call(request)) }
    }
}

pin_project! {
    pub struct TimeoutFuture<F> {
        #[pin]
        inner: time::Timeout<F>,
    }
}

impl<F, T, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().inner.poll(cx))?.map_err(Into::into))
    }
}

/// At most so many requests per period, evenly spaced, with so many at once after a pause. Further
/// ones wait their turn in `poll_ready`, each for a time of its own: nobody is passed over.
#[derive(Clone, Debug)]
pub struct RateLimitLayer(Arc<Rate>);

#[derive(Debug)]
struct Rate {
    interval: Duration,
    burst: Duration,
    /// When the next request would come if all came evenly (GCRA: the theoretical arrival time).
    next: Mutex<Option<Instant>>,
}

impl RateLimitLayer {
    /// # Panics
    ///
    /// When the count is zero.
    pub fn new(count: u32, period: Duration, burst: u32) -> Self {
        assert!(count > 0, "a rate of nothing lets nothing through");
        let interval = period / count;
        let burst = interval * burst.saturating_sub(1);
        Self(Arc::new(Rate { interval, burst, next: Mutex::new(None) }))
    }
}

impl Rate {
    /// A place in the line: when it is one's turn.
    fn reserve(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let place = next.map_or(now, |next| next.max(now));
        *next = Some(place + self.interval);
        // So many may come early.
        place.checked_sub(self.burst).map_or(now, |early| early.max(now))
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit { inner, rate: self.0.clone(), turn: None }
    }
}

#[derive(Debug)]
pub struct RateLimit<S> {
    inner: S,
    rate: Arc<Rate>,
    /// The place of the next request, once it has asked for one.
    turn: Option<Sleep>,
}

impl<S: Clone> Clone for RateLimit<S> {
    fn clone(&self) -> Self {
        // A place is for one.
        Self { inner: self.inner.clone(), rate: self.rate.clone(), turn: None }
    }
}

impl<S: Service<R>, R> Service<R> for RateLimit<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let rate = &self.rate;
        let turn = self.turn.get_or_insert_with(|| sleep_until(rate.reserve(Instant::now())));
        ready!(Pin::new(turn).poll(cx));
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.turn = None;
        self.inner.call(request)
    }
}

/// Asks again, after a time that doubles, until there are no tries left: after errors, and after
/// answers that say "not now". Only methods that may be repeated (RFC 9110, section 9.2.2).
#[derive(Clone, Debug)]
pub struct Backoff {
    left: u32,
    wait: Duration,
    longest: Duration,
}

impl Backoff {
    /// `wait` is the longest time before the second try.
    pub fn new(tries: u32, wait: Duration, longest: Duration) -> Self {
        Self { left: tries.saturating_sub(1), wait, longest }
    }
}

impl<B, E> Policy<Request<Full<Bytes>>, Response<B>, E> for Backoff {
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<B>, E>,
    ) -> Option<Sleep> {
        let not_now = |status| matches!(status, 429 | 502 | 503 | 504);
        let fails = result.as_ref().map_or(true, |response| not_now(response.status().as_u16()));
        if !fails || !request.method().is_idempotent() {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        // Anything between half and all of it, so that those who failed together do not come back
        // together. The standard library's random keys are random enough for that.
        let part = f64::from(RandomState::new().hash_one(()) as u32) / f64::from(u32::MAX);
        let wait = self.wait.mul_f64(0.5 + part / 2.0);
        self.wait = (self.wait * 2).min(self.longest);
        Some(sleep(wait))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}
