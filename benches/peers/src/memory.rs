//! Memory per further idle connection.
//!
//! One server; 5,000 connections that have exchanged a message each, then 10,000 more. What its
//! resident memory grew by between the two counts is divided by the 10,000: what does not grow
//! with connections (code, tables, a pool) is not charged to them. Kernel memory is not in it.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::load::{self, Load, Mode, Phase};
use crate::process::resident_bytes;
use crate::report::{Spread, in_turn, write_json};
use crate::server;
use crate::system;

/// The command line of `peers memory`.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: crate::Common,
    /// Connections before the first look.
    #[arg(long, default_value_t = 5_000)]
    first: usize,
    /// Connections at the second look.
    #[arg(long, default_value_t = 15_000)]
    last: usize,
    /// Bytes of a connection's read buffer, for contenders that have one. Peers are usually run
    /// with less here than for throughput.
    #[arg(long, default_value_t = 4096)]
    buffer: usize,
}

#[derive(Debug, Serialize)]
struct Sample {
    contender: &'static str,
    round: usize,
    resident_first: u64,
    resident_last: u64,
    per_connection: f64,
}

/// Measures each contender and prints one table.
pub fn run(options: &Options) -> io::Result<()> {
    let limit = system::raise_descriptor_limit()?;
    if limit < options.last as u64 + 64 || options.last <= options.first {
        let text = format!("{} connections do not fit {limit} descriptors", options.last);
        return Err(io::Error::other(text));
    }
    let chosen = crate::echo::able(&options.common)?;
    let mut samples = Vec::new();
    for round in 0..options.common.rounds {
        for (_, contender) in in_turn(&chosen, round) {
            options.common.progress(round, contender.name);
            let (resident_first, resident_last) = one(contender.name, options)?;
            let growth = resident_last as f64 - resident_first as f64;
            let per_connection = growth / (options.last - options.first) as f64;
            let contender = contender.name;
            samples.push(Sample {
                contender,
                round,
                resident_first,
                resident_last,
                per_connection,
            });
        }
    }
    options.common.done();
    println!(
        "resident bytes per further idle connection, from {} to {}; read buffers of {} bytes\n",
        options.first, options.last, options.buffer
    );
    println!(
        "| contender | bytes | min-max | resident MiB at {} |\n|---|---:|---:|---:|",
        options.last
    );
    for contender in &chosen {
        let of_it = || samples.iter().filter(|sample| sample.contender == contender.name);
        let bytes = Spread::of(&of_it().map(|s| s.per_connection).collect::<Vec<_>>());
        let total = Spread::of(&of_it().map(|s| s.resident_last as f64).collect::<Vec<_>>());
        let (Some(bytes), Some(total)) = (bytes, total) else { continue };
        println!(
            "| {} | {:.0} | {:.0}-{:.0} | {:.1} |",
            contender.name,
            bytes.median,
            bytes.min,
            bytes.max,
            total.median / f64::from(1 << 20)
        );
    }
    write_json("memory", &samples)
}

/// Resident bytes at the two counts.
fn one(name: &str, options: &Options) -> io::Result<(u64, u64)> {
    let server = server::start(name, options.buffer, options.common.core)?;
    let idle = |connections| Load {
        connections,
        mode: Mode::Idle,
        duration: Duration::from_millis(50),
        ..Load::new(server.address)
    };
    let mut looks = (0, 0);
    // The second load runs inside the first one's mark, so that both are connected at its end.
    load::run_with(&idle(options.first), &mut |phase| {
        if phase == Phase::Finished {
            return Ok(());
        }
        looks.0 = resident_bytes(server.pid())?;
        load::run_with(&idle(options.last - options.first), &mut |phase| {
            if phase == Phase::Finished {
                looks.1 = resident_bytes(server.pid())?;
            }
            Ok(())
        })
        .map(drop)
    })
    .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    Ok(looks)
}
