//! 4 KiB random reads of one large file, through the page cache and with `O_DIRECT`.
//!
//! Every block begins with its own number, so a read of the wrong place is noticed. A contender
//! runs in a process of its own with `depth` reads in flight, each task having one block of memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contenders::{self, Contender};
use crate::process;
use crate::report::{Spread, in_turn, target_dir, write_json};

/// Bytes per read.
pub const BLOCK: usize = 4096;
/// Reads of a task between two looks at the clock.
const BETWEEN_LOOKS: u32 = 16;
/// The other program that can be asked, if it is installed.
const FIO: &str = "fio";

/// What to read.
#[derive(Clone, Debug)]
pub struct Plan {
    pub path: PathBuf,
    pub blocks: u64,
    pub direct: bool,
    pub depth: usize,
    pub end: Instant,
}

impl Plan {
    /// What the kernel needs to be told besides "read".
    pub fn flags(&self) -> i32 {
        if self.direct { libc::O_DIRECT } else { 0 }
    }

    /// Opens the file as planned.
    pub fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(self.flags()).open(&self.path)
    }

    /// Where one task reads: the same places for every contender, until the time is up.
    pub fn offsets(&self, task: usize) -> Offsets {
        let state = 0x9e37_79b9_7f4a_7c15 ^ (task as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95);
        Offsets { state, blocks: self.blocks, end: self.end, left: 0 }
    }
}

/// Random offsets of blocks.
#[derive(Debug)]
pub struct Offsets {
    state: u64,
    blocks: u64,
    end: Instant,
    left: u32,
}

impl Iterator for Offsets {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.left == 0 {
            if Instant::now() >= self.end {
                return None;
            }
            self.left = BETWEEN_LOOKS;
        }
        self.left -= 1;
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        Some(self.state % self.blocks * BLOCK as u64)
    }
}

#[repr(C, align(4096))]
struct Page([u8; BLOCK]);

/// Memory for one read, aligned as `O_DIRECT` asks.
pub struct Block(Box<Page>);

impl Block {
    pub fn new() -> Self {
        Self(Box::new(Page([0; BLOCK])))
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.0.0.as_ptr()
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.0.as_mut_ptr()
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0.0
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0.0
    }

    /// Whether a read brought the whole block that stands at `offset`.
    pub fn check(&self, read: usize, offset: u64) -> io::Result<()> {
        check(&self.as_slice()[..read], offset)
    }
}

/// Whether these bytes are the whole block that stands at `offset`.
pub fn check(bytes: &[u8], offset: u64) -> io::Result<()> {
    let number = offset / BLOCK as u64;
    if bytes.len() == BLOCK && bytes.starts_with(&number.to_le_bytes()) {
        return Ok(());
    }
    let text = format!("the read of block {number} brought {} bytes, or another one", bytes.len());
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// The command line of `peers files`.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: crate::Common,
    /// Reads in flight.
    #[arg(long, value_delimiter = ',', default_value = "1,32,128")]
    depths: Vec<usize>,
    /// Through the page cache, with O_DIRECT, or both.
    #[arg(long, value_delimiter = ',', default_value = "cached,direct")]
    modes: Vec<Access>,
    /// MiB of the file.
    #[arg(long, default_value_t = 2048)]
    size: u64,
    /// The file; made if it is not there or has another size [default: target/peers/blocks].
    #[arg(long)]
    file: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Cached,
    Direct,
}

/// The command line of the other side.
#[derive(clap::Args, Debug)]
pub struct ChildOptions {
    name: String,
    path: PathBuf,
    depth: usize,
    milliseconds: u64,
    #[arg(long)]
    direct: bool,
}

/// What one process read.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reads {
    reads: u64,
    seconds: f64,
    cpu_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Sample {
    access: &'static str,
    depth: usize,
    contender: &'static str,
    round: usize,
    reads: Reads,
}

/// Runs every cell and prints one table.
pub fn run(options: &Options) -> io::Result<()> {
    let mut chosen = options.common.choose(|contender| contender.read.is_some())?;
    let path = match &options.file {
        Some(path) => path.clone(),
        None => target_dir()?.join("blocks"),
    };
    prepare(&path, options.size * 1024 * 1024)?;
    let fio = Contender { name: FIO, echo: None, read: None, micro: None };
    if options.common.wants(FIO) {
        match Command::new(FIO).arg("--version").output() {
            Ok(_) => chosen.push(&fio),
            Err(error) => println!("fio is left out: {error} (Debian package: fio)\n"),
        }
    }
    let mut samples = Vec::new();
    for &access in &options.modes {
        if access == Access::Cached {
            // Read once in full, so that every contender finds the pages there.
            io::copy(&mut File::open(&path)?, &mut io::sink())?;
        }
        for &depth in &options.depths {
            for round in 0..options.common.rounds {
                for (_, contender) in in_turn(&chosen, round) {
                    options.common.progress(round, contender.name);
                    let reads = one(contender.name, &path, access, depth, &options.common)?;
                    let access = name(access);
                    let contender = contender.name;
                    samples.push(Sample { access, depth, contender, round, reads });
                }
            }
        }
    }
    options.common.done();
    print(&chosen, &samples, options);
    write_json("files", &samples)
}

