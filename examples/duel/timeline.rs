//! The two models side by side, drawn from turns that really happened.
//!
//! ```text
//! readiness  user    ─┐ ┌task┐ ┌task┐ ┌─
//!            kernel   └w┘recv send  ...     a crossing at every edge
//! uring      user    ─┐       ┌task task┐ ┌─
//!            kernel   └─enter─┘         └─┘ the same messages, fewer crossings
//! ```
//!
//! Both are drawn to one time scale, and from a busy turn of each record. A system call within a
//! task cuts its block in two: the time is the kernel's.

use std::io;

use plotters::prelude::*;
use plotters::style::full_palette::{GREY_300, GREY_600};

use crate::control::{TurnEvent, TurnKind};
use crate::plots::{Area, Painter, colour, failed};

const WIDTH: i32 = 1180;
const LEFT: i32 = 110;
const LANE: i32 = 34;
const BLOCK: i32 = 120;
/// The kinds in the order of the key.
const KEY: [(&str, TurnKind); 4] = [
    ("wait", TurnKind::Enter),
    ("recv", TurnKind::Recv),
    ("send", TurnKind::Send),
    ("task", TurnKind::Task),
];

/// A piece of time in one of the lanes, in nanoseconds from the first turn shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u64,
    to: u64,
    kind: TurnKind,
    n: i64,
}

