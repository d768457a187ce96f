//! Runs tests: each in a process of its own, with a time limit, on both rings.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::reasons::Reasons;
use crate::suite::Suite;

pub(crate) const RINGS: [&str; 2] = ["uring", "readiness"];

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// As long may a test take that is known to fail, as many of those would wait for ever.
const KNOWN_LIMIT: Duration = Duration::from_secs(5);

/// How many tests run at once.
const WORKERS: usize = 2;

/// Stands for the tests of a file that shows none: what it tests is that it compiles.
const IT_COMPILES: &str = "(it compiles)";

/// The exit status by which the shim says that a test is not for us.
const SKIPPED: i32 = 77;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// What became of a test on each of `RINGS`.
#[derive(Debug, Clone)]
pub(crate) struct TestResult {
    pub(crate) file: String,
    pub(crate) test: String,
    pub(crate) outcomes: [Outcome; 2],
    /// The reason that stands for it, and its kind.
    pub(crate) reason: Option<(String, String)>,
}

/// A test to be run.
struct Job {
    file: String,
    test: String,
    program: PathBuf,
    /// It has a reason to fail.
    known: bool,
}

/// Runs everything that was built.
pub(crate) fn all(suite: &Suite, reasons: &Reasons) -> io::Result<Vec<TestResult>> {
    let mut results = Vec::new();
    let mut jobs = VecDeque::new();
    for (name, file) in &suite.files {
        let mut push = |test: &str, outcome: Outcome| {
            let (file, test, outcomes) =
                (name.clone(), test.to_owned(), [outcome.clone(), outcome]);
            results.push(TestResult { file, test, outcomes, reason: None });
        };
        let broken = |error: &str| Outcome::Failed(format!("does not compile: {error}"));
        for (test, error) in &file.cut {
            push(test, broken(error));
        }
        if let Some(error) = &file.error {
            file.named.iter().for_each(|test| push(test, broken(error)));
            // Its tests are made by macros: one failure stands for them.
            if file.named.is_empty() {
                push(IT_COMPILES, broken(error));
            }
        } else if let Some(program) = &file.program {
            let tests = list(program)?;
            if tests.is_empty() && file.named.is_empty() {
                push(IT_COMPILES, Outcome::Passed);
            } else if tests.is_empty() {
                let skipped = Outcome::Skipped("an unstable API".into());
                file.named.iter().for_each(|test| push(test, skipped.clone()));
            }
            for test in tests {
                let known = reasons.of(name, &test).is_some();
                let (file, program) = (name.clone(), program.clone());
                jobs.push_back(Job { file, test, program, known });
            }
        }
    }
    let scratch = suite.root.join("output");
    fs::create_dir_all(&scratch)?;
    let (jobs, done) = (Mutex::new(jobs), Mutex::new(results));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (jobs, done) = (&jobs, &done);
                let output = scratch.join(worker.to_string());
                scope.spawn(move || work(jobs, done, &output, suite))
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker panicked"))
    })?;
    let mut results = done.into_inner().expect("no worker panicked");
    results.sort_by(|a, b| (&a.file, &a.test).cmp(&(&b.file, &b.test)));
    for result in &mut results {
        let reason = reasons.of(&result.file, &result.test);
        result.reason = reason.map(|(kind, text)| (kind.to_owned(), text.to_owned()));
    }
    Ok(results)
}

fn work(
    jobs: &Mutex<VecDeque<Job>>,
    done: &Mutex<Vec<TestResult>>,
    output: &Path,
    suite: &Suite,
) -> io::Result<()> {
    loop {
        let Some(job) = jobs.lock().expect("no worker panicked").pop_front() else { return Ok(()) };
        let mut outcomes = [(); 2].map(|()| Outcome::Passed);
        for (ring, outcome) in RINGS.iter().zip(&mut outcomes) {
            *outcome = once(&job, ring, output, &suite.home)?;
        }
        let Job { file, test, known, .. } = job;
        let result = TestResult { file, test, outcomes, reason: None };
        if result.failed() && !known {
            eprintln!("failed: {}::{} {}", result.file, result.test, result.why());
        }
        done.lock().expect("no worker panicked").push(result);
    }
}

/// The names of a program's tests, but for those that tokio itself ignores here.
fn list(program: &Path) -> io::Result<Vec<String>> {
    let names = |ignored: &[&str]| -> io::Result<Vec<String>> {
        let arguments = ["--list", "--format", "terse"];
        let output = Command::new(program).args(arguments).args(ignored).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(Into::into).collect())
    };
    let ignored = names(&["--ignored"])?;
    Ok(names(&[])?.into_iter().filter(|name| !ignored.contains(name)).collect())
}

fn once(job: &Job, ring: &str, output: &Path, home: &Path) -> io::Result<Outcome> {
    let file = fs::File::create(output)?;
    let mut child = Command::new(&job.program)
        .args(["--exact", &job.test, "--test-threads", "1", "--nocapture"])
        .env("QUOIT_RING", ring)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    let (started, limit) = (Instant::now(), if job.known { KNOWN_LIMIT } else { LIMIT });
    let status: Option<ExitStatus> = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let said = String::from_utf8_lossy(&fs::read(output)?).into_owned();
    Ok(match status {
        None => Outcome::Failed(format!("took more than {} s", limit.as_secs())),
        Some(status) if status.success() => Outcome::Passed,
        Some(status) if status.code() == Some(SKIPPED) => {
            let why = said.lines().find_map(|line| line.strip_prefix("skipped: "));
            Outcome::Skipped(why.unwrap_or("without a word").to_owned())
        }
        Some(status) => Outcome::Failed(complaint(&said, status)),
    })
}

/// The first panic of a program's output, on one line.
fn complaint(said: &str, status: ExitStatus) -> String {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at ")).skip(1);
    match lines.next() {
        Some(line) => line.chars().take(200).collect(),
        None => format!("ended with {status}"),
    }
}
