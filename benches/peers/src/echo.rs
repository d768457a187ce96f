//! TCP echo: every cell, every contender, in rounds.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::contenders::Contender;
use crate::load::{self, Load, Mode, Phase};
use crate::process;
use crate::report::{Spread, in_turn, write_json};
use crate::results::{Cell, Cores, Results, Sample, is_repeated};
use crate::server;
use crate::system;

/// The name of a server that was given by its address.
const FOREIGN: &str = "address";

/// Sensible only with a core of its own.
const SPINNING: [&str; 2] = ["limit-spin", "quoit-spin"];

/// The command line of `peers echo`.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: crate::Common,
    /// Connections at once.
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    connections: Vec<usize>,
    /// Bytes per message.
    #[arg(long, value_delimiter = ',', default_value = "64,1024,16384")]
    sizes: Vec<usize>,
    /// Messages in flight per connection.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    depths: Vec<usize>,
    /// Where server and client run, and so what is compared.
    #[arg(long, value_enum, default_value = "same")]
    cores: Cores,
    /// With two cores, the client's.
    #[arg(long, default_value_t = 0)]
    client_core: usize,
    /// Seconds of load before each measurement.
    #[arg(long, default_value_t = 0.2)]
    warmup: f64,
    /// Bytes of a connection's read buffer, for contenders that have one.
    #[arg(long, default_value_t = 16 * 1024)]
    buffer: usize,
    /// The contender that is 1; by default each cell's best variant of the limit.
    #[arg(long)]
    against: Option<String>,
    /// Another echo server, already running; bind it to a core yourself.
    #[arg(long)]
    address: Option<SocketAddr>,
    /// The process of that server, to read its CPU time.
    #[arg(long, requires = "address")]
    pid: Option<u32>,
}

/// Measures every cell and prints one table.
pub fn run(options: &Options) -> io::Result<()> {
    system::raise_descriptor_limit()?;
    let foreign = Contender { name: FOREIGN, echo: None, read: None, micro: None };
    let mut order: Vec<(&Contender, bool)> = Vec::new();
    order.extend(options.address.map(|_| (&foreign, false)));
    let mut chosen = able(&options.common)?;
    if options.cores == Cores::Same && options.common.contenders.is_empty() {
        // Who never sleeps lets nobody else run on its core.
        chosen.retain(|contender| !SPINNING.contains(&contender.name));
    }
    order.extend(chosen.iter().map(|contender| (*contender, false)));
    let repeated = |name: &str| is_repeated(name) || options.against.as_deref() == Some(name);
    order.extend(chosen.iter().filter(|c| repeated(c.name)).map(|contender| (*contender, true)));
    let mut samples = Vec::new();
    for &depth in &options.depths {
        for &size in &options.sizes {
            for &connections in &options.connections {
                let cell = Cell { depth, size, connections };
                for round in 0..options.common.rounds {
                    for (_, &(contender, again)) in in_turn(&order, round) {
                        let what = format!("{connections} x {size} x {depth}, {}", contender.name);
                        options.common.progress(round, &what);
                        samples.push(Sample { round, again, ..measure(contender, cell, options)? });
                    }
                }
            }
        }
    }
    options.common.done();
    let first_runs = order.iter().filter(|(_, again)| !again);
    let results = Results {
        machine: process::machine(),
        cores: options.cores,
        contenders: first_runs.map(|(contender, _)| contender.name.to_owned()).collect(),
        samples,
    };
    let name = if options.cores == Cores::Same { "echo-same" } else { "echo-two" };
    write_json(name, &results)?;
    results.print(options.against.as_deref())
}

/// Those wanted that serve echo; says why a script of them is left out.
pub fn able(common: &crate::Common) -> io::Result<Vec<&'static Contender>> {
    let mut chosen = common.choose(|contender| contender.echo.is_some())?;
    chosen.retain(|contender| match server::missing(contender.echo) {
        None => true,
        Some(reason) => {
            println!("{} is left out: {reason}", contender.name);
            false
        }
    });
    Ok(chosen)
}

fn measure(contender: &Contender, cell: Cell, options: &Options) -> io::Result<Sample> {
    let core = options.common.core;
    if let (FOREIGN, Some(address)) = (contender.name, options.address) {
        return drive(contender.name, address, options.pid, cell, options);
    }
    let server = server::start(contender.name, options.buffer, core)?;
    drive(contender.name, server.address, Some(server.pid()), cell, options)
}

