//! Work shared out to workers, and answered in the order in which it was asked for.
//!
//! ```text
//!   client ─ lines ─► talk: up to AHEAD at once ──► queue, bounded ──► workers ──► blocking pool
//!          ◄ lines ─ in order ◄───────────────────── a oneshot each ◄─────┘
//! ```
//!
//! Every place where something may pile up has a limit, and hands the wait on: a full pool of
//! workers makes the queue full, that makes `talk` wait, and that makes the client wait. A client
//! that goes away drops its receivers, and what it has asked for is skipped.
//!
//! The parts are other people's: a codec of tokio-util on quoit's stream, a queue of async-channel,
//! `oneshot` of tokio, `buffered` of futures, a `TaskTracker` and a `CancellationToken`.

use std::io;

use async_channel::{Receiver, Sender, bounded};
use futures::{SinkExt, StreamExt};
use quoit::net::{TcpListener, TcpStream};
use quoit::task::spawn_blocking;
use tokio::sync::oneshot;
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What one client may have asked for and not been answered.
const AHEAD: usize = 16;

/// The longest line.
const LINE_MAX: usize = 64;

#[derive(Debug)]
struct Job {
    number: u64,
    answer: oneshot::Sender<u64>,
}

/// Workers, and their queue.
#[derive(Clone, Debug)]
pub struct Pool {
    queue: Sender<Job>,
    workers: TaskTracker,
}

impl Pool {
    /// Starts so many workers, with so many jobs waiting for them at most.
    pub fn start(workers: usize, waiting: usize) -> Self {
        let (queue, jobs) = bounded(waiting);
        let pool = Self { queue, workers: TaskTracker::new() };
        for _ in 0..workers {
            quoit::spawn(pool.workers.track_future(work(jobs.clone())));
        }
        pool
    }

    /// The largest factor of a number that is smaller than it; nothing if the pool has ended.
    pub async fn ask(&self, number: u64) -> Option<u64> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Job { number, answer }).await.ok()?;
        answered.await.ok()
    }

    /// Takes nothing on, and waits until everything is done.
    pub async fn end(self) {
        self.queue.close();
        self.workers.close();
        self.workers.wait().await;
    }
}

/// Until the queue is closed and empty.
async fn work(jobs: Receiver<Job>) {
    while let Ok(Job { number, answer }) = jobs.recv().await {
        if answer.is_closed() {
            continue;
        }
        // It computes for long: not on this core, where everybody else would wait for it.
        if let Ok(factor) = spawn_blocking(move || factor(number)).await {
            // An error says that nobody waits any more.
            let _ = answer.send(factor);
        }
    }
}

fn factor(number: u64) -> u64 {
    let smallest = (2..).take_while(|divisor: &u64| divisor.saturating_mul(*divisor) <= number);
    smallest
        .into_iter()
        .find(|divisor| number.is_multiple_of(*divisor))
        .map_or(1, |least| number / least)
}

/// Answers every client that comes, until it is told to stop; then waits for those that are there.
///
/// # Errors
///
/// Those of `accept`.
pub async fn serve(listener: TcpListener, pool: Pool, stop: CancellationToken) -> io::Result<()> {
    let clients = TaskTracker::new();
    loop {
        // The loser of the two is dropped, and a connection that comes just then is not lost.
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = stop.cancelled() => break,
        };
        let talk = talk(stream, pool.clone(), stop.clone());
        quoit::spawn(clients.track_future(async move {
            if let Err(error) = talk.await {
                eprintln!("{peer}: {error}");
            }
        }));
    }
    clients.close();
    clients.wait().await;
    pool.end().await;
    Ok(())
}

async fn talk(
    stream: TcpStream,
    pool: Pool,
    stop: CancellationToken,
) -> Result<(), LinesCodecError> {
    let lines = Framed::new(stream, LinesCodec::new_with_max_length(LINE_MAX));
    let (mut answers, lines) = lines.split();
    // Told to stop, it reads no more, and answers what it has read.
    let lines = lines.take_until(stop.cancelled_owned());
    let mut ready = std::pin::pin!(lines.map(|line| ask(&pool, line)).buffered(AHEAD));
    while let Some(answer) = ready.next().await {
        answers.send(answer?).await?;
    }
    answers.close().await
}

async fn ask(
    pool: &Pool,
    line: Result<String, LinesCodecError>,
) -> Result<String, LinesCodecError> {
    Ok(match line?.trim().parse() {
        Ok(number) => match pool.ask(number).await {
            Some(factor) => factor.to_string(),
            None => "the pool has ended".to_owned(),
        },
        Err(error) => format!("no number: {error}"),
    })
}
