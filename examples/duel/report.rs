//! report.html: one file, no script, nothing fetched.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::cells::{Cell, Measured, Run, Work};
use crate::figures::{Range, verdict};
use crate::json::Results;
use crate::plots::{Group, Line, Painter};
use crate::table::{self, Style};
use crate::timeline;

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>duel: completion against readiness</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 2rem auto; }
body { padding: 0 1rem; }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.35; }
figure { display: inline-block; margin: 0 1rem 1rem 0; max-width: 100%; background: #fff;
  border: 1px solid #8884; border-radius: 6px; overflow: hidden; }
svg { display: block; max-width: 100%; height: auto; }
.difference { font-weight: 600; }
</style>
";

const COST_NOTE: &str = "\
    With a core each, the client is as busy as the server and both models stop at the same \
    speed; sharing one core shows what a message costs. Lines are medians, bands the range \
    of all runs.";
const LATENCY_NOTE: &str = "\
    Each step to the right is one more nine. Without a rate the loop is closed: these are \
    service times at that many connections, not response times at a rate.";
const CALLS_NOTE: &str = "\
    Counted by the ring. Readiness receives and sends each message with a call of its own \
    and shares only the waiting; completion can share one call among all that is ready.";
const IDLE_NOTE: &str = "\
    Resident memory of the server with all connections less that with a third of them, each \
    having echoed one message.";
const FILES_NOTE: &str = "\
    A regular file is always ready, so readiness needs a thread for each read that the page \
    cache cannot answer; completion does not.";
const TURNS_NOTE: &str = "\
    One turn of the loop on each ring as it happened, to one scale: 8 connections, server and \
    client on one core. It begins with the last 2 us of the wait and ends before the next. Every \
    edge between the lanes is a crossing into the kernel or back; a task stands in the upper lane, \
    its calls in the lower one. io_uring has received within its wait, which is mostly not shown, \
    so only the number of calls compares, not the length. Recording takes time too: what a \
    message costs is in the table.";

/// A picture and the name of its file.
struct Picture {
    name: String,
    svg: String,
}

impl Picture {
    fn new(name: &str, svg: io::Result<String>) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), svg: svg? })
    }
}

/// Writes the page, and each picture beside it.
pub(crate) fn write(results: &Results, path: &Path) -> io::Result<()> {
    let mut page = HEAD.to_owned();
    let _ = writeln!(
        page,
        "<h1>duel</h1>\n<p>The same echo server on io_uring (completion: <em>it is done, here is \
         the result</em>) and on epoll (readiness: <em>you may try now</em>).</p>\n<pre>{}</pre>",
        escape(&results.machine.lines())
    );
    verdicts(results, &mut page);
    let signature = results.machine.signature();
    let painter = Painter { signature: &signature };
    for (title, note, pictures) in [
        ("Throughput and cost", COST_NOTE, throughput(results, &painter)?),
        ("System calls per message", CALLS_NOTE, vec![syscalls(results, &painter)?]),
        ("Recorded turns", TURNS_NOTE, vec![turns(results, &painter)?]),
        ("Latency", LATENCY_NOTE, latency(results, &painter)?),
        ("Memory of an idle connection", IDLE_NOTE, vec![idle(results, &painter)?]),
        ("4 KiB random reads", FILES_NOTE, files(results, &painter)?),
    ] {
        section(&mut page, title, note, &pictures);
        for picture in pictures.iter().filter(|picture| !picture.svg.is_empty()) {
            std::fs::write(path.with_file_name(&picture.name).with_extension("svg"), &picture.svg)?;
        }
    }
    let _ = writeln!(page, "<h2>All figures</h2>\n<pre>{}", table::heading(Style::Plain));
    for measured in &results.cells {
        page.push_str(&escape(&table::cell(measured, Style::Plain)));
    }
    let _ = writeln!(page, "\n{}</pre>\n</html>", escape(table::LEGEND));
    std::fs::write(path, page)
}

fn verdicts(results: &Results, page: &mut String) {
    page.push_str("<ul>\n");
    for measured in &results.cells {
        if let Some(verdict) = verdict(measured) {
            let class = if verdict.differs { " class=\"difference\"" } else { "" };
            let (name, text) = (escape(&table::name(&measured.cell)), escape(&verdict.text));
            let _ = writeln!(page, "<li>{name}: <span{class}>{text}</span>");
        }
    }
    page.push_str("</ul>\n");
}

/// Pictures without data are empty and left out, and so is a section without pictures.
fn section(page: &mut String, title: &str, note: &str, pictures: &[Picture]) {
    if pictures.iter().all(|picture| picture.svg.is_empty()) {
        return;
    }
    let _ = writeln!(page, "<h2>{title}</h2>\n<p>{note}</p>");
    for picture in pictures.iter().filter(|picture| !picture.svg.is_empty()) {
        let _ = writeln!(page, "<figure>{}</figure>", picture.svg);
    }
}

