//! What makes a world go on: whose turn it is, and when.
//!
//! ```text
//!            ┌────────────────────────────────────────────────────────────┐
//!            ▼                                                            │
//!   the earliest of: a core's turn · the network · a blocking job · what the test planned
//!            │   time goes there; among cores that are due, chance decides
//!            └── nothing at all: nothing will ever happen again
//! ```
//!
//! Everything happens on one thread, one after the other; and since a turn takes some time, drawn
//! from the seed, the cores of all hosts interleave in many ways.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::further::{Promise, Wish};
use super::machine::{Core, Outcome, Program};
use crate::io::mailbox::CoreId;
use crate::io::pool::{Pool, contain};
use crate::io::ring::simulated::signals::Delivery;
use crate::io::ring::simulated::world::{Order, World};
use crate::io::ring::simulated::{Chance, Crash};
use crate::io::signal::Signal;
use crate::runtime::builder::Builder;
use crate::runtime::one::Report;

/// The longest that a blocking job waits for its thread, in nanoseconds.
const JOB_MAX: usize = 2_000_000;

/// What a host is when it is up.
pub(crate) struct Plan<'a> {
    pub(crate) name: String,
    pub(crate) program: Program<'a>,
    pub(crate) builder: Builder,
    pub(crate) cores: usize,
    /// The simulation lasts until it has returned.
    pub(crate) is_client: bool,
}

struct Life {
    boot: usize,
    pool: Arc<Pool>,
    /// Jobs of the pool that have a time.
    planned: usize,
}

struct Host<'a> {
    plan: Plan<'a>,
    life: Option<Life>,
    /// Its program has returned; only a client's counts.
    is_done: bool,
}

/// Something that the test wants to happen at a time.
type Action = Box<dyn FnOnce()>;

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Something happened.
    Went,
    /// Nothing will ever happen by itself.
    Stands,
}

