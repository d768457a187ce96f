//! What every table of measurements has in common: turns, medians with ranges, a file of samples.
//! `benches/ecosystem` uses this file too.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::process;

/// With their places, forwards in even rounds and backwards in odd ones: A B B A.
pub(crate) fn in_turn<'a, T>(
    items: &'a [T],
    round: usize,
) -> Box<dyn Iterator<Item = (usize, &'a T)> + 'a> {
    let items = items.iter().enumerate();
    if round.is_multiple_of(2) { Box::new(items) } else { Box::new(items.rev()) }
}

/// Median and range.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[half - 1], values[half])
        } else {
            values[half]
        };
        Some(Self { median, min, max })
    }
}

/// `target/PACKAGE` of the repository, wherever cargo was told to put its target directory.
pub fn target_dir() -> io::Result<PathBuf> {
    let directory = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    };
    let directory = directory.join(env!("CARGO_PKG_NAME"));
    std::fs::create_dir_all(&directory)?;
    directory.canonicalize()
}

/// Writes `target/PACKAGE/NAME.json` and says so.
pub fn write_json(name: &str, value: &impl Serialize) -> io::Result<()> {
    let path = target_dir()?.join(format!("{name}.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(value)?)?;
    // Said on the other stream, so that a table piped elsewhere is the table alone.
    eprintln!("\n{} ({})", path.display(), version());
    Ok(())
}

/// The commit that was measured, if this is a checkout.
fn version() -> String {
    let directory = env!("CARGO_MANIFEST_DIR");
    let arguments = ["-C", directory, "describe", "--always", "--dirty"];
    match Command::new("git").args(arguments).output() {
        Ok(output) if output.status.success() => {
            format!("commit {}", String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => process::machine(),
    }
}
