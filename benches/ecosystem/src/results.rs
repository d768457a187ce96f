//! Samples, ratios within a round, verdicts, and the table.
//!
//! ```text
//!   figure    same core: work per CPU-second of the measured process; two cores: work per second
//!   ratio     the figure over the mean of the reference's two in the same round
//!   verdict   level   the median ratio is within 5 % of 1, or its range meets the reference's own
//!             ahead, behind   otherwise
//!   95 %      between these two ratios the median lies, whatever the distribution: narrower with
//!             every round, where the range is wider; from six rounds on
//! ```

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use crate::report::Spread;
use crate::suite::{Cores, Measured};

/// What is no difference, whatever the ranges.
const TOLERANCE: f64 = 0.05;

/// One run of one contender.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sample {
    pub cell: String,
    pub contender: String,
    pub round: usize,
    pub measured: Measured,
}

impl Sample {
    fn per_second(&self) -> f64 {
        self.measured.load.done as f64 / self.measured.load.seconds
    }

    fn cpu_microseconds(&self) -> f64 {
        self.measured.cpu_nanoseconds as f64 / 1e3 / self.measured.load.done as f64
    }

    /// More is better.
    fn figure(&self, cores: Cores) -> f64 {
        match cores {
            Cores::Same => 1e6 / self.cpu_microseconds(),
            Cores::Two => self.per_second(),
        }
    }
}

/// What a suite measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: String,
    pub suite: String,
    pub unit: String,
    pub cores: Cores,
    /// The other side has a core of its own in any case.
    #[serde(default)]
    pub apart: bool,
    /// The first is the reference.
    pub contenders: Vec<String>,
    pub cells: Vec<String>,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ahead,
    Level,
    Behind,
}

impl Verdict {
    fn of(ratio: Spread, own: Spread) -> Self {
        let is_near = (ratio.median - 1.0).abs() <= TOLERANCE;
        if is_near || (ratio.min <= own.max && own.min <= ratio.max) {
            Self::Level
        } else if ratio.median > 1.0 {
            Self::Ahead
        } else {
            Self::Behind
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Level => "level",
            Self::Behind => "**behind**",
        }
    }
}

/// One contender over all cells, for the end of the table.
#[derive(Default)]
struct Summary {
    ratios: Vec<f64>,
    verdicts: Vec<Verdict>,
    tails: Vec<Verdict>,
    /// Cells whose median is surely above or below 1, however little.
    above: usize,
    below: usize,
}

impl Results {
    pub fn print(&self) -> io::Result<()> {
        let Some(reference) = self.contenders.first() else {
            return Err(io::Error::other("nobody was measured"));
        };
        let (unit, what) = (
            &self.unit,
            match self.cores {
                Cores::Same if self.apart => {
                    format!("{}s per CPU-second, the other side on another core", self.unit)
                }
                Cores::Same => format!("{}s per CPU-second, one core for both", self.unit),
                Cores::Two => format!("{}s per second, a core for each", self.unit),
            },
        );
        println!("{}\n{}: {what}\n", self.machine, self.suite);
        println!(
            "Ratio to {reference} within a round, median (range): more is better. Level: within"
        );
        println!(
            "5 %, or the ranges meet. The tail is ahead or behind outside {reference}'s range."
        );
        println!("95 %: the interval of the median, from six rounds on; one in twenty is wrong.\n");
        println!(
            "| cell | contender | ratio | 95 % | range | verdict | CPU us/{unit} | range \
             | thousand/s | p50 us | p99 us | range | tail | max us |"
        );
        println!("|---|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---|---:|");
        let mut summaries: BTreeMap<&str, Summary> = BTreeMap::new();
        for cell in &self.cells {
            for name in &self.contenders {
                self.print_line(cell, name, reference, summaries.entry(name).or_default());
            }
        }
        println!(
            "\n| contender | cells | median ratio | least | ahead | level | behind | 95 % above 1 \
             | below | tails behind |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        for name in &self.contenders[1..] {
            let Some(summary) = summaries.get(name.as_str()) else { continue };
            let Some(spread) = Spread::of(&summary.ratios) else { continue };
            let count = |list: &[Verdict], what| list.iter().filter(|v| **v == what).count();
            println!(
                "| {name} | {} | {:.3} | {:.3} | {} | {} | {} | {} | {} | {} |",
                summary.ratios.len(),
                spread.median,
                spread.min,
                count(&summary.verdicts, Verdict::Ahead),
                count(&summary.verdicts, Verdict::Level),
                count(&summary.verdicts, Verdict::Behind),
                summary.above,
                summary.below,
                count(&summary.tails, Verdict::Behind),
            );
        }
        Ok(())
    }

