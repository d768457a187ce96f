//! A queue of jobs in PostgreSQL, by tokio-postgres on a stream of quoit's.
//!
//! ```text
//!   push ──► INSERT, NOTIFY ───► listener's connection ──► whoever has nothing to do
//!                                                              │
//!   done ◄── COMMIT ◄── the job itself ◄── SELECT .. FOR UPDATE SKIP LOCKED ◄──┘
//! ```
//!
//! A worker holds its job by the lock of an open transaction: if the worker, its connection or the
//! machine goes, PostgreSQL lets the job go, and another worker gets it. A notification only wakes;
//! one that is missed costs [`POLL`].
//!
//! `Config::connect` of tokio-postgres opens tokio's socket, and its `Connection` is spawned on
//! tokio; `Config::connect_raw` takes any stream, and hands the connection out to be driven. A
//! connection is driven by a task of the core that opened it; its `Client` may be used on any.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use futures::future::{Either, select};
use futures::{StreamExt, stream};
use quoit::net::TcpStream;
use quoit::time::{sleep, timeout};
use tokio::sync::Notify;
use tokio_postgres::config::Host;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, NoTls};

/// How long a worker waits for a notification before it looks by itself.
pub const POLL: Duration = Duration::from_secs(5);

/// How long to wait before connecting again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How long the server may take to answer to a cancellation.
const CANCELLED: Duration = Duration::from_secs(5);

/// So often a job is tried.
const ATTEMPTS: i32 = 3;

/// What may go wrong.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// Connects to the first host that lets us. The client works while the connection is driven.
pub async fn connect(
    config: &Config,
) -> Result<(Client, Connection<TcpStream, NoTlsStream>), Trouble> {
    let stream = dial(config).await?;
    let handshake = config.connect_raw(stream, NoTls);
    Ok(match config.get_connect_timeout() {
        Some(limit) => timeout(*limit, handshake).await??,
        None => handshake.await?,
    })
}

