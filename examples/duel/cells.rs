//! Which cells are run, and how one is: the contenders in the order A B B A, each run with a fresh
//! server, so that a slow phase of the machine hits all of them alike.

use std::io;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::{Driver, ModeName, Options, Pin};
use crate::control::Stats;
use crate::figures::Range;
use crate::files::{self, Job};
use crate::load::{self, Load, Mode, Outcome, Phase};
use crate::server;

/// What is done in one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    Pingpong,
    Stream,
    Churn,
    /// `connections` and a third of them, each quiet after one message.
    Idle,
    FileCached,
    FileDirect,
}

/// One row group of the table: the same work for every contender.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) work: Work,
    pub(crate) connections: usize,
    /// Bytes per message or read.
    pub(crate) length: usize,
    /// Messages in flight per connection, or reads in flight.
    pub(crate) depth: usize,
    pub(crate) rate: Option<u64>,
    /// Microseconds before the server sleeps.
    pub(crate) spin: u64,
    /// Cores of server and client; `None`: wherever the kernel puts them.
    pub(crate) cores: Option<(usize, usize)>,
}

impl Cell {
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.work, Work::FileCached | Work::FileDirect)
    }

    /// Server and client share a core: the steady measure of what a message costs.
    pub(crate) fn is_cost(&self) -> bool {
        self.cores.is_some_and(|(server, client)| server == client)
    }

    fn in_flight(&self) -> usize {
        self.connections.saturating_mul(self.length).saturating_mul(self.depth)
    }

    fn is_echo(&self) -> bool {
        matches!(self.work, Work::Pingpong | Work::Stream | Work::Churn)
    }
}

/// One run of one contender. Per-message figures leave out start-up and warm-up.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Run {
    /// Messages echoed, or blocks read.
    pub(crate) messages: u64,
    /// Their bytes, one way.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Messages per second of server CPU time.
    pub(crate) per_cpu_second: f64,
    pub(crate) cpu_us_per_message: f64,
    pub(crate) switches_per_message: f64,
    pub(crate) syscalls_per_message: f64,
    pub(crate) turns_per_message: f64,
    pub(crate) enters_per_message: f64,
    pub(crate) direct_per_message: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Resident memory of the server at the end, in bytes.
    pub(crate) memory: u64,
    /// Idle cells: user-space memory per further connection.
    pub(crate) bytes_per_connection: Option<f64>,
    /// Fewest and most messages of one connection.
    pub(crate) fairness: (u64, u64),
    pub(crate) unsent: u64,
    pub(crate) errors: Vec<(String, u64)>,
}

/// All runs of one contender in one cell.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) driver: &'static str,
    pub(crate) runs: Vec<Run>,
    /// All runs' latencies in nanoseconds; echo cells only.
    #[serde(skip)]
    pub(crate) histogram: Option<Histogram<u64>>,
}

/// A cell after its runs.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) cell: Cell,
    pub(crate) rows: Vec<Row>,
}

/// Times and repetitions.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Effort {
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) reps: usize,
}

impl Effort {
    pub(crate) fn of(options: &Options) -> Self {
        let (duration, warmup, reps) = if options.sweep { (1500, 300, 5) } else { (400, 80, 4) };
        Self {
            duration: options.duration.unwrap_or(Duration::from_millis(duration)),
            warmup: options.warmup.unwrap_or(Duration::from_millis(warmup)),
            reps: options.reps.unwrap_or(reps).max(1),
        }
    }
}

/// Bytes in flight above which a cell would measure the kernel's memory limits.
const IN_FLIGHT_MAX: usize = 256 << 20;
/// Connections of the idle cell, in the short run and in the sweep; a client has 20,000 descriptors
/// on many machines.
const IDLE_CONNECTIONS: [usize; 2] = [6_000, 15_000];

