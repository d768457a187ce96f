//! The two models side by side, drawn from turns that really happened.
//!
//! ```text
//! readiness  user    ─┐ ┌task┐ ┌task┐ ┌─
//!            kernel   └w┘recv send  ...     a crossing at every edge
//! uring      user    ─┐       ┌task task┐ ┌─
//!            kernel   └─enter─┘         └─┘ the same messages, fewer crossings
//! ```
//!
//! Both are drawn to one time scale, and from the busiest turn of each record.

use std::io;

use plotters::prelude::*;
use plotters::style::full_palette::{GREY_300, GREY_600};

use crate::control::{TurnEvent, TurnKind};
use crate::plots::{colour, draw, failed};

const WIDTH: i32 = 1180;
const LEFT: i32 = 110;
const LANE: i32 = 34;
const BLOCK: i32 = 120;
/// Turns shown of each record.
const TURNS: usize = 2;

/// A piece of time in one of the lanes, in nanoseconds from the first turn shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u64,
    to: u64,
    kind: TurnKind,
    n: u64,
}

/// Draws the records; empty when there are none.
pub(crate) fn draw_turns(traces: &[(&'static str, Vec<TurnEvent>)]) -> io::Result<String> {
    let records: Vec<_> = traces
        .iter()
        .map(|(name, events)| (*name, busiest(events)))
        .filter(|(_, spans)| !spans.is_empty())
        .collect();
    let longest = records.iter().filter_map(|(_, spans)| Some(spans.last()?.to)).max();
    let Some(longest) = longest.filter(|longest| *longest > 0) else { return Ok(String::new()) };
    let height = 20 + BLOCK * records.len() as i32;
    draw((WIDTH as u32, height as u32), |area| {
        let scale = f64::from(WIDTH - LEFT - 20) / longest as f64;
        for (index, (name, spans)) in records.iter().enumerate() {
            let top = 10 + BLOCK * index as i32;
            let caption = format!("{name}: {}", summary(spans));
            text(area, caption, (8, top), 15, colour(name))?;
            for (lane, label) in ["user", "kernel"].into_iter().enumerate() {
                let y = top + 26 + lane as i32 * LANE;
                text(area, label.to_owned(), (LEFT - 60, y + 8), 13, GREY_600)?;
                let line = PathElement::new([(LEFT, y + LANE), (WIDTH - 20, y + LANE)], GREY_300);
                area.draw(&line).map_err(failed)?;
            }
            for span in spans {
                let x = |time: u64| LEFT + (time as f64 * scale) as i32;
                let kernel = span.kind != TurnKind::Task;
                let y = top + 28 + if kernel { LANE } else { 0 };
                let right = x(span.to).max(x(span.from) + 2);
                let shade = shade(span.kind, colour(name));
                let block = Rectangle::new([(x(span.from), y), (right, y + LANE - 4)], shade);
                area.draw(&block).map_err(failed)?;
                if right - x(span.from) > 34 {
                    text(area, label(span), (x(span.from) + 3, y + 8), 11, WHITE)?;
                }
            }
        }
        Ok(())
    })
}

fn text(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
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
        TurnKind::Task => "task".to_owned(),
    }
}

fn shade(kind: TurnKind, colour: RGBColor) -> ShapeStyle {
    match kind {
        TurnKind::Enter => colour.filled(),
        TurnKind::Recv | TurnKind::Send => colour.mix(0.75).filled(),
        TurnKind::Task => GREY_600.filled(),
    }
}

fn summary(spans: &[Span]) -> String {
    let calls = spans.iter().filter(|span| span.kind != TurnKind::Task).count();
    let time = spans.last().map_or(0, |span| span.to) as f64 / 1e3;
    format!("{calls} system calls in {TURNS} turns, {time:.1} us")
}

/// The turns around the wait that brought most.
fn busiest(events: &[TurnEvent]) -> Vec<Span> {
    let enters: Vec<usize> =
        (0..events.len()).filter(|&at| events[at].kind == TurnKind::Enter).collect();
    // The last turns of a record may be cut off.
    let whole = enters.len().saturating_sub(TURNS);
    let most = enters[..whole].iter().enumerate().max_by_key(|(_, at)| events[**at].n);
    let Some((turn, &first)) = most else { return Vec::new() };
    let last = enters[turn + TURNS];
    // The first wait began long before, when there was nothing to do: its end is the start.
    let ends = |at: usize| match events[at].took_ns {
        Some(took) => events[at].t_ns + took,
        None => events[at + 1].t_ns,
    };
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
        assert_eq!(spans.len(), 5);
        assert_eq!(spans[0], Span { from: 0, to: 2000, kind: TurnKind::Enter, n: 3 });
        assert_eq!(spans[2], Span { from: 3000, to: 3500, kind: TurnKind::Send, n: 64 });
        assert!(summary(&spans).starts_with("4 system calls"));
        assert!(draw_turns(&[("uring", events)]).expect("a picture").contains("wait: 1"));
    }

    #[test]
    fn a_record_without_a_whole_turn_draws_nothing() {
        let event = TurnEvent { t_ns: 5, kind: TurnKind::Enter, n: 9, took_ns: None };
        assert_eq!(draw_turns(&[("uring", vec![event])]).expect("nothing"), "");
    }
}
