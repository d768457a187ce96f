//! The reads themselves: `depth` tasks on one core, each reading one block after the other.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quoit::Runtime;
use quoit::buffer::AlignedBuf;
use quoit::fs::{File, OpenOptions};

use crate::control::{Stats, resident_memory};
use crate::files::{BLOCK, Job, Reads};
use crate::server;

async fn open(job: &Job) -> io::Result<File> {
    OpenOptions::new().read(true).direct(job.direct).open(&job.path).await.map_err(|error| {
        match error.raw_os_error() {
            Some(libc::EINVAL) if job.direct => io::Error::new(
                error.kind(),
                format!("{error}: this file system has no O_DIRECT; choose another with --out"),
            ),
            _ => error,
        }
    })
}

/// Warms up, then measures.
pub(crate) async fn all(job: &Job, runtime: &Runtime) -> io::Result<Reads> {
    let file = Rc::new(open(job).await?);
    let blocks = std::fs::metadata(&job.path)?.len() / BLOCK as u64;
    if job.depth == 0 || blocks == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing to read"));
    }
    phase(&file, blocks, job.depth, job.warmup).await?;
    let before = Stats::of_this_process(Some(server::calls(runtime)))?;
    let started = Instant::now();
    let histogram = phase(&file, blocks, job.depth, job.duration).await?;
    let elapsed = started.elapsed();
    let after = Stats::of_this_process(Some(server::calls(runtime)))?;
    let quantile = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Reads {
        reads: histogram.len(),
        elapsed,
        stats: after.since(before),
        quantiles: [quantile(0.5), quantile(0.99), quantile(0.999), quantile(1.0)],
        memory: resident_memory()?,
    })
}

/// Keeps `depth` reads in flight for `time`.
async fn phase(
    file: &Rc<File>,
    blocks: u64,
    depth: usize,
    time: Duration,
) -> io::Result<Histogram<u64>> {
    let end = Instant::now() + time;
    let readers: Vec<_> = (0..depth as u64)
        .map(|reader| quoit::spawn(read_blocks(Rc::clone(file), blocks, reader, end)))
        .collect();
    let mut sum = new_histogram()?;
    for reader in readers {
        let part = reader.await??;
        sum.add(part).map_err(io::Error::other)?;
    }
    Ok(sum)
}

async fn read_blocks(
    file: Rc<File>,
    blocks: u64,
    reader: u64,
    end: Instant,
) -> io::Result<Histogram<u64>> {
    let mut histogram = new_histogram()?;
    let mut buffer = AlignedBuf::new(BLOCK, BLOCK);
    let mut random = (reader + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut started = Instant::now();
    while started < end {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let number = random % blocks;
        let (count, filled) = file.read_at(buffer, number * BLOCK as u64).await?;
        buffer = filled;
        let number = number.to_le_bytes();
        if count != BLOCK || buffer[..8] != number || buffer[BLOCK - 8..] != number {
            let text = format!("block {} read wrongly: {count} bytes", u64::from_le_bytes(number));
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let now = Instant::now();
        histogram.saturating_record((now - started).as_nanos() as u64);
        started = now;
    }
    Ok(histogram)
}

fn new_histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 10_000_000_000, 2).map_err(io::Error::other)
}
