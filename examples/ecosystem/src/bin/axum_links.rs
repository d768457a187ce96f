//! Links that are looked at and kept: `axum_links FILE [ADDR]`, then
//! `curl --json '{"url":"http://..."}' http://ADDR/links`.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use ecosystem::links::Links;
use ecosystem::sidecar::Sidecar;
use quoit::net::TcpListener;

/// Requests and queries at a time.
const AT_ONCE: usize = 64;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: axum_links FILE [ADDR]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());

    let sidecar = Sidecar::start(AT_ONCE)?;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let opened = Links::open(sidecar.clone(), client, Path::new(&file)).await;
    let links = opened.map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let report = quoit_http::serve(listener, links.router())
        .on_error(|trouble| eprintln!("{trouble}"))
        .with_graceful_shutdown(quoit::signal::terminate())
        .await?;
    println!("{report:?}");
    links.close().await;
    println!("{} calls were cut off", sidecar.shutdown(Duration::from_secs(5)).await);
    Ok(())
}
