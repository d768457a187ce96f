//! duel.json: the machine, the effort, and every single run.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;

use crate::cells::{Effort, Measured};
use crate::control::TurnEvent;
use crate::figures::{Verdict, verdict};
use crate::machine::Machine;

/// Everything that a run of duel found.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) effort: Effort,
    pub(crate) cells: Vec<Measured>,
    /// Recorded turns by contender, when asked for.
    pub(crate) traces: Vec<(&'static str, Vec<TurnEvent>)>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    results: &'a Results,
    verdicts: Vec<Option<Verdict>>,
}

/// Writes the file; verdicts stand in the order of the cells.
pub(crate) fn write(results: &Results, path: &Path) -> io::Result<()> {
    let verdicts = results.cells.iter().map(verdict).collect();
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer_pretty(&mut file, &Document { results, verdicts })?;
    file.write_all(b"\n")?;
    file.flush()
}
