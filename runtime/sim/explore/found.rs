//! What an exploration came to.

use std::fmt;

use super::run::Ran;

/// What an explorer has seen.
///
/// ```
/// use quoit::sim::explore::Explorer;
///
/// let found = Explorer::new("a promise").seeds(1).drop_root(|_| async {
///     // A leak: nobody closes its descriptor.
///     std::mem::forget(quoit::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
/// });
/// assert_eq!(found.failures()[0].seed(), 0);
/// assert!(found.to_string().contains("descriptors left: 1, not 0"));
/// assert!(found.to_string().contains("QUOIT_SEED=0"));
/// ```
#[derive(Clone, Debug)]
pub struct Found {
    name: String,
    kind: &'static str,
    /// The environment has chosen what to run.
    is_replay: bool,
    seeds: u64,
    points: u64,
    runs: u64,
    failures: Vec<Failure>,
}

impl Found {
    pub(super) fn new(name: &str, kind: &'static str, is_replay: bool) -> Self {
        let (name, failures) = (name.to_owned(), Vec::new());
        Self { name, kind, is_replay, seeds: 0, points: 0, runs: 0, failures }
    }

    pub(super) fn note(&mut self, seed: u64, point: Option<usize>, ran: &Ran) {
        self.runs += 1;
        match point {
            None => self.seeds += 1,
            Some(_) => self.points += 1,
        }
        if let Some(what) = &ran.failure {
            let (disturbed, what) = (ran.disturbed.clone(), what.clone());
            self.failures.push(Failure { seed, kind: self.kind, point, disturbed, what });
        }
    }

    /// Two runs of a seed that were disturbed by nothing.
    pub(super) fn compare(&mut self, seed: u64, first: &Ran, second: &Ran) {
        self.runs += 1;
        if (first.trace, first.events) != (second.trace, second.events) {
            let what =
                "a second run went another way; what differs between runs is in the scenario";
            let what = what.to_owned();
            let (kind, disturbed) = (self.kind, String::new());
            self.failures.push(Failure { seed, kind, point: None, disturbed, what });
        }
    }

    /// Seeds that were explored.
    #[must_use]
    pub fn seeds(&self) -> u64 {
        self.seeds
    }

    /// Points that were explored, of all seeds together.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.points
    }

    /// Runs of the scenario, undisturbed ones included.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// What failed. After a few the explorer stops looking for more.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Panics if something failed, or if there was nothing to explore.
    ///
    /// # Panics
    ///
    /// With all that failed, and how to replay it.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.failures.is_empty(), "{self}");
        assert!(
            self.points > 0 || self.is_replay,
            "{self}: nothing was explored, so nothing is known"
        );
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, seeds, points, runs, failures, .. } = self;
        let count = failures.len();
        write!(f, "{name}, {kind}: {seeds} seeds, {points} points, {runs} runs, {count} failures")?;
        failures.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// One run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    seed: u64,
    kind: &'static str,
    point: Option<usize>,
    disturbed: String,
    what: String,
}

impl Failure {
    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The point at which it was disturbed; `None`: it failed undisturbed.
    #[must_use]
    pub fn point(&self) -> Option<usize> {
        self.point
    }

    /// What was cancelled, or had a fault.
    #[must_use]
    pub fn disturbed(&self) -> &str {
        &self.disturbed
    }

    /// What went wrong: the panic's message, or what does not balance.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, kind, point, disturbed, what } = self;
        match point {
            None => write!(f, "seed {seed}, undisturbed: {what}; QUOIT_SEED={seed} replays it"),
            Some(point) => write!(
                f,
                "seed {seed}, point {point}: {disturbed}: {what}; \
                 QUOIT_SEED={seed} QUOIT_POINT={kind}:{point} replays it"
            ),
        }
    }
}
