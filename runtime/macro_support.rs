//! What `#[quoit::main]` and `#[quoit::test]` expand to a call of. Not public interface.
//!
//! A test runs its body once on each ring, in a runtime of its own:
//!
//! ```text
//!   for each ring:  left out by the test or by QUOIT_RING?        -> not run
//!                   unusable, and required or asked for by name?  -> the test fails
//!                   unusable otherwise?                           -> said on stderr, not run
//!                   usable: build, run the body, shut down, the report shows nothing leaked
//! ```
//!
//! A failure on one ring does not hide the other: all are run, then the first failure is raised.

use std::any::Any;
use std::env;
use std::fmt::Debug;
use std::future::Future;
use std::io::{self, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

pub use crate::io::ring::RingChoice;
use crate::runtime::simulate::simulate;
use crate::runtime::{Builder, Runtime, time};

/// The options of `#[quoit::main]`.
#[derive(Debug)]
pub struct MainOptions {
    /// Insists on a ring.
    pub ring: Option<RingChoice>,
    /// Microseconds to look for completions before sleeping.
    pub spin_us: Option<u64>,
}

/// The options of `#[quoit::test]`.
#[derive(Debug)]
pub struct TestOptions {
    /// The test's path, for messages.
    pub name: &'static str,
    /// The only ring it is for.
    pub ring: Option<RingChoice>,
    /// Runs under a paused clock.
    pub start_paused: bool,
    /// Under how many seeds it runs on the simulated ring, besides.
    pub seeds: u64,
    /// `#[should_panic]`, and the part of the message that it expects.
    pub should_panic: Option<Option<&'static str>>,
}

/// Runs the body of `main`. Says on standard error which ring it got if that was not the first
/// choice; without any ring, says why and ends the process.
#[track_caller]
pub fn run_main<F: Future>(options: MainOptions, body: impl FnOnce() -> F) -> F::Output {
    let mut builder = Runtime::builder();
    if let Some(ring) = options.ring {
        builder = builder.ring(ring);
    }
    if let Some(micros) = options.spin_us {
        builder = builder.spin(Duration::from_micros(micros));
    }
    let runtime = builder.build().unwrap_or_else(|error| {
        eprintln!("quoit: cannot start: {error}");
        process::exit(1)
    });
    let report = runtime.ring();
    // There is a remedy exactly when io_uring was wanted and could not be had.
    if report.remedy().is_some() {
        eprintln!("quoit: {report}");
    }
    runtime.block_on(async move { body().await })
}

/// Every ring that a test body runs on, in this order.
const RINGS: [RingChoice; 2] = [RingChoice::Uring, RingChoice::Readiness];

/// How long a test's runtime may take to shut down.
const GRACE: Duration = Duration::from_secs(5);

type Panic = Box<dyn Any + Send>;

/// Runs the body of one test on every ring.
pub fn run_test<F>(options: TestOptions, body: impl Fn() -> F)
where
    F: Future,
    F::Output: TestOutcome,
{
    let asked = env::var("QUOIT_RING").ok();
    let required = env::var("QUOIT_REQUIRE_RINGS").ok();
    let plan = plan(options.ring, asked.as_deref(), required.as_deref(), usable);
    let plan = plan.unwrap_or_else(|error| panic!("{error}"));
    if plan.is_empty() {
        say(&format!("{}: not for the ring of QUOIT_RING, NOT RUN", options.name));
    }

    let mut failures: Vec<Panic> = Vec::new();
    let mut expected_panic = None;
    for (ring, step) in plan {
        let outcome = match step {
            Step::Run => judge(options.should_panic, run_on(ring, &options, &body)),
            Step::Fail(why) => Err(failure(why)),
            Step::Skip(why) => {
                say_once(format!("{why}, so it is NOT TESTED here"));
                continue;
            }
        };
        match outcome {
            Ok(panic) => expected_panic = panic.or(expected_panic),
            Err(panic) => {
                let message = message_of(&panic).unwrap_or("a panic without a message");
                eprintln!("{} failed on the {} ring: {message}", options.name, name_of(ring));
                failures.push(panic);
            }
        }
    }
    for seed in seeds(options.seeds, asked.as_deref()) {
        match judge(options.should_panic, run_under(seed, &body)) {
            Ok(panic) => expected_panic = panic.or(expected_panic),
            Err(panic) => {
                let message = message_of(&panic).unwrap_or("a panic without a message");
                eprintln!(
                    "{} failed under seed {seed} (QUOIT_SEED={seed} replays it): {message}",
                    options.name
                );
                failures.push(panic);
                break;
            }
        }
    }
    match (options.should_panic, failures.into_iter().next()) {
        (None, None) => {}
        (None, Some(panic)) => resume_unwind(panic),
        // The harness waits for a panic, so returning is what fails the test.
        (Some(_), Some(_)) => {}
        (Some(expected), None) => match expected_panic {
            Some(panic) => resume_unwind(panic),
            // Nothing ran, which was said and is no failure.
            None => resume_unwind(failure(expected.unwrap_or_default().to_owned())),
        },
    }
}

fn failure(message: String) -> Panic {
    Box::new(message)
}

/// One fresh runtime, the body, the books.
fn run_on<F>(ring: RingChoice, options: &TestOptions, body: &impl Fn() -> F) -> Result<(), Panic>
where
    F: Future,
    F::Output: TestOutcome,
{
    let runtime = match test_builder(ring).build() {
        Ok(runtime) => runtime,
        Err(error) => return Err(failure(format!("cannot build a runtime: {error}"))),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            if options.start_paused {
                time::pause();
            }
            body().await.check()
        })
    }));
    let report = runtime.shutdown(GRACE);
    // After a panic the books are likely wrong too, but the panic is the better message.
    outcome?.map_err(failure)?;
    if report.is_clean() {
        Ok(())
    } else {
        Err(failure(format!("the runtime's books do not balance: {report:?}")))
    }
}

