//! The contenders: one file each, holding everything that names that runtime.
//!
//! A contender serves echo on a listener that is made for it, reads blocks of a file, and runs the
//! small loops of [`crate::micro`]. What it cannot do is `None`, and the tables leave it out.

use std::io;
use std::net::TcpListener;

use crate::files::Plan;
use crate::micro::Rows;

mod compio;
mod epoll;
mod glommio;
mod kimojio;
mod limit;
mod monoio;
#[cfg(feature = "quoit")]
mod quoit;
mod smol;
mod tokio;
mod tokio_uring;

/// Serves echo; the number is the size of a connection's read buffer, where it has its own.
pub type Serve = fn(TcpListener, usize) -> io::Result<()>;
/// Reads blocks as the plan says, and returns how many.
pub type Read = fn(&Plan) -> io::Result<u64>;
/// Runs the small loops.
pub type Micro = fn() -> io::Result<Rows>;

/// How a contender serves echo.
#[derive(Clone, Copy, Debug)]
pub enum Echo {
    /// In a process of this program.
    Here(Serve),
    /// As a script: the interpreter, and the file under `scripts/` with its arguments.
    Script(&'static str, &'static [&'static str]),
}

/// Someone to measure.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// As on the command line and in the tables.
    pub name: &'static str,
    pub echo: Option<Echo>,
    pub read: Option<Read>,
    pub micro: Option<Micro>,
}

impl Contender {
    const fn here(name: &'static str, serve: Serve) -> Self {
        Self { name, echo: Some(Echo::Here(serve)), read: None, micro: None }
    }

    const fn script(name: &'static str, program: &'static str, file: &'static [&str]) -> Self {
        Self { name, echo: Some(Echo::Script(program, file)), read: None, micro: None }
    }

    const fn reads(mut self, read: Read) -> Self {
        self.read = Some(read);
        self
    }

    const fn loops(mut self, micro: Micro) -> Self {
        self.micro = Some(micro);
        self
    }
}

/// All of them, in the order of the tables.
pub const ALL: &[Contender] = &[
    Contender { name: "ring", echo: None, read: Some(limit::files::read), micro: Some(limit::nop) },
    Contender::here("limit-send", limit::echo_send),
    Contender::here("limit-inline", limit::echo_inline),
    Contender::here("limit-spin", limit::echo_spin),
    Contender::here("epoll", epoll::serve),
    #[cfg(feature = "quoit")]
    Contender {
        read: quoit::READ_URING,
        ..Contender::here("quoit-uring", quoit::echo_uring).loops(quoit::micro_uring)
    },
    #[cfg(feature = "quoit")]
    Contender {
        read: quoit::READ_READINESS,
        ..Contender::here("quoit-readiness", quoit::echo_readiness).loops(quoit::micro_readiness)
    },
    #[cfg(feature = "quoit")]
    Contender::here("quoit-spin", quoit::echo_spin),
    Contender::here("tokio", tokio::echo).reads(tokio::read).loops(tokio::micro),
    Contender::here("monoio", monoio::echo).reads(monoio::read).loops(monoio::micro),
    Contender::here("glommio", glommio::echo).reads(glommio::read).loops(glommio::micro),
    Contender::here("compio", compio::echo).reads(compio::read).loops(compio::micro),
    Contender::here("compio-multishot", compio::echo_multishot),
    Contender::here("tokio-uring", tokio_uring::echo)
        .reads(tokio_uring::read)
        .loops(tokio_uring::micro),
    Contender::here("kimojio", kimojio::echo).reads(kimojio::read).loops(kimojio::micro),
    Contender::here("smol", smol::echo).reads(smol::read).loops(smol::micro),
    Contender::script("node", "node", &["echo.js"]),
    Contender::script("asyncio", "python3", &["echo.py"]),
    Contender::script("uvloop", "python3", &["echo.py", "uvloop"]),
];

/// The contender of that name.
///
/// # Errors
///
/// When there is none.
pub fn find(name: &str) -> io::Result<&'static Contender> {
    ALL.iter().find(|contender| contender.name == name).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|contender| contender.name).collect();
        io::Error::other(format!("no contender {name:?}; there are {}", names.join(", ")))
    })
}