async fn dial(config: &Config) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("the configuration names no host");
    for (index, host) in config.get_hosts().iter().enumerate() {
        let Host::Tcp(host) = host else {
            failed = io::Error::other("Unix sockets are not served here: give host=127.0.0.1");
            continue;
        };
        let ports = config.get_ports();
        // One port is for all hosts.
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let limit = config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(30));
        match timeout(limit, TcpStream::connect((host.as_str(), port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// As [`connect`], and a task drives the connection.
pub async fn open(config: &Config) -> Result<Client, Trouble> {
    let (client, connection) = connect(config).await?;
    // What ends it, the client's next query is told too.
    quoit::spawn(connection);
    Ok(client)
}

/// Runs queries of a client for at most so long, then has the server cancel what it is at. The
/// answer is then the query's own: an error (`QUERY_CANCELED`), or a result that came just then;
/// either way the connection is ready for the next.
pub async fn limited<T>(
    limit: Duration,
    config: &Config,
    client: &Client,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    let mut work = pin!(work);
    if let Ok(done) = timeout(limit, work.as_mut()).await {
        return Ok(done?);
    }
    let cancel = async {
        client.cancel_token().cancel_query_raw(dial(config).await?, NoTls).await?;
        Ok::<_, Trouble>(work.await?)
    };
    timeout(CANCELLED, cancel).await?
}

/// Connections for several tasks of a core.
pub type Pool = managed::Pool<Opener>;

/// Opens them.
#[derive(Debug)]
pub struct Opener(pub Config);

/// A pool of at most so many connections, opened when needed. One that broke is not given out once
/// its core has heard of it: the first query is what tells for certain. deadpool's time limits want
/// a runtime that it knows; `quoit::time::timeout` around `get` does the same.
pub fn pool(config: Config, most: usize) -> Result<Pool, Trouble> {
    Ok(Pool::builder(Opener(config)).max_size(most).build()?)
}

impl managed::Manager for Opener {
    type Type = Client;
    type Error = Trouble;

    async fn create(&self) -> Result<Client, Trouble> {
        open(&self.0).await
    }

    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<Trouble> {
        if client.is_closed() {
            return Err(RecycleError::message("the server has closed the connection"));
        }
        Ok(())
    }
}

/// A job, while it is being done.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub number: i64,
    pub text: String,
    /// Counted from one.
    pub attempt: i32,
}

/// The queue, as the tasks of a core share it.
#[derive(Clone, Debug)]
pub struct Queue {
    pool: Pool,
    pushed: Rc<Notify>,
}

impl Queue {
    /// Makes the table if it is not there.
    pub async fn new(pool: Pool) -> Result<Self, Trouble> {
        let client = get(&pool).await?;
        // Two who create it at the same time: one waits for the other.
        let create = "BEGIN; SELECT pg_advisory_xact_lock(716);
            CREATE TABLE IF NOT EXISTS jobs (
                number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                text text NOT NULL,
                attempts int NOT NULL DEFAULT 0,
                state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed'))
            );
            CREATE INDEX IF NOT EXISTS jobs_waiting ON jobs (number) WHERE state = 'waiting';
            COMMIT";
        client.batch_execute(create).await?;
        drop(client);
        Ok(Self { pool, pushed: Rc::default() })
    }

    /// Adds a job, and wakes who waits for one.
    pub async fn push(&self, text: &str) -> Result<i64, Trouble> {
        let mut client = get(&self.pool).await?;
        let transaction = client.transaction().await?;
        let insert = "INSERT INTO jobs (text) VALUES ($1) RETURNING number";
        let number = transaction.query_one(insert, &[&text]).await?.get(0);
        // Told when it is committed, not before.
        transaction.batch_execute("NOTIFY jobs").await?;
        transaction.commit().await?;
        Ok(number)
    }

    /// Does one job, if there is one; says whether there was.
    pub async fn step(
        &self,
        work: impl AsyncFn(&Job) -> Result<(), Trouble>,
    ) -> Result<bool, Trouble> {
        const TAKE: &str = "SELECT number, text, attempts + 1 FROM jobs WHERE state = 'waiting' \
            ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED";
        const KEEP: &str = "UPDATE jobs SET attempts = $2, state = $3 WHERE number = $1";
        let mut client = get(&self.pool).await?;
        // Dropped without a commit, it is rolled back, and the job is free again.
        let transaction = client.transaction().await?;
        let Some(row) = transaction.query_opt(TAKE, &[]).await? else {
            return Ok(false);
        };
        let job = Job { number: row.get(0), text: row.get(1), attempt: row.get(2) };
        let state = match work(&job).await {
            Ok(()) => "done",
            Err(_) if job.attempt < ATTEMPTS => "waiting",
            Err(_) => "failed",
        };
        transaction.execute(KEEP, &[&job.number, &job.attempt, &state]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Does jobs until `stop`. Trouble with the database is waited out.
    pub async fn work(&self, stop: impl Future, work: impl AsyncFn(&Job) -> Result<(), Trouble>) {
        let mut stop = pin!(stop);
        let mut wait = AGAIN.0;
        loop {
            // Asked for before we look: what is pushed in between wakes us too.
            let mut pushed = pin!(self.pushed.notified());
            pushed.as_mut().enable();
            let idle = match self.step(&work).await {
                Ok(there_was) => {
                    wait = AGAIN.0;
                    if there_was { Duration::ZERO } else { POLL }
                }
                Err(error) => {
                    wait = (wait * 2).min(AGAIN.1);
                    eprintln!("jobs: {error}; again in {wait:?}");
                    wait
                }
            };
            let rest = async {
                match idle {
                    POLL => drop(timeout(POLL, pushed).await),
                    idle => sleep(idle).await,
                }
            };
            // In this order: the end comes before the next job, however many there are.
            if let Either::Left(_) = select(stop.as_mut(), pin!(rest)).await {
                return;
            }
        }
    }

    /// Hears of new jobs, and wakes the workers of this core; connects again when it has to. To be
    /// dropped when nobody works any more.
    pub async fn listen(&self) {
        let mut wait = AGAIN.0;
        loop {
            let heard = self.listen_once(&mut wait).await;
            let text = heard.map_or_else(|error| error.to_string(), |()| "it has ended".to_owned());
            eprintln!("jobs: listening: {text}; again in {wait:?}");
            sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    async fn listen_once(&self, wait: &mut Duration) -> Result<(), Trouble> {
        let (client, mut connection) = connect(&self.pool.manager().0).await?;
        let messages = stream::poll_fn(|cx| connection.poll_message(cx));
        let hear = async {
            let mut messages = pin!(messages);
            while let Some(message) = messages.next().await {
                if let AsyncMessage::Notification(_) = message? {
                    self.pushed.notify_waiters();
                }
            }
            Ok::<_, Trouble>(())
        };
        // The connection is driven here, so the query and the hearing go on side by side.
        let ask = async {
            client.batch_execute("LISTEN jobs").await?;
            *wait = AGAIN.0;
            // What was pushed before we listened.
            self.pushed.notify_waiters();
            Ok::<_, Trouble>(())
        };
        futures::future::try_join(hear, ask).await.map(drop)
    }
}

async fn get(pool: &Pool) -> Result<managed::Object<Opener>, Trouble> {
    // Its error is no `Error` where ours, boxed, is none.
    pool.get().await.map_err(|error| format!("no connection: {error}").into())
}
