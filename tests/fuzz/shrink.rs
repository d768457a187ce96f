//! Leaves out of a failing program whatever it fails without.

use std::time::{Duration, Instant};

use crate::life;
use crate::program::Program;

/// So long at most.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn shrink(mut program: Program, failure: &str) -> Program {
    let kind = kind(failure);
    let start = Instant::now();
    loop {
        let before = weight(&program);
        let mut try_it = |smaller: &Program| {
            start.elapsed() < LIMIT
                && life::run(smaller).failures.iter().any(|one| self::kind(one) == kind)
        };
        for candidate in simpler(&program) {
            if try_it(&candidate) {
                program = candidate;
                break;
            }
        }
        for lane in 0..program.lanes.len() {
            shrink_lane(&mut program, lane, &mut try_it);
        }
        if weight(&program) == before || start.elapsed() >= LIMIT {
            return program;
        }
    }
}

fn weight(program: &Program) -> usize {
    let Program { lanes, ends, restarts, events, .. } = program;
    program.size() + lanes.len() + ends.len() + restarts.len() + events.len()
}

/// A failure without its numbers.
fn kind(failure: &str) -> String {
    let words = failure.chars().filter(|letter| !letter.is_ascii_digit());
    words.take_while(|letter| *letter != ':' && *letter != '[').take(60).collect()
}

/// Halves, quarters, ... and single operations go.
fn shrink_lane(program: &mut Program, lane: usize, fails: &mut impl FnMut(&Program) -> bool) {
    let mut length = program.lanes[lane].ops.len().next_power_of_two();
    while length > 0 {
        let mut start = 0;
        while start < program.lanes[lane].ops.len() {
            let mut smaller = program.clone();
            let ops = &mut smaller.lanes[lane].ops;
            let end = (start + length).min(ops.len());
            ops.drain(start..end);
            if fails(&smaller) {
                *program = smaller;
            } else {
                start = end;
            }
        }
        length /= 2;
    }
}

/// The program without one of its lanes, ends or other properties.
fn simpler(program: &Program) -> Vec<Program> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Program)| {
        let mut smaller = program.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    for end in 0..program.ends.len() {
        add(&|program| _ = program.ends.remove(end));
    }
    for restart in 0..program.restarts.len() {
        add(&|program| _ = program.restarts.remove(restart));
    }
    for event in 0..program.events.len() {
        add(&|program| _ = program.events.remove(event));
    }
    for lane in 0..program.lanes.len() {
        add(&|program| drop(program.lanes.remove(lane)));
    }
    if program.cores != [1, 1] {
        add(&|program| program.cores = [1, 1]);
    }
    if program.disk_errors {
        add(&|program| program.disk_errors = false);
    }
    all
}
