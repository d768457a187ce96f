//! Faults at times that the seed draws, for whoever does not want to plan each.
//!
//! ```text
//!   0 ──── cut ─── crash ── heal ── reset ──── restart ────┤ until ── all is well ──►
//! ```

use std::fmt::Write;
use std::time::Duration;

use super::{Sim, World};
use crate::io::ring::simulated::{Chance, Crash};
use crate::runtime::builder::nanoseconds;

/// What may go wrong, how often, and until when: then every link is healed and every host up, so
/// that a test can ask whether the program gets well again. How often, when, to whom and for how
/// long is drawn from the seed.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use quoit::sim::{Faults, check};
///
/// check(5, |sim| {
///     sim.host("db", || std::future::pending::<()>());
///     sim.client("client", async { quoit::time::sleep(Duration::from_secs(20)).await });
///     sim.faults(Faults::until(Duration::from_secs(10)).crashes(2).resets(0));
/// });
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "faults do nothing before `Sim::faults`"]
pub struct Faults {
    until: Duration,
    partitions: usize,
    resets: usize,
    crashes: usize,
    clocks: usize,
}

impl Faults {
    /// Up to four of each kind, before this time of the world; clocks go right unless
    /// [asked](Self::clocks).
    pub fn until(time: Duration) -> Self {
        Self { until: time, partitions: 4, resets: 4, crashes: 4, clocks: 0 }
    }

    /// How often two hosts are parted, at most, one way or both. Default: 4.
    pub fn partitions(mut self, at_most: usize) -> Self {
        self.partitions = at_most;
        self
    }

    /// How often the connections between two hosts are reset, at most. Default: 4.
    pub fn resets(mut self, at_most: usize) -> Self {
        self.resets = at_most;
        self
    }

    /// How often a host crashes, at most: killed, or without power, which loses what was not
    /// synced. Clients do not. Default: 4.
    pub fn crashes(mut self, at_most: usize) -> Self {
        self.crashes = at_most;
        self
    }

    /// How often the clock of a host goes wrong, at most: it jumps up to an hour ahead, or its time
    /// of day does so to either side, or it drifts for a while, by up to a tenth. Default: 0.
    pub fn clocks(mut self, at_most: usize) -> Self {
        self.clocks = at_most;
        self
    }

    /// Plans everything, and tells what.
    pub(super) fn plan(self, sim: &mut Sim) -> String {
        let names = |clients| {
            let all = sim.driver.plans().filter(move |(_, is_client)| clients || !is_client);
            all.map(|(name, _)| name.to_owned()).collect::<Vec<String>>()
        };
        let (all, hosts) = (names(true), names(false));
        let chance = Chance::of(sim.seed(), 5);
        let mut plan = Plan { sim, chance, until: nanoseconds(self.until), told: String::new() };
        if all.len() > 1 {
            (0..plan.up_to(self.partitions)).for_each(|_| plan.partition(&all));
            (0..plan.up_to(self.resets)).for_each(|_| plan.reset(&all));
        }
        if !hosts.is_empty() {
            (0..plan.up_to(self.crashes)).for_each(|_| plan.crash(&hosts));
        }
        (0..plan.up_to(self.clocks)).for_each(|_| plan.clock(&all));
        plan.sim.at(self.until, move |world| {
            world.heal_all();
            hosts.iter().for_each(|host| world.restart(host));
        });
        plan.told
    }
}

struct Plan<'a> {
    sim: &'a mut Sim,
    chance: Chance,
    until: u64,
    told: String,
}

impl Plan<'_> {
    /// None, or so many at most.
    fn up_to(&mut self, most: usize) -> usize {
        self.chance.below(most.saturating_add(1))
    }

    /// A time before the end, and a later one.
    fn span(&mut self) -> [Duration; 2] {
        let mut times = [0; 2].map(|_| self.chance.below(self.until.max(1) as usize) as u64);
        times.sort_unstable();
        times.map(Duration::from_nanos)
    }

    fn pair(&mut self, hosts: &[String]) -> [String; 2] {
        let one = self.chance.below(hosts.len());
        let other = (one + self.chance.up_to(hosts.len() - 1)) % hosts.len();
        [one, other].map(|index| hosts[index].clone())
    }

    fn at(&mut self, time: Duration, action: impl FnOnce(&World) + 'static) {
        self.sim.at(time, action);
    }

    fn tell(&mut self, text: &str) {
        writeln!(self.told, "  {text}").expect("memory takes all text");
    }

    fn partition(&mut self, hosts: &[String]) {
        let ([from, until], [one, other]) = (self.span(), self.pair(hosts));
        let both = self.chance.one_in(2);
        let arrow = if both { "and" } else { "to" };
        self.tell(&format!("nothing gets through from {one} {arrow} {other}: {from:?}, {until:?}"));
        let (a, b) = (one.clone(), other.clone());
        self.at(from, move |world| match both {
            true => world.partition(&a, &b),
            false => world.cut(&a, &b),
        });
        self.at(until, move |world| world.heal(&one, &other));
    }

    fn reset(&mut self, hosts: &[String]) {
        let ([_, at], [one, other]) = (self.span(), self.pair(hosts));
        self.tell(&format!("connections between {one} and {other} are reset: {at:?}"));
        self.at(at, move |world| world.reset(&one, &other));
    }

    fn crash(&mut self, hosts: &[String]) {
        let [at, back] = self.span();
        let host = hosts[self.chance.below(hosts.len())].clone();
        let how = if self.chance.one_in(2) { Crash::Kill } else { Crash::PowerLoss };
        self.tell(&format!("{host} crashes ({how:?}): {at:?}, and is back: {back:?}"));
        let again = host.clone();
        self.at(at, move |world| world.crash(&host, how));
        self.at(back, move |world| world.restart(&again));
    }

    fn clock(&mut self, hosts: &[String]) {
        let ([at, until], host) = (self.span(), hosts[self.chance.below(hosts.len())].clone());
        let by = Duration::from_millis(self.chance.up_to(3_600_000) as u64);
        match self.chance.below(4) {
            0 => {
                self.tell(&format!("the clock of {host} jumps by {by:?}: {at:?}"));
                self.at(at, move |world| world.jump_clock(&host, by));
            }
            1 => {
                self.tell(&format!("the time of day of {host} jumps by {by:?}: {at:?}"));
                self.at(at, move |world| world.wall_clock_forwards(&host, by));
            }
            2 => {
                self.tell(&format!("the time of day of {host} jumps back by {by:?}: {at:?}"));
                self.at(at, move |world| world.wall_clock_backwards(&host, by));
            }
            _ => {
                let rate = self.chance.up_to(200_000) as i32 - 100_000;
                self.tell(&format!("the clock of {host} drifts by {rate} ppm: {at:?}, {until:?}"));
                let again = host.clone();
                self.at(at, move |world| world.drift_clock(&host, rate));
                self.at(until, move |world| world.drift_clock(&again, 0));
            }
        }
    }
}