/// The seeds to run under, as far as the environment does not choose: none when it asks for one of
/// the real rings.
///
/// # Panics
///
/// When `QUOIT_SEED` or `QUOIT_SEEDS` is no number.
pub fn seeds(count: u64, asked: Option<&str>) -> Range<u64> {
    if asked.is_some_and(|asked| !["", "auto"].contains(&asked)) {
        return 0..0;
    }
    let number = |name| {
        let text = env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
    };
    match number("QUOIT_SEED") {
        Some(seed) if count > 0 => seed..seed + 1,
        _ => 0..count.saturating_mul(number("QUOIT_SEEDS").unwrap_or(1)),
    }
}

/// A simulation, the body, the books.
fn run_under<F>(seed: u64, body: &impl Fn() -> F) -> Result<(), Panic>
where
    F: Future,
    F::Output: TestOutcome,
{
    let run = catch_unwind(AssertUnwindSafe(|| {
        simulate(seed, Runtime::builder(), |_| async { body().await.check() })
    }))?;
    run.output.map_err(failure)?;
    if run.report.is_clean() && run.books.open == 0 {
        Ok(())
    } else {
        Err(failure(format!("the books do not balance: {:?}, {:?}", run.report, run.books)))
    }
}

/// Turns what happened on one ring into success, with the expected panic if there was one, or the
/// panic that makes the test fail.
fn judge(
    should_panic: Option<Option<&str>>,
    outcome: Result<(), Panic>,
) -> Result<Option<Panic>, Panic> {
    match (should_panic, outcome) {
        (None, Ok(())) => Ok(None),
        (None, Err(panic)) => Err(panic),
        (Some(_), Ok(())) => Err(failure("it did not panic, but should".to_owned())),
        (Some(expected), Err(panic)) => {
            let message = message_of(&panic).unwrap_or_default();
            if message.contains(expected.unwrap_or_default()) {
                Ok(Some(panic))
            } else {
                Err(panic)
            }
        }
    }
}

fn message_of(panic: &Panic) -> Option<&str> {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&'static str>().copied())
}

/// What is to be done on one ring.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Run,
    Skip(String),
    Fail(String),
}

/// Which rings a test runs on, from what the test wants (`only`), what the environment says and
/// which rings are `usable`.
fn plan(
    only: Option<RingChoice>,
    asked: Option<&str>,
    required: Option<&str>,
    usable: impl Fn(RingChoice) -> Result<(), String>,
) -> Result<Vec<(RingChoice, Step)>, String> {
    let asked = match asked.filter(|&asked| !asked.is_empty() && asked != "auto") {
        Some(asked) => Some(ring_named("QUOIT_RING", asked)?),
        None => None,
    };
    let names = required.unwrap_or_default().split(',').map(str::trim).filter(|n| !n.is_empty());
    let required =
        names.map(|name| ring_named("QUOIT_REQUIRE_RINGS", name)).collect::<Result<Vec<_>, _>>()?;

    let mut steps = Vec::new();
    for ring in RINGS {
        if only.is_some_and(|only| only != ring) || asked.is_some_and(|asked| asked != ring) {
            continue;
        }
        let step = match usable(ring) {
            Ok(()) => Step::Run,
            Err(why) => {
                let text = format!("the {} ring cannot be used: {why}", name_of(ring));
                let must = required.contains(&ring) || asked == Some(ring);
                if must {
                    Step::Fail(format!("{text} (and it is required)"))
                } else {
                    Step::Skip(text)
                }
            }
        };
        steps.push((ring, step));
    }
    Ok(steps)
}

/// A misspelt ring would otherwise leave a ring out in silence.
fn ring_named(variable: &str, name: &str) -> Result<RingChoice, String> {
    let found = RINGS.into_iter().find(|&ring| name_of(ring) == name);
    found.ok_or_else(|| format!("{variable} names `{name}`, which is neither uring nor readiness"))
}