/// The cells to run. `allowed` are the cores this process may use, `descriptors` its limit.
///
/// # Errors
///
/// When nothing is left to run: a table without cells would look like a result.
pub(crate) fn plan(
    options: &Options,
    allowed: &[usize],
    descriptors: u64,
) -> io::Result<Vec<Cell>> {
    // Where another server runs is not ours to know, so the client is not pinned unless asked.
    let foreign = options.address.is_some();
    let allowed: &[usize] = if foreign { &[] } else { allowed };
    let mut cells = asked(options, placements(options.pin, allowed), descriptors);
    let refused = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if foreign {
        cells.retain(Cell::is_echo);
        if cells.is_empty() {
            return refused(
                "--mode file and idle look into a process of our own, not at --address".into(),
            );
        }
    }
    let planned = cells.len();
    cells.retain(|cell| cell.in_flight() <= IN_FLIGHT_MAX);
    let (left_out, most) = (planned - cells.len(), IN_FLIGHT_MAX >> 20);
    if cells.is_empty() {
        return refused(format!(
            "connections x length x pipeline is above {most} MiB in flight, which would measure \
             the kernel's memory limits; lower one of them"
        ));
    }
    if left_out > 0 {
        eprintln!("duel: {left_out} cells with over {most} MiB in flight are left out");
    }
    Ok(cells)
}

/// All that was asked for, sensible or not.
fn asked(
    options: &Options,
    placements: Vec<Option<(usize, usize)>>,
    descriptors: u64,
) -> Vec<Cell> {
    let explicit = !(options.connections.is_empty()
        && options.length.is_empty()
        && options.pipeline.is_empty()
        && options.mode.is_empty()
        && options.rate.is_none());
    let or = |given: &[usize], default: &[usize]| {
        if given.is_empty() { default.to_vec() } else { given.to_vec() }
    };
    let sweep = options.sweep;
    let all = [1, 8, 64, 256, 1024, 4096];
    let connections = or(&options.connections, if sweep { &all } else { &[1, 64, 1024] });
    let lengths = or(&options.length, if sweep { &[64, 1024, 16384] } else { &[64] });
    let depths = or(&options.pipeline, if sweep { &[1, 16] } else { &[1] });
    let mut modes = options.mode.clone();
    if modes.is_empty() {
        modes.push(ModeName::Pingpong);
        if sweep {
            modes.push(ModeName::Churn);
        }
        if sweep || !explicit {
            modes.extend([ModeName::Idle, ModeName::File]);
        }
    }
    let mut cells = Vec::new();
    let grid = Grid { connections, lengths, depths, placements };
    for mode in modes {
        match mode {
            ModeName::Pingpong | ModeName::Stream => grid.echo(mode, options, &mut cells),
            ModeName::Churn => grid.churn(options, &mut cells),
            ModeName::Idle => {
                let most = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(512);
                let wanted = options.connections.first().copied().filter(|_| explicit);
                let connections =
                    wanted.unwrap_or(IDLE_CONNECTIONS[usize::from(sweep)]).min(most).max(3);
                cells.push(Cell { connections, ..cell(Work::Idle, grid.placements.last()) });
            }
            ModeName::File => {
                for work in [Work::FileCached, Work::FileDirect] {
                    for depth in or(&options.pipeline, &[1, 32, 128]) {
                        cells.push(Cell { depth, length: 4096, ..cell(work, None) });
                    }
                }
            }
        }
    }
    if sweep && !explicit && options.spin == 0 {
        // Not sleeping is the one thing that helps a single connection; it needs a core of its own.
        let placement = grid.placements.iter().find(|place| place.is_some_and(|(s, c)| s != c));
        if placement.is_some() {
            let spinning = cell(Work::Pingpong, placement);
            cells.push(Cell { connections: 1, length: 64, spin: 1000, ..spinning });
        }
    }
    cells
}

/// What a sweep asks after its ping-pong cells: the tails at half and at four fifths of what the
/// slower contender can do, which is the only fair way to compare tails.
pub(crate) fn open_loop(done: &[Measured]) -> Vec<Cell> {
    let busiest = done.iter().find(|measured| {
        let cell = &measured.cell;
        let plain = cell.work == Work::Pingpong && cell.spin == 0 && !cell.is_cost();
        plain && cell.connections == 64 && cell.length == 64
    });
    let Some(Measured { cell, rows }) = busiest else { return Vec::new() };
    let peaks = rows.iter().map(|row| Range::of(row, |run| run.per_second).median);
    let peak = peaks.fold(f64::INFINITY, f64::min);
    let at = |share: f64| Cell { rate: Some((peak * share) as u64), ..cell.clone() };
    if peak.is_finite() && peak > 10.0 { vec![at(0.5), at(0.8)] } else { Vec::new() }
}

