//! HTTPS: one router behind the same rustls configuration, on quoit by `quoit-http` and
//! `quoit-tls`, on tokio by hyper and `tokio-rustls`.
//!
//! | cell | asked by | what it is made of |
//! |---|---|---|
//! | full, resumed | `openssl s_time`, one after the other | TCP, a handshake, `GET /`, the end |
//! | h1, h2 | wrk, h2load, kept alive | 16 KiB of answer |

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::bounds::Http2ServerConnExec;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use quoit::rt::QuoitExecutor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::runtimes::{self, READINESS, TOKIO, URING};
use crate::suite::{Load, Measured, Suite, Terms, measure_server};
use crate::tools;

/// Not `quoit-http`, but the loop that the reference is, word for word.
const LOOP_URING: &str = "loop-uring";
const LOOP_READINESS: &str = "loop-readiness";

/// As much as one record of TLS holds.
const LENGTH: usize = 16 * 1024;
static ANSWER: [u8; LENGTH] = [b'x'; LENGTH];

/// The suite.
pub struct Tls;

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
pub enum Cell {
    Handshakes { is_resumed: bool, version: &'static str },
    H1(usize),
    H2(usize, usize),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshakes { is_resumed, version } => {
                let kind = if *is_resumed { "resumed" } else { "full" };
                write!(f, "{kind} {version}")
            }
            Self::H1(connections) => write!(f, "h1 16k {connections}"),
            Self::H2(connections, streams) => write!(f, "h2 16k {connections}x{streams}"),
        }
    }
}

impl Suite for Tls {
    type Cell = Cell;

    fn name(&self) -> &'static str {
        "tls"
    }

    fn unit(&self) -> &'static str {
        "request"
    }

    fn contenders(&self) -> &'static [&'static str] {
        &[TOKIO, URING, READINESS, LOOP_URING, LOOP_READINESS]
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for version in ["1.3", "1.2"] {
            for is_resumed in [false, true] {
                cells.push(Cell::Handshakes { is_resumed, version });
            }
        }
        cells.extend([1, 64].map(Cell::H1));
        cells.push(Cell::H2(64, 4));
        cells
    }

    fn measure(&self, cell: &Cell, contender: &str, terms: Terms) -> io::Result<Measured> {
        let measured = measure_server(&["tls", contender], terms, |server| {
            let url = format!("https://{}/large", server.address);
            match *cell {
                Cell::Handshakes { is_resumed, version } => {
                    handshakes(&server.address.to_string(), is_resumed, version, terms)
                }
                Cell::H1(connections) => tools::wrk(&url, connections, None, terms),
                Cell::H2(connections, streams) => tools::h2load(&url, connections, streams, terms),
            }
        })?;
        let length = if matches!(cell, Cell::Handshakes { .. }) { 0 } else { LENGTH as u64 };
        match measured.load.bytes {
            Some(bytes) if bytes < measured.load.done * length => {
                let wanted = measured.load.done * length;
                Err(io::Error::other(format!("{bytes} bytes came of {wanted}")))
            }
            _ => Ok(measured),
        }
    }
}

/// One connection after the other, each with a handshake, a request and an end.
fn handshakes(address: &str, is_resumed: bool, version: &str, terms: Terms) -> io::Result<Load> {
    let version = if version == "1.2" { "-tls1_2" } else { "-tls1_3" };
    let (seconds, how) = (terms.seconds.to_string(), if is_resumed { "-reuse" } else { "-new" });
    let arguments = ["s_time", "-connect", address, how, version, "-www", "/", "-time", &seconds];
    let started = Instant::now();
    let text = tools::run("openssl", "openssl", &arguments, terms)?;
    let seconds = started.elapsed().as_secs_f64();
    let count = |word: &str| {
        let line = text.lines().rev().find(|line| line.contains(word))?;
        line.split(' ').next()?.parse::<u64>().ok()
    };
    let Some(done) = count(" real seconds") else {
        return Err(io::Error::other(format!("openssl s_time says something else:\n{text}")));
    };
    // One letter for each connection: `r` where a session was resumed.
    let letters = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let resumed = letters.filter(|line| line.bytes().all(|letter| letter == b'r'));
    let resumed: u64 = resumed.map(|line| line.len() as u64).sum();
    if is_resumed != (resumed >= done) {
        return Err(io::Error::other(format!("{resumed} of {done} sessions were resumed")));
    }
    Ok(Load { done, seconds, ..Load::default() })
}

/// Serves until killed.
pub fn serve(contender: &str, listener: TcpListener) -> io::Result<()> {
    let config = Arc::new(config()?);
    if let Some(runtime) = runtimes::quoit(contender) {
        return runtime?.block_on(async {
            let listener = quoit::net::TcpListener::from_std(listener)?;
            let acceptor = quoit_tls::TlsAcceptor::from(config);
            quoit_http::serve(listener, router()).tls(acceptor).await.map(drop)
        });
    }
    let by_hand = ByHand { acceptor: tokio_rustls::TlsAcceptor::from(config), router: router() };
    let ring = match contender {
        TOKIO => return by_hand.on_tokio(listener),
        LOOP_URING => URING,
        LOOP_READINESS => READINESS,
        _ => contender,
    };
    by_hand.on_quoit(runtimes::quoit(ring).ok_or_else(|| runtimes::unknown(contender))??, listener)
}

/// A server as people write it themselves, without a limit of time: the same on every runtime, but
/// for the names of listener and `spawn`.
#[derive(Clone)]
struct ByHand {
    acceptor: tokio_rustls::TlsAcceptor,
    router: Router,
}

impl ByHand {
    fn on_tokio(self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        runtimes::tokio()?.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(self.clone().serve_one(stream, TokioExecutor::new()));
            }
        })
    }

    fn on_quoit(self, runtime: quoit::Runtime, listener: TcpListener) -> io::Result<()> {
        runtime.block_on(async {
            let listener = quoit::net::TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                quoit::spawn(self.clone().serve_one(stream, QuoitExecutor));
            }
        })
    }

    async fn serve_one<S, E>(self, stream: S, executor: E)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        E: Http2ServerConnExec<TowerToHyperServiceFuture<Router, Request<Incoming>>, Body>,
    {
        // A client that went away is no failure of the server.
        let Ok(stream) = self.acceptor.accept(stream).await else { return };
        let (builder, stream) = (auto::Builder::new(executor), TokioIo::new(stream));
        let service = TowerToHyperService::new(self.router);
        let _ = builder.serve_connection_with_upgrades(stream, service).await;
    }
}

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello\n" }))
        .route("/large", get(|| async { Bytes::from_static(&ANSWER) }))
}

/// A certificate on P-256, ring, tickets, both protocols.
fn config() -> io::Result<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let made = made.map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key);
    let mut config = config.map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new().map_err(io::Error::other)?;
    Ok(config)
}
