//! The connections whose tasks run, and how to tell them that the end has come.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use crate::activity::Activity;

#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// In the order in which they came, so that a simulation has one, too.
    members: RefCell<BTreeMap<u64, Option<Waker>>>,
    joined: Cell<u64>,
    /// Requests of the members that have left.
    requests: Cell<u64>,
    draining: Cell<bool>,
}

impl Roster {
    pub(crate) fn join(self: &Rc<Self>, activity: Arc<Activity>) -> Member {
        let id = self.joined.get();
        self.joined.set(id + 1);
        self.members.borrow_mut().insert(id, None);
        Member { roster: self.clone(), id, activity, waker: None }
    }

    /// How many ever joined.
    pub(crate) fn joined(&self) -> u64 {
        self.joined.get()
    }

    /// The requests of those that have left.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Tells every member, and those that join later, to come to an end.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        let mut members = self.members.borrow_mut();
        let wakers: Vec<Waker> = members.values_mut().filter_map(Option::take).collect();
        drop(members); // a waker may run anything
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A connection's entry, as long as its task runs.
#[derive(Debug)]
pub(crate) struct Member {
    roster: Rc<Roster>,
    id: u64,
    activity: Arc<Activity>,
    waker: Option<Waker>,
}

impl Member {
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Has this task woken when it is time to come to an end. Whether it was another one's turn
    /// before.
    pub(crate) fn meet(&mut self, cx: &Context<'_>) -> bool {
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return false;
        }
        self.waker = Some(cx.waker().clone());
        if let Some(entry) = self.roster.members.borrow_mut().get_mut(&self.id) {
            let old = mem::replace(entry, self.waker.clone());
            drop(old);
        }
        true
    }

    /// Whether to come to an end.
    pub(crate) fn is_draining(&self) -> bool {
        self.roster.draining.get()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.roster.requests.set(self.roster.requests.get() + self.activity.requests());
        let entry = self.roster.members.borrow_mut().remove(&self.id);
        drop(entry);
    }
}
