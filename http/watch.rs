//! When a connection has had enough time, and what is done then.
//!
//! ```text
//!   accepted ──► First ── head ──► busy ─── over ─────► idle ── bytes ──► Head ── head ──► busy
//!      header timeout: cut         no limit        idle timeout: close   header timeout: cut
//!
//!   First: with TLS, its handshake is a part of it
//!
//!   close: no more requests are asked for (GOAWAY, Connection: close); one that is left with
//!   nothing to do, and does not go within LAST_WORDS, is cut
//!
//!   over: the response has ended, and over HTTP/1 the request has, too (`body.rs`)
//! ```
//!
//! What state it is in follows from the counts of its `Activity`, so nothing is written down or
//! set anew for each request: a timer that fires looks at how things stand, and is set to the time
//! that follows from that.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quoit::time::{Instant, Sleep, sleep_until};

use crate::connection::End;
use crate::options::Limits;
use crate::roster::Member;
use crate::wire::Version;

/// How long an idle connection that is to close may take without writing anything.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a connection that has not asked anything yet may do so after a shutdown has begun: the
/// request of one that was just accepted is on its way.
const FIRST_WORDS: Duration = Duration::from_millis(100);

/// When to look again, at the latest, where nothing is due. Something may become due meanwhile
/// without anybody polling the connection: the last stream of an HTTP/2 connection ends in a task
/// of its own.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Not later than what may become due after that.
fn look_again(limits: Limits) -> Duration {
    limits.idle.map_or(LOOK_AGAIN, |idle| idle.min(LOOK_AGAIN))
}

/// What the connection's task has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Ask for no more requests.
    Close,
    /// Drop it: no head came in time.
    CutSilent,
    /// Drop it: it was idle, and does not close.
    CutIdle,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    /// The server is shutting down, which has its own limit for what is in flight.
    Draining,
    /// It was idle. So many writes for requests had been made at the last look, and the next look
    /// is then.
    Idle { writes: u64, until: Instant },
}

#[derive(Debug)]
pub(crate) struct Watch {
    member: Member,
    limits: Limits,
    timer: Sleep,
    /// It was polled since it was set, and by whom is polled now. Only valid together with a look
    /// at the clock: a timer that has fired knows its task no more.
    is_waiting: bool,
    draining: bool,
    /// A head has begun, after so many requests.
    head: Option<(u64, Instant)>,
    /// The last moment for a first request.
    first_until: Option<Instant>,
    closing: Option<Closing>,
}

impl Watch {
    pub(crate) fn new(member: Member, limits: Limits) -> Self {
        let first = limits.header.map_or(look_again(limits), |limit| limit.min(look_again(limits)));
        let timer = sleep_until(member.activity().born() + first);
        Self {
            member,
            limits,
            timer,
            is_waiting: false,
            draining: false,
            head: None,
            first_until: None,
            closing: None,
        }
    }

    /// The connection is over.
    pub(crate) fn end(&mut self, end: End) {
        self.member.leave(end);
    }

    /// For [`Roster::keep`](crate::roster::Roster::keep).
    pub(crate) fn seat(&self) -> Option<usize> {
        self.member.seat()
    }

    /// Whether it was closed because it was idle.
    pub(crate) fn was_idle(&self) -> bool {
        matches!(self.closing, Some(Closing::Idle { .. }))
    }

    /// Looks whether the server is shutting down: the next response is to say so. To be called
    /// before the connection is polled, so that it knows before it reads a request.
    pub(crate) fn look(&mut self, cx: &Context<'_>) {
        self.member.activity().begin_poll();
        if self.member.meet(cx) {
            self.is_waiting = false;
        }
        if !self.draining && self.member.is_draining() {
            self.draining = true;
            self.member.activity().want_no_more();
        }
    }

