//! Processes: a contender's server, and what the kernel says of it.
//!
//! Every contender is given the same listener, made here: `TCP_NODELAY` and the congestion control
//! are inherited by what it accepts, so no contender has to make those calls and none can differ.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, Socket, Type};

use crate::contenders::{self, Echo};
use crate::system;

const BACKLOG: i32 = 4096;
/// Where a script finds the listener.
const SCRIPT_LISTENER: i32 = 3;
const LISTENING: &str = "listening on ";

/// The command line of `peers serve`.
#[derive(clap::Args, Debug)]
pub struct ServeOptions {
    /// Which contender.
    name: String,
    /// 0 lets the kernel choose.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Bytes of each connection's read buffer, for contenders that have one.
    #[arg(long, default_value_t = 16 * 1024)]
    buffer: usize,
}

/// Serves until killed; says where on standard output.
pub fn serve(options: &ServeOptions) -> io::Result<()> {
    let contender = contenders::find(&options.name)?;
    system::raise_descriptor_limit()?;
    let listener = listen(options.port)?;
    println!("{LISTENING}{}", listener.local_addr()?);
    match contender.echo {
        Some(Echo::Here(serve)) => serve(listener, options.buffer),
        Some(Echo::Script(program, arguments)) => Err(become_script(program, arguments, listener)),
        None => Err(io::Error::other(format!("{} serves no echo", options.name))),
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    system::set_cubic(&socket)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Replaces this process, so that its number stays the server's. Returns only on failure.
fn become_script(program: &str, arguments: &[&str], listener: TcpListener) -> io::Error {
    let listener = listener.into_raw_fd();
    // SAFETY: plain calls on a number that nothing else here owns. The copy has no CLOEXEC, and
    // if it already stands at 3 that flag is taken off.
    let moved = unsafe {
        if listener == SCRIPT_LISTENER {
            libc::fcntl(listener, libc::F_SETFD, 0)
        } else {
            libc::dup2(listener, SCRIPT_LISTENER)
        }
    };
    if moved < 0 {
        return io::Error::last_os_error();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(arguments[0]);
    Command::new(program).arg(script).args(&arguments[1..]).exec()
}

/// Why a contender cannot be measured on this machine, if it cannot.
pub fn missing(echo: Option<Echo>) -> Option<String> {
    let Some(Echo::Script(program, arguments)) = echo else { return None };
    let mut check = Command::new(program);
    match arguments {
        [_, module] => check.args(["-c", &format!("import {module}")]),
        _ => check.arg("--version"),
    };
    match check.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => None,
        Ok(_) => Some(format!("{program} has no {}", arguments.last().unwrap_or(&""))),
        Err(error) => Some(format!("{program}: {error}")),
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(name: &str, buffer: usize, core: usize) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", name, "--buffer", &buffer.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        pin_command(&mut command, core);
        let mut child = command.spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().expect("piped above");
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().strip_prefix(LISTENING).and_then(|text| text.parse().ok());
        // Made before the address is judged, so that the child is reaped in any case.
        let mut server = Self { child, address: SocketAddr::from(([0; 4], 0)) };
        server.address =
            address.ok_or_else(|| io::Error::other(format!("{name} did not start: {line:?}")))?;
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
