//! The connections whose tasks run: whose they are, how to tell them that the end has come, and
//! what the server hears of their ends.
//!
//! ```text
//!   join ──► a seat, with the task and its waker ── leave ──► free ─── End::Done: nobody is woken
//!                └──── dropped instead, by a panic ──► lost     └── any other: news for the server
//!                                                       └── its task says why: news, too
//! ```
//!
//! Connections come and go by themselves, and nearly all of them well. So their server is woken
//! only where it has to hear of something, or waits for the last to go.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use quoit::task::{JoinError, JoinHandle};

use crate::activity::Activity;
use crate::connection::End;

/// What the server is to hear of a connection.
#[derive(Debug)]
pub(crate) enum News {
    /// It has ended, not [`End::Done`].
    Ended(SocketAddr, End),
    /// Its task has panicked.
    Lost(SocketAddr, JoinError),
}

#[derive(Debug, Default)]
pub(crate) struct Roster {
    seats: RefCell<Seats>,
    joined: Cell<u64>,
    /// Requests of the members that have left.
    requests: Cell<u64>,
    draining: Cell<bool>,
    /// The server, while it waits for news.
    server: RefCell<Option<Waker>>,
}

/// As many as there ever were members at once.
#[derive(Debug, Default)]
struct Seats {
    taken: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Bounded by the connections that end between two polls of the server, which this wakes.
    ended: VecDeque<(SocketAddr, End)>,
    /// Who went without a word. Bounded likewise.
    lost: Vec<(SocketAddr, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Entry {
    peer: SocketAddr,
    waker: Option<Waker>,
    /// `None` before it has begun, and after it was cut.
    task: Option<JoinHandle<()>>,
}

impl Roster {
    pub(crate) fn join(self: &Rc<Self>, peer: SocketAddr, activity: Arc<Activity>) -> Member {
        self.joined.set(self.joined.get() + 1);
        let mut seats = self.seats.borrow_mut();
        let entry = Some(Entry { peer, waker: None, task: None });
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

    /// The task that a member was moved into. Nobody has joined since that one.
    pub(crate) fn keep(&self, seat: Option<usize>, task: JoinHandle<()>) {
        let mut seats = self.seats.borrow_mut();
        // A core that is closing drops it at once, and the member with it.
        if let Some(entry) = seat.and_then(|seat| seats.taken[seat].as_mut()) {
            entry.task = Some(task);
        }
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

    /// Whether all have left, and nothing of them is still to be heard.
    pub(crate) fn is_empty(&self) -> bool {
        let seats = self.seats.borrow();
        seats.is_vacant() && seats.ended.is_empty() && seats.lost.is_empty()
    }

    /// Waits for something that the server is to hear, and, once there is a [`drain`](Self::drain),
    /// for the last member to leave: then it is pending, and woken. One waiter at a time.
    pub(crate) fn poll_news(&self, cx: &mut Context<'_>) -> Poll<News> {
        let mut seats = self.seats.borrow_mut();
        if let Some((peer, end)) = seats.ended.pop_front() {
            return Poll::Ready(News::Ended(peer, end));
        }
        let mut lost = mem::take(&mut seats.lost);
        drop(seats); // a waker may run anything
        if !lost.is_empty() {
            let found = find_lost(&mut lost, cx);
            self.seats.borrow_mut().lost.append(&mut lost);
            if let Some((peer, error)) = found {
                return Poll::Ready(News::Lost(peer, error));
            }
        }
        let is_known =
            self.server.borrow().as_ref().is_some_and(|server| server.will_wake(cx.waker()));
        if !is_known {
            let server = cx.waker().clone();
            drop(self.server.replace(Some(server)));
        }
        Poll::Pending
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

    /// Ends every member's task, whatever it is in the middle of. Nobody hears of it by news.
    pub(crate) fn cut(&self) -> Vec<JoinHandle<()>> {
        let mut seats = self.seats.borrow_mut();
        let members = seats.taken.iter_mut().flatten();
        let tasks: Vec<_> = members.filter_map(|entry| entry.task.take()).collect();
        drop(seats); // what goes gives up its seat
        tasks.iter().for_each(JoinHandle::abort);
        tasks
    }

    fn give_up(&self, seat: usize) -> Entry {
        let mut seats = self.seats.borrow_mut();
        let entry = seats.taken[seat].take().expect("a seat has one member");
        seats.free.push(seat);
        entry
    }

    fn wake_server(&self) {
        let server = self.server.take();
        if let Some(server) = server {
            server.wake();
        }
    }

    fn wake_if_last(&self) {
        if self.draining.get() && self.seats.borrow().is_vacant() {
            self.wake_server();
        }
    }
}

impl Seats {
    fn is_vacant(&self) -> bool {
        self.free.len() == self.taken.len()
    }
}

/// Takes out one whose task has told why.
fn find_lost(
    lost: &mut Vec<(SocketAddr, JoinHandle<()>)>,
    cx: &mut Context<'_>,
) -> Option<(SocketAddr, JoinError)> {
    let mut place = 0;
    while let Some((_, task)) = lost.get_mut(place) {
        let Poll::Ready(told) = Pin::new(task).poll(cx) else {
            place += 1;
            continue;
        };
        let (peer, _) = lost.swap_remove(place);
        if let Err(error) = told {
            return Some((peer, error));
        }
    }
    None
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
    /// For [`Roster::keep`].
    pub(crate) fn seat(&self) -> Option<usize> {
        self.seat
    }

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

    /// The task is over, and says itself how.
    pub(crate) fn leave(&mut self, end: End) {
        let entry = self.roster.give_up(self.seat.take().expect("a member leaves once"));
        if !matches!(end, End::Done) {
            self.roster.seats.borrow_mut().ended.push_back((entry.peer, end));
            self.roster.wake_server();
        }
        self.roster.wake_if_last();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.roster.requests.set(self.roster.requests.get() + self.activity.requests());
        let Some(seat) = self.seat else { return };
        let Entry { peer, task, .. } = self.roster.give_up(seat);
        if let Some(task) = task {
            self.roster.seats.borrow_mut().lost.push((peer, task));
            self.roster.wake_server();
        }
        self.roster.wake_if_last();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use quoit::task::yield_now;

    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// A connection: its task, at whose end `end` says how it left.
    fn join(roster: &Rc<Roster>, port: u16, end: impl FnOnce() -> End + 'static) {
        let mut member = roster.join(peer(port), Arc::new(Activity::new()));
        let seat = member.seat();
        let task = quoit::spawn(async move { member.leave(end()) });
        roster.keep(seat, task);
    }

    /// Runs the server until all have left and it has heard so much; how often it was polled, and
    /// what it heard.
    async fn hear(roster: &Roster, wanted: usize) -> (usize, Vec<News>) {
        let (mut polls, mut news) = (0, Vec::new());
        let server = poll_fn(|cx| {
            polls += 1;
            while let Poll::Ready(more) = roster.poll_news(cx) {
                news.push(more);
            }
            let is_over = roster.is_empty() && news.len() == wanted;
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        });
        server.await;
        (polls, news)
    }

    #[quoit::test]
    async fn who_is_dropped_without_a_word_is_lost_and_its_task_says_why() {
        let roster = Rc::new(Roster::default());
        join(&roster, 1, || panic!("on purpose"));
        assert_eq!(roster.peers(), [peer(1)]);
        let (_, news) = hear(&roster, 1).await;
        let [News::Lost(lost, error)] = &news[..] else { panic!("{news:?}") };
        assert!(*lost == peer(1) && error.is_panic(), "{news:?}");
        assert_eq!(roster.peers(), []);
    }

    #[quoit::test]
    async fn an_end_that_says_nothing_wakes_nobody() {
        let roster = Rc::new(Roster::default());
        let server = quoit::spawn({
            let roster = roster.clone();
            async move { hear(&roster, 1).await }
        });
        yield_now().await; // It waits now, and could be woken.
        join(&roster, 1, || End::Done);
        join(&roster, 2, || End::Done);
        for _ in 0..3 {
            yield_now().await;
        }
        assert!(roster.is_empty() && !server.is_finished());
        join(&roster, 3, || End::Silent);
        let (polls, news) = server.await.unwrap();
        assert!(matches!(news[..], [News::Ended(who, End::Silent)] if who == peer(3)));
        assert_eq!(polls, 2);
    }

    #[quoit::test]
    async fn the_last_of_a_drain_wakes_who_waits_for_it() {
        let roster = Rc::new(Roster::default());
        join(&roster, 1, || End::Done);
        join(&roster, 2, || End::Done);
        roster.drain();
        assert!(matches!(hear(&roster, 0).await, (2, news) if news.is_empty()));
    }

    /// Whether it was ever polled or not.
    #[quoit::test]
    async fn who_is_cut_leaves_no_news() {
        let roster = Rc::new(Roster::default());
        for is_polled in [true, false] {
            let member = roster.join(peer(1), Arc::new(Activity::new()));
            let seat = member.seat();
            let task = quoit::spawn(async move {
                pending::<()>().await;
                drop(member);
            });
            roster.keep(seat, task);
            if is_polled {
                yield_now().await;
            }
            for task in roster.cut() {
                assert!(task.await.unwrap_err().is_cancelled());
            }
            assert!(roster.is_empty());
        }
    }

    #[quoit::test]
    async fn a_seat_is_used_again_and_its_last_member_does_not_take_it_along() {
        let roster = Rc::new(Roster::default());
        let mut first = roster.join(peer(1), Arc::new(Activity::new()));
        first.leave(End::Done);
        let second = roster.join(peer(2), Arc::new(Activity::new()));
        assert_eq!(first.seat.or(second.seat), Some(0));
        drop(first);
        assert_eq!(roster.peers(), [peer(2)]);
    }
}
