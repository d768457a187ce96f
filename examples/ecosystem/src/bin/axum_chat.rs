//! A WebSocket chat: `axum_chat [ADDR]`, then two of `websocat ws://ADDR/chat`.

use std::error::Error;

use ecosystem::chat::Room;
use quoit::net::TcpListener;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on ws://{}/chat", listener.local_addr()?);
    let room = Room::default();
    let router = room.router();
    let stop = async move {
        let stopped = quoit::signal::terminate().await;
        room.close();
        stopped
    };
    let report = quoit_http::serve(listener, router)
        .on_error(|trouble| eprintln!("{trouble}"))
        .with_graceful_shutdown(stop)
        .await?;
    println!("{report:?}");
    Ok(())
}
