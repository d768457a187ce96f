//! Load tools of other people: how they are called, and what they say.
//!
//! Each is run with one thread, bound to a core, and its own output is read. None of them corrects
//! for what it did not send while it waited (they are closed loops): their tails are service times
//! at that many connections.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;

use crate::process::pin_command;
use crate::suite::{Load, Terms};

/// Runs a tool to its end on the load's core; `package` is where it comes from.
pub fn run(program: &str, package: &str, arguments: &[&str], terms: Terms) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    pin_command(&mut command, terms.load_core);
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            error.kind(),
            format!("{program} is not installed: it is in Debian's package {package}"),
        ),
        kind => io::Error::new(kind, format!("{program}: {error}")),
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program}: {}\n{text}{errors}", output.status)))
}

/// HTTP/1, each connection with one request in flight; with a `body`, POSTs of so many bytes.
pub fn wrk(url: &str, connections: usize, body: Option<usize>, terms: Terms) -> io::Result<Load> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/wrk.lua");
    let (connections, seconds) = (connections.to_string(), format!("{}s", terms.seconds));
    let mut arguments = vec!["-t", "1", "-c", &connections, "-d", &seconds, "-s", script, url];
    let body = body.map(|length| length.to_string());
    if let Some(length) = &body {
        arguments.extend(["--", length]);
    }
    let text = run("wrk", "wrk", &arguments, terms)?;
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let numbers: Vec<u64> =
        line.unwrap_or("").split(' ').filter_map(|number| number.parse().ok()).collect();
    let &[done, microseconds, bytes, failed, p50, p99, max] = &numbers[..] else {
        return Err(unreadable("wrk", &text));
    };
    none_failed("wrk", failed, &text)?;
    Ok(Load {
        done,
        seconds: microseconds as f64 / 1e6,
        bytes: Some(bytes),
        p50: Some(p50 as f64),
        p99: Some(p99 as f64),
        max: Some(max as f64),
    })
}

/// HTTP/2, over TCP with prior knowledge or over TLS as the URL has it, each connection with so
/// many streams.
pub fn h2load(url: &str, connections: usize, streams: usize, terms: Terms) -> io::Result<Load> {
    let log = Scratch::new("h2load")?;
    let numbers = [connections, streams].map(|number| number.to_string());
    let (seconds, file) = (terms.seconds.to_string(), format!("--log-file={}", log.path()));
    let arguments =
        ["-t", "1", "-c", &numbers[0], "-m", &numbers[1], "-D", &seconds, &file, "-p", "h2c", url];
    let text = run("h2load", "nghttp2-client", &arguments, terms)?;
    let requests = text.lines().find(|line| line.starts_with("requests:")).unwrap_or("");
    let count = |word: &str| before::<u64>(requests, word);
    let (Some(done), Some(failed), Some(errored)) =
        (count(" succeeded"), count(" failed"), count(" errored"))
    else {
        return Err(unreadable("h2load", &text));
    };
    none_failed("h2load", failed + errored, &text)?;
    // Start, status and duration of each, the last in microseconds.
    let lines = fs::read_to_string(log.path())?;
    let times = lines.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok());
    let times = Times::of(times.collect());
    let traffic = text.lines().find(|line| line.starts_with("traffic:")).unwrap_or("");
    let data = traffic.split('(').next_back().and_then(|rest| rest.split(')').next());
    Ok(Load {
        done,
        seconds: terms.seconds as f64,
        bytes: data.and_then(|number| number.parse().ok()),
        p50: times.at(0.5),
        p99: times.at(0.99),
        max: times.at(1.0),
    })
}

/// HTTP/1.0 with keep-alive, as `ab -k` has it.
pub fn ab(url: &str, connections: usize, terms: Terms) -> io::Result<Load> {
    let times = Scratch::new("ab")?;
    let connections = connections.to_string();
    // It counts to 50,000 unless told otherwise, after the time is told.
    let (seconds, most) = (terms.seconds.to_string(), (1_000_000 * terms.seconds).to_string());
    let arguments =
        ["-k", "-q", "-t", &seconds, "-n", &most, "-c", &connections, "-g", times.path(), url];
    let text = run("ab", "apache2-utils", &arguments, terms)?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.split_whitespace().next())
    };
    let count = |name: &str| field(name).and_then(|value| value.parse::<u64>().ok());
    let (Some(done), Some(failed)) = (count("Complete requests"), count("Failed requests")) else {
        return Err(unreadable("ab", &text));
    };
    let others = count("Non-2xx responses").unwrap_or(0);
    none_failed("ab", failed + others, &text)?;
    if count("Keep-Alive requests").unwrap_or(0) != done {
        return Err(io::Error::other(format!("ab: not all were kept alive\n{text}")));
    }
    let taken = field("Time taken for tests").and_then(|value| value.parse().ok());
    // starttime, seconds, ctime, dtime, ttime, wait: whole milliseconds.
    let lines = fs::read_to_string(times.path())?;
    let totals = lines.lines().skip(1).filter_map(|line| line.split('\t').nth(4)?.parse().ok());
    let times = Times::of(totals.map(|milliseconds: f64| milliseconds * 1e3).collect());
    Ok(Load {
        done,
        seconds: taken.ok_or_else(|| unreadable("ab", &text))?,
        bytes: count("HTML transferred"),
        p50: times.at(0.5),
        p99: times.at(0.99),
        max: times.at(1.0),
    })
}

fn none_failed(program: &str, failed: u64, text: &str) -> io::Result<()> {
    if failed == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {failed} requests failed\n{text}")))
}

pub fn unreadable(program: &str, text: &str) -> io::Error {
    io::Error::other(format!("{program} says something else than its other versions:\n{text}"))
}

/// The number that stands before a word.
fn before<T: FromStr>(text: &str, word: &str) -> Option<T> {
    let (left, _) = text.split_once(word)?;
    left.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Durations in order.
struct Times(Vec<f64>);

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    fn at(&self, part: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        self.0.get((part * last as f64).round() as usize).copied()
    }
}

/// A file for a tool to write into, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> io::Result<Self> {
        let name = format!("ecosystem-bench-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, "")?;
        Ok(Self(path))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