    /// Waits until something is to be done. To be polled whenever the connection was.
    pub(crate) fn poll(&mut self, version: Option<Version>, cx: &mut Context<'_>) -> Poll<Step> {
        let looked = self.member.activity().end_poll();
        self.notice_head(version);
        if self.draining && self.closing.is_none() && self.may_drain(version) {
            (self.closing, self.first_until) = (Some(Closing::Draining), None);
            return Poll::Ready(Step::Close);
        }
        loop {
            let due = self.due(version);
            if let Some(due) = due.filter(|due| *due < self.timer.deadline()) {
                Pin::new(&mut self.timer).reset(due);
                self.is_waiting = false;
            }
            // Timers fire before tasks are polled, so one whose time had not come a moment ago
            // waits still, and need not be touched.
            if self.is_waiting && looked.is_some_and(|now| now < self.timer.deadline()) {
                return Poll::Pending;
            }
            let polled = Pin::new(&mut self.timer).poll(cx);
            self.is_waiting = polled.is_pending();
            ready!(polled);
            let now = Instant::now();
            match due {
                Some(due) if due <= now => {
                    if let Some(step) = self.act(now) {
                        return Poll::Ready(step);
                    }
                }
                Some(due) => Pin::new(&mut self.timer).reset(due),
                None => Pin::new(&mut self.timer).reset(now + look_again(self.limits)),
            }
        }
    }

    /// HTTP/2 loses no request by closing. A client of HTTP/1 learns of it by a response, and hyper
    /// would drop one in the middle of a further head as if it were idle.
    fn may_drain(&mut self, version: Option<Version>) -> bool {
        let activity = self.member.activity();
        if self.head.is_some() {
            return false;
        }
        // Who is in the middle of a handshake is about to ask, and has time for that afterwards,
        // however long he waited before he began.
        if activity.is_in_handshake() {
            self.first_until = None;
            return false;
        }
        if version == Some(Version::Http2) || activity.requests() > 0 {
            return true;
        }
        *self.first_until.get_or_insert_with(|| Instant::now() + FIRST_WORDS) <= Instant::now()
    }

    /// In HTTP/2, what comes while no request is in flight need not be the start of one.
    fn notice_head(&mut self, version: Option<Version>) {
        let activity = self.member.activity();
        let requests = activity.requests();
        if self.head.is_some_and(|(then, _)| then != requests) {
            self.head = None;
        }
        let is_head = version == Some(Version::Http1)
            && requests > 0
            && !activity.is_busy()
            // Its time begins when it is the client's turn.
            && !activity.is_stalled()
            && activity.has_read_since();
        if is_head && self.head.is_none() {
            self.head = Some((requests, Instant::now()));
        }
    }

    /// When something has to be done, as things stand.
    fn due(&self, version: Option<Version>) -> Option<Instant> {
        let activity = self.member.activity();
        if activity.is_busy() {
            return None;
        }
        if let Some(Closing::Idle { until, .. }) = self.closing {
            // A request that was on its way may still have made a tunnel.
            return (!activity.is_tunnel()).then_some(until);
        }
        if activity.is_stalled() {
            return None;
        }
        // A slow head is no less slow while the server shuts down.
        let head_until = |since: Instant| self.limits.header.map(|limit| since + limit);
        if let Some((_, since)) = self.head {
            return head_until(since);
        }
        if activity.requests() == 0 {
            return head_until(activity.born()).into_iter().chain(self.first_until).min();
        }
        // hyper closes it, unless it has a part of a head that nothing here knows of.
        if self.closing.is_some() && version == Some(Version::Http1) {
            return head_until(activity.idle_since());
        }
        if self.closing.is_some() || activity.is_tunnel() {
            return None;
        }
        self.limits.idle.map(|limit| activity.idle_since() + limit)
    }

