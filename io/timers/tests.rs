//! The wheel against a sorted map, with seeded random operations, and its edges one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::{Expiry, TimerKey, Timers};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const YEAR: u64 = 365 * 24 * 3600 * SECOND;

struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Any magnitude is as likely as any other.
    fn span(&mut self) -> u64 {
        let bits = self.below(64);
        self.next() >> bits
    }
}

fn expire(timers: &mut Timers, now: u64) -> Vec<u64> {
    let mut out = Vec::new();
    timers.expire(now, &mut out);
    out.into_iter()
        .map(|expiry| match expiry {
            Expiry::Token(token) => token,
            Expiry::Wake(_) => panic!("these tests insert tokens only"),
        })
        .collect()
}

fn token(expiry: Option<Expiry>) -> Option<u64> {
    match expiry? {
        Expiry::Token(token) => Some(token),
        Expiry::Wake(_) => panic!("these tests insert tokens only"),
    }
}

/// What the wheel must be indistinguishable from.
struct Model {
    timers: Timers,
    now: u64,
    /// By deadline and insertion: exactly the order of firing.
    pending: BTreeMap<(u64, u64), TimerKey>,
    gone: Vec<TimerKey>,
    inserted: u64,
}

impl Model {
    fn new(now: u64) -> Self {
        let timers = Timers::new(now);
        Self { timers, now, pending: BTreeMap::new(), gone: Vec::new(), inserted: 0 }
    }

    fn insert(&mut self, deadline: u64) {
        self.inserted += 1;
        let key = self.timers.insert(deadline, Expiry::Token(self.inserted));
        self.pending.insert((deadline, self.inserted), key);
    }

    fn pick(&self, random: &mut XorShift) -> Option<((u64, u64), TimerKey)> {
        let nth = random.below(self.pending.len().max(1) as u64) as usize;
        self.pending.iter().nth(nth).map(|(order, key)| (*order, *key))
    }

    fn remove(&mut self, random: &mut XorShift) {
        let Some((order, key)) = self.pick(random) else { return };
        self.pending.remove(&order);
        assert_eq!(token(self.timers.remove(key)), Some(order.1));
        self.gone.push(key);
    }

    fn reset(&mut self, random: &mut XorShift, deadline: u64) {
        let Some((order, key)) = self.pick(random) else { return };
        self.pending.remove(&order);
        self.pending.insert((deadline, order.1), key);
        assert!(self.timers.reset(key, deadline));
    }

    fn advance(&mut self, now: u64) {
        self.now = now;
        let later = self.pending.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.pending, later);
        let expected: Vec<u64> = due.keys().map(|order| order.1).collect();
        assert_eq!(expire(&mut self.timers, now), expected);
        self.gone.extend(due.into_values());
        assert!(self.timers.next_deadline().is_none_or(|next| next > now));
    }

    fn check(&self) {
        assert_eq!(self.timers.len(), self.pending.len());
        match (self.timers.next_deadline(), self.pending.keys().next()) {
            (None, None) => {}
            (Some(told), Some(&(first, _))) => assert!(told <= first, "{told} is after {first}"),
            (told, first) => panic!("told {told:?}, but the first is {first:?}"),
        }
    }

    /// Keys of timers that fired or were removed match nothing, whoever has their place now.
    fn check_gone(&mut self) {
        for key in &self.gone {
            assert!(!self.timers.is_pending(*key));
            assert!(!self.timers.reset(*key, 0));
            assert!(self.timers.remove(*key).is_none());
        }
        assert!(self.pending.values().all(|key| self.timers.is_pending(*key)));
    }
}

