//! One listener per core: the kernel spreads the connections, and each core serves its share alone.
//!
//! `every_core [ADDR] [--cores N]`
//!
//! Echoes; on SIGINT or SIGTERM each core prints how much of the work was its own.

use std::{cell::Cell, io, num::NonZero, pin::pin, process::exit, rc::Rc, sync::Arc, thread};

use clap::Parser;
use futures::future::select;
use quoit::net::{Placement, TcpListener, TcpStream};
use quoit::signal::{ctrl_c, terminate};
use quoit::{Cores, Runtime};

#[derive(Parser)]
#[command(about = "An echo server on every core")]
struct Options {
    #[arg(default_value = "127.0.0.1:7777", help = "Port 0 lets the system choose one")]
    address: String,
    #[arg(long, help = "Default: as many as this process may use")]
    cores: Option<NonZero<usize>>,
}

fn main() {
    if let Err(error) = run(Options::parse()) {
        eprintln!("every_core: {error}");
        exit(1);
    }
}

fn run(options: Options) -> io::Result<()> {
    let cores = options.cores.map_or_else(thread::available_parallelism, Ok)?.get();
    // A listener belongs to no core before its first `accept`: all can be open from the start.
    let listeners = Arc::new(quoit::run(listen(options.address, cores))??);
    println!("listening on {}, {cores} cores", listeners[0].local_addr()?);

    Runtime::builder().cores(Cores::Count(cores)).run(move |core| {
        let listeners = listeners.clone();
        async move {
            let served = Rc::new(Cell::new(0)); // nobody shares it but this core's tasks
            let serve = serve(&listeners[core.index()], &served);
            let stop = async { select(pin!(ctrl_c()), pin!(terminate())).await.factor_first().0 };
            select(pin!(serve), pin!(stop)).await;
            println!("core {}: {} messages", core.index(), served.get());
        }
    })?;
    Ok(())
}

async fn listen(mut address: String, cores: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for _ in 0..cores {
        listeners.push(TcpListener::bind_sharded(address.as_str(), Placement::Hash).await?);
        // From the second on: the port that the system chose for port 0.
        address = listeners[0].local_addr()?.to_string();
    }
    Ok(listeners)
}

async fn serve(listener: &TcpListener, served: &Rc<Cell<u64>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(quoit::spawn(echo(stream, served.clone()))),
            Err(error) => eprintln!("every_core: {error}"),
        }
    }
}

async fn echo(stream: TcpStream, served: Rc<Cell<u64>>) {
    while let Ok(lease) = stream.recv().await {
        if lease.is_empty() || stream.send(lease).await.is_err() {
            break;
        }
        served.set(served.get() + 1);
    }
}
