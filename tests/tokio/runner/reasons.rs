//! Why tests fail: `reasons.txt`, a line for each, held to be complete and needed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::run::{Outcome, TestResult};

/// The kinds that do not count against quoit: not for it by the rules of the bar.
const OUTSIDE: [&str; 3] = ["multi-thread", "unstable", "budget"];

/// Kind and text of the reason of each test, by `file::test`.
#[derive(Debug)]
pub(crate) struct Reasons(BTreeMap<String, (String, String)>);

impl Reasons {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut reasons = BTreeMap::new();
        let text = std::fs::read_to_string(path)?;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut parts = line.splitn(3, ' ');
            let (Some(kind), Some(test), Some(reason)) = (parts.next(), parts.next(), parts.next())
            else {
                return Err(io::Error::other(format!("not `kind file::test reason`: {line}")));
            };
            if reasons.insert(test.to_owned(), (kind.to_owned(), reason.to_owned())).is_some() {
                return Err(io::Error::other(format!("two reasons for {test}")));
            }
        }
        Ok(Self(reasons))
    }

    pub(crate) fn of(&self, file: &str, test: &str) -> Option<(&str, &str)> {
        let (kind, text) = self.0.get(&format!("{file}::{test}"))?;
        Some((kind, text))
    }

    /// Whether a test with that kind of reason is not for us.
    pub(crate) fn is_outside(kind: &str) -> bool {
        OUTSIDE.contains(&kind)
    }

    /// What is wrong with the reasons, given what happened.
    pub(crate) fn complaints(&self, results: &[TestResult], whole: bool) -> Vec<String> {
        let mut complaints = Vec::new();
        for result in results {
            let TestResult { file, test, .. } = result;
            let failed = result.failed();
            match self.of(file, test) {
                None if failed => {
                    complaints.push(format!("no reason: {file}::{test} {}", result.why()));
                }
                Some(_) if !failed => {
                    complaints.push(format!("a reason, but it passes: {file}::{test}"));
                }
                _ => {}
            }
        }
        let known = |name: &str| {
            results.iter().any(|result| format!("{}::{}", result.file, result.test) == name)
        };
        if whole {
            let stale = self.0.keys().filter(|name| !known(name));
            complaints.extend(stale.map(|name| format!("a reason, but no such test: {name}")));
        }
        complaints
    }
}

impl TestResult {
    pub(crate) fn failed(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// What the first ring on which it failed had to say.
    pub(crate) fn why(&self) -> &str {
        let said = self.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Failed(why) => Some(why.as_str()),
            _ => None,
        });
        said.unwrap_or_default()
    }
}
