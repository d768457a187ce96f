//! What the client's layers tell of a request.
//!
//! A program of its own, with one test: a place in the code that another thread comes to for the
//! first time while a subscriber is being set may stay silent for good, for all threads
//! (`tracing_core::callsite` keeps one interest for each place).

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use ecosystem::tower_client::client;
use http_body_util::BodyExt;
use quoit::net::TcpListener;
use tower::ServiceExt;
use tracing::Level;

/// What tracing writes, as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[quoit::test]
async fn requests_are_traced() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/hello", get(|| async { "hello" }));
    quoit::spawn(quoit_http::serve(listener, router).into_future());
    let request = ecosystem::tower_client::get(&format!("http://{address}/hello")).unwrap();
    let response = client().oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("started processing request"), "{text}");
    assert!(text.contains("status=200") && text.contains("uri=http://"), "{text}");
}