    /// It is due.
    fn act(&mut self, now: Instant) -> Option<Step> {
        let activity = self.member.activity();
        let writes = activity.writes();
        match self.closing {
            // It is still taking what was written for it.
            Some(Closing::Idle { writes: before, .. }) if before != writes => {
                self.closing = Some(Closing::Idle { writes, until: now + LAST_WORDS });
                None
            }
            Some(Closing::Idle { .. }) => Some(Step::CutIdle),
            None if self.first_until.take_if(|until| *until <= now).is_some() => {
                self.closing = Some(Closing::Draining);
                Some(Step::Close)
            }
            _ if self.head.is_some() || activity.requests() == 0 => Some(Step::CutSilent),
            Some(Closing::Draining) => Some(Step::CutSilent),
            None => {
                self.closing = Some(Closing::Idle { writes, until: now + LAST_WORDS });
                Some(Step::Close)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::SocketAddr;
    use std::rc::Rc;
    use std::sync::Arc;

    use quoit::time::sleep;

    use super::*;
    use crate::activity::{Activity, InFlight};
    use crate::roster::Roster;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(activity: &Arc<Activity>, header: Duration, idle: Duration) -> Watch {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let member = Rc::new(Roster::default()).join(peer, activity.clone());
        Watch::new(member, Limits { header: Some(header), idle: Some(idle) })
    }

    /// The end of the last request wakes nobody here, unlike that of a stream of today's h2.
    #[quoit::test(start_paused = true)]
    async fn idleness_is_noticed_though_nobody_tells() {
        for (header, idle) in [(1, 3), (100, 3), (1, 200), (30, 75)] {
            let (header, idle) = (header * SECOND, idle * SECOND);
            let activity = Arc::new(Activity::new());
            let mut watch = watch(&activity, header, idle);
            let request = InFlight::begin(&activity);
            let start = Instant::now();
            quoit::spawn(async move {
                sleep(35 * SECOND).await;
                drop(request);
            });
            let step = poll_fn(|cx| watch.poll(Some(Version::Http2), cx)).await;
            assert_eq!(step, Step::Close);
            assert_eq!(start.elapsed(), 35 * SECOND + idle, "not a moment later");
            // It says nothing more, so it is cut.
            let step = poll_fn(|cx| watch.poll(Some(Version::Http2), cx)).await;
            assert_eq!(step, Step::CutIdle);
            assert_eq!(start.elapsed(), 35 * SECOND + idle + LAST_WORDS);
        }
    }

    /// Each request puts it off without the timer being touched, which tells of the last one's.
    #[quoit::test(start_paused = true)]
    async fn idleness_begins_with_the_end_of_the_last_request() {
        for (pause, header) in [(1, 1), (2, 7), (3, 60)] {
            let (pause, idle) = (pause * SECOND, 4 * SECOND);
            let activity = Arc::new(Activity::new());
            let mut watch = watch(&activity, header * SECOND, idle);
            let start = Instant::now();
            let (mut next, mut left) = (Box::pin(sleep(Duration::ZERO)), 20);
            let polls = poll_fn(|cx| {
                watch.look(cx);
                while left > 0 && next.as_mut().poll(cx).is_ready() {
                    drop(InFlight::begin(&activity));
                    (next, left) = (Box::pin(sleep(pause)), left - 1);
                }
                watch.poll(Some(Version::Http1), cx)
            });
            assert_eq!(polls.await, Step::Close);
            assert_eq!(start.elapsed(), 19 * pause + idle);
        }
    }

    /// As long as the peer takes what was written for it, it is not cut.
    #[quoit::test(start_paused = true)]
    async fn last_words_may_take_long() {
        let activity = Arc::new(Activity::new());
        let mut watch = watch(&activity, SECOND, 3 * SECOND);
        let start = Instant::now();
        drop(InFlight::begin(&activity));
        assert_eq!(poll_fn(|cx| watch.poll(Some(Version::Http1), cx)).await, Step::Close);
        quoit::spawn(async move {
            for _ in 0..10 {
                sleep(4 * SECOND).await;
                activity.has_written();
            }
        });
        assert_eq!(poll_fn(|cx| watch.poll(Some(Version::Http1), cx)).await, Step::CutIdle);
        assert!(start.elapsed() >= 43 * SECOND, "{:?}", start.elapsed());
    }

    /// A request that was on its way when an idle connection was closed may still make a tunnel,
    /// and a tunnel may be silent.
    #[quoit::test(start_paused = true)]
    async fn a_tunnel_is_not_cut_for_having_come_late() {
        let activity = Arc::new(Activity::new());
        let mut watch = watch(&activity, SECOND, 3 * SECOND);
        drop(InFlight::begin(&activity));
        assert_eq!(poll_fn(|cx| watch.poll(Some(Version::Http2), cx)).await, Step::Close);
        let late = InFlight::begin(&activity);
        activity.become_tunnel();
        activity.has_written();
        drop(late);
        let cut = poll_fn(|cx| watch.poll(Some(Version::Http2), cx));
        assert!(quoit::time::timeout(600 * SECOND, cut).await.is_err());
    }
}