fn name(access: Access) -> &'static str {
    if access == Access::Direct { "direct" } else { "cached" }
}

fn one(
    contender: &str,
    path: &Path,
    access: Access,
    depth: usize,
    common: &crate::Common,
) -> io::Result<Reads> {
    if contender == FIO {
        return fio(path, access, depth, common);
    }
    let depth = depth.to_string();
    let milliseconds = common.duration().as_millis().to_string();
    let path = path.to_str().ok_or_else(|| io::Error::other("the path is not UTF-8"))?;
    let mut arguments = vec!["read-of", contender, path, &depth, &milliseconds];
    if access == Access::Direct {
        arguments.push("--direct");
    }
    process::ask(&arguments, common.core)
}

fn fio(path: &Path, access: Access, depth: usize, common: &crate::Common) -> io::Result<Reads> {
    let mut command = Command::new(FIO);
    command
        .args(["--name=peers", "--rw=randread", "--bs=4k", "--ioengine=io_uring", "--time_based"])
        .args(["--output-format=json", "--readonly", "--invalidate=0"])
        .arg(format!("--filename={}", path.display()))
        .arg(format!("--direct={}", u8::from(access == Access::Direct)))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--runtime={}ms", common.duration().as_millis()));
    process::pin_command(&mut command, common.core);
    let output = command.output()?;
    let report: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        io::Error::other(format!("fio: {error}: {}", String::from_utf8_lossy(&output.stderr)))
    })?;
    let job = &report["jobs"][0];
    let number = |value: &Value| {
        value.as_f64().ok_or_else(|| io::Error::other("a figure is missing in fio's report"))
    };
    let seconds = number(&job["read"]["runtime"])? / 1e3;
    let percent = number(&job["usr_cpu"])? + number(&job["sys_cpu"])?;
    let reads = number(&job["read"]["total_ios"])? as u64;
    Ok(Reads { reads, seconds, cpu_seconds: seconds * percent / 100.0 })
}

/// The other side of [`run`].
pub fn child(options: &ChildOptions) -> io::Result<Reads> {
    let read = contenders::find(&options.name)?
        .read
        .ok_or_else(|| io::Error::other(format!("{} reads no files", options.name)))?;
    let start = Instant::now();
    let before = cpu_seconds()?;
    let reads = read(&Plan {
        path: options.path.clone(),
        blocks: std::fs::metadata(&options.path)?.len() / BLOCK as u64,
        direct: options.direct,
        depth: options.depth,
        end: start + Duration::from_millis(options.milliseconds),
    })?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Reads { reads, seconds, cpu_seconds: cpu_seconds()? - before })
}

/// User and system time of this process, the kernel's workers for its rings included.
fn cpu_seconds() -> io::Result<f64> {
    // SAFETY: rusage is plain integers, for which zeroed bytes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: getrusage(2) fills the struct that lives on this stack frame.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

/// Makes the file of numbered blocks, unless it is there.
fn prepare(path: &Path, size: u64) -> io::Result<()> {
    if path.metadata().is_ok_and(|metadata| metadata.len() == size) {
        return Ok(());
    }
    eprintln!("writing {} ({} MiB)", path.display(), size >> 20);
    let mut file = io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut block = [0xa5; BLOCK];
    for number in 0..size / BLOCK as u64 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block)?;
    }
    file.into_inner()?.sync_all()
}

fn print(chosen: &[&Contender], samples: &[Sample], options: &Options) {
    println!("4 KiB random reads: medians of {} rounds (min-max);", options.common.rounds);
    println!("ratio: reads/s against the first contender, by default the bare ring\n");
    println!("| file | depth | contender | reads/s | min-max | reads per CPU-s | ratio |");
    println!("|---|---:|---|---:|---:|---:|---:|");
    for &access in &options.modes {
        for &depth in &options.depths {
            let mut first = None;
            for contender in chosen {
                let of_cell: Vec<_> = samples
                    .iter()
                    .filter(|s| s.access == name(access) && s.depth == depth)
                    .filter(|s| s.contender == contender.name)
                    .map(|s| &s.reads)
                    .collect();
                let speeds: Vec<_> = of_cell.iter().map(|r| r.reads as f64 / r.seconds).collect();
                let costs: Vec<_> =
                    of_cell.iter().map(|r| r.reads as f64 / r.cpu_seconds.max(1e-9)).collect();
                let (Some(speed), Some(cost)) = (Spread::of(&speeds), Spread::of(&costs)) else {
                    continue;
                };
                let first = *first.get_or_insert(speed.median);
                println!(
                    "| {} | {depth} | {} | {:.0} | {:.0}-{:.0} | {:.0} | {:.2} |",
                    name(access),
                    contender.name,
                    speed.median,
                    speed.min,
                    speed.max,
                    cost.median,
                    speed.median / first
                );
            }
        }
    }
}
