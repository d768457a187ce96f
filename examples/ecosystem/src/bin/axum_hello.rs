//! An axum server: `axum_hello [ADDR]`, then `curl http://ADDR/echo/word`.

use std::error::Error;

use ecosystem::hello;
use quoit::net::TcpListener;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address.as_str()).await?;
    let echo = TcpListener::bind("127.0.0.1:0").await?;
    let router = hello::router(echo.local_addr()?);
    println!("listening on http://{}", listener.local_addr()?);
    quoit::spawn(hello::echo(echo));
    let report = quoit_http::serve(listener, router)
        .on_error(|trouble| eprintln!("{trouble}"))
        .with_graceful_shutdown(quoit::signal::terminate())
        .await?;
    println!("{report:?}");
    Ok(())
}
