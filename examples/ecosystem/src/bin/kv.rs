//! A key-value server for the clients of Redis: `kv [ADDR] [--cores N]`, then
//!
//! ```text
//! redis-cli -p PORT set greeting "hello, ring"
//! redis-benchmark -p PORT -t get,set -P 16 -q
//! ```
//!
//! One core by default. On SIGINT or SIGTERM it answers what has come, and ends.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use ecosystem::kv::Limits;
use ecosystem::kv::cores::Cores;
use ecosystem::kv::server::{Served, serve, serve_core};
use futures::future::select;
use quoit::Runtime;
use quoit::net::{Placement, TcpListener};
use quoit::signal::{ctrl_c, terminate};

fn main() -> Result<(), Box<dyn Error>> {
    let mut address = "127.0.0.1:6379".to_owned();
    let mut count = 1;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--cores" => count = arguments.next().ok_or("--cores N")?.parse()?,
            option if option.starts_with('-') => return Err("usage: kv [ADDR] [--cores N]".into()),
            _ => address = argument,
        }
    }
    if count == 1 {
        println!("{:?}", quoit::run(alone(address))??);
        return Ok(());
    }
    for (index, served) in shared(address, count)?.into_iter().enumerate() {
        println!("core {index}: {:?}", served?);
    }
    Ok(())
}

async fn alone(address: String) -> io::Result<Served> {
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on {}", listener.local_addr()?);
    serve(listener, Limits::default(), stop()).await
}

/// A listener for each core; the kernel spreads the connections, and the keys are spread by us.
fn shared(mut address: String, count: usize) -> io::Result<Vec<io::Result<Served>>> {
    let bind = async {
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(TcpListener::bind_sharded(address.as_str(), Placement::Hash).await?);
            // From the second on: the port that the system chose for port 0.
            address = listeners[0].local_addr()?.to_string();
        }
        io::Result::Ok(listeners)
    };
    let listeners = quoit::run(bind)??;
    println!("listening on {}, {count} cores", listeners[0].local_addr()?);
    let parts: Vec<_> = listeners.into_iter().zip(Cores::new(count)).map(Some).collect();
    let parts = Arc::new(Mutex::new(parts));
    Runtime::builder().cores(quoit::Cores::Count(count)).run(move |core| {
        let part = parts.lock().unwrap_or_else(PoisonError::into_inner)[core.index()].take();
        async move {
            let (listener, cores) = part.expect("there is one for each core");
            serve_core(listener, Limits::default(), cores, stop()).await
        }
    })
}

async fn stop() -> io::Result<()> {
    select(pin!(ctrl_c()), pin!(terminate())).await.factor_first().0
}
