//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// TCP echo on io_uring (completion) and on epoll (readiness): the same code, loaded side by side.
///
/// Without options: 1, 64 and 1024 connections of 64-byte messages, idle memory and file reads, in
/// under a minute. Every echoed byte is compared. The table goes to the terminal, the pictures to
/// target/duel/report.html, the data to target/duel/duel.json.
#[derive(Clone, Debug, Parser)]
#[command(name = "duel", version, verbatim_doc_comment)]
pub(crate) struct Options {
    /// Connections open at once (list allowed)
    #[arg(short, long, visible_alias = "number", value_delimiter = ',')]
    pub(crate) connections: Vec<usize>,

    /// Bytes per message (list allowed)
    #[arg(short, long, value_delimiter = ',')]
    pub(crate) length: Vec<usize>,

    /// Messages in flight per connection (list allowed); above 1 the mode is stream
    #[arg(short, long, value_delimiter = ',')]
    pub(crate) pipeline: Vec<usize>,

    /// Measured time of one run, like 2s or 500ms
    #[arg(short = 't', long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// Load before measuring
    #[arg(long, value_parser = duration)]
    pub(crate) warmup: Option<Duration>,

    /// Runs of each contender per cell, in the order A B B A
    #[arg(long)]
    pub(crate) reps: Option<usize>,

    /// Open loop: messages per second over all connections, timed from their planned moment
    #[arg(short = 'R', long)]
    pub(crate) rate: Option<u64>,

    /// Which conversations (list allowed)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) mode: Vec<ModeName>,

    /// Which contenders (list allowed)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) drivers: Vec<Driver>,

    /// The whole table: all connections, sizes and depths, churn, open loop, spinning
    #[arg(long)]
    pub(crate) sweep: bool,

    /// Only load: drive the echo server at this address
    #[arg(short, long)]
    pub(crate) address: Option<SocketAddr>,

    /// Only serve, on this ring
    #[arg(long, value_enum, conflicts_with = "address")]
    pub(crate) serve: Option<Driver>,

    /// Port of --serve; 0 lets the kernel choose
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,

    /// Microseconds that the server looks for work before it sleeps
    #[arg(long, default_value_t = 0)]
    pub(crate) spin: u64,

    /// Cores of server and client, like 0:1 (0:0 is a cost cell), or none
    #[arg(long, visible_alias = "cores", value_parser = pin)]
    pub(crate) pin: Option<Pin>,

    /// MiB of the file that is read
    #[arg(long, default_value_t = 256)]
    pub(crate) file_size: u64,

    /// Where report.html, duel.json and the temporary file go
    #[arg(long, default_value = "target/duel")]
    pub(crate) out: PathBuf,

    /// Where the data goes instead of <OUT>/duel.json
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,

    /// Spans (waits, calls, task polls) to record for the timeline; 0 records none
    #[arg(long, default_value_t = 2000)]
    pub(crate) trace: usize,

    /// Print the table as Markdown
    #[arg(long)]
    pub(crate) markdown: bool,

    /// Print the verdicts only, and no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// The child's side: answer on stdin and stdout, end with stdin.
    #[arg(long, hide = true)]
    pub(crate) control: bool,

    /// The child's side of a file cell: a job as JSON.
    #[arg(long, hide = true)]
    pub(crate) job: Option<String>,
}

/// A ring to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    /// Readiness: epoll.
    #[value(alias = "epoll")]
    Readiness,
    /// Completion: io_uring.
    #[value(alias = "io_uring")]
    Uring,
    /// Completion, and sends too are submissions, whatever the load.
    UringSubmit,
}

impl Driver {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Readiness => "readiness",
            Self::Uring => "uring",
            Self::UringSubmit => "uring-submit",
        }
    }

    /// Whether it needs io_uring.
    pub(crate) fn is_completion(self) -> bool {
        self != Self::Readiness
    }
}

/// A mode by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeName {
    /// One message in flight per connection
    Pingpong,
    /// As many messages in flight as --pipeline says
    Stream,
    /// Connect, one message, close
    Churn,
    /// Memory per connection that says nothing
    Idle,
    /// 4 KiB random reads, from the page cache and past it
    File,
}

/// Where server and client run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    None,
    Cores { server: usize, client: usize },
}

fn pin(text: &str) -> Result<Pin, String> {
    if text == "none" {
        return Ok(Pin::None);
    }
    let cores = text.split_once(':').and_then(|(server, client)| {
        Some(Pin::Cores { server: server.parse().ok()?, client: client.parse().ok()? })
    });
    cores.ok_or_else(|| "say SERVER:CLIENT, like 0:1, or none".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "m" => 60.0,
        _ => return Err(format!("{unit:?} is no unit; say s, ms, us or m")),
    };
    let number: f64 = number.parse().map_err(|_| "say a time like 2s or 500ms".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}
