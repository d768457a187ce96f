//! A TCP proxy: what one side says goes to the other, lease by lease, without being copied.
//!
//! `proxy LISTEN UPSTREAM`
//!
//! When one side has finished, the other is told, and may go on speaking. SIGTERM ends it.

use std::{io, pin::pin, process::exit, rc::Rc};

use clap::Parser;
use futures::future::{select, try_join};
use quoit::net::{TcpListener, TcpStream};
use quoit::signal::{ctrl_c, terminate};

#[derive(Parser)]
#[command(about = "Forwards TCP connections")]
struct Options {
    #[arg(help = "Address to listen on; port 0 lets the system choose one")]
    listen: String,
    #[arg(help = "Where connections are forwarded to, as HOST:PORT")]
    upstream: String,
}

#[quoit::main]
async fn main() {
    let end = select(pin!(serve(Options::parse())), pin!(stop())).await.factor_first().0;
    if let Err(error) = end {
        eprintln!("proxy: {error}");
        exit(1);
    }
}

/// Waits for a signal to stop.
async fn stop() -> io::Result<()> {
    select(pin!(ctrl_c()), pin!(terminate())).await.factor_first().0
}

async fn serve(options: Options) -> io::Result<()> {
    let listener = TcpListener::bind(options.listen.as_str()).await?;
    println!("listening on {}, forwarding to {}", listener.local_addr()?, options.upstream);
    let upstream = Rc::new(options.upstream);
    loop {
        let (client, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("proxy: {error}");
                continue;
            }
        };
        let upstream = upstream.clone();
        quoit::spawn(async move {
            if let Err(error) = forward(client, &upstream).await {
                eprintln!("proxy: {peer}: {error}");
            }
        });
    }
}

/// Dropping both streams when one direction has failed ends the other.
async fn forward(client: TcpStream, upstream: &str) -> io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    try_join(pump(&client, &server), pump(&server, &client)).await?;
    Ok(())
}

async fn pump(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    loop {
        let lease = from.recv().await?;
        if lease.is_empty() {
            return to.shutdown().await;
        }
        to.send_all(lease).await?;
    }
}
