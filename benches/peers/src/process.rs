//! Processes: a server that is started, bound to a core and killed, and what the kernel says of it.
//!
//! Every contender is given the same listener, made here: `TCP_NODELAY` and the congestion control
//! are inherited by what it accepts, so no contender has to make those calls and none can differ.
//! `benches/ecosystem` uses this file too.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, Socket, Type};

use crate::system;

const BACKLOG: i32 = 4096;
const LISTENING: &str = "listening on ";

/// A listener on a port, 0 for one that the kernel chooses, and says where on standard output.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    system::set_cubic(&socket)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    println!("{LISTENING}{}", listener.local_addr()?);
    Ok(listener)
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Runs this program with these arguments on a core; it is to [`listen`].
    pub fn start(arguments: &[&str], core: usize) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        pin_command(&mut command, core);
        let mut child = command.spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().expect("piped above");
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().strip_prefix(LISTENING).and_then(|text| text.parse().ok());
        // Made before the address is judged, so that the child is reaped in any case.
        let mut server = Self { child, address: SocketAddr::from(([0; 4], 0)) };
        server.address = address.ok_or_else(|| {
            io::Error::other(format!("{} did not start: {line:?}", arguments.join(" ")))
        })?;
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Binds the child to a core, and makes it end with this process.
pub fn pin_command(command: &mut Command, core: usize) {
    let pin = move || {
        // SAFETY: prctl(2) with these arguments touches no memory.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        system::pin_to(core)
    };
    // SAFETY: between fork and exec only system calls are made; `pin_to` allocates on failure
    // only, and this program has one thread when it starts children.
    unsafe { command.pre_exec(pin) };
}

/// Runs this program with these arguments on a core, and reads its answer.
pub fn ask<T: DeserializeOwned>(arguments: &[&str], core: usize) -> io::Result<T> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
    pin_command(&mut command, core);
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{} failed: {}", arguments.join(" "), output.status)));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The other side of [`ask`].
pub fn answer(value: io::Result<impl Serialize>) -> io::Result<()> {
    println!("{}", serde_json::to_string(&value?)?);
    Ok(())
}

/// Nanoseconds on a core, summed over the process's threads (the kernel's ring workers included).
pub fn cpu_nanoseconds(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        sum += first.ok_or_else(|| io::Error::other("the kernel keeps no schedstat"))?;
    }
    Ok(sum)
}

/// Bytes of resident user memory.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kilobytes = text.lines().find_map(|line| {
        line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    Ok(1024 * kilobytes.ok_or_else(|| io::Error::other("no Rss in smaps_rollup"))?)
}

/// Kernel and processor, for the head of a table.
pub fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or(": unknown processor").trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {model}, {cores} cores", kernel.trim())
}
