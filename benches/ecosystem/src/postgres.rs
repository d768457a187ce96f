//! The client of a database: `SELECT abalance FROM pgbench_accounts WHERE aid = $1`, prepared, by
//! tokio-postgres on quoit's streams and on tokio's, as `pgbench -S` has it.
//!
//! Here the client is what is measured: it runs on the measured core, and PostgreSQL on the other,
//! whatever `--cores` says. Each connection has one query in flight, or eight.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Config, NoTls};

use crate::process::{self, pin_command};
use crate::runtimes::{self, READINESS, TOKIO, URING};
use crate::suite::{Load, Measured, Suite, Terms};

/// Where Debian has it.
const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Accounts that are asked for: `pgbench -s 1`.
const ACCOUNTS: u64 = 100_000;

/// Started for the first measurement, and stopped with the suite.
#[derive(Default)]
pub struct Postgres {
    server: OnceLock<Cluster>,
}

#[derive(Debug)]
pub struct Cell {
    connections: usize,
    in_flight: usize,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "select {}x{}", self.connections, self.in_flight)
    }
}

impl Suite for Postgres {
    type Cell = Cell;

    fn name(&self) -> &'static str {
        "postgres"
    }

    fn unit(&self) -> &'static str {
        "transaction"
    }

    /// PostgreSQL's.
    fn is_apart(&self) -> bool {
        true
    }

    fn contenders(&self) -> &'static [&'static str] {
        &[TOKIO, URING, READINESS]
    }

    fn cells(&self) -> Vec<Cell> {
        let cells = [(1, 1), (32, 1), (32, 8)];
        cells.map(|(connections, in_flight)| Cell { connections, in_flight }).into()
    }

    fn measure(&self, cell: &Cell, contender: &str, terms: Terms) -> io::Result<Measured> {
        let server_core = 1 - terms.core.min(1);
        if self.server.get().is_none() {
            let started = Cluster::start(server_core)?;
            self.server.get_or_init(|| started);
        }
        let server = self.server.get().expect("it has been started");
        let numbers =
            [server.port as u64, cell.connections as u64, cell.in_flight as u64, terms.seconds];
        let numbers = numbers.map(|number| number.to_string());
        let numbers: Vec<_> = numbers.iter().map(String::as_str).collect();
        process::ask(&[&["ask", contender], &numbers[..]].concat(), terms.core)
    }
}

/// What a client process is asked to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Asked {
    port: u16,
    connections: usize,
    in_flight: usize,
    seconds: u64,
}

/// Runs the client: this is the process that is measured.
pub fn ask(contender: &str, arguments: &[String]) -> io::Result<Measured> {
    let numbers: Result<Vec<u64>, _> = arguments.iter().map(|text| text.parse()).collect();
    let &[port, connections, in_flight, seconds] = &numbers.map_err(io::Error::other)?[..] else {
        return Err(io::Error::other("ask CONTENDER PORT CONNECTIONS IN_FLIGHT SECONDS"));
    };
    let (connections, in_flight) = (connections as usize, in_flight as usize);
    let asked = Asked { port: port as u16, connections, in_flight, seconds };
    if let Some(runtime) = runtimes::quoit(contender) {
        return runtime?.block_on(async {
            let mut clients = Vec::new();
            for _ in 0..connections {
                let stream =
                    quoit::net::TcpStream::connect((Ipv4Addr::LOCALHOST, asked.port)).await?;
                let (client, connection) =
                    config().connect_raw(stream, NoTls).await.map_err(io::Error::other)?;
                quoit::spawn(connection);
                clients.push(client);
            }
            let spawn = |task| quoit::spawn(task);
            drive(asked, clients, spawn).await
        });
    }
    if contender != TOKIO {
        return Err(runtimes::unknown(contender));
    }
    runtimes::tokio()?.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..connections {
            let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, asked.port)).await?;
            stream.set_nodelay(true)?;
            let (client, connection) =
                config().connect_raw(stream, NoTls).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            clients.push(client);
        }
        let spawn = |task| tokio::spawn(task);
        drive(asked, clients, spawn).await
    })
}

fn config() -> Config {
    let mut config = Config::new();
    config.user("postgres").dbname("postgres");
    config
}