/// Ping-pong cells of the shortest message, which a line over connections is drawn from.
fn simplest(results: &Results, cost: bool) -> Vec<&Measured> {
    let plain = |cell: &Cell| {
        cell.work == Work::Pingpong
            && cell.rate.is_none()
            && cell.spin == 0
            && cell.is_cost() == cost
    };
    let cells = || results.cells.iter().filter(|measured| plain(&measured.cell));
    let shortest = cells().map(|measured| measured.cell.length).min();
    cells().filter(|measured| Some(measured.cell.length) == shortest).collect()
}

/// One line per contender, over a number of the cell.
fn over(cells: &[&Measured], x: fn(&Cell) -> usize, y: fn(&Run) -> f64) -> Vec<Line> {
    let names = cells.first().map(|measured| &measured.rows).into_iter().flatten();
    names
        .enumerate()
        .map(|(index, row)| {
            let point = |measured: &&Measured| {
                (x(&measured.cell) as f64, Range::of(&measured.rows[index], y))
            };
            Line { name: row.driver, points: cells.iter().map(point).collect() }
        })
        .collect()
}

fn throughput(results: &Results, painter: &Painter<'_>) -> io::Result<Vec<Picture>> {
    let chart = |name, title, y, cost, figure| {
        let lines = over(&simplest(results, cost), |cell| cell.connections, figure);
        Picture::new(name, painter.lines(title, "connections", y, &lines))
    };
    Ok(vec![
        chart(
            "throughput",
            "Messages per second, server and client on two cores",
            "messages/s",
            false,
            |run| run.per_second,
        )?,
        chart(
            "cost",
            "Messages per second of server CPU time, both on one core",
            "messages/CPU-s",
            true,
            |run| run.per_cpu_second,
        )?,
    ])
}

fn turns(results: &Results, painter: &Painter<'_>) -> io::Result<Picture> {
    Picture::new("turns", timeline::draw_turns(painter, &results.traces))
}

/// The open-loop cells where there are any: only they show response times.
fn latency(results: &Results, painter: &Painter<'_>) -> io::Result<Vec<Picture>> {
    let open = || results.cells.iter().filter(|measured| measured.cell.rate.is_some());
    let cells: Vec<&Measured> =
        if open().next().is_some() { open().collect() } else { simplest(results, false) };
    let picture = |(index, measured): (usize, &&Measured)| {
        let histograms: Vec<_> = measured
            .rows
            .iter()
            .filter_map(|row| Some((row.driver, row.histogram.as_ref()?)))
            .collect();
        let title = table::name(&measured.cell);
        Picture::new(&format!("latency-{}", index + 1), painter.percentiles(&title, &histograms))
    };
    cells.iter().enumerate().map(picture).collect()
}

fn syscalls(results: &Results, painter: &Painter<'_>) -> io::Result<Picture> {
    let mut cells = simplest(results, false);
    if cells.is_empty() {
        cells = simplest(results, true);
    }
    let label = |cell: &Cell| format!("{} conn.", cell.connections);
    let groups = groups(&cells, label, |run| run.syscalls_per_message);
    let title = "System calls for I/O per echoed message";
    Picture::new("syscalls", painter.bars(title, "calls/message", &groups))
}

fn idle(results: &Results, painter: &Painter<'_>) -> io::Result<Picture> {
    let idle = results.cells.iter().filter(|measured| measured.cell.work == Work::Idle);
    let label = |cell: &Cell| format!("{} connections", cell.connections);
    let bytes = |run: &Run| run.bytes_per_connection.unwrap_or(0.0);
    let groups = groups(&idle.collect::<Vec<_>>(), label, bytes);
    let title = "User-space memory per further idle connection";
    Picture::new("idle", painter.bars(title, "bytes", &groups))
}

fn groups(cells: &[&Measured], label: fn(&Cell) -> String, figure: fn(&Run) -> f64) -> Vec<Group> {
    let group = |measured: &&Measured| Group {
        label: label(&measured.cell),
        bars: measured.rows.iter().map(|row| (row.driver, Range::of(row, figure).median)).collect(),
    };
    cells.iter().map(group).collect()
}

fn files(results: &Results, painter: &Painter<'_>) -> io::Result<Vec<Picture>> {
    let chart = |name, title, y, work: Work, figure| {
        let cells: Vec<&Measured> =
            results.cells.iter().filter(|measured| measured.cell.work == work).collect();
        let lines = over(&cells, |cell| cell.depth, figure);
        Picture::new(name, painter.lines(title, "reads in flight", y, &lines))
    };
    let (cached, direct) = (Work::FileCached, Work::FileDirect);
    Ok(vec![
        chart("file-cached", "Cached: reads per second", "reads/s", cached, |run| run.per_second)?,
        chart(
            "file-cached-cost",
            "Cached: reads per second of CPU time",
            "reads/CPU-s",
            cached,
            |run| run.per_cpu_second,
        )?,
        chart("file-direct", "O_DIRECT: reads per second", "reads/s", direct, |run| {
            run.per_second
        })?,
    ])
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
