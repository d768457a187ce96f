//! A program to look at with tokio-console: `cargo run` here, then `tokio-console` elsewhere.
//!
//! `console [PORT]`, where the console connects, on this machine; 0 for any
//!
//! A server that echoes and its client, a ticker, a task that is too busy, and one whose waker
//! nobody keeps: the console warns of the last two. Ends on SIGINT or SIGTERM.

use std::future::poll_fn;
use std::io;
use std::net::TcpListener as Reservation;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use quoit::net::{TcpListener, TcpStream};
use quoit::task::{Builder, yield_now};
use quoit::time::{interval, sleep};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "6669".to_owned());
    let port = port.parse().map_err(io::Error::other)?;
    // The subscriber does not say which port it got for 0: so it is asked for one that was free.
    let address = Reservation::bind(("127.0.0.1", port))?.local_addr()?;
    // It serves from a thread of its own, with a runtime of tokio's inside.
    let console = console_subscriber::ConsoleLayer::builder()
        .server_addr(address)
        .publish_interval(Duration::from_millis(200))
        .spawn();
    tracing_subscriber::registry().with(console).init();
    println!("tokio-console http://{address}");
    quoit::run(program())?
}

async fn program() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let _tasks = [
        Builder::new().name("server").spawn(serve(listener))?,
        Builder::new().name("client").spawn(ask(address))?,
        Builder::new().name("ticker").spawn(tick())?,
        Builder::new().name("busy").spawn(busy())?,
        Builder::new().name("forgotten").spawn(poll_fn(|_| Poll::Pending))?,
    ];
    let (interrupt, terminate) = (pin!(quoit::signal::ctrl_c()), pin!(quoit::signal::terminate()));
    either(interrupt, terminate).await
}

async fn either<F: Future + Unpin, G: Future<Output = F::Output> + Unpin>(
    mut one: F,
    mut other: G,
) -> F::Output {
    poll_fn(|context| match pin!(&mut one).poll(context) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => pin!(&mut other).poll(context),
    })
    .await
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        drop(Builder::new().name("connection").spawn(echo(stream))?);
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    loop {
        let lease = stream.recv().await?;
        if lease.is_empty() {
            return Ok(());
        }
        stream.send_all(lease).await?;
    }
}

async fn ask(address: std::net::SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    loop {
        stream.send_all("around").await?;
        drop(stream.recv().await?);
        sleep(Duration::from_millis(10)).await;
    }
}

async fn tick() -> io::Result<()> {
    let mut ticks = interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        drop(quoit::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(5))));
    }
}

/// Wakes itself again and again, and is long about it.
async fn busy() -> io::Result<()> {
    loop {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        yield_now().await;
        sleep(Duration::from_millis(20)).await;
    }
}