type Times = Vec<u32>;

/// Has every client ask for so long, by tasks of whichever runtime this is.
async fn drive<H, E>(
    asked: Asked,
    clients: Vec<Client>,
    spawn: impl Fn(
        std::pin::Pin<Box<dyn Future<Output = Result<Times, tokio_postgres::Error>> + Send>>,
    ) -> H,
) -> io::Result<Measured>
where
    H: Future<Output = Result<Result<Times, tokio_postgres::Error>, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // First for a tenth of the time, so that everything has been used once.
    let mut measured = None;
    let clients: Vec<_> = clients.into_iter().map(std::sync::Arc::new).collect();
    for time in [asked.seconds as f64 / 10.0, asked.seconds as f64] {
        let (started, before) = (Instant::now(), process::cpu_nanoseconds(std::process::id())?);
        let until = started + Duration::from_secs_f64(time);
        let tasks = (0..asked.in_flight).flat_map(|_| clients.iter()).enumerate();
        let tasks = tasks
            .map(|(seed, client)| spawn(Box::pin(queries(client.clone(), seed as u64, until))));
        let mut times = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            times.extend(task.await.map_err(io::Error::other)?.map_err(io::Error::other)?);
        }
        let seconds = started.elapsed().as_secs_f64();
        let cpu_nanoseconds = process::cpu_nanoseconds(std::process::id())? - before;
        times.sort_unstable();
        let at = |part: f64| Some(f64::from(times[(part * (times.len() - 1) as f64) as usize]));
        let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
        let load = Load { done: times.len() as u64, seconds, bytes: None, p50, p99, max };
        measured = Some(Measured { load, cpu_nanoseconds });
    }
    measured.ok_or_else(|| io::Error::other("there were no rounds"))
}

async fn queries(
    client: std::sync::Arc<Client>,
    seed: u64,
    until: Instant,
) -> Result<Times, tokio_postgres::Error> {
    let select = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
    let statement = client.prepare(select).await?;
    let mut times = Vec::new();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    loop {
        let started = Instant::now();
        if started >= until {
            return Ok(times);
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let account = (random % ACCOUNTS + 1) as i32;
        let row = client.query_one(&statement, &[&account]).await?;
        assert_eq!(row.get::<_, i32>(0), 0, "nobody has paid anything in");
        times.push(started.elapsed().as_micros() as u32);
    }
}

/// A fresh cluster with pgbench's tables; stopped and removed when dropped.
struct Cluster {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Cluster {
    fn start(core: usize) -> io::Result<Self> {
        let folder =
            std::env::temp_dir().join(format!("ecosystem-bench-postgres-{}", std::process::id()));
        fs::create_dir(&folder)?;
        succeed(Command::new("chown").arg("postgres").arg(&folder))?;
        let data = folder.join("data");
        let mut initdb = as_postgres("initdb");
        initdb
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--locale=C", "-D"])
            .arg(&data);
        succeed(initdb.current_dir(&folder))?;
        // Free now, and nobody else is likely to take it at once.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(&data).arg("-p").arg(port.to_string()).arg("-k").arg(&folder);
        for setting in ["fsync=off", "max_connections=50", "autovacuum=off", "jit=off"] {
            command.args(["-c", setting]);
        }
        command.args(["-h", "127.0.0.1"]).stdin(Stdio::null()).stderr(Stdio::null());
        pin_command(command.current_dir(&folder), core);
        let cluster = Self { process: command.spawn()?, folder, port };
        cluster.wait(&data)?;
        let mut fill = as_postgres("pgbench");
        fill.args([
            "-q",
            "-i",
            "-s",
            "1",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &port.to_string(),
            "postgres",
        ]);
        succeed(fill.current_dir(&cluster.folder))?;
        Ok(cluster)
    }

    fn wait(&self, data: &Path) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            if text.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(io::Error::other("postgres does not get ready"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=INT"]);
    command.arg(Path::new(BIN).join(program));
    command
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut text = String::new();
    child.stderr.take().expect("piped above").read_to_string(&mut text)?;
    if child.wait()?.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?} (package postgresql): {text}")))
}
