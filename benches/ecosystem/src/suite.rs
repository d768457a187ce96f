//! What a suite is, and how it is run: cells, contenders, rounds.
//!
//! Contenders take turns, A B C A, then A C B A, and so on: the speed of a machine changes slowly.
//! The reference stands at both ends of a round, so the table also says what a ratio of 1 looks
//! like.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::{Deserialize, Serialize};

use crate::process::{self, Server};
use crate::report::{in_turn, write_json};
use crate::results::{Results, Sample};
use crate::system;

/// Where the measured process and its load run, and so what is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Cores {
    /// They share one: work per CPU-second of the measured process.
    Same,
    /// One each: work per second.
    Two,
}

/// The command line of every suite.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Contenders to run, by name or by its beginning; the reference always runs.
    #[arg(long, short, value_delimiter = ',')]
    contenders: Vec<String>,
    /// Cells to run: those with one of these words in their name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How often to run each; the order turns round every time.
    #[arg(long, short, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, short, default_value_t = 2)]
    seconds: u64,
    /// Where the measured process and its load run, and so what is compared.
    #[arg(long, value_enum, default_value = "same")]
    cores: Cores,
    /// The core that the measured process is bound to.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// With two cores, the load's.
    #[arg(long, default_value_t = 0)]
    load_core: usize,
    /// Names the file of samples: SUITE-CORES-LABEL.json.
    #[arg(long)]
    label: Option<String>,
}

/// One measurement's terms.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub seconds: u64,
    /// Where the measured process runs.
    pub core: usize,
    /// Where its load runs.
    pub load_core: usize,
}

/// What a load saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Requests, commands, transactions that were answered well.
    pub done: u64,
    pub seconds: f64,
    /// Bytes that came back, where the load counts them.
    pub bytes: Option<u64>,
    /// Microseconds, where the load tells.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// A load, and what it cost the process that is measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub load: Load,
    pub cpu_nanoseconds: u64,
}

/// Programs to compare, under loads to compare them with.
pub trait Suite {
    /// What is asked of every contender: one cell of the table, by its name there.
    type Cell: Display;

    /// As on the command line, and in the name of the file of samples.
    fn name(&self) -> &'static str;

    /// What is counted: "request", "command", "transaction".
    fn unit(&self) -> &'static str;

    /// Whether the other side has a core of its own, whatever the command line says.
    fn is_apart(&self) -> bool {
        false
    }

    /// The first is the reference.
    fn contenders(&self) -> &'static [&'static str];

    fn cells(&self) -> Vec<Self::Cell>;

    /// Runs one contender, once. A request that failed is an error.
    fn measure(&self, cell: &Self::Cell, contender: &str, terms: Terms) -> io::Result<Measured>;
}

/// Runs the load against a server of this program, started with these arguments after `serve`.
pub fn measure_server(
    arguments: &[&str],
    terms: Terms,
    load: impl FnOnce(&Server) -> io::Result<Load>,
) -> io::Result<Measured> {
    let server = Server::start(&[&["serve"], arguments].concat(), terms.core)?;
    let before = process::cpu_nanoseconds(server.pid())?;
    let load = load(&server)?;
    let cpu_nanoseconds = process::cpu_nanoseconds(server.pid())? - before;
    Ok(Measured { load, cpu_nanoseconds })
}

/// Measures every cell and prints one table.
pub fn run<S: Suite>(suite: &S, options: &Options) -> io::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: its figures mean nothing");
    }
    system::raise_descriptor_limit()?;
    let contenders = choose(suite.contenders(), &options.contenders)?;
    let cells = suite.cells().into_iter().filter(|cell| {
        let name = cell.to_string();
        options.only.is_empty() || options.only.iter().any(|word| name.contains(word.as_str()))
    });
    let cells: Vec<_> = cells.collect();
    if cells.is_empty() {
        let names: Vec<_> = suite.cells().iter().map(ToString::to_string).collect();
        return Err(io::Error::other(format!("no such cell; there are: {}", names.join(", "))));
    }
    let load_core = if options.cores == Cores::Same { options.core } else { options.load_core };
    let terms = Terms { seconds: options.seconds, core: options.core, load_core };
    let reference = contenders[0];
    let turns = contenders.iter().copied().chain([reference]);
    let turns: Vec<_> = turns.collect();
    let mut samples = Vec::new();
    for cell in &cells {
        for round in 0..options.rounds {
            for (_, contender) in in_turn(&turns, round) {
                progress(&format!(
                    "round {} of {}: {cell}, {contender}",
                    round + 1,
                    options.rounds
                ));
                let measured = suite.measure(cell, contender, terms).map_err(|error| {
                    io::Error::new(error.kind(), format!("{contender}, {cell}: {error}"))
                })?;
                let (cell, contender) = (cell.to_string(), (*contender).to_owned());
                samples.push(Sample { cell, contender, round, measured });
            }
        }
    }
    progress("");
    let results = Results {
        machine: process::machine(),
        suite: suite.name().to_owned(),
        unit: suite.unit().to_owned(),
        cores: options.cores,
        apart: suite.is_apart(),
        contenders: contenders.iter().map(|&name| name.to_owned()).collect(),
        cells: cells.iter().map(ToString::to_string).collect(),
        samples,
    };
    let cores = if options.cores == Cores::Same { "same" } else { "two" };
    let label = options.label.as_ref().map(|label| format!("-{label}")).unwrap_or_default();
    write_json(&format!("{}-{cores}{label}", suite.name()), &results)?;
    results.print()
}

/// The reference, and those wanted.
fn choose(all: &'static [&'static str], wanted: &[String]) -> io::Result<Vec<&'static str>> {
    if let Some(name) = wanted.iter().find(|name| !all.iter().any(|c| c.starts_with(name.as_str())))
    {
        let text = format!("no contender {name}; there are: {}", all.join(", "));
        return Err(io::Error::other(text));
    }
    // A name in full means just that one.
    let is_wanted = |name: &str| {
        wanted.iter().any(|wanted| {
            name == wanted || (!all.contains(&wanted.as_str()) && name.starts_with(wanted.as_str()))
        })
    };
    let mut chosen = vec![all[0]];
    chosen.extend(all[1..].iter().filter(|name| wanted.is_empty() || is_wanted(name)));
    Ok(chosen)
}

/// One line, repainted; nothing where nobody watches.
fn progress(what: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}");
        let _ = io::stderr().flush();
    }
}
