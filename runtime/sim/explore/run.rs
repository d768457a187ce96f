//! One run: a scenario, a seed, and what disturbs it. Everything that the explorers know of the
//! simulation stands here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::cancel::{Cancellable, Explore, Questions};
use crate::io::ring::simulated::{Chance, Fault, FaultPlan, Site};
use crate::runtime::Builder;
use crate::runtime::simulate::{Simulation, simulate_under};
use crate::runtime::time;

/// What tasks get whose root was dropped.
const REPRIEVE: Duration = Duration::from_millis(2);

/// What disturbs a run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Disturbance {
    None,
    /// Something is cancelled at the question of this number.
    Cancel(usize),
    /// The root is dropped at the question of this number.
    DropRoot(usize),
    /// The site of this number has a fault.
    Fault(usize, Site, Fault),
}

/// What became of a run.
#[derive(Debug)]
pub(super) struct Ran {
    /// Questions of cancellable futures and tasks.
    pub(super) events: usize,
    /// Questions of the root.
    pub(super) root_events: usize,
    pub(super) sites: Vec<Site>,
    pub(super) trace: u64,
    /// What was disturbed, in words.
    pub(super) disturbed: String,
    pub(super) failure: Option<String>,
}

impl Ran {
    /// Every disturbance by a fault of the sites that it came to.
    pub(super) fn faults<I>(&self, of: impl Fn(Site) -> I) -> Vec<Disturbance>
    where
        I: Iterator<Item = Fault>,
    {
        let mut found = Vec::new();
        for (number, site) in self.sites.iter().enumerate() {
            found.extend(of(*site).map(|fault| Disturbance::Fault(number, *site, fault)));
        }
        found
    }
}

pub(super) fn run<F>(
    seed: u64,
    builder: Builder,
    disturbance: Disturbance,
    scenario: impl Fn(Explore) -> F,
) -> Ran
where
    F: Future<Output = ()>,
{
    let (mut at, mut root_at, mut fault_at) = (None, None, None);
    match disturbance {
        Disturbance::None => {}
        Disturbance::Cancel(number) => at = Some(number),
        Disturbance::DropRoot(number) => root_at = Some(number),
        Disturbance::Fault(number, _, fault) => fault_at = Some((number, fault)),
    }
    let goes_on = seed % 2 == 1;
    let questions = Questions::new(at, goes_on.then(|| Chance::new(!seed)));
    let root_questions = Questions::new(root_at, None);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        simulate_under(FaultPlan::only(fault_at), seed, builder, |chance| {
            let root = scenario(Explore::new(questions.clone(), chance));
            let root = Cancellable::new(&root_questions, "the root", root);
            async move {
                if root.await.is_none() && goes_on {
                    time::sleep(REPRIEVE).await;
                }
            }
        })
    }));
    let (sites, trace, failure) = match outcome {
        Ok(run) => {
            // The tasks of a root that is dropped lose whom they talk to: they may panic.
            let may_panic = matches!(disturbance, Disturbance::DropRoot(_));
            let failure = imbalance(&run, may_panic);
            (run.plan.sites, run.trace, failure)
        }
        Err(panic) => (Vec::new(), 0, Some(format!("panicked: {}", message(&*panic)))),
    };
    let (questions, root_questions) = (questions.borrow(), root_questions.borrow());
    let disturbed = match disturbance {
        Disturbance::Fault(number, site, fault) => format!("call {number} ({site:?}) {fault}"),
        _ => questions.hit.as_ref().or(root_questions.hit.as_ref()).cloned().unwrap_or_default(),
    };
    let missed = disturbed.is_empty() && !matches!(disturbance, Disturbance::None);
    Ran {
        events: questions.asked,
        root_events: root_questions.asked,
        sites,
        trace,
        disturbed,
        failure: failure.or(missed.then(|| "did not come to the point again".to_owned())),
    }
}

/// What came is what went plus what is there; and at the end nothing is there.
fn imbalance<T>(run: &Simulation<T>, may_panic: bool) -> Option<String> {
    let Simulation { after, report, books, .. } = run;
    let resources = &after.resources;
    let mut found = Vec::new();
    let mut equal = |what: &str, left: u64, right: u64| {
        if left != right {
            found.push(format!("{what}: {left}, not {right}"));
        }
    };
    if !may_panic {
        equal("tasks that panicked", after.tasks_panicked, 0);
    }
    equal("requests leaked", report.requests_leaked as u64, 0);
    equal("completions that nobody knows", resources.unknown_completions, 0);
    equal("connections accepted or refused", books.accepted + books.refused, books.connections);
    equal("connections that the core took", resources.connections_accepted, books.accepted);
    equal(
        "connections handed out or closed with their listener",
        resources.connections_delivered + resources.connections_undelivered,
        resources.connections_accepted,
    );
    for (what, count) in [
        ("tasks", after.tasks_alive),
        ("streams", after.streams_open),
        ("listeners", after.listeners_open),
        ("operations", after.operations_open),
        ("requests in flight", after.requests_in_flight),
        ("leases", after.leases_out),
        ("descriptors", books.open),
    ] {
        equal(&format!("{what} left"), count as u64, 0);
    }
    (!found.is_empty()).then(|| found.join("; "))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&'static str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "with something that is no text".to_owned())
}
