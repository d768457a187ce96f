//! Runs the test files of the published tokio against quoit, and writes `docs/tokio-tests.md`.
//!
//! ```text
//!   registry ─ copy ─► target/suite/tests ─ build ─► one program per file ─ list ─► tests
//!                          ▲                  │                                       │
//!                          └── cut the tests ─┘          each in a process of its own, on
//!                              that do not compile       both rings, with a time limit
//! ```
//!
//! Every test that fails must have a reason in `reasons.txt`, and every reason there must still be
//! needed; otherwise the exit status is 1. `run FILE..` runs only these files and writes nothing.

mod files;
mod reasons;
mod run;
mod source;
mod suite;
mod table;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use reasons::Reasons;
use suite::Suite;

fn main() -> ExitCode {
    match go(std::env::args().skip(1).collect()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the tests could not be run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The package of the shim: the one around this.
fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the runner has a place").to_owned()
}

fn go(only: Vec<String>) -> io::Result<bool> {
    let package = package();
    let reasons = Reasons::read(&package.join("reasons.txt"))?;
    let published = suite::find_tokio(&package)?;
    eprintln!("the test files of tokio {}", published.version);
    let (covered, left_out) = files::sort(&published.tests()?);
    let covered = covered.into_iter().filter(|file| only.is_empty() || only.contains(file));
    let mut suite = Suite::prepare(&package, &published, &covered.collect::<Vec<_>>())?;
    suite.build()?;
    let results = run::all(&suite, &reasons)?;
    let complaints = reasons.complaints(&results, only.is_empty());
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    let table = table::write(&published.version, &results, &left_out);
    if only.is_empty() {
        let path = package.join("../../docs/tokio-tests.md");
        std::fs::write(&path, &table)?;
    }
    print!("{}", table::figures(&results));
    Ok(complaints.is_empty())
}
