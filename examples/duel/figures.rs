//! From runs to figures: medians, ranges, and the verdict.

use serde::Serialize;

use crate::cells::{Measured, Row, Run, Work};

/// A figure over several runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Range {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Range {
    /// Of one figure of a contender's runs.
    pub(crate) fn of(row: &Row, figure: impl Fn(&Run) -> f64) -> Self {
        let mut values: Vec<f64> = row.runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        let least = values.first().copied().unwrap_or(0.0);
        let most = values.last().copied().unwrap_or(0.0);
        Self { median, least, most }
    }

    /// Half the width, in per cent of the median.
    pub(crate) fn spread(self) -> f64 {
        if self.median > 0.0 { (self.most - self.least) / 2.0 / self.median * 100.0 } else { 0.0 }
    }

    fn overlaps(self, other: Self) -> bool {
        self.least <= other.most && other.least <= self.most
    }
}

/// What two contenders of a cell come to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// Median of the last contender over that of the first.
    pub(crate) ratio: f64,
    /// Whether their ranges are apart.
    pub(crate) differs: bool,
    pub(crate) text: String,
}

/// See [`verdict`].
const RUNS_FOR_A_VERDICT: usize = 4;

/// Compares the last contender with the first; `None` where there is only one.
///
/// The figure is the one that the cell can tell apart: what a message costs where both share a
/// core, messages per second where not (there the client is as busy as the server), bytes where
/// idle. A difference counts only when every run of one lies beyond every run of the other, and is
/// a per cent at least. Of two equal contenders that happens by chance in 1 of 3 cells with two
/// runs each, in 1 of 35 with four: fewer runs than that get no verdict.
pub(crate) fn verdict(measured: &Measured) -> Option<Verdict> {
    let [first, .., last] = measured.rows.as_slice() else { return None };
    let cell = &measured.cell;
    let (what, figure): (_, fn(&Run) -> f64) = if cell.work == Work::Idle {
        ("bytes per idle connection", |run| run.bytes_per_connection.unwrap_or(0.0))
    } else if cell.rate.is_some() {
        ("p99", |run| run.p99)
    } else if cell.work == Work::FileCached {
        ("reads per CPU-second", |run| run.per_cpu_second)
    } else if cell.work == Work::FileDirect {
        ("reads/s", |run| run.per_second)
    } else if cell.is_cost() {
        ("messages per CPU-second", |run| run.per_cpu_second)
    } else {
        ("messages/s", |run| run.per_second)
    };
    let (base, other) = (Range::of(first, figure), Range::of(last, figure));
    let ratio = if base.median > 0.0 { other.median / base.median } else { 0.0 };
    let few = first.runs.len().min(last.runs.len()) < RUNS_FOR_A_VERDICT;
    let differs = !few && !base.overlaps(other) && (ratio - 1.0).abs() >= 0.01;
    let text = if few {
        format!(
            "{} {ratio:.2}x {} in {what} (too few runs for a verdict)",
            last.driver, first.driver
        )
    } else if differs {
        format!("{} {ratio:.2}x {} in {what}", last.driver, first.driver)
    } else if base.overlaps(other) {
        format!("no difference in {what}: ranges overlap (medians {ratio:.2}x)")
    } else {
        format!("no difference in {what}: less than a per cent")
    };
    Some(Verdict { ratio, differs, text })
}

/// A count with as many digits as one can read: 950, 12.3 k, 4.56 M.
pub(crate) fn count(value: f64) -> String {
    let (value, unit) = match value {
        big if big >= 1e6 => (big / 1e6, " M"),
        big if big >= 1e4 => (big / 1e3, " k"),
        small => return format!("{small:.0}"),
    };
    let digits = if value >= 100.0 { 0 } else { 1 + usize::from(value < 10.0) };
    format!("{value:.digits$}{unit}")
}

/// Microseconds or a small ratio, with three significant digits.
pub(crate) fn small(value: f64) -> String {
    match value {
        big if big >= 99.95 => format!("{big:.0}"),
        mid if mid >= 9.995 => format!("{mid:.1}"),
        low if low >= 0.0995 => format!("{low:.2}"),
        tiny => format!("{tiny:.3}"),
    }
}
