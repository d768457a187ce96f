//! Samples, ratios within a round, and the table.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use crate::report::Spread;

/// The variants of the limit that may be the reference. The one that never sleeps may not: it
/// buys speed with a core.
pub const REFERENCES: [&str; 2] = ["limit-send", "limit-inline"];
const TOKIO: &str = "tokio";

/// Which figure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Cores {
    /// Server and client share one: server CPU per message, less is better.
    Same,
    /// One each: messages per second, more is better.
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    pub depth: usize,
    pub size: usize,
    pub connections: usize,
}

/// One run of one contender.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sample {
    pub cell: Cell,
    pub round: usize,
    pub contender: String,
    /// The second run of the same contender in this round.
    pub again: bool,
    pub messages: u64,
    pub seconds: f64,
    /// None for a server that is not ours to look into.
    pub cpu_nanoseconds: Option<u64>,
    pub p50_nanoseconds: u64,
    pub p99_nanoseconds: u64,
    pub fewest: u64,
    pub most: u64,
}

impl Sample {
    fn per_second(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    fn figure(&self, cores: Cores) -> Option<f64> {
        match cores {
            Cores::Same => Some(self.cpu_nanoseconds? as f64 / 1e3 / self.messages as f64),
            Cores::Two => Some(self.per_second() / 1e3),
        }
    }
}

/// Whether a contender is run twice per round, to show how far from 1 its own ratio gets.
pub fn is_repeated(name: &str) -> bool {
    REFERENCES.contains(&name) || name == TOKIO
}

/// What `echo` measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: String,
    pub cores: Cores,
    pub contenders: Vec<String>,
    pub samples: Vec<Sample>,
}

/// One line of the table.
struct Line {
    contender: String,
    figure: Spread,
    ratio: Option<Spread>,
    per_second: f64,
    p99: f64,
}

/// One contender's ratios over all cells, for the end of the table.
#[derive(Default)]
struct Summary {
    ratios: Vec<f64>,
    better: usize,
    level: usize,
    worse: usize,
}

impl Results {
    /// Prints ratios against `against`, by default against each cell's best variant of the limit.
    pub fn print(&self, against: Option<&str>) -> io::Result<()> {
        let what = match self.cores {
            Cores::Same => "server CPU us per message, same core as the client (less is better)",
            Cores::Two => "thousand messages/s, one core each (more is better)",
        };
        println!("{}\n{what}\n", self.machine);
        println!(
            "Ratio: within a round, against the reference; median (min-max). \"=\": inside the"
        );
        println!(
            "reference's own range, which is the line \"again\", its second run in the round.\n"
        );
        println!(
            "| conns | bytes | depth | contender | figure | ratio | min-max | | k msg/s | p99 us |"
        );
        println!("|---:|---:|---:|---|---:|---:|---:|---|---:|---:|");
        let mut cells: Vec<Cell> = self.samples.iter().map(|sample| sample.cell).collect();
        cells.sort_unstable();
        cells.dedup();
        let mut summaries: BTreeMap<&str, Summary> = BTreeMap::new();
        for cell in cells {
            let reference = match against {
                Some(name) => Some(name),
                None => self.best_limit(cell),
            };
            self.print_cell(cell, reference, &mut summaries);
        }
        if summaries.is_empty() {
            println!("\nNo reference was run, so there are no ratios.");
            return Ok(());
        }
        println!("\n| contender | cells | ratio in the median cell | worst | better | = | worse |");
        println!("|---|---:|---:|---:|---:|---:|---:|");
        for name in &self.contenders {
            let Some(summary) = summaries.get(name.as_str()) else { continue };
            let Some(spread) = Spread::of(&summary.ratios) else { continue };
            let worst = if self.cores == Cores::Same { spread.max } else { spread.min };
            println!(
                "| {name} | {} | {:.3} | {worst:.3} | {} | {} | {} |",
                summary.ratios.len(),
                spread.median,
                summary.better,
                summary.level,
                summary.worse
            );
        }
        Ok(())
    }

