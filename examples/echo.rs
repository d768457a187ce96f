//! An echo server to point a load generator at.
//!
//! `echo [ADDR] [--ring auto|uring|readiness] [--cores N] [--spin MICROS]`
//!
//! Prints one line when it listens, and stops cleanly on SIGINT or SIGTERM.

use std::io;
use std::time::Duration;

use clap::Parser;
use quoit::net::{TcpListener, TcpStream};
use quoit::{RingChoice, Runtime};

#[derive(Parser)]
#[command(about = "A TCP echo server")]
struct Options {
    /// Address to listen on; port 0 lets the system choose.
    #[arg(default_value = "127.0.0.1:7777")]
    address: String,
    /// auto, uring or readiness.
    #[arg(long, default_value = "auto", value_parser = ring)]
    ring: RingChoice,
    /// Microseconds to watch for work before sleeping.
    #[arg(long, default_value_t = 0)]
    spin: u64,
}

fn ring(name: &str) -> Result<RingChoice, String> {
    match name {
        "auto" => Ok(RingChoice::Auto),
        "uring" => Ok(RingChoice::Uring),
        "readiness" => Ok(RingChoice::Readiness),
        other => Err(format!("{other} is none of auto, uring, readiness")),
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let spin = Duration::from_micros(options.spin);
    let runtime = Runtime::builder().ring(options.ring).spin(spin).build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.address.as_str()).await?;
        println!("listening on {} ({})", listener.local_addr()?, runtime.ring());
        loop {
            let (stream, _) = listener.accept().await?;
            quoit::spawn(echo(stream));
        }
    })
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    loop {
        let lease = stream.recv().await?;
        if lease.is_empty() {
            return Ok(());
        }
        stream.send(lease).await?;
    }
}
