//! The smallest router with something in it: extractors, state, JSON, and a handler that asks
//! another service.
//!
//! ```text
//!   HTTP client ──► quoit-http ──► axum::Router ──► handler ──► TcpStream ──► echo service
//!                on quoit's TcpStream            a `Send` future that awaits a socket
//! ```
//!
//! axum asks that handlers' futures are `Send`. They are, as the handles that they hold are.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Json, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use quoit::net::{TcpListener, TcpStream};
use serde::{Deserialize, Serialize};

/// What answers the requests: each handler may await sockets of this core.
pub fn router(echo: SocketAddr) -> Router {
    Router::new()
        .route("/", get(|| async { "hello from the ring\n" }))
        .route("/echo/{word}", get(echo_word))
        .route("/sum", post(sum))
        .with_state(echo)
}

/// Asks another service over TCP, and answers with its answer.
async fn echo_word(
    State(echo): State<SocketAddr>,
    Path(word): Path<String>,
) -> Result<String, (StatusCode, String)> {
    let asked = async {
        let stream = TcpStream::connect(echo).await?;
        stream.send_all(word.clone()).await?;
        let mut answer = vec![0; word.len()];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    };
    match asked.await {
        Ok(answer) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Err((StatusCode::BAD_GATEWAY, error.to_string())),
    }
}

/// Numbers to add.
#[derive(Debug, Deserialize)]
pub struct Numbers {
    numbers: Vec<i64>,
}

/// Their sum.
#[derive(Debug, Serialize)]
pub struct Sum {
    sum: i64,
}

async fn sum(Json(Numbers { numbers }): Json<Numbers>) -> Json<Sum> {
    Json(Sum { sum: numbers.into_iter().fold(0, i64::wrapping_add) })
}

/// Sends back whatever comes.
pub async fn echo(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        quoit::spawn(async move {
            loop {
                let lease = stream.recv().await?;
                if lease.is_empty() {
                    return io::Result::Ok(());
                }
                stream.send(lease).await?;
            }
        });
    }
}