fn name_of(ring: RingChoice) -> &'static str {
    match ring {
        RingChoice::Uring => "uring",
        RingChoice::Readiness => "readiness",
        RingChoice::Auto => "auto",
    }
}

fn test_builder(ring: RingChoice) -> Builder {
    Runtime::builder().ring(ring)
}

/// Whether a runtime can be built on this ring, tried once per process: a later failure is the
/// test's failure and never makes a ring look unusable.
fn usable(ring: RingChoice) -> Result<(), String> {
    static URING: OnceLock<Result<(), String>> = OnceLock::new();
    static READINESS: OnceLock<Result<(), String>> = OnceLock::new();
    let verdict = if ring == RingChoice::Uring { &URING } else { &READINESS };
    let probe = || test_builder(ring).build().map(drop).map_err(|error| error.to_string());
    verdict.get_or_init(probe).clone()
}

/// Writes to standard error past the harness, which hides what a passing test prints with
/// `eprintln!`.
fn say(line: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "quoit::test: {line}");
}

/// Says a line once per process: it would be the same for each of hundreds of tests.
fn say_once(line: String) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.contains(&line) {
        say(&line);
        said.push(line);
    }
}

/// What the body of a test may return.
#[diagnostic::on_unimplemented(message = "a `#[quoit::test]` returns `()` or a `Result`")]
pub trait TestOutcome {
    /// An error is the message of the test's failure.
    fn check(self) -> Result<(), String>;
}

impl TestOutcome for () {
    fn check(self) -> Result<(), String> {
        Ok(())
    }
}

impl<T: TestOutcome, E: Debug> TestOutcome for Result<T, E> {
    fn check(self) -> Result<(), String> {
        match self {
            Ok(value) => value.check(),
            Err(error) => Err(format!("the body returned an error: {error:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(_: RingChoice) -> Result<(), String> {
        Ok(())
    }

    fn no_uring(ring: RingChoice) -> Result<(), String> {
        if ring == RingChoice::Uring { Err("seccomp".to_owned()) } else { Ok(()) }
    }

    fn rings(plan: &[(RingChoice, Step)]) -> Vec<&'static str> {
        plan.iter().map(|(ring, _)| name_of(*ring)).collect()
    }

    #[test]
    fn a_test_runs_on_every_ring_unless_it_or_the_environment_chooses() {
        assert_eq!(rings(&plan(None, None, None, all).unwrap()), ["uring", "readiness"]);
        assert_eq!(rings(&plan(None, Some("auto"), None, all).unwrap()), ["uring", "readiness"]);
        assert_eq!(rings(&plan(None, Some("readiness"), None, all).unwrap()), ["readiness"]);
        assert_eq!(rings(&plan(Some(RingChoice::Uring), None, None, all).unwrap()), ["uring"]);
        let none = plan(Some(RingChoice::Uring), Some("readiness"), None, all).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn an_unusable_ring_is_skipped_only_if_nobody_requires_it() {
        let steps = |asked, required| {
            let plan = plan(None, asked, required, no_uring).unwrap();
            plan.into_iter().map(|(_, step)| step).collect::<Vec<_>>()
        };
        assert!(matches!(steps(None, None)[..], [Step::Skip(_), Step::Run]));
        assert!(matches!(steps(None, Some("readiness"))[..], [Step::Skip(_), Step::Run]));
        assert!(matches!(steps(None, Some("uring,readiness"))[..], [Step::Fail(_), Step::Run]));
        assert!(matches!(steps(Some("uring"), None)[..], [Step::Fail(_)]));
    }

    #[test]
    fn a_misspelt_ring_is_an_error_and_not_a_ring_left_out() {
        assert!(plan(None, Some("uringg"), None, all).unwrap_err().contains("QUOIT_RING"));
        let required = plan(None, None, Some("uring, epoll"), all).unwrap_err();
        assert!(required.contains("QUOIT_REQUIRE_RINGS") && required.contains("epoll"));
    }

    #[test]
    fn should_panic_holds_only_for_a_panic_with_the_expected_message() {
        let panic = || Err::<(), Panic>(Box::new("index out of range"));
        assert!(matches!(judge(None, Ok(())), Ok(None)));
        assert!(judge(None, panic()).is_err());
        assert!(matches!(judge(Some(None), panic()), Ok(Some(_))));
        assert!(matches!(judge(Some(Some("out of")), panic()), Ok(Some(_))));
        assert!(judge(Some(Some("overflow")), panic()).is_err());
        assert!(judge(Some(None), Ok(())).is_err());
    }

    #[test]
    fn an_error_returned_by_the_body_fails_it() {
        assert!(Ok::<(), io::Error>(()).check().is_ok());
        assert!(Err::<(), _>(io::Error::other("broken")).check().unwrap_err().contains("broken"));
    }
}
