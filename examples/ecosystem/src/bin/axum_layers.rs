//! A router behind layers of tower: `axum_layers [ADDR]`, then
//! `curl --compressed http://ADDR/long`.

use std::error::Error;

use quoit::net::TcpListener;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let report = quoit_http::serve(listener, ecosystem::layers::router())
        .on_error(|trouble| eprintln!("{trouble}"))
        .with_graceful_shutdown(quoit::signal::terminate())
        .await?;
    println!("{report:?}");
    Ok(())
}
