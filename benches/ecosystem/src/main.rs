//! Measures other people's crates on quoit against the same crates on tokio.
//!
//! ```text
//!   runner ──starts, pins──▶ server process: `serve SUITE CONTENDER ARGUMENTS...`
//!     │  load tool (wrk, h2load, ab, ...), pinned ──▶ the server's port
//!     └─ reads the server's CPU time at both ends ──▶ one table, target/ecosystem-bench/*.json
//!
//!   suite.rs     what a suite is, and the rounds        results.rs   ratios, verdicts, the table
//!   tools.rs     other people's load tools              runtimes.rs  the runtimes to run on
//!   http.rs, kv.rs, postgres.rs, tls.rs   the suites
//!   websocket.rs  an echo, for tests
//! ```
//!
//! A suite is added by a module that implements [`suite::Suite`], a line in [`Command`], and, if it
//! has servers, one in [`serve`].

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod http;
mod http_server;
mod kv;
mod postgres;
mod results;
mod runtimes;
mod suite;
mod tls;
mod tools;
mod websocket;

// Shared with the benchmark of runtimes, and with examples/duel.
#[allow(dead_code, reason = "what only the other programs use")]
#[path = "../../peers/src/process.rs"]
mod process;
#[path = "../../peers/src/report.rs"]
mod report;
// The server of the example, without all that the other examples need.
#[allow(dead_code, reason = "what only the example uses")]
#[path = "../../../examples/ecosystem/src/kv/mod.rs"]
mod key_value;
#[allow(dead_code, reason = "what only the other programs use")]
#[path = "../../../examples/duel/system.rs"]
mod system;

#[derive(Parser, Debug)]
#[command(version, about = "other people's crates, on quoit and on tokio, side by side")]
enum Command {
    /// The same axum router: hello, JSON, large bodies; wrk, h2load, ab.
    Http(suite::Options),
    /// The same over TLS: full and resumed handshakes, 16 KiB answers; openssl, wrk, h2load.
    Tls(suite::Options),
    /// One key-value server's code on both runtimes: redis-benchmark; and Redis itself, for scale.
    Kv(suite::Options),
    /// A client of PostgreSQL, by tokio-postgres: `pgbench -S`, the client measured.
    Postgres(suite::Options),
    /// Prints the table of an earlier run again.
    Table {
        /// As written by a suite.
        file: PathBuf,
    },
    /// Runs a client of one contender, and answers with what it has measured.
    #[command(hide = true)]
    Ask { contender: String, numbers: Vec<String> },
    /// Serves one contender until killed.
    Serve {
        suite: String,
        contender: String,
        /// 0 lets the kernel choose.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// What else the suite's server takes.
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Http(options) => suite::run(&http::Http, &options),
        Command::Tls(options) => suite::run(&tls::Tls, &options),
        Command::Kv(options) => suite::run(&kv::Kv, &options),
        Command::Postgres(options) => suite::run(&postgres::Postgres::default(), &options),
        Command::Ask { contender, numbers } => process::answer(postgres::ask(&contender, &numbers)),
        Command::Table { file } => table(&file),
        Command::Serve { suite, contender, port, arguments } => {
            serve(&suite, &contender, port, &arguments)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ecosystem-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(suite: &str, contender: &str, port: u16, arguments: &[String]) -> io::Result<()> {
    system::raise_descriptor_limit()?;
    let listener = process::listen(port)?;
    match (suite, arguments) {
        ("http", []) => http::serve(contender, listener),
        ("tls", []) => tls::serve(contender, listener),
        ("kv", []) => kv::serve(contender, listener),
        ("websocket", []) => websocket::serve(contender, listener),
        _ => Err(io::Error::other(format!("there is no suite {suite} of {arguments:?}"))),
    }
}

fn table(file: &PathBuf) -> io::Result<()> {
    let results: results::Results = serde_json::from_slice(&fs::read(file)?)?;
    results.print()
}