pub(crate) struct Driver<'a> {
    pub(crate) world: Rc<World>,
    hosts: Vec<Host<'a>>,
    pub(crate) cores: Vec<Core<'a>>,
    /// When which life's pool has its next job run.
    jobs: Vec<(u64, usize)>,
    actions: BTreeMap<(u64, usize), Action>,
    planned: usize,
    /// Who is told of the end of a further core.
    ends: Vec<(CoreId, Promise<Report>)>,
    chance: Chance,
    pub(crate) steps: u64,
    /// What a program gets to end in order.
    pub(crate) grace: Option<Duration>,
    /// A program has failed.
    pub(crate) failed: Option<(String, String)>,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(world: Rc<World>) -> Self {
        Self {
            chance: Chance::of(world.seed(), 2),
            world,
            hosts: Vec::new(),
            cores: Vec::new(),
            jobs: Vec::new(),
            actions: BTreeMap::new(),
            planned: 0,
            ends: Vec::new(),
            steps: 0,
            grace: None,
            failed: None,
        }
    }

    /// Adds a host, which is down.
    pub(crate) fn add(&mut self, plan: Plan<'a>) {
        let host = self.world.with(|state| state.add_host(&plan.name));
        assert_eq!(host, self.hosts.len(), "hosts are added here and nowhere else");
        self.hosts.push(Host { plan, life: None, is_done: false });
    }

    /// The settings of a host that is down.
    pub(crate) fn plan_mut(&mut self, host: usize) -> &mut Plan<'a> {
        &mut self.hosts[host].plan
    }

    /// Every host's name, and whether it is a client.
    pub(crate) fn plans(&self) -> impl Iterator<Item = (&str, bool)> {
        self.hosts.iter().map(|host| (host.plan.name.as_str(), host.plan.is_client))
    }

    pub(crate) fn last(&self) -> usize {
        self.hosts.len() - 1
    }

    pub(crate) fn boot_all(&mut self) {
        (0..self.hosts.len()).for_each(|host| self.boot(host));
    }

    /// Plans something for a time of the world.
    pub(crate) fn at(&mut self, time: u64, action: Action) {
        self.planned += 1;
        self.actions.insert((time, self.planned), action);
    }

    fn boot(&mut self, host: usize) {
        let boot = self.world.with(|state| state.boot(host));
        let pool = Pool::simulated();
        let Plan { program, builder, cores, .. } = &mut self.hosts[host].plan;
        let count = *cores;
        let cores = Core::start(&self.world, host, boot, (builder, count), &pool, program);
        self.cores.extend(cores);
        self.hosts[host].life = Some(Life { boot, pool, planned: 0 });
    }

    fn crash(&mut self, host: usize, how: Crash) {
        let Some(Life { boot, pool, .. }) = self.hosts[host].life.take() else { return };
        self.world.with(|state| state.crash(boot, how));
        self.drop_life(boot, &pool);
    }

    fn drop_life(&mut self, boot: usize, pool: &Pool) {
        self.jobs.retain(|(_, of)| *of != boot);
        let (gone, left) = self.cores.drain(..).partition(|core| core.boot == boot);
        self.cores = left;
        let gone: Vec<Core<'a>> = gone;
        gone.into_iter().for_each(|core| core.abandon(&self.world));
        let _here = self.world.on(boot);
        pool.shutdown(0);
    }

    /// Whether every client has returned.
    pub(crate) fn is_over(&self) -> bool {
        self.hosts.iter().all(|host| host.is_done || !host.plan.is_client)
    }

    pub(crate) fn has_clients(&self) -> bool {
        self.hosts.iter().any(|host| host.plan.is_client)
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) -> Step {
        self.steps += 1;
        self.notice();
        let next = [
            self.cores.iter().map(|core| core.due).min(),
            self.world.with(|state| state.next_happening()),
            self.jobs.iter().map(|(at, _)| *at).min(),
            self.actions.keys().next().map(|(at, _)| *at),
        ];
        let next = next.into_iter().flatten().min().filter(|at| *at < u64::MAX);
        let Some(time) = next else { return Step::Stands };
        let before = self.world.with(|state| state.now());
        self.world.with(|state| state.go_on_until(time));
        if let Some(entry) = self.actions.first_entry().filter(|entry| entry.key().0 <= time) {
            entry.remove()();
        } else if let Some(index) = self.jobs.iter().position(|(at, _)| *at <= time) {
            let (_, boot) = self.jobs.swap_remove(index);
            self.run_job(boot);
        } else {
            // What has come may have made another core due.
            self.notice();
            self.give_turn(time.max(before));
        }
        self.obey();
        Step::Went
    }

    /// Cores that were told something are due soon.
    fn notice(&mut self) {
        self.world.rung().store(false, Ordering::Relaxed);
        for core in &mut self.cores {
            core.notice(&self.world, &mut self.chance);
        }
    }

    fn give_turn(&mut self, time: u64) {
        let due: Vec<usize> =
            (0..self.cores.len()).filter(|index| self.cores[*index].due <= time).collect();
        if due.is_empty() {
            return;
        }
        let index = due[self.chance.below(due.len())];
        let core = &mut self.cores[index];
        let (host, boot) = (core.host, core.boot);
        let outcome = core.turn(&self.world, &mut self.chance);
        self.plan_jobs(host);
        if let Some(outcome) = outcome {
            self.returned(index, outcome);
        }
        if self.cores[index].has_ended() {
            self.tell_end(index);
            self.leave(host, boot);
        }
    }

    /// A core's program has returned.
    fn returned(&mut self, index: usize, outcome: Outcome) {
        let host = self.cores[index].host;
        if let Err(error) = outcome {
            let name = self.hosts[host].plan.name.clone();
            self.failed.get_or_insert((name, error));
        }
        self.hosts[host].is_done = true;
        let core = &mut self.cores[index];
        core.end(&self.world, self.grace);
    }

    /// A host's program is over on all its cores: the process ends.
    fn leave(&mut self, host: usize, boot: usize) {
        let mut own = self.cores.iter().filter(|core| core.boot == boot);
        if !own.all(Core::has_ended) || self.grace.is_some() {
            return;
        }
        if let Some(Life { pool, .. }) = self.hosts[host].life.take() {
            self.world.with(|state| state.leave(boot));
            self.drop_life(boot, &pool);
        }
    }

    fn plan_jobs(&mut self, host: usize) {
        let Some(life) = &mut self.hosts[host].life else { return };
        let now = self.world.with(|state| state.now());
        while life.planned < life.pool.waiting() {
            life.planned += 1;
            self.jobs.push((now + self.chance.up_to(JOB_MAX) as u64, life.boot));
        }
    }

    fn run_job(&mut self, boot: usize) {
        let life = self.hosts.iter_mut().filter_map(|host| host.life.as_mut());
        let Some(life) = life.into_iter().find(|life| life.boot == boot) else { return };
        life.planned -= 1;
        let job = life.pool.take();
        let _here = self.world.on(boot);
        contain(|| job.into_iter().for_each(|job| job()));
    }

    /// Does what programs have asked for.
    fn obey(&mut self) {
        for order in self.world.take_orders() {
            match order {
                Order::Crash { host, how } => {
                    let Plan { name, is_client, .. } = &self.hosts[host].plan;
                    assert!(!is_client, "{name} is a client, and clients do not crash");
                    self.crash(host, how);
                }
                Order::Restart { host } => {
                    if self.hosts[host].life.is_none() && !self.hosts[host].plan.is_client {
                        self.boot(host);
                    }
                }
                Order::Signal { host, signal } => self.signal(host, signal),
                Order::At { time, action } => self.at(time, action),
                Order::Wish(wish) => {
                    self.grant(*wish.downcast().expect("nobody else expresses wishes"));
                }
            }
        }
    }

    fn signal(&mut self, host: usize, signal: Signal) {
        match self.world.with(|state| state.deliver(host, signal)) {
            Delivery::Nothing => {}
            Delivery::Caught(due) => due.into_iter().for_each(|waker| contain(|| waker.wake())),
            Delivery::Kills => {
                let Plan { name, is_client, .. } = &self.hosts[host].plan;
                assert!(!is_client, "{name} is a client, and has never waited for this signal");
                self.crash(host, Crash::Kill);
            }
        }
    }

    /// Starts or ends a further core. Those of a host that is down by now are gone.
    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Start { boot, builder, told } => {
                let lives = |host: &Host<'_>| host.life.as_ref().is_some_and(|it| it.boot == boot);
                let Some(host) = self.hosts.iter().position(lives) else { return };
                let Some(Life { pool, .. }) = &self.hosts[host].life else { return };
                let mut idle: Program<'a> = Box::new(|_| Box::pin(std::future::pending()));
                let cores = Core::start(&self.world, host, boot, (&builder, 1), pool, &mut idle);
                let core = &cores[0];
                told.keep((core.id(), core.handle()));
                self.cores.extend(cores);
            }
            Wish::End { core: id, deadline, told } => {
                let Some(core) = self.cores.iter_mut().find(|core| core.id() == id) else { return };
                core.end(&self.world, Some(deadline));
                self.ends.push((id, told));
            }
        }
    }

    /// A further core that has ended goes at once; those of a program stay as long as its others.
    fn tell_end(&mut self, index: usize) {
        let id = self.cores[index].id();
        let Some(at) = self.ends.iter().position(|(core, _)| *core == id) else { return };
        let (_, told) = self.ends.swap_remove(at);
        let core = self.cores.remove(index);
        let (report, _) = core.result().expect("it has ended");
        core.abandon(&self.world);
        told.keep(report);
    }

    /// Ends all programs in order. Nothing else that was planned happens any more.
    pub(crate) fn end_all(&mut self) {
        self.actions.clear();
        for core in &mut self.cores {
            core.end(&self.world, self.grace);
        }
        while !self.cores.iter().all(Core::has_ended) {
            let step = self.step();
            assert_eq!(step, Step::Went, "an end has its deadline");
        }
    }

    /// Who waits for what, for people.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for core in &self.cores {
            let Host { plan, is_done, .. } = &self.hosts[core.host];
            let role = if plan.is_client && !is_done { "client" } else { "host" };
            text += &format!("  {role} {} waits: {}\n", plan.name, core.describe());
        }
        text
    }
}

impl Drop for Driver<'_> {
    /// Whatever still runs goes without a word.
    fn drop(&mut self) {
        let _entered = self.world.enter();
        for host in 0..self.hosts.len() {
            self.crash(host, Crash::PowerLoss);
        }
    }
}
