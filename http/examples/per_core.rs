//! A server on every core, each with a state of its own that nobody shares and nothing locks.
//!
//! `per_core [ADDR] [CORES]`, then `curl http://ADDR/` again and again
//!
//! Answers with the core that served, and with how many requests that core has served; HTTP/1 and
//! HTTP/2. On SIGINT or SIGTERM each core ends what is in flight and says what it has done.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::pin::pin;
use std::process::exit;
use std::rc::Rc;
use std::thread::available_parallelism;
use std::time::Duration;

use futures::future::select;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response};
use quoit::signal::{ctrl_c, terminate};
use quoit::{Cores, Runtime};
use quoit_http::{Report, RequestBody, Shards, serve};
use tower::service_fn;

fn main() {
    if let Err(error) = run() {
        eprintln!("per_core: {error}");
        exit(1);
    }
}

fn run() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let cores = match arguments.next() {
        Some(cores) => cores.parse().map_err(io::Error::other)?,
        None => available_parallelism()?.get(),
    };
    let shards = quoit::run(Shards::bind(address, cores))??;
    println!("listening on http://{}, {cores} cores", shards.local_addr());

    let reports = Runtime::builder().cores(Cores::Count(cores)).run(move |core| {
        let shards = shards.clone();
        async move { serve_core(&shards, core.index()).await }
    })?;
    for (core, report) in reports.into_iter().enumerate() {
        println!("core {core}: {:?}", report?);
    }
    Ok(())
}

async fn serve_core(shards: &Shards, core: usize) -> io::Result<Report> {
    let listener = shards.take(core).expect("there is one for each core");
    let served = Rc::new(Cell::new(0_u64));
    let service = service_fn(move |_: Request<RequestBody>| {
        served.set(served.get() + 1);
        let text = format!("core {core} has served {}\n", served.get());
        ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))))
    });
    serve(listener, service)
        .on_error(move |trouble| eprintln!("core {core}: {trouble}"))
        .with_graceful_shutdown(stop())
        .drain_timeout(Duration::from_secs(5))
        .await
}

async fn stop() -> io::Result<()> {
    select(pin!(ctrl_c()), pin!(terminate())).await.factor_first().0
}