fn run(seed: u64, steps: usize, mut span: impl FnMut(&mut XorShift) -> u64) {
    let mut random = XorShift(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
    let mut model = Model::new(random.span());
    for _ in 0..steps {
        match random.below(16) {
            0..=5 => {
                let deadline = model.now.saturating_add(span(&mut random));
                model.insert(deadline);
            }
            6 => model.insert(model.now.saturating_sub(span(&mut random))),
            7..=9 => model.remove(&mut random),
            10 => {
                let deadline = model.now.saturating_add(span(&mut random));
                model.reset(&mut random, deadline);
            }
            11..=13 => {
                // Slower than the deadlines run ahead, so that many are pending at a time.
                let now = model.now.saturating_add(span(&mut random) / 64);
                model.advance(now);
            }
            // As a core does: to the time that the wheel names.
            14 => {
                if let Some(next) = model.timers.next_deadline() {
                    model.advance(next.max(model.now));
                }
            }
            _ => model.advance(model.now),
        }
        model.check();
    }
    model.check_gone();
    model.advance(u64::MAX);
    assert_eq!(model.timers.len(), 0);
    assert_eq!(model.timers.next_deadline(), None);
}

#[test]
fn agrees_with_a_sorted_map_at_every_scale() {
    for seed in 1..=40 {
        run(seed, 3_000, XorShift::span);
    }
}

#[test]
fn agrees_with_a_sorted_map_near_by() {
    for seed in 1..=20 {
        run(seed, 3_000, |random| random.below(200));
        run(seed, 3_000, |random| random.below(50 * MILLISECOND));
    }
}

#[test]
fn fires_at_the_nanosecond_and_never_before() {
    for delay in [1, 63, 64, 65, MILLISECOND, SECOND, 30 * SECOND, 300 * YEAR] {
        let start = 7 * SECOND + 12_345;
        let mut timers = Timers::new(start);
        timers.insert(start + delay, Expiry::Token(delay));
        assert_eq!(timers.next_deadline(), Some(start + delay));
        assert_eq!(expire(&mut timers, start + delay - 1), [0_u64; 0]);
        assert_eq!(timers.next_deadline(), Some(start + delay));
        assert_eq!(expire(&mut timers, start + delay), [delay]);
        assert_eq!(timers.len(), 0);
    }
}

#[test]
fn the_past_and_zero_fire_at_once_in_order() {
    let mut timers = Timers::new(SECOND);
    for (token, deadline) in [(1, SECOND), (2, 5), (3, 0), (4, 5), (5, SECOND)] {
        timers.insert(deadline, Expiry::Token(token));
    }
    assert_eq!(timers.next_deadline(), Some(0));
    assert_eq!(expire(&mut timers, SECOND), [3, 2, 4, 1, 5]);
}

#[test]
fn the_end_of_time_is_a_deadline_like_others() {
    let mut timers = Timers::new(0);
    timers.insert(u64::MAX, Expiry::Token(1));
    timers.insert(u64::MAX - 1, Expiry::Token(2));
    assert_eq!(expire(&mut timers, 500 * YEAR), [0_u64; 0]);
    assert_eq!(timers.next_deadline(), Some(u64::MAX - 1));
    assert_eq!(expire(&mut timers, u64::MAX - 1), [2]);
    timers.insert(3, Expiry::Token(3));
    assert_eq!(expire(&mut timers, u64::MAX), [3, 1]);
    timers.insert(u64::MAX, Expiry::Token(4));
    assert_eq!(expire(&mut timers, u64::MAX), [4]);
}

#[test]
fn a_jump_of_years_fires_everything_in_order() {
    let mut timers = Timers::new(SECOND);
    let deadlines = [90 * YEAR, 2 * SECOND, 100 * YEAR + 1, YEAR, 2 * SECOND + 1, 100 * YEAR];
    for deadline in deadlines {
        timers.insert(deadline, Expiry::Token(deadline));
    }
    assert_eq!(
        expire(&mut timers, 100 * YEAR),
        [2 * SECOND, 2 * SECOND + 1, YEAR, 90 * YEAR, 100 * YEAR]
    );
    assert_eq!(timers.next_deadline(), Some(100 * YEAR + 1));
}

#[test]
fn a_clock_that_goes_back_fires_nothing_early() {
    let mut timers = Timers::new(0);
    timers.insert(10, Expiry::Token(0));
    assert_eq!(expire(&mut timers, 10), [0]);
    timers.insert(5, Expiry::Token(1));
    timers.insert(9, Expiry::Token(2));
    timers.insert(20, Expiry::Token(3));
    assert_eq!(expire(&mut timers, 4), [0_u64; 0]);
    assert_eq!(expire(&mut timers, 5), [1]);
    assert_eq!(timers.next_deadline(), Some(9));
    assert_eq!(expire(&mut timers, 30), [2, 3]);
}

/// Timeouts that never expire must not wake the core once each: the time that the wheel names may
/// be that of a removed timer, but asking once brings it to the next that is pending.
#[test]
fn removed_timers_cost_few_early_turns() {
    let mut timers = Timers::new(0);
    let mut early_turns = 0;
    let mut previous = timers.insert(30 * SECOND, Expiry::Token(0));
    for now in (MILLISECOND..1_000 * SECOND).step_by(MILLISECOND as usize) {
        let key = timers.insert(now + 30 * SECOND, Expiry::Token(0));
        assert!(timers.remove(previous).is_some());
        previous = key;
        if timers.next_deadline().is_some_and(|next| next <= now) {
            early_turns += 1;
            assert_eq!(expire(&mut timers, now), [0_u64; 0]);
        }
    }
    assert!(early_turns <= 1_000 / 15, "{early_turns} early turns in 1,000 s");
}

#[test]
fn steady_state_allocates_nothing() {
    let mut timers = Timers::new(0);
    let mut out = Vec::with_capacity(8);
    let mut entries = 0;
    for round in 0..10_000_u64 {
        let keys = [0, 1, 2, 3].map(|n| timers.insert(round + n * n * 50, Expiry::Token(n)));
        assert!(timers.remove(keys[3]).is_some());
        timers.expire(round, &mut out);
        out.clear();
        if round == 5_000 {
            entries = timers.entries.capacity();
        }
    }
    assert_eq!(timers.entries.capacity(), entries);
}

#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn wakers_are_replaced_and_handed_back() {
    let counters = [Arc::<Counter>::default(), Arc::default()];
    let [first, second] = counters.each_ref().map(|counter| Waker::from(counter.clone()));
    let mut timers = Timers::new(0);
    let key = timers.insert(10, Expiry::Wake(first.clone()));
    assert_eq!(timers.will_wake(key, &first), Some(true));
    assert_eq!(timers.will_wake(key, &second), Some(false));
    let old = timers.replace_waker(key, second.clone()).expect("the old waker");
    assert!(old.will_wake(&first));

    let mut out = Vec::new();
    timers.expire(10, &mut out);
    for expiry in out {
        let Expiry::Wake(waker) = expiry else { panic!("a waker went in") };
        waker.wake();
    }
    assert_eq!(counters.map(|counter| counter.0.load(Ordering::Relaxed)), [0, 1]);

    assert_eq!(timers.will_wake(key, &second), None);
    let unused = timers.replace_waker(key, first.clone()).expect("the waker comes back");
    assert!(unused.will_wake(&first));
}
