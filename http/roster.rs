//! The connections whose tasks run: whose they are, and how to tell them that the end has come.
//!
//! ```text
//!   join ──► a seat ── meet: the waker of its task ── leave: the peer, for the report
//!                └──── dropped instead, by a panic ──► lost, until the server hears of that
//! ```

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use quoit::task::{self, TaskId};

use crate::activity::Activity;

#[derive(Debug, Default)]
pub(crate) struct Roster {
    seats: RefCell<Seats>,
    joined: Cell<u64>,
    /// Requests of the members that have left.
    requests: Cell<u64>,
    draining: Cell<bool>,
}

/// As many as there ever were members at once.
#[derive(Debug, Default)]
struct Seats {
    taken: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Who went without a word; few, and soon asked for, but at the end.
    lost: Vec<(TaskId, SocketAddr)>,
}

#[derive(Debug)]
struct Entry {
    peer: SocketAddr,
    waker: Option<Waker>,
}

impl Roster {
    pub(crate) fn join(self: &Rc<Self>, peer: SocketAddr, activity: Arc<Activity>) -> Member {
        self.joined.set(self.joined.get() + 1);
        let mut seats = self.seats.borrow_mut();
        let entry = Some(Entry { peer, waker: None });
        let seat = match seats.free.pop() {
            Some(seat) => {
                seats.taken[seat] = entry;
                seat
            }
            None => {
                seats.taken.push(entry);
                seats.taken.len() - 1
            }
        };
        drop(seats);
        Member { roster: self.clone(), seat: Some(seat), activity, met: None }
    }

    /// How many ever joined.
    pub(crate) fn joined(&self) -> u64 {
        self.joined.get()
    }

    /// The requests of those that have left.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Who is still there.
    pub(crate) fn peers(&self) -> Vec<SocketAddr> {
        self.seats.borrow().taken.iter().flatten().map(|entry| entry.peer).collect()
    }

    /// The other end of a member that was dropped. Once.
    pub(crate) fn find_lost(&self, task: TaskId) -> Option<SocketAddr> {
        let mut seats = self.seats.borrow_mut();
        let place = seats.lost.iter().position(|(lost, _)| *lost == task)?;
        Some(seats.lost.swap_remove(place).1)
    }

    /// Tells every member, and those that join later, to come to an end.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        let mut seats = self.seats.borrow_mut();
        let members = seats.taken.iter_mut().flatten();
        let wakers: Vec<Waker> = members.filter_map(|entry| entry.waker.take()).collect();
        drop(seats); // a waker may run anything
        wakers.into_iter().for_each(Waker::wake);
    }

    fn give_up(&self, seat: usize) -> SocketAddr {
        let mut seats = self.seats.borrow_mut();
        let Entry { peer, waker } = seats.taken[seat].take().expect("a seat has one member");
        seats.free.push(seat);
        drop(seats);
        drop(waker);
        peer
    }
}

/// A connection's entry, as long as its task runs.
#[derive(Debug)]
pub(crate) struct Member {
    roster: Rc<Roster>,
    /// `None`: it has left.
    seat: Option<usize>,
    activity: Arc<Activity>,
    /// The task's waker, as far as it was handed in: compared, and never followed.
    met: Option<*const ()>,
}

impl Member {
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Has this task woken when it is time to come to an end. Whether it was another one's turn
    /// before.
    pub(crate) fn meet(&mut self, cx: &Context<'_>) -> bool {
        let waker = cx.waker();
        if self.met == Some(waker.data()) {
            return false;
        }
        self.met = Some(waker.data());
        if let Some(seat) = self.seat {
            let waker = waker.clone();
            let mut seats = self.roster.seats.borrow_mut();
            let old = seats.taken[seat].as_mut().and_then(|entry| entry.waker.replace(waker));
            drop(seats);
            drop(old);
        }
        true
    }

    /// Whether to come to an end.
    pub(crate) fn is_draining(&self) -> bool {
        self.roster.draining.get()
    }

    /// The task is over, and says itself how. Answers whose it was.
    pub(crate) fn leave(&mut self) -> SocketAddr {
        self.roster.give_up(self.seat.take().expect("a member leaves once"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.roster.requests.set(self.roster.requests.get() + self.activity.requests());
        let Some(seat) = self.seat else { return };
        let peer = self.roster.give_up(seat);
        // A task's future is dropped under its name, whatever ends it.
        if let Some(task) = task::try_id() {
            self.roster.seats.borrow_mut().lost.push((task, peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use quoit::task::yield_now;

    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Whether it was ever polled or not.
    #[quoit::test]
    async fn who_is_dropped_without_a_word_is_known_by_the_task() {
        let roster = Rc::new(Roster::default());
        for is_polled in [true, false] {
            let member = roster.join(peer(1), Arc::new(Activity::new()));
            let task = quoit::spawn(async move {
                std::future::pending::<()>().await;
                drop(member);
            });
            if is_polled {
                yield_now().await;
            }
            assert_eq!(roster.peers(), [peer(1)]);
            task.abort();
            let error = task.await.unwrap_err();
            assert_eq!((roster.find_lost(error.id()), roster.peers()), (Some(peer(1)), vec![]));
            assert_eq!(roster.find_lost(error.id()), None);
        }
    }

    #[quoit::test]
    async fn a_seat_is_used_again_and_its_last_member_does_not_take_it_along() {
        let roster = Rc::new(Roster::default());
        let mut first = roster.join(peer(1), Arc::new(Activity::new()));
        assert_eq!(first.leave(), peer(1));
        let second = roster.join(peer(2), Arc::new(Activity::new()));
        assert_eq!(first.seat.or(second.seat), Some(0));
        drop(first);
        assert_eq!(roster.peers(), [peer(2)]);
    }
}