/// Draws the records; empty when there are none.
pub(crate) fn draw_turns(
    painter: &Painter<'_>,
    traces: &[(&'static str, Vec<TurnEvent>)],
) -> io::Result<String> {
    let records: Vec<_> = traces
        .iter()
        .map(|(name, events)| (*name, busiest(events)))
        .filter(|(_, spans)| !spans.is_empty())
        .collect();
    let longest = records.iter().flat_map(|(_, spans)| spans).map(|span| span.to).max();
    let Some(longest) = longest.filter(|longest| *longest > 0) else { return Ok(String::new()) };
    let height = 20 + BLOCK * records.len() as i32;
    let scale = f64::from(WIDTH - LEFT - 20) / longest as f64;
    painter.draw((WIDTH as u32, height as u32), |area| {
        for (index, (name, spans)) in records.iter().enumerate() {
            record(area, 10 + BLOCK * index as i32, scale, name, spans)?;
        }
        Ok(())
    })
}

/// One record, `scale` pixels to the nanosecond.
fn record(area: &Area<'_>, top: i32, scale: f64, name: &str, spans: &[Span]) -> io::Result<()> {
    let caption = format!("{name}: {}", summary(spans));
    text(area, caption, (8, top), 15, colour(name))?;
    let present = |kind| spans.iter().any(|span| span.kind == kind);
    let key: Vec<_> = KEY.into_iter().filter(|(_, kind)| present(*kind)).collect();
    for (place, (label, kind)) in key.iter().enumerate() {
        let left = WIDTH - 20 - 58 * (key.len() - place) as i32;
        let square = [(left, top + 2), (left + 11, top + 13)];
        area.draw(&Rectangle::new(square, shade(*kind, colour(name)))).map_err(failed)?;
        text(area, (*label).to_owned(), (left + 16, top), 13, GREY_600)?;
    }
    for (lane, label) in ["user", "kernel"].into_iter().enumerate() {
        let y = top + 26 + lane as i32 * LANE;
        text(area, label.to_owned(), (LEFT - 60, y + 8), 13, GREY_600)?;
        let line = PathElement::new([(LEFT, y + LANE), (WIDTH - 20, y + LANE)], GREY_300);
        area.draw(&line).map_err(failed)?;
    }
    // The calls last, over the tasks that made them.
    let mut spans = spans.to_vec();
    spans.sort_by_key(|span| span.kind != TurnKind::Task);
    for span in &spans {
        let x = |time: u64| LEFT + (time as f64 * scale) as i32;
        let kernel = span.kind != TurnKind::Task;
        let y = top + 28 + if kernel { LANE } else { 0 };
        let (left, right) = (x(span.from), x(span.to).max(x(span.from) + 2));
        if kernel {
            let hole = [(left, y - LANE), (right, y - 4)];
            area.draw(&Rectangle::new(hole, WHITE.filled())).map_err(failed)?;
        }
        let shade = shade(span.kind, colour(name));
        let block = Rectangle::new([(left, y), (right, y + LANE - 4)], shade);
        area.draw(&block).map_err(failed)?;
        if right - left > 34 {
            text(area, label(span), (left + 3, y + 8), 11, WHITE)?;
        }
    }
    Ok(())
}

fn text(
    area: &Area<'_>,
    content: String,
    at: (i32, i32),
    size: u32,
    colour: RGBColor,
) -> io::Result<()> {
    let style = ("sans-serif", size).into_font().color(&colour);
    area.draw(&Text::new(content, at, style)).map_err(failed)
}

fn label(span: &Span) -> String {
    match span.kind {
        TurnKind::Enter => format!("wait: {}", span.n),
        TurnKind::Recv => "recv".to_owned(),
        TurnKind::Send => "send".to_owned(),
        TurnKind::Call => "call".to_owned(),
        TurnKind::Task => "task".to_owned(),
    }
}

fn shade(kind: TurnKind, colour: RGBColor) -> ShapeStyle {
    match kind {
        TurnKind::Enter => colour.filled(),
        TurnKind::Recv => colour.mix(0.3).filled(),
        TurnKind::Send | TurnKind::Call => colour.mix(0.65).filled(),
        TurnKind::Task => GREY_600.filled(),
    }
}

fn summary(spans: &[Span]) -> String {
    let count = |kinds: &[TurnKind]| spans.iter().filter(|s| kinds.contains(&s.kind)).count();
    let sent = spans.iter().filter(|span| span.kind == TurnKind::Send && span.n > 0).count();
    let direct = count(&[TurnKind::Recv, TurnKind::Send, TurnKind::Call]);
    let waits = count(&[TurnKind::Enter]);
    let calls = waits + direct;
    let end = spans.iter().map(|span| span.to).max().unwrap_or(0);
    let time = (end - spans.first().map_or(0, |wait| wait.to)) as f64 / 1e3;
    format!(
        "{sent} messages sent with {calls} system calls ({waits} wait, {direct} direct), \
         {time:.1} us after the wait"
    )
}

/// The turn whose wait brought most; of several such, the one of middling length, so that neither
/// luck nor an interruption is shown.
fn busiest(events: &[TurnEvent]) -> Vec<Span> {
    let enters: Vec<usize> =
        (0..events.len()).filter(|&at| events[at].kind == TurnKind::Enter).collect();
    // A span without a length lasts until the next.
    let ends = |at: usize| match (events[at].took_ns, events.get(at + 1)) {
        (Some(took), _) => events[at].t_ns + took,
        (None, next) => next.map_or(events[at].t_ns, |next| next.t_ns),
    };
    // The last turn of a record may be cut off.
    let whole = enters.len().saturating_sub(1);
    let most = enters[..whole].iter().map(|&at| events[at].n).max();
    let mut turns: Vec<usize> =
        (0..whole).filter(|&turn| Some(events[enters[turn]].n) == most).collect();
    turns.sort_by_key(|&turn| events[enters[turn + 1]].t_ns - ends(enters[turn]));
    let Some(&turn) = turns.get(turns.len() / 2) else { return Vec::new() };
    let (first, last) = (enters[turn], enters[turn + 1]);
    // The first wait began long before, when there was nothing to do: its end is the start.
    let start = ends(first).saturating_sub(2_000).max(events[first].t_ns);
    (first..last)
        .map(|at| Span {
            from: events[at].t_ns.saturating_sub(start),
            to: ends(at).saturating_sub(start),
            kind: events[at].kind,
            n: events[at].n,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAINTER: Painter<'_> = Painter { signature: "a test" };

    #[test]
    fn the_busiest_turn_is_shown_from_shortly_before_its_wait_ends() {
        let text = r#"[
            {"t_ns": 0, "kind": "enter", "n": 1}, {"t_ns": 9000, "kind": "task", "n": 1},
            {"t_ns": 10000, "kind": "enter", "n": 3}, {"t_ns": 50000, "kind": "recv", "n": 64},
            {"t_ns": 51000, "kind": "send", "n": 64, "took_ns": 500},
            {"t_ns": 52000, "kind": "enter", "n": 1}, {"t_ns": 60000, "kind": "task", "n": 2},
            {"t_ns": 61000, "kind": "enter", "n": 1}, {"t_ns": 70000, "kind": "enter", "n": 1}
        ]"#;
        let events: Vec<TurnEvent> = serde_json::from_str(text).expect("a trace");
        let spans = busiest(&events);
        assert_eq!(spans.len(), 3);
        assert_eq!(spans[0], Span { from: 0, to: 2000, kind: TurnKind::Enter, n: 3 });
        assert_eq!(spans[2], Span { from: 3000, to: 3500, kind: TurnKind::Send, n: 64 });
        let text = "1 messages sent with 3 system calls (1 wait, 2 direct), 1.5 us after the wait";
        assert_eq!(summary(&spans), text);
        assert!(draw_turns(&PAINTER, &[("uring", events)]).expect("a picture").contains(text));
    }

    #[test]
    fn a_record_without_a_whole_turn_draws_nothing() {
        let event = TurnEvent { t_ns: 5, kind: TurnKind::Enter, n: 9, took_ns: None };
        assert_eq!(draw_turns(&PAINTER, &[("uring", vec![event])]).expect("nothing"), "");
    }
}
