//! A contender's echo server, in this process or as a script that takes its place.

use std::io;
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::contenders::{self, Echo};
use crate::process::{self, Server};
use crate::system;

/// Where a script finds the listener.
const SCRIPT_LISTENER: i32 = 3;

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
    let listener = process::listen(options.port)?;
    match contender.echo {
        Some(Echo::Here(serve)) => serve(listener, options.buffer),
        Some(Echo::Script(program, arguments)) => Err(become_script(program, arguments, listener)),
        None => Err(io::Error::other(format!("{} serves no echo", options.name))),
    }
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

/// Starts a contender's server on a core.
pub fn start(name: &str, buffer: usize, core: usize) -> io::Result<Server> {
    Server::start(&["serve", name, "--buffer", &buffer.to_string()], core)
}
