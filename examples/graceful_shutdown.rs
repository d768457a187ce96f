//! A server that ends well: it takes no more connections, lets those it has finish, and says what
//! came of them.
//!
//! `graceful_shutdown [ADDR]`
//!
//! Echoes until SIGINT or SIGTERM. Connections then have two seconds to end.

use std::{env, io, pin::pin, process::exit, time::Duration};

use futures::future::{Either, select};
use quoit::Runtime;
use quoit::net::{TcpListener, TcpStream};
use quoit::signal::{ctrl_c, terminate};
use quoit::task::JoinSet;
use quoit::time::timeout;

const DRAIN: Duration = Duration::from_secs(2);

fn main() {
    if let Err(error) = run() {
        eprintln!("graceful_shutdown: {error}");
        exit(1);
    }
}

fn run() -> io::Result<()> {
    let runtime = Runtime::new()?;
    let mut connections = runtime.block_on(serve())?;
    let all = async { while connections.join_next().await.is_some() {} };
    if runtime.block_on(timeout(DRAIN, all)).is_err() {
        println!("{} connections had not ended", connections.len());
    }
    // Drops their tasks; what they have sent still goes out.
    println!("{:?}", runtime.shutdown(Duration::from_secs(1)));
    Ok(())
}

/// Serves until it is told to stop; then answers with the connections that are open.
async fn serve() -> io::Result<JoinSet<io::Result<()>>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut stop = pin!(stop());
    let mut connections = JoinSet::new();
    while let Either::Left((accepted, _)) = select(listener.accept(), stop.as_mut()).await {
        match accepted {
            Ok((stream, _)) => drop(connections.spawn(echo(stream))),
            Err(error) => eprintln!("graceful_shutdown: {error}"),
        }
        while connections.try_join_next().is_some() {} // forgets those that have ended
    }
    println!("stopping");
    // Some may have been taken from the kernel ahead of `accept`: they are served too.
    for stream in listener.close().await? {
        connections.spawn(echo(stream));
    }
    Ok(connections)
}

/// Waits for a signal to stop.
async fn stop() -> io::Result<()> {
    select(pin!(ctrl_c()), pin!(terminate())).await.factor_first().0
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
