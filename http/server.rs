//! The loop that accepts, and the end of it.
//!
//! ```text
//!   accept ──► a task per connection ──► an end that says something is counted   (again and again)
//!   stop ──► listener closed ──► everybody told ──► all ended, or time is over ──► Report
//! ```

use std::future::{pending, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{io, mem};

use quoit::net::{Accept, TcpListener, TcpStream};
use quoit::time::{Sleep, sleep};

use crate::activity::Activity;
use crate::connection::{Connection, End};
use crate::handshake::Start;
use crate::options::Options;
use crate::protocol::Protocol;
use crate::report::{Report, Trouble};
use crate::roster::{News, Roster};
use crate::serve::Serve;
use crate::service::{Application, Counted};
use crate::slots::Slots;
use crate::watch::Watch;

/// How long to wait after an error of `accept` that may pass. The listener itself waits longer when
/// there is a shortage; this is for errors that nobody thought of.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// A peer that nobody can name any more.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What the loop has to see to.
enum Event {
    Accepted(TcpStream, SocketAddr),
    Refused(io::Error),
    News(News),
    Stop,
}

pub(crate) struct Server<M, H> {
    make: M,
    start: H,
    options: Rc<Options>,
    stop: Pin<Box<dyn Future<Output = ()>>>,
    drain_timeout: Option<Duration>,
    on_error: Box<dyn FnMut(Trouble)>,
    roster: Rc<Roster>,
    slots: Arc<Slots>,
    /// Until then nothing is accepted, after an error.
    pause: Option<Sleep>,
    report: Report,
}

impl<M, S, H> Server<M, H>
where
    M: FnMut(SocketAddr) -> S + 'static,
    S: Application,
    H: Start,
{
    /// A server, and what it is to accept from.
    pub(crate) fn new(serve: Serve<M, H>) -> (Self, TcpListener) {
        let server = Self {
            make: serve.make,
            start: serve.start,
            options: Rc::new(serve.options),
            stop: serve.stop,
            drain_timeout: serve.drain_timeout,
            on_error: serve.on_error,
            roster: Rc::new(Roster::default()),
            slots: Slots::new(serve.max_connections),
            pause: None,
            report: Report::default(),
        };
        (server, serve.listener)
    }

    pub(crate) async fn run(mut self, listener: TcpListener) -> io::Result<Report> {
        let served = self.serve(&listener).await;
        self.drain(listener).await;
        self.report.connections = self.roster.joined();
        self.report.requests = self.roster.requests();
        served.map(|()| mem::take(&mut self.report))
    }

    /// Until it is to stop, or cannot go on.
    async fn serve(&mut self, listener: &TcpListener) -> io::Result<()> {
        // Kept from one event to the next: dropped, it would give up its place in line.
        let mut accept = None;
        loop {
            match poll_fn(|cx| self.poll_event(listener, &mut accept, cx)).await {
                Event::Accepted(stream, peer) => self.admit(stream, peer),
                Event::Refused(error) if is_final(&error) => return Err(error),
                Event::Refused(error) => {
                    self.pause = Some(sleep(ACCEPT_AGAIN));
                    (self.on_error)(Trouble::Accept(error));
                }
                Event::News(news) => self.count(news),
                Event::Stop => return Ok(()),
            }
        }
    }

    fn poll_event<'a>(
        &mut self,
        listener: &'a TcpListener,
        accept: &mut Option<Accept<'a>>,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Stop);
        }
        if let Poll::Ready(news) = self.roster.poll_news(cx) {
            return Poll::Ready(Event::News(news));
        }
        if let Some(pause) = &mut self.pause {
            if Pin::new(pause).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        if self.slots.poll_free(cx).is_pending() {
            *accept = None;
            return Poll::Pending;
        }
        let accepted = ready!(Pin::new(accept.get_or_insert_with(|| listener.accept())).poll(cx));
        *accept = None;
        Poll::Ready(match accepted {
            Ok((stream, peer)) => Event::Accepted(stream, peer),
            Err(error) => Event::Refused(error),
        })
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let activity = Arc::new(Activity::new());
        let service = Counted::new((self.make)(peer), activity.clone());
        let started = self.start.start(stream);
        let place = (activity.clone(), self.slots.take());
        let watch = Watch::new(self.roster.join(peer, activity), self.options.limits);
        let seat = watch.seat();
        let protocol = Protocol::new(started, place, service, self.options.clone());
        self.roster.keep(seat, quoit::spawn(Connection::new(protocol, watch)));
    }

    fn count(&mut self, news: News) {
        let report = &mut self.report;
        let trouble = match news {
            News::Ended(_, End::Done) => return,
            News::Ended(_, End::Idle) => {
                report.idle_timeouts += 1;
                return;
            }
            News::Ended(peer, End::Unshaken(error)) => {
                report.handshake_errors += 1;
                Trouble::Handshake { peer, error }
            }
            News::Ended(peer, End::Failed(error)) => {
                report.errors += 1;
                Trouble::Connection { peer, error }
            }
            News::Ended(peer, End::Silent) => {
                report.header_timeouts += 1;
                Trouble::HeaderTimeout { peer }
            }
            News::Lost(peer, error) => {
                report.panics += 1;
                Trouble::Panic { peer, error }
            }
        };
        (self.on_error)(trouble);
    }

    /// Lets everybody end, for a time, and cuts those that have not.
    async fn drain(&mut self, listener: TcpListener) {
        self.roster.drain();
        // A listener of another core has nothing for us.
        for stream in listener.close().await.unwrap_or_default() {
            let peer = stream.peer_addr().unwrap_or(UNKNOWN);
            self.admit(stream, peer);
        }
        let mut time = pin!(wait(self.drain_timeout));
        let over = poll_fn(|cx| {
            while let Poll::Ready(news) = self.roster.poll_news(cx) {
                self.count(news);
            }
            if self.roster.is_empty() && self.slots.poll_all_free(cx).is_ready() {
                return Poll::Ready(());
            }
            time.as_mut().poll(cx)
        });
        over.await;
        self.report.cut = self.roster.peers();
        for task in self.roster.cut() {
            drop(task.await);
        }
        self.report.upgraded = self.slots.open();
    }
}

impl<M, H> Drop for Server<M, H> {
    /// Without a server there is nobody to serve for.
    fn drop(&mut self) {
        self.roster.cut();
    }
}

async fn wait(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => pending().await,
    }
}

/// Whether the listener will answer like this for ever.
fn is_final(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotConnected, Other, Unsupported};
    const EBADF: i32 = 9;
    const ENOTSOCK: i32 = 88;
    // `Other` is not the kernel's: the library says that the listener is served elsewhere.
    matches!(error.kind(), InvalidInput | NotConnected | Other | Unsupported)
        || matches!(error.raw_os_error(), Some(EBADF | ENOTSOCK))
}