    fn print_cell<'a>(
        &'a self,
        cell: Cell,
        reference: Option<&str>,
        summaries: &mut BTreeMap<&'a str, Summary>,
    ) {
        let own = reference.and_then(|name| self.own_range(cell, name));
        let Cell { connections, size, depth } = cell;
        for name in &self.contenders {
            let Some(line) = self.line(cell, name, reference) else { continue };
            let mut mark = "";
            if let Some(ratio) = line.ratio {
                let is_reference = reference == Some(name.as_str());
                mark = if is_reference { "reference" } else { self.verdict(ratio, own) };
                let summary = summaries.entry(name).or_default();
                summary.ratios.push(ratio.median);
                match mark {
                    "better" => summary.better += 1,
                    "worse" => summary.worse += 1,
                    _ => summary.level += 1,
                }
            }
            println!("| {connections} | {size} | {depth} | {} |", line.text(mark));
            if let (true, Some(own)) = (mark == "reference", own) {
                println!(
                    "| {connections} | {size} | {depth} | {name}, again | | {} | | |",
                    ratio_text(own)
                );
            }
        }
    }

    /// A ratio is a difference only outside the reference's own range.
    fn verdict(&self, ratio: Spread, own: Option<Spread>) -> &'static str {
        let Some(own) = own else { return "" };
        let (less, more) = match self.cores {
            Cores::Same => ("better", "worse"),
            Cores::Two => ("worse", "better"),
        };
        if ratio.median > own.max {
            more
        } else if ratio.median < own.min {
            less
        } else {
            "="
        }
    }

    fn of<'a>(&'a self, cell: Cell, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |s| s.cell == cell && s.contender == name)
    }

    fn figures(&self, cell: Cell, name: &str) -> Vec<f64> {
        self.of(cell, name).filter_map(|sample| sample.figure(self.cores)).collect()
    }

    fn best_limit(&self, cell: Cell) -> Option<&'static str> {
        let median = |name: &str| Spread::of(&self.figures(cell, name)).map(|s| s.median);
        let ranked = REFERENCES.into_iter().filter_map(|name| Some((median(name)?, name)));
        let best = match self.cores {
            Cores::Same => ranked.min_by(|a, b| a.0.total_cmp(&b.0)),
            Cores::Two => ranked.max_by(|a, b| a.0.total_cmp(&b.0)),
        };
        best.map(|(_, name)| name)
    }

    /// The reference in one round: the mean of its runs, which stand at both ends of the round.
    fn reference_figure(&self, cell: Cell, name: &str, round: usize) -> Option<f64> {
        let of_round = self.of(cell, name).filter(|sample| sample.round == round);
        let figures: Vec<_> = of_round.filter_map(|sample| sample.figure(self.cores)).collect();
        let count = figures.len() as f64;
        if figures.is_empty() { None } else { Some(figures.iter().sum::<f64>() / count) }
    }

    /// Second run over first run, round by round. The range holds the inverses too: which of two
    /// equal runs came first says nothing, and few rounds would leave it on one side of 1.
    fn own_range(&self, cell: Cell, name: &str) -> Option<Spread> {
        let again = self.of(cell, name).filter(|sample| sample.again);
        let ratios: Vec<_> = again
            .filter_map(|second| {
                let mut runs = self.of(cell, name);
                let first = runs.find(|s| s.round == second.round && !s.again)?;
                Some(second.figure(self.cores)? / first.figure(self.cores)?)
            })
            .collect();
        let mut both = ratios.clone();
        both.extend(ratios.iter().map(|ratio| ratio.recip()));
        let range = Spread::of(&both)?;
        Some(Spread { median: Spread::of(&ratios)?.median, ..range })
    }

    fn line(&self, cell: Cell, name: &str, reference: Option<&str>) -> Option<Line> {
        let ratios: Vec<_> = self
            .of(cell, name)
            .filter_map(|sample| {
                let one = self.reference_figure(cell, reference?, sample.round)?;
                Some(sample.figure(self.cores)? / one)
            })
            .collect();
        let speeds: Vec<_> = self.of(cell, name).map(Sample::per_second).collect();
        let tails: Vec<_> = self.of(cell, name).map(|s| s.p99_nanoseconds as f64 / 1e3).collect();
        Some(Line {
            contender: name.to_owned(),
            // A foreign server without a process number has only its speed.
            figure: Spread::of(&self.figures(cell, name)).unwrap_or(Spread {
                median: f64::NAN,
                min: f64::NAN,
                max: f64::NAN,
            }),
            ratio: Spread::of(&ratios),
            per_second: Spread::of(&speeds)?.median,
            p99: Spread::of(&tails)?.median,
        })
    }
}

impl Line {
    fn text(&self, mark: &str) -> String {
        let ratio = self.ratio.map_or_else(|| " | ".to_owned(), ratio_text);
        let Self { contender, figure, per_second, p99, .. } = self;
        let speed = per_second / 1e3;
        let figure = figure.median;
        format!("{contender} | {figure:.3} | {ratio} | {mark} | {speed:.1} | {p99:.0}")
    }
}

fn ratio_text(ratio: Spread) -> String {
    format!("{:.3} | {:.3}-{:.3}", ratio.median, ratio.min, ratio.max)
}
