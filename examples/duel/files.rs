//! 4 KiB random reads: the work where the two models differ most.
//!
//! A regular file is always "ready", so readiness answers from the page cache at once and otherwise
//! needs a thread per read in flight. Completion needs neither.
//!
//! One child process per run, for its own CPU time. `depth` tasks read, each one block after the
//! other. Every block of the file begins and ends with its own number, and every read checks both.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quoit::Runtime;
use quoit::buffer::AlignedBuf;
use quoit::fs::File;
use serde::{Deserialize, Serialize};

use crate::cli::Driver;
use crate::control::Stats;
use crate::server;

/// Bytes per read, and the alignment that `O_DIRECT` wants.
const BLOCK: usize = 4096;

/// What one child does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) path: PathBuf,
    pub(crate) ring: String,
    /// Past the page cache (`O_DIRECT`).
    pub(crate) direct: bool,
    /// Reads in flight.
    pub(crate) depth: usize,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
}

/// What it measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reads {
    pub(crate) reads: u64,
    pub(crate) elapsed: Duration,
    pub(crate) stats: Stats,
    /// Microseconds at 50 %, 99 %, 99.9 % and 100 %.
    pub(crate) quantiles: [f64; 4],
    pub(crate) memory: u64,
}

/// The file to read, made once and kept: `size` bytes of numbered blocks.
///
/// # Errors
///
/// When it cannot be written, most often because the disk is full.
pub(crate) fn prepare(folder: &Path, size: u64) -> io::Result<PathBuf> {
    let path = folder.join("blocks.bin");
    let blocks = size / BLOCK as u64;
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == blocks * BLOCK as u64) {
        return Ok(path);
    }
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut block = [0; BLOCK];
    for number in 0..blocks {
        block[..8].copy_from_slice(&number.to_le_bytes());
        block[BLOCK - 8..].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block)?;
    }
    file.into_inner()?.sync_all()?; // writeback during the measurement would be measured too
    Ok(path)
}

/// Runs one job in a child process.
pub(crate) fn measure(job: &Job) -> io::Result<Reads> {
    if !job.direct {
        // Memory pressure may have taken some of it: cached means all in the cache.
        io::copy(&mut fs::File::open(&job.path)?, &mut io::sink())?;
    }
    let output = Command::new(std::env::current_exe()?)
        .args(["--job", &serde_json::to_string(job)?])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if !output.status.success() {
        let cause = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("the file process failed: {}", cause.trim())));
    }
    serde_json::from_slice(&output.stdout).map_err(io::Error::from)
}

/// The child's side: does the job and prints what it measured.
pub(crate) fn work(job: &str) -> io::Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let driver = if job.ring == "uring" { Driver::Uring } else { Driver::Readiness };
    let runtime = server::runtime(driver, 0)?;
    let reads = runtime.block_on(read_all(&job, &runtime))?;
    serde_json::to_writer(io::stdout(), &reads).map_err(io::Error::from)
}

async fn open(job: &Job) -> io::Result<File> {
    let flags = if job.direct { libc::O_DIRECT } else { 0 };
    let file = quoit::fs::OpenOptions::new().read(true).custom_flags(flags).open(&job.path).await;
    file.map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) if job.direct => io::Error::new(
            error.kind(),
            format!("{error}: this file system has no O_DIRECT; choose another with --out"),
        ),
        _ => error,
    })
}

async fn read_all(job: &Job, runtime: &Runtime) -> io::Result<Reads> {
    let file = Rc::new(open(job).await?);
    let blocks = fs::metadata(&job.path)?.len() / BLOCK as u64;
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
        memory: crate::control::resident_memory()?,
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
