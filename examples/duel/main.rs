//! The duel: one echo server, two ways to do I/O.
//!
//! ```text
//! cargo run --release --example duel
//! ```
//!
//! The same server runs on io_uring (completion: "it is done, here is the result") and on epoll
//! (readiness: "you may try now"). Each is loaded by the same plain client, in turns, and every
//! echoed byte is compared. The order of work:
//!
//! ```text
//!  cli ─▶ cells: plan ─▶ per run: server (a child process) ◀── control pipe: counters
//!                              echo ▲ │
//!                                   └─┴── load, client (this process, its own epoll loop)
//!      ─▶ figures: medians, ranges, verdicts ─▶ table, report.html (plots, timeline), duel.json
//! ```

mod cells;
mod cli;
mod client;
mod control;
mod echo;
mod figures;
mod files;
mod json;
mod load;
mod machine;
mod plots;
mod reads;
mod report;
mod server;
mod system;
mod table;
#[cfg(test)]
mod tests;
mod timeline;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cells::{Cell, Effort, Measured, Row};
use crate::cli::{Driver, Options};
use crate::control::TurnEvent;
use crate::json::Results;
use crate::load::{Load, Phase};
use crate::machine::Machine;
use crate::table::Style;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("duel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    if let Some(job) = &options.job {
        return files::work(job);
    }
    if let Some(driver) = options.serve {
        return server::run(driver, options);
    }
    let descriptors = system::raise_descriptor_limit()?;
    let allowed = machine::allowed_cores();
    let style = match (options.quiet, options.markdown) {
        (true, _) => Style::Quiet,
        (false, true) => Style::Markdown,
        (false, false) => Style::Plain,
    };
    let effort = Effort::of(options);
    let plan = cells::plan(options, &allowed, descriptors)?;
    if options.address.is_some() {
        return drive(options, &plan, effort, style);
    }
    let (drivers, ring) = contenders(options)?;
    let machine = Machine::look(ring);
    if style != Style::Quiet {
        println!("{}", machine.lines());
        let (cells, reps) = (plan.len(), effort.reps);
        println!("{cells} cells, {reps} runs of each ring, in the order A B B A\n");
    }
    let cells = duel(options, &plan, &drivers, effort, style)?;
    let traces = if options.trace > 0 {
        record(options, &drivers, allowed.first().copied())?
    } else {
        Vec::new()
    };
    let results = Results { machine, effort, cells, traces };
    write(options, &results, style)?;
    let runs = results.cells.iter().flat_map(|cell| &cell.rows).flat_map(|row| &row.runs);
    match runs.flat_map(|run| &run.errors).map(|(_, count)| count).sum() {
        0_u64 => Ok(()),
        lost => Err(io::Error::other(format!("{lost} connections were lost; see the table"))),
    }
}

/// Who takes part, and what to say about io_uring: its flags, or why it is not there.
fn contenders(options: &Options) -> io::Result<(Vec<Driver>, String)> {
    let mut drivers = options.drivers.clone();
    if drivers.is_empty() {
        drivers = vec![Driver::Readiness, Driver::Uring];
    }
    if !drivers.iter().any(|driver| driver.is_completion()) {
        return Ok((drivers, "not asked for".to_owned()));
    }
    match server::runtime(Driver::Uring, 0) {
        Ok(runtime) => Ok((drivers, runtime.ring().flags().to_owned())),
        Err(error) if !drivers.contains(&Driver::Readiness) => Err(error),
        Err(error) => {
            drivers.retain(|driver| !driver.is_completion());
            eprintln!("duel: no io_uring here, so readiness runs alone: {error}");
            Ok((drivers, format!("not available: {error}")))
        }
    }
}

fn duel(
    options: &Options,
    plan: &[Cell],
    drivers: &[Driver],
    effort: Effort,
    style: Style,
) -> io::Result<Vec<Measured>> {
    std::fs::create_dir_all(&options.out).map_err(|error| {
        let folder = options.out.display();
        io::Error::new(error.kind(), format!("{folder}: {error}; choose another with --out"))
    })?;
    let file = match plan.iter().any(Cell::is_file) {
        true => Some(files::prepare(&options.out, options.file_size << 20)?),
        false => None,
    };
    let progress = progress(cells::runs(plan, drivers, effort), style);
    print!("{}", table::heading(style));
    let mut done = Vec::with_capacity(plan.len());
    let mut left: VecDeque<Cell> = plan.iter().cloned().collect();
    let mut asked = !options.sweep || options.rate.is_some();
    while let Some(cell) = left.pop_front() {
        let name = table::name(&cell);
        // Repainted between runs only: a ticking thread would run on the measured cores.
        let measured =
            cells::measure(&cell, drivers, effort, file.as_deref(), &mut |driver: Driver| {
                progress.set_message(format!("{name}: {}", driver.name()));
                progress.inc(1);
            })
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        progress.suspend(|| print!("{}", table::cell(&measured, style)));
        done.push(measured);
        if left.is_empty() && !asked {
            asked = true;
            left.extend(cells::open_loop(&done));
            progress.inc_length(cells::runs(left.make_contiguous(), drivers, effort) as u64);
        }
    }
    progress.finish_and_clear();
    if style != Style::Quiet {
        println!("\n{}", table::LEGEND);
    }
    Ok(done)
}

/// `--address`: loads a server that somebody else runs.
fn drive(options: &Options, plan: &[Cell], effort: Effort, style: Style) -> io::Result<()> {
    let Some(address) = options.address else { return Ok(()) };
    print!("{}", table::heading(style));
    for cell in plan {
        let mut row = Row { driver: "server", runs: Vec::new(), histogram: None };
        for _ in 0..effort.reps {
            let outcome = load::run(&cells::load_of(cell, effort, address))?;
            row.runs.push(cells::run_of(&outcome, None, 0));
        }
        let cell = Cell { cores: None, ..cell.clone() };
        print!("{}", table::cell(&Measured { cell, rows: vec![row] }, style));
    }
    Ok(())
}

/// Records the turns of a short burst on each ring, for the timeline. Server and client share
/// `core`, so that while one runs the messages for the other gather, as they do on a busy machine.
fn record(
    options: &Options,
    drivers: &[Driver],
    core: Option<usize>,
) -> io::Result<Vec<(&'static str, Vec<TurnEvent>)>> {
    let mut traces = Vec::new();
    for &driver in drivers {
        let mut server = server::start(driver, core, 0, options.trace)?;
        let address = ([127, 0, 0, 1], server.hello().port).into();
        let (warmup, duration) = (Duration::ZERO, Duration::from_millis(200));
        let load = Load { connections: 8, warmup, duration, pin: core, ..Load::new(address) };
        let mut events = Vec::new();
        // Before the connections close, which are turns of another kind.
        load::run_with(&load, &mut |phase| {
            if phase == Phase::Finished {
                events = server.trace()?;
            }
            Ok(())
        })?;
        if !events.is_empty() {
            traces.push((driver.name(), events));
        }
    }
    Ok(traces)
}

fn write(options: &Options, results: &Results, style: Style) -> io::Result<()> {
    let json = options.json.clone().unwrap_or_else(|| options.out.join("duel.json"));
    let page = options.out.join("report.html");
    json::write(results, &json)?;
    report::write(results, &page)?;
    if style != Style::Quiet {
        println!("\nPictures: {}\nData:     {}", page.display(), json.display());
    }
    Ok(())
}

fn progress(runs: usize, style: Style) -> ProgressBar {
    if style == Style::Quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(runs as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}
