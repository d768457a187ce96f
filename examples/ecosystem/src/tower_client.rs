//! A client for servers that are slow, busy, or away for a moment: hyper's, in layers of tower.
//!
//! ```text
//!   request ──► trace ──► retry ──► rate ──► concurrency ──► time limit ──► hyper-util's Client
//!                         a try that fails comes back here
//! ```

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use quoit::rt::{QuoitExecutor, QuoitTimer};
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::RetryLayer;
use tower::{BoxError, Service, ServiceBuilder};
use tower_http::trace::TraceLayer;

use crate::grpc_client::Connector;
use crate::timed::{Backoff, RateLimitLayer, TimeoutLayer};

/// How long a server has to begin its answer.
pub const LIMIT: Duration = Duration::from_millis(500);

/// Tries for a request.
pub const TRIES: u32 = 4;

/// Requests at a time.
pub const AT_ONCE: usize = 8;

/// A request without a body.
///
/// # Errors
///
/// When that is no URI.
pub fn get(uri: &str) -> Result<Request<Full<Bytes>>, BoxError> {
    Ok(Request::get(uri).body(Full::default())?)
}

/// Its clones share connections and limits.
pub fn client() -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<impl hyper::body::Body<Data = Bytes, Error = hyper::Error>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send {
    let client = Client::builder(QuoitExecutor)
        .timer(QuoitTimer)
        .pool_timer(QuoitTimer)
        .build::<_, Full<Bytes>>(Connector);
    ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(RetryLayer::new(Backoff::new(TRIES, Duration::from_millis(50), LIMIT)))
        .layer(RateLimitLayer::new(200, Duration::from_secs(1), 20))
        .layer(ConcurrencyLimitLayer::new(AT_ONCE))
        .layer(TimeoutLayer::new(LIMIT))
        .service(client)
}