fn drive(
    name: &str,
    address: SocketAddr,
    pid: Option<u32>,
    cell: Cell,
    options: &Options,
) -> io::Result<Sample> {
    let shared = options.cores == Cores::Same;
    let load = Load {
        connections: cell.connections,
        length: cell.size,
        depth: cell.depth,
        mode: if cell.depth > 1 { Mode::Stream } else { Mode::PingPong },
        duration: options.common.duration(),
        warmup: Duration::from_secs_f64(options.warmup),
        pin: Some(if shared { options.common.core } else { options.client_core }),
        ..Load::new(address)
    };
    let mut marks = [None; 2];
    let outcome = load::run_with(&load, &mut |phase| {
        marks[usize::from(phase == Phase::Finished)] =
            pid.map(process::cpu_nanoseconds).transpose()?;
        Ok(())
    })
    .map_err(|error| io::Error::new(error.kind(), format!("{name}, {cell:?}: {error}")))?;
    if let Some(failure) = outcome.errors.first() {
        let text = format!("{name}, {cell:?}: {} x {}", failure.count, failure.cause);
        return Err(io::Error::other(text));
    }
    Ok(Sample {
        cell,
        round: 0,
        contender: name.to_owned(),
        again: false,
        messages: outcome.messages,
        seconds: outcome.elapsed.as_secs_f64(),
        cpu_nanoseconds: marks[0].zip(marks[1]).map(|(before, after)| after - before),
        p50_nanoseconds: outcome.histogram.value_at_quantile(0.5),
        p99_nanoseconds: outcome.histogram.value_at_quantile(0.99),
        fewest: outcome.per_connection_min,
        most: outcome.per_connection_max,
    })
}

/// The command line of `peers fairness`.
#[derive(clap::Args, Debug)]
pub struct FairnessOptions {
    #[command(flatten)]
    common: crate::Common,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 16 * 1024)]
    size: usize,
    #[arg(long, default_value_t = 16)]
    depth: usize,
}

/// How evenly a server treats its connections when they ask for more than it has buffers.
pub fn fairness(options: &FairnessOptions) -> io::Result<()> {
    let FairnessOptions { common, connections, size, depth } = options;
    let chosen = able(common)?;
    let mut samples: Vec<Vec<Sample>> = chosen.iter().map(|_| Vec::new()).collect();
    for round in 0..common.rounds {
        for (place, contender) in in_turn(&chosen, round) {
            common.progress(round, contender.name);
            let server = server::start(contender.name, 16 * 1024, common.core)?;
            let load = Load {
                connections: *connections,
                length: *size,
                depth: *depth,
                mode: Mode::Stream,
                duration: common.duration(),
                warmup: Duration::from_millis(200),
                pin: Some(common.core),
                ..Load::new(server.address)
            };
            let outcome = load::run(&load)?;
            samples[place].push(Sample {
                cell: Cell { depth: *depth, size: *size, connections: *connections },
                round,
                contender: contender.name.to_owned(),
                again: false,
                messages: outcome.messages,
                seconds: outcome.elapsed.as_secs_f64(),
                cpu_nanoseconds: None,
                p50_nanoseconds: outcome.histogram.value_at_quantile(0.5),
                p99_nanoseconds: outcome.histogram.value_at_quantile(0.99),
                fewest: outcome.per_connection_min,
                most: outcome.per_connection_max,
            });
        }
    }
    common.done();
    println!("{connections} connections x {size} bytes x depth {depth}, same core\n");
    println!("| contender | most / fewest messages | min-max | fewest | most |");
    println!("|---|---:|---:|---:|---:|");
    for (contender, samples) in chosen.iter().zip(&samples) {
        let median = |figure: &dyn Fn(&Sample) -> f64| {
            Spread::of(&samples.iter().map(figure).collect::<Vec<_>>())
        };
        let ratio = median(&|s| s.most as f64 / s.fewest.max(1) as f64);
        let (fewest, most) = (median(&|s| s.fewest as f64), median(&|s| s.most as f64));
        let (Some(ratio), Some(fewest), Some(most)) = (ratio, fewest, most) else { continue };
        println!(
            "| {} | {:.2} | {:.2}-{:.2} | {:.0} | {:.0} |",
            contender.name, ratio.median, ratio.min, ratio.max, fewest.median, most.median
        );
    }
    write_json("fairness", &samples)
}
