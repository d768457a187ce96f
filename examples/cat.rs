//! Copies files to standard output: `cat FILE...`
//!
//! Two buffers take turns: while a thread writes one out, the ring fills the other.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use quoit::fs::File;
use quoit::task::{JoinHandle, spawn_blocking};

/// Bytes per read.
const PART: usize = 128 * 1024;

#[derive(Parser)]
#[command(about = "Copies files to standard output")]
struct Options {
    /// The files, in this order.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

#[quoit::main]
async fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for path in Options::parse().files {
        if let Err(error) = copy(&path).await {
            eprintln!("cat: {}: {error}", path.display());
            code = ExitCode::FAILURE;
        }
    }
    code
}

async fn copy(path: &Path) -> io::Result<()> {
    let file = File::open(path).await?;
    let (mut buffer, mut offset) = (Vec::with_capacity(PART), 0);
    let mut writing = write_out(Vec::with_capacity(PART));
    loop {
        let (count, filled) = file.read_at(buffer, offset).await?;
        buffer = finished(writing).await?;
        if count == 0 {
            return file.close().await;
        }
        offset += count as u64;
        writing = write_out(filled);
    }
}

/// Writes a buffer on a thread that may block, and gives it back empty.
fn write_out(mut buffer: Vec<u8>) -> JoinHandle<io::Result<Vec<u8>>> {
    spawn_blocking(move || {
        io::stdout().write_all(&buffer)?;
        buffer.clear();
        Ok(buffer)
    })
}

async fn finished(writing: JoinHandle<io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
    writing.await.map_err(io::Error::other)?
}
