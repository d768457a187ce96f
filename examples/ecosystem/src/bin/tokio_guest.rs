//! A program of tokio's whose echo server is on quoit's ring: `tokio_guest [ADDR]`.

use std::error::Error;
use std::time::Duration;

use ecosystem::{guest, hello};
use quoit::Runtime;
use quoit::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let quoit = Runtime::new()?;
    let server = quoit.spawn(async move {
        let listener = TcpListener::bind(address.as_str()).await?;
        println!("listening on {}", listener.local_addr()?);
        hello::echo(listener).await
    });
    let host = async {
        let mut seconds = tokio::time::interval(Duration::from_secs(10));
        let tick = async {
            loop {
                seconds.tick().await;
                let metrics = quoit.metrics();
                println!("{} turns, {} streams", metrics.turns, metrics.streams_open);
            }
        };
        tokio::select! {
            // It ends by an error only.
            ended = server => Ok(ended??),
            interrupted = tokio::signal::ctrl_c() => interrupted,
            () = tick => Ok(()),
        }
    };
    guest::run(&quoit, host).await??;
    println!("{:?}", quoit.shutdown(Duration::from_secs(1)));
    Ok(())
}
