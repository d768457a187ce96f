//! The largest proper factors of numbers: `worker_pool [ADDR]`, then a number per line.

use std::error::Error;

use ecosystem::worker_pool::{Pool, serve};
use quoit::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on {}", listener.local_addr()?);
    let workers = std::thread::available_parallelism()?.get();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    quoit::spawn(async move {
        // Where no signal can be waited for, this is the end already.
        let _ = quoit::signal::terminate().await;
        stopped.cancel();
    });
    serve(listener, Pool::start(workers, 64), stop).await?;
    Ok(())
}
