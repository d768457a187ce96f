//! HTTP: one axum router, on quoit by `quoit_http`, on tokio by hyper as `axum::serve` has it, and
//! by `axum::serve` itself.
//!
//! | cell | asked by | of |
//! |---|---|---|
//! | h1 | wrk | `GET /`, `/json`; `/large`, `/stream`; `POST /whole`, `/drain` of 1 MiB |
//! | h2 | h2load, several streams | `GET /`, `GET /json`, `GET /large` |
//! | ab | `ab -k` | `GET /` |

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::TcpListener;

use axum::Router;
use axum::body::Body;
use axum::extract::Json;
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::Bytes;
use futures::stream;
use http_body_util::BodyExt;
use serde::Serialize;

use crate::http_server;
use crate::runtimes::{self, READINESS, TOKIO, URING};
use crate::suite::{Measured, Suite, Terms, measure_server};
use crate::tools;

const AXUM_SERVE: &str = "axum-serve";
const HELLO: &str = "hello from a server\n";
const LARGE: usize = 1 << 20;
/// What `/stream` sends at a time.
const PART: usize = 64 * 1024;
static ZEROS: [u8; LARGE] = [0; LARGE];

/// The suite.
pub struct Http;

/// What asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Wrk,
    /// With so many streams for each connection.
    H2load(usize),
    Ab,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Hello,
    Json,
    /// 1 MiB that is there.
    Large,
    /// 1 MiB in parts.
    Stream,
    /// 1 MiB that the handler gets at once.
    Whole,
    /// 1 MiB that the handler takes as it comes.
    Drain,
}

impl What {
    fn path(self) -> &'static str {
        match self {
            Self::Hello => "/",
            Self::Json => "/json",
            Self::Large => "/large",
            Self::Stream => "/stream",
            Self::Whole => "/whole",
            Self::Drain => "/drain",
        }
    }

    /// Bytes of each answer's body, at least.
    fn answer(self) -> io::Result<u64> {
        Ok(match self {
            Self::Hello => HELLO.len() as u64,
            Self::Json => serde_json::to_vec(&Catalogue::make())?.len() as u64,
            Self::Large | Self::Stream => LARGE as u64,
            Self::Whole | Self::Drain => 0,
        })
    }

    fn body(self) -> Option<usize> {
        matches!(self, Self::Whole | Self::Drain).then_some(LARGE)
    }
}

/// One cell of the table.
#[derive(Debug)]
pub struct Cell {
    tool: Tool,
    what: What,
    connections: usize,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = format!("{:?}", self.what).to_lowercase();
        match self.tool {
            Tool::Wrk => write!(f, "h1 {what} {}", self.connections),
            Tool::H2load(streams) => write!(f, "h2 {what} {}x{streams}", self.connections),
            Tool::Ab => write!(f, "ab {what} {}", self.connections),
        }
    }
}

impl Suite for Http {
    type Cell = Cell;

    fn name(&self) -> &'static str {
        "http"
    }

    fn unit(&self) -> &'static str {
        "request"
    }

    fn contenders(&self) -> &'static [&'static str] {
        &[TOKIO, URING, READINESS, AXUM_SERVE]
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for what in [What::Hello, What::Json] {
            for connections in [1, 64, 512] {
                cells.push(Cell { tool: Tool::Wrk, what, connections });
            }
            for (connections, streams) in [(1, 32), (64, 8), (512, 4)] {
                cells.push(Cell { tool: Tool::H2load(streams), what, connections });
            }
        }
        for connections in [1, 16] {
            for what in [What::Large, What::Stream, What::Whole, What::Drain] {
                cells.push(Cell { tool: Tool::Wrk, what, connections });
            }
            cells.push(Cell { tool: Tool::H2load(4), what: What::Large, connections });
        }
        for connections in [1, 64] {
            cells.push(Cell { tool: Tool::Ab, what: What::Hello, connections });
        }
        cells
    }

    fn measure(&self, cell: &Cell, contender: &str, terms: Terms) -> io::Result<Measured> {
        let &Cell { tool, what, connections } = cell;
        let measured = measure_server(&["http", contender], terms, |server| {
            let url = format!("http://{}{}", server.address, what.path());
            match tool {
                Tool::Wrk => tools::wrk(&url, connections, what.body(), terms),
                Tool::H2load(streams) => tools::h2load(&url, connections, streams, terms),
                Tool::Ab => tools::ab(&url, connections, terms),
            }
        })?;
        let least = measured.load.done * what.answer()?;
        match measured.load.bytes {
            Some(bytes) if bytes < least => {
                Err(io::Error::other(format!("{bytes} bytes came of {least}")))
            }
            _ => Ok(measured),
        }
    }
}

/// Serves until killed.
pub fn serve(contender: &str, listener: TcpListener) -> io::Result<()> {
    if let Some(runtime) = runtimes::quoit(contender) {
        return runtime?.block_on(async {
            let listener = quoit::net::TcpListener::from_std(listener)?;
            quoit_http::serve(listener, router()).await.map(drop)
        });
    }
    listener.set_nonblocking(true)?;
    match contender {
        TOKIO => runtimes::tokio()?.block_on(http_server::serve_tokio(listener, router())),
        AXUM_SERVE => runtimes::tokio()?.block_on(async {
            axum::serve(tokio::net::TcpListener::from_std(listener)?, router()).await
        }),
        _ => Err(runtimes::unknown(contender)),
    }
}

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { HELLO }))
        .route("/json", get(|| async { Json(Catalogue::make()) }))
        .route("/large", get(|| async { Bytes::from_static(&ZEROS) }))
        .route("/stream", get(|| async { Body::from_stream(parts()) }))
        .route("/whole", post(|body: Bytes| async move { at_length(body.len()) }))
        .route("/drain", post(drain))
}

fn parts() -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    stream::iter(ZEROS.chunks(PART).map(|part| Ok(Bytes::from_static(part))))
}

async fn drain(mut body: Body) -> StatusCode {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return StatusCode::BAD_REQUEST };
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    at_length(length)
}

/// Whether all of it came.
fn at_length(length: usize) -> StatusCode {
    if length == LARGE { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}

/// About 10 KiB of JSON.
#[derive(Serialize)]
struct Catalogue {
    total: usize,
    articles: Vec<Article>,
}

#[derive(Serialize)]
struct Article {
    id: usize,
    name: String,
    price: f64,
    in_stock: bool,
    tags: [&'static str; 2],
}

impl Catalogue {
    /// Made anew for each request, as an answer from a database would be.
    fn make() -> Self {
        let article = |id: usize| Article {
            id: 1_000 + id,
            name: format!("a ring to throw, number {id}"),
            price: 9.75 + id as f64,
            in_stock: id.is_multiple_of(3),
            tags: ["outdoor", "games"],
        };
        Self { total: 95, articles: (0..95).map(article).collect() }
    }
}
