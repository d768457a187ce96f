//! Servers of others, for the tests: started in a directory of their own, stopped by their number
//! when dropped, after a panic too.
//!
//! Where a program is missing, its tests say so and pass, unless `QUOIT_REQUIRE_TOOLS=1`.
#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const SOON: Duration = Duration::from_secs(20);

/// Where Debian puts PostgreSQL; elsewhere it is found by `PATH`.
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// Where a program is, if it is anywhere. Panics if it must be there.
pub fn find(program: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from(POSTGRES)]);
    let found = folders.map(|folder| folder.join(program)).find(|path| path.is_file());
    if found.is_none() {
        let text = format!("{program} is missing: install the package {package}");
        let required = std::env::var("QUOIT_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
        assert!(!required, "{text}");
        // Past the capture of a test's output.
        let _ = writeln!(std::io::stderr(), "\nNOT TESTED: {text}\n");
    }
    found
}

/// A port that is free now; the kernel does not give it out again at once.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A directory of this test's own, gone when dropped.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("quoit-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that is told to end, and waited for, when dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    pub fn tell(&self, signal: &str) {
        let number = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &number]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let number = self.0.id().to_string();
        let _ = Command::new("kill").args(["-INT", &number]).status();
        let until = Instant::now() + SOON;
        while self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > until {
                let _ = self.0.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Redis, which keeps nothing on disk.
#[derive(Debug)]
pub struct Redis {
    pub address: SocketAddr,
    pub process: Running,
}

impl Redis {
    pub fn start() -> Option<Self> {
        Self::start_at(free_port())
    }

    pub fn start_at(port: u16) -> Option<Self> {
        let mut command = Command::new(find("redis-server", "redis-server")?);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(std::env::temp_dir());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let redis = Self { address: (Ipv4Addr::LOCALHOST, port).into(), process: Running(child) };
        until("redis-server answers", || pings(redis.address));
        Some(redis)
    }
}

fn pings(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        std::io::Result::Ok(&answer == b"+PONG\r\n")
    };
    ask().unwrap_or(false)
}

/// A PostgreSQL of the test's own: a fresh cluster, a free port of 127.0.0.1.
#[derive(Debug)]
pub struct Postgres {
    pub port: u16,
    // In this order: the server ends before its files do.
    process: Running,
    scratch: Scratch,
}

impl Postgres {
    pub fn start() -> Option<Self> {
        find("postgres", "postgresql")?;
        find("initdb", "postgresql")?;
        let scratch = Scratch::new("postgres");
        if is_root() {
            // PostgreSQL refuses to run as root.
            assert!(
                Command::new("chown").arg("postgres").arg(&scratch.0).status().unwrap().success()
            );
        }
        let mut initdb = as_postgres("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        initdb.args(["--locale=C", "-D"]).arg(scratch.0.join("data"));
        let output = initdb.current_dir(&scratch.0).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let port = free_port();
        let process = Self::run(&scratch.0, port);
        Some(Self { port, process, scratch })
    }

    fn run(scratch: &Path, port: u16) -> Running {
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(scratch.join("data")).arg("-p").arg(port.to_string());
        command.arg("-k").arg(scratch).args(["-h", "127.0.0.1"]);
        for setting in ["fsync=off", "max_connections=50", "shared_buffers=16MB"] {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(scratch.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir(scratch);
        let process = Running(command.spawn().unwrap());
        let ready = || {
            fs::read_to_string(scratch.join("data/postmaster.pid"))
                .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
        };
        until("postgres is ready", ready);
        process
    }

    /// Stops it and starts it again: every connection breaks.
    pub fn restart(self) -> Self {
        let Self { port, process, scratch } = self;
        drop(process);
        let process = Self::run(&scratch.0, port);
        Self { port, process, scratch }
    }

    pub fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("postgres");
        config.connect_timeout(SOON);
        config
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn as_postgres(program: &str) -> Command {
    let path = find(program, "postgresql").expect("it has been found");
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(path);
    command
}
