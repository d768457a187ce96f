//! 4 KiB random reads: the work where the two models differ most.
//!
//! A regular file is always "ready", so readiness answers from the page cache at once and otherwise
//! needs a thread per read in flight. Completion needs neither.
//!
//! One child process per run, for its own CPU time. Every block of the file begins and ends with
//! its own number, and every read checks both.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::Driver;
use crate::control::Stats;
use crate::{reads, server};

/// Bytes per read, and the alignment that `O_DIRECT` wants.
pub(crate) const BLOCK: usize = 4096;

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
    eprintln!("Writing {} MiB to read from, kept as {}", size >> 20, path.display());
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
    let driver = if job.ring == "readiness" { Driver::Readiness } else { Driver::Uring };
    let runtime = server::runtime(driver, 0)?;
    let reads = runtime.block_on(reads::all(&job, &runtime))?;
    serde_json::to_writer(io::stdout(), &reads).map_err(io::Error::from)
}
