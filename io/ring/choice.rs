//! Which ring a runtime uses: decided once, before any core starts, and reported with its reason.
//!
//! An explicit choice of the builder comes first, then `QUOIT_RING`, then `Auto`: io_uring where it
//! can be had, readiness elsewhere.

use std::str::FromStr;
use std::{env, fmt, io};

use super::simulated::world;
use super::uring::setup::{Refusal, Setup};

/// Which ring to use.
///
/// ```
/// use quoit::{RingChoice, Runtime};
///
/// let runtime = Runtime::builder().ring(RingChoice::Readiness).build()?;
/// assert_eq!(runtime.ring().kind(), quoit::RingKind::Readiness);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum RingChoice {
    /// What `QUOIT_RING` says, else io_uring where it can be had, else readiness.
    #[default]
    Auto,
    /// io_uring, or an error that says why not.
    Uring,
    /// Readiness: epoll, and a thread pool for files.
    Readiness,
}

impl FromStr for RingChoice {
    type Err = io::Error;

    /// Reads `auto`, `uring` or `readiness`, as `QUOIT_RING` and the options of programs have them.
    ///
    /// ```
    /// assert_eq!("uring".parse::<quoit::RingChoice>()?, quoit::RingChoice::Uring);
    /// # std::io::Result::Ok(())
    /// ```
    fn from_str(name: &str) -> io::Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "readiness" => Ok(Self::Readiness),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{other:?} is no ring: there are uring, readiness, and auto"),
            )),
        }
    }
}

/// Which ring is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum RingKind {
    /// Completion: io_uring.
    Uring,
    /// Readiness: epoll, and a thread pool for files.
    Readiness,
    /// A simulated kernel, in tests.
    Simulated,
}

impl fmt::Display for RingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uring => "uring",
            Self::Readiness => "readiness",
            Self::Simulated => "simulated",
        })
    }
}

/// Which ring is in use, why, and what would give the other one.
#[derive(Clone, Debug)]
pub struct RingReport {
    kind: RingKind,
    reason: String,
    remedy: Option<&'static str>,
    flags: &'static str,
}

impl RingReport {
    /// The ring in use.
    #[must_use]
    pub fn kind(&self) -> RingKind {
        self.kind
    }

    /// Why this ring was chosen.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What would make io_uring available, when it was wanted and could not be had.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.remedy
    }

    /// The set-up flags in use, as io_uring_setup(2) names them; empty on readiness.
    #[must_use]
    pub fn flags(&self) -> &str {
        self.flags
    }
}

impl fmt::Display for RingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.reason)?;
        match self.remedy {
            Some(remedy) => write!(f, "; to get io_uring: {remedy}"),
            None => Ok(()),
        }
    }
}

/// A choice made: every core of the runtime builds its ring from it.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    setup: Option<Setup>,
    report: RingReport,
}

impl Prepared {
    pub(crate) fn kind(&self) -> RingKind {
        self.report.kind
    }

    pub(crate) fn report(&self) -> &RingReport {
        &self.report
    }

    pub(super) fn setup(&self) -> &Setup {
        self.setup.as_ref().expect("a ring of kind Uring was prepared with its set-up")
    }

    fn uring(setup: Setup, reason: String) -> Self {
        let flags = setup.describe();
        let report = RingReport { kind: RingKind::Uring, reason, remedy: None, flags };
        Self { setup: Some(setup), report }
    }

    fn readiness(reason: String, remedy: Option<&'static str>) -> Self {
        let report = RingReport { kind: RingKind::Readiness, reason, remedy, flags: "" };
        Self { setup: None, report }
    }

    /// The ring of the simulation that runs on this thread.
    pub(crate) fn simulated(seed: u64) -> Self {
        let reason = format!("a simulation with seed {seed}");
        let report = RingReport { kind: RingKind::Simulated, reason, remedy: None, flags: "" };
        Self { setup: None, report }
    }
}

/// Settles the choice.
pub(crate) fn prepare(choice: RingChoice) -> io::Result<Prepared> {
    world::refuse("further runtimes: each core of a simulated host has its own already")?;
    let (choice, by) = match choice {
        RingChoice::Auto => (from_environment()?, "by QUOIT_RING"),
        explicit => (explicit, "by the builder"),
    };
    match choice {
        RingChoice::Readiness => Ok(Prepared::readiness(format!("chosen {by}"), None)),
        RingChoice::Uring => match Setup::probe() {
            Ok(setup) => Ok(Prepared::uring(setup, format!("chosen {by}"))),
            Err(refusal) => Err(refusal.into_error(io::ErrorKind::Unsupported)),
        },
        RingChoice::Auto => match Setup::probe() {
            Ok(setup) => Ok(Prepared::uring(setup, "io_uring is available".into())),
            Err(Refusal { reason, remedy }) => Ok(Prepared::readiness(reason, Some(remedy))),
        },
    }
}

fn from_environment() -> io::Result<RingChoice> {
    match env::var("QUOIT_RING").as_deref() {
        Err(_) | Ok("") => Ok(RingChoice::Auto),
        Ok(name) => name.parse().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("the environment's QUOIT_RING: {error}"))
        }),
    }
}
