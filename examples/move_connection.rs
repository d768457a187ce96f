//! Accepting on one core, and serving each connection on the core that has the fewest.
//!
//! `move_connection [ADDR] [--cores N]`
//!
//! A connection that has said nothing yet is bound to no core, so handing it over costs one message
//! between threads. Echoes; a line `balance` from a client moves its own connection to the core
//! that has the fewest by then. Every answer names the core that gave it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{io, num::NonZero, pin::pin, process::exit, thread};

use clap::Parser;
use futures::future::{Either, select};
use quoit::net::{TcpListener, TcpStream};
use quoit::signal::{ctrl_c, terminate};
use quoit::{CoreHandle, Cores, Runtime};

#[derive(Parser)]
#[command(about = "An echo server whose connections move between its cores")]
struct Options {
    #[arg(default_value = "127.0.0.1:7777", help = "Port 0 lets the system choose one")]
    address: String,
    #[arg(long, help = "Default: as many as this process may use")]
    cores: Option<NonZero<usize>>,
}

/// How many connections each core has.
type Loads = Arc<[AtomicUsize]>;

/// The longest line that a client may send.
const LINE: usize = 4096;

fn main() {
    if let Err(error) = run(Options::parse()) {
        eprintln!("move_connection: {error}");
        exit(1);
    }
}

fn run(options: Options) -> io::Result<()> {
    let cores = options.cores.map_or_else(thread::available_parallelism, Ok)?.get();
    let loads: Loads = (0..cores).map(|_| AtomicUsize::new(0)).collect();
    let ends = Runtime::builder().cores(Cores::Count(cores)).run(move |core| {
        let (address, loads) = (options.address.clone(), loads.clone());
        async move {
            match core.index() {
                0 => accept(core, &address, &loads).await,
                // Its tasks run on until the future of the last core has returned.
                _ => Ok(()),
            }
        }
    })?;
    ends.into_iter().collect()
}

async fn accept(core: CoreHandle, address: &str, loads: &Loads) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}, {} cores", listener.local_addr()?, core.count());
    let mut stop = pin!(stop());
    while let Either::Left((accepted, _)) = select(listener.accept(), stop.as_mut()).await {
        match accepted {
            Ok((stream, _)) => hand_over(stream, &core, loads),
            Err(error) => eprintln!("move_connection: {error}"),
        }
    }
    Ok(())
}

async fn stop() -> io::Result<()> {
    select(pin!(ctrl_c()), pin!(terminate())).await.factor_first().0
}

/// Sends a stream that no core serves to the one with the fewest.
fn hand_over(stream: TcpStream, core: &CoreHandle, loads: &Loads) {
    let target = (0..core.count()).min_by_key(|core| loads[*core].load(Relaxed)).unwrap_or(0);
    // Counted before it arrives, so that a burst of them is spread as well.
    loads[target].fetch_add(1, Relaxed);
    let (core, loads) = (core.clone(), loads.clone());
    let serving = core.clone();
    // The closure travels, and the future that it makes stays: it may hold an `Rc`. A task that
    // nobody awaits is detached.
    drop(serving.spawn_on(target, move || async move {
        let next = serve(stream, target).await;
        loads[target].fetch_sub(1, Relaxed);
        if let Some(stream) = next {
            hand_over(stream, &core, &loads);
        }
    }));
}

/// Serves a connection to its end, or until it shall move: then here it is.
async fn serve(stream: TcpStream, here: usize) -> Option<TcpStream> {
    let mut line = Vec::new();
    loop {
        line.clear();
        match stream.read_until(b'\n', &mut line, LINE).await {
            Ok(0) | Err(_) => return None,
            Ok(_) if line == b"balance\n" => break,
            Ok(_) => {}
        }
        let mut answer = format!("core {here}: ").into_bytes();
        answer.extend_from_slice(&line);
        if stream.send_all(answer).await.is_err() {
            return None;
        }
    }
    // Sends what is committed, and keeps what has come and was not read: nothing is lost.
    stream.detach().await.ok()?;
    Some(stream)
}
