//! A server in a process of its own, and the questions one may ask it.
//!
//! ```text
//!   parent                                child
//!   Server::start ── starts ────────────▶ binds
//!                 ◀─ {"port":..,"ring":..}  hello
//!   stats()       ── stats ─────────────▶
//!                 ◀─ {"cpu_ns":..}          so far, start-up included: take differences
//!   drop          ── end of stdin ──────▶ exits
//! ```
//!
//! One JSON object per line on stdin and stdout. A server that outlives its parent sees the end of
//! stdin and goes. Another package may include this file: it needs `libc`, `serde` and
//! `serde_json`.

use std::io::{self, BufRead, BufReader, Write};
use std::mem::MaybeUninit;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How long a child may take for any answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server says when it listens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) port: u16,
    /// The ring in use, why, and what would give io_uring where it was refused.
    pub(crate) ring: String,
    pub(crate) reason: String,
    pub(crate) remedy: Option<String>,
    /// The set-up flags that the kernel granted.
    pub(crate) flags: String,
}

/// What a server has used since it started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// User and system time of all its threads, the kernel's io_uring workers included.
    pub(crate) cpu_ns: u64,
    /// Context switches, voluntary or not.
    pub(crate) switches: u64,
    /// As counted by the ring itself; a server that cannot tell says nothing.
    pub(crate) calls: Option<Calls>,
}

/// System calls for I/O, as the ring counts them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Calls {
    /// Turns of the loop.
    pub(crate) turns: u64,
    /// `io_uring_enter` or `epoll_wait`.
    pub(crate) enters: u64,
    /// Direct non-blocking calls: `recv`, `send`, `accept`, `preadv2`.
    pub(crate) direct: u64,
    /// `epoll_ctl`.
    pub(crate) registrations: u64,
    /// Requests handed to a pool thread.
    pub(crate) pool_jobs: u64,
}

impl Calls {
    pub(crate) fn system_calls(self) -> u64 {
        // A pool thread makes one call per job.
        self.enters + self.direct + self.registrations + self.pool_jobs
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            turns: self.turns - earlier.turns,
            enters: self.enters - earlier.enters,
            direct: self.direct - earlier.direct,
            registrations: self.registrations - earlier.registrations,
            pool_jobs: self.pool_jobs - earlier.pool_jobs,
        }
    }
}

impl Stats {
    /// What was used between two answers.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns - earlier.cpu_ns,
            switches: self.switches - earlier.switches,
            calls: self.calls.zip(earlier.calls).map(|(now, then)| now.since(then)),
        }
    }

    /// Of the calling process, by getrusage(2).
    pub(crate) fn of_this_process(calls: Option<Calls>) -> io::Result<Self> {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: getrusage(2) fills the struct that lives on this stack frame.
        if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: all fields are integers, zeroed before and filled by the call.
        let usage = unsafe { usage.assume_init() };
        let nanoseconds =
            |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
        Ok(Self {
            cpu_ns: nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime),
            switches: usage.ru_nvcsw as u64 + usage.ru_nivcsw as u64,
            calls,
        })
    }
}

/// A moment of the server's loop, for the timeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TurnEvent {
    /// Nanoseconds since the first event.
    pub(crate) t_ns: u64,
    pub(crate) kind: TurnKind,
    /// `enter`: completions or ready descriptors brought back; `recv`, `send`: bytes, or a negated
    /// error number; `task`: its number.
    pub(crate) n: i64,
    /// How long it took; without it, until the next event.
    #[serde(default)]
    pub(crate) took_ns: Option<u64>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TurnKind {
    /// `io_uring_enter` or `epoll_wait`.
    Enter,
    /// A direct `recv`.
    Recv,
    /// A direct `send`.
    Send,
    /// Another system call: `accept4`, `epoll_ctl`.
    Call,
    /// A task ran.
    Task,
}

/// A server child, from the parent's side.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    questions: Option<ChildStdin>,
    answers: Receiver<String>,
    hello: Hello,
}

impl Server {
    /// Starts `command`, which must end up in [`answer`], and waits until it listens.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let questions = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        // A thread of its own, so that a silent child is an error and not a hang.
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Self { child, questions, answers, hello: Hello::default() };
        server.hello = server.read()?;
        Ok(server)
    }

    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// What the server has used so far.
    pub(crate) fn stats(&mut self) -> io::Result<Stats> {
        self.ask("stats")
    }

    /// Its resident memory, in bytes.
    pub(crate) fn memory(&mut self) -> io::Result<u64> {
        self.ask("memory")
    }

    /// The turns it recorded, oldest first; empty when it was not told to.
    pub(crate) fn trace(&mut self) -> io::Result<Vec<TurnEvent>> {
        self.ask("trace")
    }

    fn ask<T: DeserializeOwned>(&mut self, question: &str) -> io::Result<T> {
        let pipe = self.questions.as_mut().ok_or_else(|| io::Error::other("no pipe"))?;
        writeln!(pipe, "{question}")?;
        self.read()
    }

    fn read<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => serde_json::from_str(&line).map_err(io::Error::from),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the server process gave no answer in {} s", PATIENCE.as_secs()),
            )),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                Err(io::Error::other(format!("the server process ended: {status}")))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.questions = None;
        // The end of stdin ends it; the signal is for one that hangs. Both may find it gone
        // already.
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's side: says hello and answers until stdin ends, then ends the process. Runs on a
/// thread of its own; `calls` and `trace` are asked on that thread.
pub(crate) fn answer(
    hello: &Hello,
    calls: impl Fn() -> Option<Calls>,
    trace: impl Fn() -> Vec<TurnEvent>,
) -> io::Result<()> {
    say(hello)?;
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "stats" => {
                let calls = calls();
                say(&Stats::of_this_process(calls)?)?;
            }
            "memory" => say(&resident_memory()?)?,
            "trace" => say(&trace())?,
            other => eprintln!("duel: {other:?} is no question"),
        }
    }
    Ok(())
}

fn say(answer: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Resident memory of this process. Not from statm, which lags by up to a batch of pages per core.
pub(crate) fn resident_memory() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "smaps_rollup has no Rss line"))
}
