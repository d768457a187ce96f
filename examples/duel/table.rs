//! The table on the terminal, a row per contender, a verdict per cell; or the same as Markdown.

use std::fmt::Write as _;

use crate::cells::{Cell, Measured, Row, Work};
use crate::figures::{Range, count, small, verdict};

/// How it is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Markdown,
    /// Verdicts only.
    Quiet,
}

const HEADINGS: [&str; 12] = [
    "ring",
    "per s",
    "+-%",
    "per CPU-s",
    "p50 us",
    "p99",
    "p99.9",
    "max",
    "calls",
    "ctxsw",
    "CPU us",
    "MiB",
];
const WIDTHS: [usize; 12] = [13, 8, 5, 9, 7, 7, 7, 7, 6, 6, 7, 6];

/// What the columns mean, and what closed-loop latencies are not.
pub(crate) const LEGEND: &str = "\
calls, ctxsw, CPU us: system calls for I/O (counted by the ring), context switches and server CPU
time per message or read; MiB: the server's resident memory. Medians over the runs; +-%: half their
range; max: the largest of all.
Closed loop (cells without a rate): the next message waits for the last answer, so the tails are
service times at this many in flight, not response times at a rate; for those use --rate.";

/// The head of the table.
pub(crate) fn heading(style: Style) -> String {
    match style {
        Style::Quiet => String::new(),
        Style::Plain => line(&HEADINGS.map(str::to_owned)),
        Style::Markdown => {
            let rule = [&["---"][..], &["---:"; HEADINGS.len() - 1]].concat();
            format!("| {} |\n| {} |\n", HEADINGS.join(" | "), rule.join(" | "))
        }
    }
}

/// One measured cell: its name, its rows, its verdict.
pub(crate) fn cell(measured: &Measured, style: Style) -> String {
    let mut text = String::new();
    let name = name(&measured.cell);
    let verdict = verdict(measured).map(|verdict| verdict.text);
    match style {
        Style::Quiet => {
            let alone = measured.rows.first().map(|row| {
                let speed = Range::of(row, |run| run.per_second);
                format!("{} {}/s", row.driver, count(speed.median))
            });
            let _ = writeln!(text, "{name}: {}", verdict.or(alone).unwrap_or_default());
        }
        Style::Plain => {
            let _ = writeln!(text, "{name}");
            for row in &measured.rows {
                text.push_str(&line(&columns(measured, row)));
                notes(row, &mut text);
            }
            if let Some(verdict) = verdict {
                let _ = writeln!(text, "            -> {verdict}");
            }
        }
        Style::Markdown => {
            let _ = writeln!(text, "| **{name}** |{}", " |".repeat(HEADINGS.len() - 1));
            for row in &measured.rows {
                let _ = writeln!(text, "| {} |", columns(measured, row).join(" | "));
            }
            if let Some(verdict) = verdict {
                let _ = writeln!(text, "| *{verdict}* |{}", " |".repeat(HEADINGS.len() - 1));
            }
        }
    }
    text
}

/// A cell in words.
pub(crate) fn name(cell: &Cell) -> String {
    let place = match cell.cores {
        Some((server, client)) if server == client => format!(", cost: both on core {server}"),
        Some((server, client)) => format!(", server core {server}, client core {client}"),
        None => String::new(),
    };
    let connections = count_of(cell.connections);
    let mut text = match cell.work {
        Work::Pingpong => format!("{connections} x {} B", cell.length),
        Work::Stream => format!("{connections} x {} B, {} in flight each", cell.length, cell.depth),
        Work::Churn => format!("churn, {connections} x {} B at a time", cell.length),
        Work::Idle => format!("idle, {connections}"),
        Work::FileCached => format!("file, cached, {} reads in flight", cell.depth),
        Work::FileDirect => format!("file, O_DIRECT, {} reads in flight", cell.depth),
    };
    if let Some(rate) = cell.rate {
        let _ = write!(text, ", open loop at {}/s", count(rate as f64));
    }
    if cell.spin > 0 {
        let _ = write!(text, ", spinning {} us", cell.spin);
    }
    text + &place
}

fn count_of(connections: usize) -> String {
    if connections == 1 { "1 connection".into() } else { format!("{connections} connections") }
}

fn columns(measured: &Measured, row: &Row) -> [String; 12] {
    let of = |figure: fn(&crate::cells::Run) -> f64| Range::of(row, figure);
    let memory = format!("{:.1}", of(|run| run.memory as f64).median / f64::from(1 << 20));
    let none = || "-".to_owned();
    if measured.cell.work == Work::Idle {
        let mut columns = [(); 12].map(|()| none());
        columns[0] = row.driver.to_owned();
        columns[11] = memory;
        return columns;
    }
    let speed = of(|run| run.per_second);
    let server = of(|run| run.cpu_us_per_message).median > 0.0;
    let known = |text: String| if server { text } else { none() };
    [
        row.driver.to_owned(),
        count(speed.median),
        format!(
            "{:.1}",
            if measured.cell.is_cost() {
                of(|run| run.per_cpu_second).spread()
            } else {
                speed.spread()
            }
        ),
        known(count(of(|run| run.per_cpu_second).median)),
        small(of(|run| run.p50).median),
        small(of(|run| run.p99).median),
        small(of(|run| run.p999).median),
        small(of(|run| run.max).most),
        known(small(of(|run| run.syscalls_per_message).median)),
        known(small(of(|run| run.switches_per_message).median)),
        known(small(of(|run| run.cpu_us_per_message).median)),
        known(memory),
    ]
}

/// What a row of numbers cannot say: bytes per connection, unfairness, errors.
fn notes(row: &Row, text: &mut String) {
    if row.runs.iter().any(|run| run.bytes_per_connection.is_some()) {
        let bytes = Range::of(row, |run| run.bytes_per_connection.unwrap_or(0.0));
        let _ = writeln!(text, "            {:.0} bytes per further connection", bytes.median);
    }
    let unfair = |run: &&crate::cells::Run| run.fairness.0 * 3 < run.fairness.1 * 2;
    if let Some(run) = row.runs.iter().find(unfair) {
        let (least, most) = run.fairness;
        let _ = writeln!(text, "            uneven: {least} to {most} messages per connection");
    }
    let unsent: u64 = row.runs.iter().map(|run| run.unsent).sum();
    let sent: u64 = row.runs.iter().map(|run| run.messages).sum();
    // A few are always planned for the very end.
    if unsent * 100 > sent {
        let _ = writeln!(text, "            too slow for the rate: {unsent} messages never sent");
    }
    for (cause, count) in row.runs.iter().flat_map(|run| &run.errors) {
        let _ = writeln!(text, "            {count} connections lost: {cause}");
    }
}

fn line(columns: &[String; 12]) -> String {
    let mut text = format!("  {:<width$}", columns[0], width = WIDTHS[0] - 1);
    for (column, width) in columns.iter().zip(WIDTHS).skip(1) {
        let _ = write!(text, " {column:>width$}");
    }
    text.push('\n');
    text
}
