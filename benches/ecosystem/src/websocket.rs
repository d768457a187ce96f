//! WebSocket echo: the same handshake and the same tungstenite on quoit and on tokio, for
//! `tests/autobahn` and for other clients.
//!
//! ```text
//!   GET /, upgrade: websocket ──► 101 ──► quoit: the TcpStream itself, taken out of hyper
//!                                         tokio: hyper's `Upgraded`
//! ```

use std::future::Future;
use std::io;
use std::net::TcpListener;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::response::Response;
use axum::routing::get;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::http_server;
use crate::runtimes::{self, TOKIO};

/// Serves until killed.
pub fn serve(contender: &str, listener: TcpListener) -> io::Result<()> {
    if let Some(runtime) = runtimes::quoit(contender) {
        return runtime?.block_on(async {
            let listener = quoit::net::TcpListener::from_std(listener)?;
            let router = router(|upgrade| drop(quoit::spawn(on_quoit(upgrade))));
            quoit_http::serve(listener, router).await.map(drop)
        });
    }
    if contender != TOKIO {
        return Err(runtimes::unknown(contender));
    }
    listener.set_nonblocking(true)?;
    let router = router(|upgrade| drop(tokio::spawn(on_tokio(upgrade))));
    runtimes::tokio()?.block_on(http_server::serve_tokio(listener, router))
}

fn router(start: impl Fn(OnUpgrade) + Clone + Send + Sync + 'static) -> Router {
    Router::new().route("/", get(|request: Request| async move { accept(request, start) }))
}

/// The handshake (RFC 6455, section 4.2.2).
fn accept(mut request: Request, start: impl Fn(OnUpgrade)) -> Result<Response, StatusCode> {
    let headers = request.headers();
    let version = headers.get(SEC_WEBSOCKET_VERSION).ok_or(StatusCode::UPGRADE_REQUIRED)?;
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    if version != "13" {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    let accept = derive_accept_key(key.as_bytes());
    start(hyper::upgrade::on(&mut request));
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept);
    response.body(Body::empty()).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn on_quoit(upgrade: impl Future<Output = hyper::Result<hyper::upgrade::Upgraded>>) {
    let Ok(Ok(parts)) = upgrade.await.map(quoit_http::downcast) else { return };
    echo(parts.stream, parts.read_buf.to_vec()).await;
    drop(parts.slot);
}

async fn on_tokio(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    echo(TokioIo::new(upgraded), Vec::new()).await;
}

/// Until the client closes, or breaks the protocol: tungstenite answers that.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: S, early: Vec<u8>) {
    let socket = WebSocketStream::from_partially_read(stream, early, Role::Server, None);
    let mut socket = socket.await;
    while let Some(Ok(message)) = socket.next().await {
        let is_data = message.is_text() || message.is_binary();
        if is_data && socket.send(message).await.is_err() {
            return;
        }
    }
}
