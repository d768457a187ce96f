//! Layers of tower around a router: what is too much is refused, what takes too long is given up,
//! what is long is compressed.
//!
//! ```text
//!   request ──► compression ──► time limit ──► load shedding ──► concurrency limit ──► handler
//!                                  503              503 if the limit is reached
//! ```
//!
//! Layers that only count and transform run as they are. Those that sleep do so on tokio's timer,
//! which does not run here; a time limit is five lines.

use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{BoxError, Router};
use quoit::time::{sleep, timeout};
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower_http::compression::CompressionLayer;

/// Requests that may be answered at once; one more is refused.
pub const AT_ONCE: usize = 2;

/// How long an answer may take.
pub const LIMIT: Duration = Duration::from_secs(1);

pub fn router() -> Router {
    let refuse =
        |error: BoxError| async move { (StatusCode::SERVICE_UNAVAILABLE, error.to_string()) };
    let limit = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(refuse))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE));
    Router::new()
        .route("/long", get(|| async { "the same again, ".repeat(1000) }))
        .route("/slow/{milliseconds}", get(slow))
        .layer(limit)
        .layer(from_fn(time_limit))
        .layer(CompressionLayer::new())
}

async fn slow(Path(milliseconds): Path<u64>) -> String {
    sleep(Duration::from_millis(milliseconds)).await;
    format!("after {milliseconds} ms\n")
}

/// Gives up an answer that takes too long: dropping its future ends whatever it waits for.
async fn time_limit(request: Request, next: Next) -> Response {
    match timeout(LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "it takes too long\n").into_response(),
    }
}
