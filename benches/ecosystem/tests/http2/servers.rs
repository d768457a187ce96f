//! The same router on quoit and on tokio, each on a thread of its own, until the test ends.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use quoit::{RingChoice, Runtime};

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }).options(|| async {}))
        .route("/echo", post(|body: Bytes| async { body }))
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub fn quoit(name: &str) -> SocketAddr {
    let ring = if name == "quoit-uring" { RingChoice::Uring } else { RingChoice::Readiness };
    let (listener, address) = listen();
    thread::spawn(move || {
        let runtime = Runtime::builder().ring(ring).build().unwrap();
        runtime.block_on(async {
            let listener = quoit::net::TcpListener::from_std(listener).unwrap();
            quoit_http::serve(listener, router()).await.unwrap();
        });
    });
    address
}

pub fn tokio() -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let service = TowerToHyperService::new(router());
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let io = TokioIo::new(stream);
                    let _ = builder.serve_connection_with_upgrades(io, service).await;
                });
            }
        });
    });
    address
}