    fn print_line(&self, cell: &str, name: &str, reference: &str, summary: &mut Summary) {
        let ratios = self.ratios(cell, name, reference);
        let own = self.ratios(cell, reference, reference);
        let (Some(ratio), Some(own)) = (Spread::of(&ratios), Spread::of(&own)) else { return };
        let cpu = self.spread(cell, name, |s| Some(s.cpu_microseconds()));
        let speed = self.spread(cell, name, |s| Some(s.per_second() / 1e3));
        let p50 = self.spread(cell, name, |s| s.measured.load.p50);
        let p99 = self.spread(cell, name, |s| s.measured.load.p99);
        let own_p99 = self.spread(cell, reference, |s| s.measured.load.p99);
        let max = self.spread(cell, name, |s| s.measured.load.max).map(|spread| spread.max);
        // Those of the reference are over their own mean, and come in pairs.
        let surely = if name == reference { None } else { surely(&ratios) };
        let (mut verdict, mut tail) = ("reference", "");
        if name != reference {
            let of_ratio = Verdict::of(ratio, own);
            verdict = of_ratio.text();
            summary.ratios.push(ratio.median);
            summary.verdicts.push(of_ratio);
            summary.above += usize::from(surely.is_some_and(|(low, _)| low > 1.0));
            summary.below += usize::from(surely.is_some_and(|(_, high)| high < 1.0));
            if let (Some(p99), Some(own)) = (p99, own_p99) {
                let of_tail = tail_verdict(p99, own);
                tail = of_tail.text();
                summary.tails.push(of_tail);
            }
        }
        println!(
            "| {cell} | {name} | {:.3} | {} | {:.3}-{:.3} | {verdict} | {} | {} | {} | {} | {} \
             | {} | {tail} | {} |",
            ratio.median,
            surely.map(|(low, high)| format!("{low:.3}-{high:.3}")).unwrap_or_default(),
            ratio.min,
            ratio.max,
            median(cpu, 2),
            range(cpu, 2),
            median(speed, 1),
            median(p50, 0),
            median(p99, 0),
            range(p99, 0),
            max.map(|max| format!("{max:.0}")).unwrap_or_default(),
        );
    }

    fn of<'a>(&'a self, cell: &'a str, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |s| s.cell == cell && s.contender == name)
    }

    fn spread(
        &self,
        cell: &str,
        name: &str,
        figure: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        Spread::of(&self.of(cell, name).filter_map(figure).collect::<Vec<_>>())
    }

    /// Each run over the mean of the reference's runs in the same round.
    fn ratios(&self, cell: &str, name: &str, reference: &str) -> Vec<f64> {
        let one = |round: usize| {
            let figures = self.of(cell, reference).filter(|sample| sample.round == round);
            let figures: Vec<_> = figures.map(|sample| sample.figure(self.cores)).collect();
            figures.iter().sum::<f64>() / figures.len() as f64
        };
        self.of(cell, name).map(|sample| sample.figure(self.cores) / one(sample.round)).collect()
    }
}

/// Where the median of what these are samples of lies, with a probability of 95 % or more.
///
/// Each sample is as likely below that median as above. So it lies below the `k`-th smallest with
/// the probability that a coin thrown as often shows heads less than `k` times; and above the
/// `k`-th largest with the same. `None`: so few that not even the whole range is as sure, or so
/// many that half to their power is nothing.
fn surely(samples: &[f64]) -> Option<(f64, f64)> {
    const EITHER: f64 = 0.025;
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let throws = i32::try_from(count).ok().filter(|count| *count <= 1000)?;
    let (mut rank, mut term, mut below) = (0, 0.5_f64.powi(throws), 0.0);
    while below + term <= EITHER {
        below += term;
        term *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    (rank > 0).then(|| (sorted[rank - 1], sorted[count - rank]))
}

/// Less is better here.
fn tail_verdict(p99: Spread, own: Spread) -> Verdict {
    if p99.median > own.max * (1.0 + TOLERANCE) {
        Verdict::Behind
    } else if p99.median < own.min * (1.0 - TOLERANCE) {
        Verdict::Ahead
    } else {
        Verdict::Level
    }
}

fn median(spread: Option<Spread>, digits: usize) -> String {
    spread.map(|spread| format!("{:.digits$}", spread.median)).unwrap_or_default()
}

fn range(spread: Option<Spread>, digits: usize) -> String {
    spread
        .map(|spread| format!("{:.digits$}-{:.digits$}", spread.min, spread.max))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::surely;

    /// Ranks as the tables of the sign test have them.
    #[test]
    fn the_median_lies_between_these_ranks() {
        for (count, ranks) in [
            (0, None),
            (5, None),
            (6, Some((1, 6))),
            (8, Some((1, 8))),
            (9, Some((2, 8))),
            (15, Some((4, 12))),
            (25, Some((8, 18))),
            (50, Some((18, 33))),
            (2000, None),
        ] {
            let samples: Vec<_> = (1..=count).rev().map(f64::from).collect();
            let interval = surely(&samples).map(|(low, high)| (low as i32, high as i32));
            assert_eq!(interval, ranks, "{count} samples");
        }
    }
}
