//! An echo server to point a load generator at.
//!
//! `echo [ADDR] [--ring auto|uring|readiness] [--cores N] [--spin MICROS]`
//!
//! Prints one line when it listens, and stops cleanly on SIGINT or SIGTERM.

use std::{io, pin::pin, process::exit, time::Duration};

use clap::Parser;
use futures::future::select;
use quoit::net::{Placement, TcpListener, TcpStream};
use quoit::signal::{ctrl_c, terminate};
use quoit::{CoreHandle, Cores, RingChoice, Runtime};

#[derive(Parser, Clone)]
#[command(about = "A TCP echo server")]
struct Options {
    #[arg(default_value = "127.0.0.1:7777", help = "Port 0 lets the system choose one")]
    address: String,
    #[arg(long, default_value = "auto", help = "auto, uring or readiness")]
    ring: RingChoice,
    #[arg(long, default_value_t = 1, help = "How many cores serve")]
    cores: usize,
    #[arg(long, default_value_t = 0, help = "Microseconds to watch for work before sleeping")]
    spin: u64,
}

fn main() {
    let options = Options::parse();
    let (spin, cores) = (Duration::from_micros(options.spin), Cores::Count(options.cores));
    let builder = Runtime::builder().ring(options.ring).spin(spin).cores(cores);
    let ends = builder.run(move |core| start(core, options.address.clone()));
    if let Err(error) = ends.and_then(|ends| ends.into_iter().collect::<io::Result<()>>()) {
        eprintln!("echo: {error}");
        exit(1);
    }
}

/// The first core opens a listener for each core and sends it there. When it stops, all do.
async fn start(core: CoreHandle, mut address: String) -> io::Result<()> {
    if core.index() > 0 {
        return Ok(());
    }
    for index in 0..core.count() {
        let listener = TcpListener::bind_sharded(address.as_str(), Placement::Hash).await?;
        address = listener.local_addr()?.to_string();
        core.spawn_on(index, move || serve(listener));
    }
    println!("listening on {address} with {} core(s), {}", core.count(), core.ring());
    select(pin!(ctrl_c()), pin!(terminate())).await.factor_first().0
}

async fn serve(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(quoit::spawn(echo(stream))),
            Err(error) => eprintln!("echo: {error}"),
        }
    }
}

async fn echo(stream: TcpStream) {
    // A lease is lent by the core's pool, and given back when it has been sent.
    while let Ok(lease) = stream.recv().await {
        if lease.is_empty() || stream.send(lease).await.is_err() {
            break;
        }
    }
}
