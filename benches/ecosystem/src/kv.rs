//! A key-value server: the store, parser and commands of `examples/ecosystem`'s `kv` with quoit's
//! sockets and with tokio's, and Redis itself, for scale; asked by `redis-benchmark`.
//!
//! | contender | |
//! |---|---|
//! | `tokio` | what one would write there: two buffers a connection, one `write_all` per read |
//! | `uring-submit` | quoit on io_uring, with every send a submission, whatever the load |
//! | `tokio-shared` | one pair of buffers for all, read into when there is something |

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::key_value::client::Client;
use crate::key_value::server;
use crate::key_value::session::{Flow, Local, Session};
use crate::key_value::{Limits, Shard};
use crate::process::{self, Server, pin_command};
use crate::runtimes::{self, READINESS, SUBMIT, TOKIO, URING};
use crate::suite::{Load, Measured, Suite, Terms};
use crate::tools;

const REDIS: &str = "redis";
const SHARED: &str = "tokio-shared";

/// As many keys as are used. All are there before a measurement begins.
const KEYS: &str = "1000";

/// Room for reading, of each connection on tokio: 16 commands of 1 KiB, and more.
const ROOM: usize = 32 * 1024;

pub struct Kv;

#[derive(Debug)]
pub struct Cell {
    command: &'static str,
    connections: usize,
    pipeline: usize,
    value: usize,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, connections, pipeline, value } = self;
        write!(f, "{command} {connections}x{pipeline} {value} B")
    }
}

impl Suite for Kv {
    type Cell = Cell;

    fn name(&self) -> &'static str {
        "kv"
    }

    fn unit(&self) -> &'static str {
        "command"
    }

    fn contenders(&self) -> &'static [&'static str] {
        &[TOKIO, URING, READINESS, SUBMIT, SHARED, REDIS]
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for pipeline in [1, 16] {
            for connections in [1, 50, 512] {
                for value in [3, 1024] {
                    for command in ["get", "set"] {
                        cells.push(Cell { command, connections, pipeline, value });
                    }
                }
            }
        }
        cells
    }

    fn measure(&self, cell: &Cell, contender: &str, terms: Terms) -> io::Result<Measured> {
        if contender == REDIS {
            let redis = Redis::start(terms.core)?;
            return measure(cell, redis.0.id(), redis.1, terms);
        }
        let server = Server::start(&["serve", "kv", contender], terms.core)?;
        measure(cell, server.pid(), server.address, terms)
    }
}

fn measure(cell: &Cell, server: u32, address: SocketAddr, terms: Terms) -> io::Result<Measured> {
    let fill = Cell { command: "set", connections: 50, pipeline: 16, value: cell.value };
    benchmark(&fill, address, 20_000, terms)?;
    // It counts requests and not time, so the number is found by asking a few.
    let few = benchmark(cell, address, 20 * cell.connections.max(500), terms)?;
    let count = few.done as f64 / few.seconds * terms.seconds as f64;
    let before = process::cpu_nanoseconds(server)?;
    let load = benchmark(cell, address, count as usize, terms)?;
    Ok(Measured { load, cpu_nanoseconds: process::cpu_nanoseconds(server)? - before })
}

fn benchmark(cell: &Cell, address: SocketAddr, count: usize, terms: Terms) -> io::Result<Load> {
    let Cell { command, connections, pipeline, value } = cell;
    let numbers = [address.port() as usize, *connections, *pipeline, *value, count];
    let [port, connections, pipeline, value, count] = numbers.map(|number| number.to_string());
    let text = tools::run(
        "redis-benchmark",
        "redis-tools",
        &[
            "-p",
            &port,
            "-c",
            &connections,
            "-P",
            &pipeline,
            "-d",
            &value,
            "-n",
            &count,
            "-r",
            KEYS,
            "-t",
            command,
            "--csv",
        ],
        terms,
    )?;
    // Test, requests per second; average, least, p50, p95, p99 and longest in milliseconds.
    let line =
        text.lines().find(|line| line.starts_with(&format!("\"{}\"", command.to_uppercase())));
    let fields = line.unwrap_or("").split(',').skip(1).map(|field| field.trim_matches('"').parse());
    let numbers: Vec<f64> = fields.collect::<Result<_, _>>().map_err(io::Error::other)?;
    let &[rate, _, _, p50, _, p99, max] = &numbers[..] else {
        return Err(tools::unreadable("redis-benchmark", &text));
    };
    let done = count.parse::<u64>().map_err(io::Error::other)?;
    let [p50, p99, max] = [p50, p99, max].map(|milliseconds| Some(milliseconds * 1e3));
    Ok(Load { done, seconds: done as f64 / rate, bytes: None, p50, p99, max })
}