/// The lists of the command line, to be multiplied.
struct Grid {
    connections: Vec<usize>,
    lengths: Vec<usize>,
    depths: Vec<usize>,
    placements: Vec<Option<(usize, usize)>>,
}

impl Grid {
    fn echo(&self, mode: ModeName, options: &Options, cells: &mut Vec<Cell>) {
        for placement in &self.placements {
            for &length in &self.lengths {
                for &depth in &self.depths {
                    let work = if mode == ModeName::Stream || depth > 1 {
                        Work::Stream
                    } else {
                        Work::Pingpong
                    };
                    for &connections in &self.connections {
                        let (rate, spin) = (options.rate, options.spin);
                        let cell = cell(work, Some(placement));
                        cells.push(Cell { connections, length, depth, rate, spin, ..cell });
                    }
                }
            }
        }
    }

    fn churn(&self, options: &Options, cells: &mut Vec<Cell>) {
        let given = &options.connections;
        for &connections in if given.is_empty() { &[64][..] } else { given } {
            for placement in &self.placements {
                let cell = cell(Work::Churn, Some(placement));
                let (length, spin) = (self.lengths[0], options.spin);
                cells.push(Cell { connections, length, spin, ..cell });
            }
        }
    }
}

fn cell(work: Work, cores: Option<&Option<(usize, usize)>>) -> Cell {
    let cores = cores.copied().flatten();
    Cell { work, connections: 0, length: 64, depth: 1, rate: None, spin: 0, cores }
}

/// Cost on one core, latency and throughput on two.
fn placements(pin: Option<Pin>, allowed: &[usize]) -> Vec<Option<(usize, usize)>> {
    match (pin, allowed) {
        (Some(Pin::None), _) | (None, []) => vec![None],
        (Some(Pin::Cores { server, client }), _) => vec![Some((server, client))],
        (None, &[only]) => vec![Some((only, only))],
        (None, &[first, second, ..]) => vec![Some((first, first)), Some((first, second))],
    }
}

/// How many runs a plan comes to.
pub(crate) fn runs(cells: &[Cell], drivers: &[Driver], effort: Effort) -> usize {
    cells.len() * effort.reps * drivers.len()
}

/// Runs one cell. `file` is the file that file cells read; `step` is called before each run.
pub(crate) fn measure(
    cell: &Cell,
    drivers: &[Driver],
    effort: Effort,
    file: Option<&Path>,
    step: &mut dyn FnMut(Driver),
) -> io::Result<Measured> {
    let new_row = |driver: &Driver| Row { driver: driver.name(), runs: vec![], histogram: None };
    let mut rows: Vec<Row> = drivers.iter().map(new_row).collect();
    for rep in 0..effort.reps {
        for turn in 0..drivers.len() {
            let index = if rep % 2 == 0 { turn } else { drivers.len() - 1 - turn };
            let (driver, row) = (drivers[index], &mut rows[index]);
            step(driver);
            if cell.is_echo() {
                let (run, histogram) = echo(cell, driver, effort)?;
                row.runs.push(run);
                match &mut row.histogram {
                    Some(sum) => sum.add(histogram).map_err(io::Error::other)?,
                    none => *none = Some(histogram),
                }
            } else if cell.work == Work::Idle {
                row.runs.push(idle(cell, driver)?);
            } else {
                let path = file.ok_or_else(|| io::Error::other("file cells need a file"))?;
                row.runs.push(read_file(cell, driver, effort, path)?);
            }
        }
    }
    Ok(Measured { cell: cell.clone(), rows })
}

/// The load of a cell against any server.
pub(crate) fn load_of(cell: &Cell, effort: Effort, address: std::net::SocketAddr) -> Load {
    Load {
        connections: cell.connections,
        length: cell.length,
        depth: cell.depth,
        mode: match cell.work {
            Work::Stream => Mode::Stream,
            Work::Churn => Mode::Churn,
            Work::Idle => Mode::Idle,
            _ => Mode::PingPong,
        },
        duration: effort.duration,
        warmup: effort.warmup,
        rate: cell.rate,
        pin: cell.cores.map(|(_, client)| client),
        ..Load::new(address)
    }
}

