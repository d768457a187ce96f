//! WebSocket by tungstenite on the stream of an upgraded connection: whoever says something says it
//! to everybody.
//!
//! ```text
//!   GET /chat, upgrade: websocket ──► 101 ──► the TcpStream itself, taken out of hyper
//!                                                │
//!   everybody else ◄── broadcast ◄── talk ◄── WebSocketStream<TcpStream>
//! ```
//!
//! axum's own `WebSocketUpgrade` starts a task on tokio, which does not run here. So the answer to
//! the handshake (RFC 6455, section 4.2.2) is given by hand; it is two headers.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderName, StatusCode};
use axum::response::Response;
use axum::routing::get;
use futures::future::{Either, select};
use futures::{SinkExt, StreamExt};
use quoit::net::TcpStream;
use quoit::time::timeout;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// What somebody may fall behind; whoever falls behind further is shown out.
const BEHIND: usize = 256;

/// How long to wait for the answer to a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// A room: everybody in it hears what anybody says.
#[derive(Clone, Debug)]
pub struct Room(broadcast::Sender<Said>);

#[derive(Clone, Debug)]
enum Said {
    Text(Utf8Bytes),
    /// The room is closed.
    End,
}

impl Default for Room {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl Room {
    pub fn router(&self) -> Router {
        Router::new().route("/chat", get(enter)).with_state(self.clone())
    }

    /// Sends everybody home, with the closing handshake (RFC 6455, section 7). A shutdown waits
    /// for upgraded connections, but cannot tell them.
    pub fn close(&self) {
        // An error says that nobody is here.
        let _ = self.0.send(Said::End);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.receiver_count()
    }
}

async fn enter(State(room): State<Room>, mut request: Request) -> Result<Response, StatusCode> {
    let headers = request.headers();
    let is_websocket = has(headers, CONNECTION, "upgrade") && has(headers, UPGRADE, "websocket");
    if !is_websocket || !has(headers, SEC_WEBSOCKET_VERSION, "13") {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    let accept = derive_accept_key(key.as_bytes());

    let upgrade = hyper::upgrade::on(&mut request);
    quoit::spawn(async move {
        // An error says that the client went before it had our answer.
        let Ok(Ok(parts)) = upgrade.await.map(quoit_http::downcast) else { return };
        let early = parts.read_buf.to_vec();
        let socket =
            WebSocketStream::from_partially_read(parts.stream, early, Role::Server, None).await;
        if let Err(error) = talk(socket, room).await {
            eprintln!("chat: {error}");
        }
        // Only now: as long as it is held, the connection counts as open.
        drop(parts.slot);
    });

    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept);
    response.body(Body::empty()).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// Whether a header that is a list has this in it.
fn has(headers: &HeaderMap, name: HeaderName, what: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(what))
}

/// Until the client leaves, or has fallen behind.
async fn talk(mut socket: WebSocketStream<TcpStream>, room: Room) -> Result<(), Error> {
    let mut said = room.0.subscribe();
    loop {
        // Either may be dropped half-way: a frame that has not come whole stays in the socket.
        let message = match select(pin!(said.recv()), socket.next()).await {
            Either::Left((Ok(Said::Text(text)), _)) => {
                socket.send(Message::Text(text)).await?;
                continue;
            }
            Either::Left((Ok(Said::End) | Err(RecvError::Closed), _)) => {
                return leave(socket, CloseCode::Away, "the room is closed").await;
            }
            Either::Left((Err(RecvError::Lagged(_)), _)) => {
                return leave(socket, CloseCode::Policy, "you do not listen").await;
            }
            Either::Right((message, _)) => message,
        };
        match message {
            Some(Ok(Message::Text(text))) => drop(room.0.send(Said::Text(text))),
            // Pings and the closing handshake are answered by the socket, as it is polled.
            Some(Ok(_)) => {}
            Some(Err(Error::ConnectionClosed)) | None => return Ok(()),
            Some(Err(error)) => return Err(error),
        }
    }
}

/// Says goodbye, and waits for the answer.
async fn leave(
    mut socket: WebSocketStream<TcpStream>,
    code: CloseCode,
    reason: &'static str,
) -> Result<(), Error> {
    socket.close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) })).await?;
    let answer = async { while let Some(Ok(_)) = socket.next().await {} };
    // One that does not answer is left behind.
    let _ = timeout(GOODBYE, answer).await;
    Ok(())
}