/// Redis, which writes nothing to disk; killed when dropped.
struct Redis(Child, SocketAddr);

impl Redis {
    fn start(core: usize) -> io::Result<Self> {
        // Free now, and nobody else is likely to take it at once.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let port = address.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        pin_command(&mut command, core);
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("redis-server (package redis-server): {error}"))
        })?;
        let redis = Self(child, address);
        let until = Instant::now() + Duration::from_secs(10);
        while !redis.is_ready() {
            if Instant::now() > until {
                return Err(io::Error::other("redis-server does not answer"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(redis)
    }

    fn is_ready(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(self.1)?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer)?;
            io::Result::Ok(&answer == b"+PONG\r\n")
        };
        ask().unwrap_or(false)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves until killed.
pub fn serve(contender: &str, listener: TcpListener) -> io::Result<()> {
    if let Some(runtime) = runtimes::quoit(contender) {
        return runtime?.block_on(async {
            let listener = quoit::net::TcpListener::from_std(listener)?;
            server::serve(listener, Limits::default(), std::future::pending::<()>()).await.map(drop)
        });
    }
    listener.set_nonblocking(true)?;
    match contender {
        TOKIO => runtimes::tokio()?.block_on(serve_tokio(listener, talk_tokio)),
        SHARED => runtimes::tokio()?.block_on(serve_tokio(listener, talk_tokio_shared)),
        _ => Err(runtimes::unknown(contender)),
    }
}

thread_local! {
    // Of the only thread there is: tasks may then be `tokio::spawn`'s, without a lock and without
    // the second queue of a `LocalSet`.
    static SHARD: Shard = Shard::default();
    static ROOM_OF_ALL: RefCell<Vec<u8>> = RefCell::new(vec![0; 2 * ROOM]);
    static REPLIES_OF_ALL: RefCell<Vec<u8>> = RefCell::default();
}

async fn serve_tokio<F>(
    listener: TcpListener,
    talk: fn(tokio::net::TcpStream, u64) -> F,
) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = tokio::net::TcpListener::from_std(listener)?;
    for id in 1.. {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A client that went away is no failure of the server.
            let _ = talk(stream, id).await;
        });
    }
    Ok(())
}

async fn talk_tokio(mut stream: tokio::net::TcpStream, id: u64) -> io::Result<()> {
    let limits = Limits::default();
    let mut session = Session::new(Client::new(id, 1), limits);
    let mut room = BytesMut::with_capacity(ROOM);
    let mut replies = Vec::new();
    while stream.read_buf(&mut room).await? > 0 {
        let mut input = &room[..];
        loop {
            let feed = |shard: &Shard| {
                shard.with(|store| {
                    let replies = &mut replies;
                    session.feed(&mut input, &mut Local { store, replies, limits })
                })
            };
            let flow = SHARD.with(feed);
            stream.write_all(&replies).await?;
            replies.clear();
            match flow {
                Flow::Read => break,
                Flow::Again => {}
                Flow::Close => return Ok(()),
            }
        }
        room.clear();
    }
    Ok(())
}

async fn talk_tokio_shared(mut stream: tokio::net::TcpStream, id: u64) -> io::Result<()> {
    let limits = Limits::default();
    let mut session = Session::new(Client::new(id, 1), limits);
    // Of a turn that ended before its input did.
    let mut rest = Vec::new();
    loop {
        if rest.is_empty() {
            stream.readable().await?;
        }
        let mut replies = REPLIES_OF_ALL.take();
        let turn = ROOM_OF_ALL.with_borrow_mut(|room| {
            let mut input = match &rest[..] {
                [] => match stream.try_read(room) {
                    Ok(0) => return Ok(Flow::Close),
                    Ok(count) => &room[..count],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Flow::Read);
                    }
                    Err(error) => return Err(error),
                },
                rest => rest,
            };
            let feed = |shard: &Shard| {
                shard.with(|store| {
                    let replies = &mut replies;
                    session.feed(&mut input, &mut Local { store, replies, limits })
                })
            };
            let flow = SHARD.with(feed);
            let left = input.to_vec();
            rest = left;
            Ok(flow)
        });
        let flow = turn?;
        stream.write_all(&replies).await?;
        replies.clear();
        REPLIES_OF_ALL.replace(replies);
        if flow == Flow::Close {
            return Ok(());
        }
    }
}