fn echo(cell: &Cell, driver: Driver, effort: Effort) -> io::Result<(Run, Histogram<u64>)> {
    let mut server = server::start(driver, cell.cores.map(|(server, _)| server), cell.spin, 0)?;
    let load = load_of(cell, effort, ([127, 0, 0, 1], server.hello().port).into());
    let (mut before, mut used, mut memory) = (Stats::default(), Stats::default(), 0);
    let outcome = load::run_with(&load, &mut |phase| {
        match phase {
            Phase::Ready => before = server.stats()?,
            Phase::Finished => {
                used = server.stats()?.since(before);
                memory = server.memory()?;
            }
        }
        Ok(())
    })?;
    Ok((run_of(&outcome, Some(used), memory), outcome.histogram))
}

/// The figures of one load; `used` is what the server spent on it, where that is known.
pub(crate) fn run_of(outcome: &Outcome, used: Option<Stats>, memory: u64) -> Run {
    let microseconds = |quantile| outcome.histogram.value_at_quantile(quantile) as f64 / 1e3;
    let run = Run {
        bytes: outcome.bytes,
        p50: microseconds(0.5),
        p99: microseconds(0.99),
        p999: microseconds(0.999),
        max: microseconds(1.0),
        memory,
        fairness: (outcome.per_connection_min, outcome.per_connection_max),
        unsent: outcome.unsent,
        errors: outcome.errors.iter().map(|e| (e.cause.clone(), e.count)).collect(),
        ..Run::default()
    };
    spent(run, outcome.messages, outcome.elapsed, used.unwrap_or_default())
}

/// Divides what was used by what was done.
fn spent(run: Run, messages: u64, elapsed: Duration, used: Stats) -> Run {
    let seconds = elapsed.as_secs_f64();
    let each = |amount: u64| ratio(amount as f64, messages as f64);
    let calls = used.calls.unwrap_or_default();
    Run {
        messages,
        seconds,
        per_second: ratio(messages as f64, seconds),
        per_cpu_second: ratio(messages as f64, used.cpu_ns as f64 / 1e9),
        cpu_us_per_message: each(used.cpu_ns) / 1e3,
        switches_per_message: each(used.switches),
        syscalls_per_message: each(calls.system_calls()),
        turns_per_message: each(calls.turns),
        enters_per_message: each(calls.enters),
        direct_per_message: each(calls.direct),
        ..run
    }
}

fn ratio(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

/// Memory at all connections less memory at a third of them: what one more connection costs,
/// without the start-up and the shared pool.
fn idle(cell: &Cell, driver: Driver) -> io::Result<Run> {
    let memory_at = |connections: usize| -> io::Result<u64> {
        let mut server = server::start(driver, cell.cores.map(|(server, _)| server), 0, 0)?;
        let address = ([127, 0, 0, 1], server.hello().port).into();
        // Long enough for the server to be done with the last message.
        let duration = Duration::from_millis(100);
        let pin = cell.cores.map(|(_, client)| client);
        let mode = Mode::Idle;
        let load = Load { connections, mode, duration, pin, ..Load::new(address) };
        let mut memory = 0;
        load::run_with(&load, &mut |phase| {
            if phase == Phase::Finished {
                memory = server.memory()?;
            }
            Ok(())
        })?;
        Ok(memory)
    };
    let few = cell.connections / 3;
    let (less, memory) = (memory_at(few)?, memory_at(cell.connections)?);
    let further = (memory as f64 - less as f64) / (cell.connections - few) as f64;
    Ok(Run { memory, bytes_per_connection: Some(further), ..Run::default() })
}

fn read_file(cell: &Cell, driver: Driver, effort: Effort, path: &Path) -> io::Result<Run> {
    let reads = files::measure(&Job {
        path: path.to_owned(),
        ring: driver.name().to_owned(),
        direct: cell.work == Work::FileDirect,
        depth: cell.depth,
        warmup: effort.warmup / 3,
        duration: effort.duration / 3,
    })?;
    let [p50, p99, p999, max] = reads.quantiles;
    let bytes = reads.reads * cell.length as u64;
    let run = Run { bytes, p50, p99, p999, max, memory: reads.memory, ..Run::default() };
    Ok(spent(run, reads.reads, reads.elapsed, reads.stats))
}
