//! Why a simulation has failed, with everything that helps to see it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What has failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FailureKind {
    /// A client waits, and nothing will ever happen by itself.
    Deadlock,
    /// The limit of [`Sim::time_limit`](super::Sim::time_limit).
    TimeLimit,
    /// The limit of [`Sim::step_limit`](super::Sim::step_limit).
    StepLimit,
    /// A program has returned an error.
    Program {
        /// Whose.
        host: String,
        /// Its error, for people.
        error: String,
    },
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadlock => f.write_str("a client waits, and nothing will ever happen"),
            Self::TimeLimit => f.write_str("a client still waits at the limit of time"),
            Self::StepLimit => f.write_str("a client still waits at the limit of steps"),
            Self::Program { host, error } => write!(f, "{host} has returned an error: {error}"),
        }
    }
}

/// Why a simulation has failed. Its `Debug` form, which `unwrap` shows, tells everything: who
/// waits, what was drawn, and the last events.
#[derive(Clone)]
pub struct Failure(Box<Details>);

#[derive(Clone)]
pub(super) struct Details {
    pub(super) kind: FailureKind,
    pub(super) seed: u64,
    pub(super) after: Duration,
    pub(super) waiting: String,
    pub(super) options: String,
    pub(super) trace: String,
}

impl Failure {
    pub(super) fn new(details: Details) -> Self {
        Self(Box::new(details))
    }

    /// What has failed.
    #[must_use]
    pub fn kind(&self) -> &FailureKind {
        &self.0.kind
    }

    /// The seed with which it fails again.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// How much time of the world had passed.
    #[must_use]
    pub fn after(&self) -> Duration {
        self.0.after
    }

    /// Who waits for what, a line for each core.
    #[must_use]
    pub fn waiting(&self) -> &str {
        &self.0.waiting
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { kind, seed, after, .. } = &*self.0;
        write!(f, "{kind}, after {after:?} under seed {seed}")
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{self}\n{}what was drawn:", self.0.waiting)?;
        write!(f, "{}the last events:\n{}", self.0.options, self.0.trace)
    }
}

impl Error for Failure {}
