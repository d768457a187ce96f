//! A tower service as hyper calls it, with every request counted from its head to the last byte of
//! its response.
//!
//! ```text
//!   call ──► a clone until it is ready ──► the response's future ──► the response's body ──► end
//!   └────────────────────────── one `InFlight`, dropped with what holds it ─────────────────┘
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::activity::{Activity, InFlight};
use crate::body::RequestBody;
use crate::handshake::Carry;
use crate::report::BoxError;

/// What hyper asks of a service, in one word.
pub(crate) trait Application:
    Service<
        Request<RequestBody>,
        Response = Response<Self::Body>,
        Error: Into<BoxError>,
        Future: 'static,
    > + Clone
    + 'static
{
    type Body: Body<Error: Into<BoxError>> + 'static;
}

impl<S, B> Application for S
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    type Body = B;
}

pub(crate) struct Counted<S> {
    service: S,
    activity: Arc<Activity>,
    /// What a handshake has left for each request.
    carry: Option<Carry>,
}

impl<S> Counted<S> {
    pub(crate) fn new(service: S, activity: Arc<Activity>) -> Self {
        Self { service, activity, carry: None }
    }

    /// Has each request carry these.
    pub(crate) fn carry(&mut self, carry: Option<Carry>) {
        self.carry = carry;
    }
}

impl<S: Application> hyper::service::Service<Request<Incoming>> for Counted<S> {
    type Response = Response<CountedBody<S::Body>>;
    type Error = S::Error;
    type Future = Answer<S>;

    fn call(&self, mut request: Request<Incoming>) -> Answer<S> {
        if let Some(carry) = &self.carry {
            carry(request.extensions_mut());
        }
        let is_http1 = request.version() < Version::HTTP_2;
        let is_connect = request.method() == Method::CONNECT;
        let in_flight = Some(InFlight::begin(&self.activity));
        let mut service = self.service.clone();
        // Over HTTP/2 the stream's own task calls, so that a panic ends the stream only.
        if !is_http1 {
            let request = Some(request.map(RequestBody::of_stream));
            let step = Step::Readying { service, request };
            return Answer { in_flight, is_connect, is_http1, step };
        }
        let is_expected = request.headers().contains_key(EXPECT);
        let request =
            request.map(|body| RequestBody::of_message(body, &self.activity, is_expected));
        // Most are always ready. Who is not is asked again, by a task that can be woken.
        let step = match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Step::Called { future: service.call(request) },
            Poll::Ready(Err(error)) => Step::Refused { error: Some(error) },
            Poll::Pending => Step::Readying { service, request: Some(request) },
        };
        Answer { in_flight, is_connect, is_http1, step }
    }
}

pin_project! {
    /// The response to come.
    pub(crate) struct Answer<S: Application> {
        in_flight: Option<InFlight>,
        is_connect: bool,
        is_http1: bool,
        #[pin]
        step: Step<S>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum Step<S: Application> {
        Readying { service: S, request: Option<Request<RequestBody>> },
        Called { #[pin] future: S::Future },
        Refused { error: Option<S::Error> },
    }
}

impl<S: Application> Future for Answer<S> {
    type Output = Result<Response<CountedBody<S::Body>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.step.as_mut().project() {
                StepProjection::Readying { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let request = request.take().expect("it is called once");
                    let future = service.call(request);
                    this.step.set(Step::Called { future });
                }
                StepProjection::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                }
                StepProjection::Called { future } => {
                    let mut response = ready!(future.poll(cx))?;
                    let in_flight = this.in_flight.take().expect("polled after it was ready");
                    let activity = in_flight.activity();
                    let status = response.status();
                    let is_tunnel = *this.is_connect && status.is_success();
                    if *this.is_http1 {
                        let goes_on = is_tunnel || status == StatusCode::SWITCHING_PROTOCOLS;
                        if activity.wants_no_more() && !goes_on {
                            let close = HeaderValue::from_static("close");
                            response.headers_mut().insert(CONNECTION, close);
                        }
                    } else if is_tunnel {
                        activity.become_tunnel();
                    }
                    let count = |body| CountedBody { body, in_flight };
                    return Poll::Ready(Ok(response.map(count)));
                }
            }
        }
    }
}

pin_project! {
    /// A response's body. hyper drops it when it has the last of it.
    pub(crate) struct CountedBody<B> {
        #[pin]
        body: B,
        in_flight: InFlight,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
