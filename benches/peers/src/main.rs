//! Measures quoit against other runtimes and against servers written by hand.
//!
//! ```text
//!   runner ──starts, pins──▶ server process (one contender)
//!     │  load generator (shared with examples/duel) ──▶ the server's port
//!     └─ reads the server's CPU time at both ends ──▶ one table, target/peers/*.json
//! ```
//!
//! Contenders take turns: A B C, then C B A, and so on, because the speed of a machine changes
//! slowly; ratios are taken within a round, and the limit is measured twice per round, so that the
//! table also says what a ratio of 1 looks like.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::contenders::Contender;

mod contenders;
mod echo;
mod files;
mod memory;
mod micro;
mod process;
mod report;
mod results;
mod server;

// The load generator of examples/duel, in three files that look for each other here.
#[path = "../../../examples/duel/client.rs"]
mod client;
#[allow(dead_code, reason = "what only duel uses")]
#[path = "../../../examples/duel/load.rs"]
mod load;
#[allow(dead_code, reason = "what only duel uses")]
#[path = "../../../examples/duel/system.rs"]
mod system;

#[derive(Parser, Debug)]
#[command(version, about = "quoit, its peers, and the limit, measured side by side")]
enum Command {
    /// TCP echo: server CPU per message on a shared core, or messages per second on two.
    Echo(echo::Options),
    /// Fewest and most messages per connection under pressure.
    Fairness(echo::FairnessOptions),
    /// Memory per further idle connection.
    Memory(memory::Options),
    /// 4 KiB random reads.
    Files(files::Options),
    /// Spawn, yield, wake, timers, NOP.
    Micro(micro::Options),
    /// Prints the table of an earlier `echo` again.
    Table {
        /// As written by `echo`.
        file: PathBuf,
        /// The contender that is 1; by default each cell's best variant of the limit.
        #[arg(long)]
        against: Option<String>,
    },
    /// Serves echo until killed.
    Serve(server::ServeOptions),
    #[command(hide = true)]
    MicroOf { name: String },
    #[command(hide = true)]
    ReadOf(files::ChildOptions),
}

/// What all measurements have in common.
#[derive(clap::Args, Debug)]
pub(crate) struct Common {
    /// Contenders to run, by name or by its beginning [default: all that can].
    #[arg(long, short, value_delimiter = ',')]
    contenders: Vec<String>,
    /// How often to run each; the order turns round every time.
    #[arg(long, short, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, short, default_value_t = 1.0)]
    seconds: f64,
    /// The core that the measured process is bound to.
    #[arg(long, default_value_t = 1)]
    core: usize,
}

impl Common {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// A name in full means just that one: `tokio` is not `tokio-uring`.
    fn wants(&self, name: &str) -> bool {
        let is_name = |wanted: &str| contenders::ALL.iter().any(|c| c.name == wanted);
        self.contenders.is_empty()
            || self.contenders.iter().any(|wanted| {
                name == wanted || (!is_name(wanted) && name.starts_with(wanted.as_str()))
            })
    }

    /// Those wanted that have what is to be measured, in the order of the tables.
    fn choose(&self, able: impl Fn(&Contender) -> bool) -> io::Result<Vec<&'static Contender>> {
        for name in &self.contenders {
            let known = contenders::ALL.iter().any(|c| c.name.starts_with(name));
            if !known && name != "fio" {
                contenders::find(name)?;
            }
        }
        let chosen: Vec<_> =
            contenders::ALL.iter().filter(|c| able(c) && self.wants(c.name)).collect();
        if chosen.is_empty() {
            return Err(io::Error::other("none of these contenders can do this"));
        }
        if cfg!(debug_assertions) {
            eprintln!("this is a debug build: its figures mean nothing");
        }
        Ok(chosen)
    }

    /// One line, repainted; nothing where nobody watches.
    fn progress(&self, round: usize, what: &str) {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[Kround {} of {}: {what}", round + 1, self.rounds);
            let _ = io::stderr().flush();
        }
    }

    fn done(&self) {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Echo(options) => echo::run(&options),
        Command::Fairness(options) => echo::fairness(&options),
        Command::Memory(options) => memory::run(&options),
        Command::Files(options) => files::run(&options),
        Command::Micro(options) => micro::run(&options),
        Command::Table { file, against } => table(&file, against.as_deref()),
        Command::Serve(options) => server::serve(&options),
        Command::MicroOf { name } => process::answer(micro::child(&name)),
        Command::ReadOf(options) => process::answer(files::child(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn table(file: &PathBuf, against: Option<&str>) -> io::Result<()> {
    let results: results::Results = serde_json::from_slice(&fs::read(file)?)?;
    results.print(against)
}
