//! The table of what passed, and the reasons for the rest.

use std::fmt::Write;

use crate::files::{self, BAR, PARTS};
use crate::reasons::Reasons;
use crate::run::{LIMIT, Outcome, RINGS, TestResult};

/// Counts of tests on one ring.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    passed: usize,
    failed: usize,
    /// Not for us by the rules of the bar.
    outside: usize,
}

fn count<'a>(results: impl Iterator<Item = &'a TestResult>, ring: usize) -> Count {
    let mut count = Count::default();
    for result in results {
        let kind = result.reason.as_ref().map(|(kind, _)| kind.as_str());
        match &result.outcomes[ring] {
            Outcome::Skipped(_) => count.outside += 1,
            Outcome::Failed(_) if kind.is_some_and(Reasons::is_outside) => count.outside += 1,
            Outcome::Failed(_) => count.failed += 1,
            Outcome::Passed => count.passed += 1,
        }
    }
    count
}

impl Count {
    fn share(self) -> String {
        let all = self.passed + self.failed;
        format!("{:.1} %", 100.0 * self.passed as f64 / all.max(1) as f64)
    }
}

/// The figures of the bar, for the terminal.
pub(crate) fn figures(results: &[TestResult]) -> String {
    let mut text = String::new();
    for (ring, name) in RINGS.iter().enumerate() {
        let of_bar = results.iter().filter(|result| in_bar(&result.file));
        let Count { passed, failed, outside } = count(of_bar, ring);
        let share = Count { passed, failed, outside }.share();
        let counts = format!("{passed} passed, {failed} failed ({share})");
        let _ = writeln!(text, "{name}: {counts}, {outside} not for us");
    }
    text
}

fn in_bar(file: &str) -> bool {
    files::part(file).is_some_and(|part| BAR.contains(&part))
}

/// The whole document.
pub(crate) fn write(
    version: &str,
    results: &[TestResult],
    left_out: &[(String, &'static str)],
) -> String {
    let head = "# tokio's own tests on quoit

```text
tests/tokio/run
```

compiles the test files of the published tokio VERSION, unchanged, against a crate named `tokio`
whose runtime is quoit (`tests/tokio/src`), runs every test in a process of its own on both rings,
LIMIT seconds at most, and writes this file. Each has one try.

*Not for us* are tests of the multi-thread flavour, of unstable APIs and of tokio's cooperative
budget. Single tests that are only compiled for other systems or with unstable APIs are not counted.
In `sync`, `macros` and most of `io` the code under test is tokio's own, on our tasks and wakers;
`LocalSet` is tokio's own, too, inside a task of ours.

";
    let limit = LIMIT.as_secs().to_string();
    let mut text = head.replace("VERSION", version).replace("LIMIT", &limit);
    parts(&mut text, results);
    by_file(&mut text, results);
    failures(&mut text, results);
    text.push_str("\n## Files left out\n\n| file | reason |\n|---|---|\n");
    for (file, reason) in left_out {
        let _ = writeln!(text, "| {file} | {reason} |");
    }
    text
}

fn parts(text: &mut String, results: &[TestResult]) {
    let head = "| | passed | failed | share | passed | failed | share | not for us |";
    let _ = writeln!(text, "| part | {} | | | {} | | | |", RINGS[0], RINGS[1]);
    let _ = writeln!(text, "|---|---|---|---|---|---|---|---|\n{head}");
    let mut row = |name: &str, chosen: &dyn Fn(&str) -> bool| {
        let [uring, readiness] =
            [0, 1].map(|ring| count(results.iter().filter(|result| chosen(&result.file)), ring));
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} |",
            uring.passed,
            uring.failed,
            uring.share(),
            readiness.passed,
            readiness.failed,
            readiness.share(),
            uring.outside
        );
    };
    for (part, _) in PARTS {
        row(part, &|file| files::part(file) == Some(part));
    }
    row("**TCP, time, tasks, runtime, io**", &in_bar);
}

fn by_file(text: &mut String, results: &[TestResult]) {
    let [uring, readiness] = RINGS.map(|ring| format!("{ring}: passed, failed"));
    let _ = writeln!(text, "\n## By file\n\n| file | {uring} | {readiness} | not for us |");
    text.push_str("|---|---|---|---|\n");
    let mut names: Vec<&str> = results.iter().map(|result| result.file.as_str()).collect();
    names.dedup();
    for name in names {
        let [uring, readiness] =
            [0, 1].map(|ring| count(results.iter().filter(|result| result.file == name), ring));
        let _ = writeln!(
            text,
            "| {name} | {}, {} | {}, {} | {} |",
            uring.passed, uring.failed, readiness.passed, readiness.failed, uring.outside
        );
    }
}

fn failures(text: &mut String, results: &[TestResult]) {
    text.push_str("\n## What fails, and why\n\n| test | on | reason |\n|---|---|---|\n");
    for result in results.iter().filter(|result| result.failed()) {
        let rings = RINGS.iter().zip(&result.outcomes);
        let failed = rings.filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
        let rings: Vec<&str> = failed.map(|(ring, _)| *ring).collect();
        let on = if rings.len() == RINGS.len() { "both" } else { rings[0] };
        let reason = match &result.reason {
            Some((kind, reason)) => format!("{kind}: {reason}"),
            None => format!("**no reason yet**: {}", result.why()),
        };
        let _ = writeln!(text, "| {}::{} | {on} | {reason} |", result.file, result.test);
    }
}
