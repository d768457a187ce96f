//! A connect: one request, or several where the kernel leaves the handshake on its own.
//!
//! ```text
//!   connect ──► connected, refused ...: that is the answer
//!    ▲    └───► interrupted, or under way already ──► wait until the socket is writable ──┐
//!    └────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A handshake does not end with the call that began it (connect(2), `EINTR`). On io_uring a worker
//! that finds it under way answers so (`EALREADY`), if there was no memory to watch the socket.
//! What has become of it, a further connect tells.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::io::alarm::Alarm;
use crate::io::descriptor::Descriptor;
use crate::io::operation::Pending;
use crate::io::payload::Payload;
use crate::io::proactor::{Proactor, outside};
use crate::io::request::{self, Interest, Request, SocketAddress};

/// What a connect lends to the kernel until its terminal completion.
struct Connecting {
    descriptor: Descriptor,
    address: Box<SocketAddress>,
}

impl Payload for Connecting {}

impl Connecting {
    fn connect(&self) -> Request {
        let address = &raw const *self.address;
        Request::Connect(request::Connect { descriptor: self.descriptor.number(), address })
    }

    fn watch(&self) -> Request {
        let (descriptor, interest) = (self.descriptor.number(), Interest::Writable);
        Request::Poll(request::Poll { descriptor, interest, multishot: false })
    }
}

/// A request under way; dropped, it is cancelled, and its socket is closed when the kernel is done.
struct Asked(Pending<Connecting>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How long it may take, all requests together.
struct Time {
    alarm: Option<Alarm>,
    is_up: bool,
}

impl Time {
    /// Whether this is the moment when it is up.
    fn ends(&mut self, cx: &Context<'_>) -> bool {
        let rings = self.alarm.as_mut().is_some_and(|alarm| alarm.poll(cx).is_ready());
        if rings {
            (self.alarm, self.is_up) = (None, true);
        }
        rings
    }
}

/// Connects a socket.
pub(super) async fn connect(
    descriptor: Descriptor,
    address: SocketAddr,
    limit: Option<Duration>,
) -> io::Result<Descriptor> {
    let address = Box::new(SocketAddress::new(&address));
    let mut connecting = Connecting { descriptor, address };
    let mut time = Time { alarm: limit.map(Alarm::new), is_up: false };
    let mut was_left = false;
    loop {
        let (outcome, back) = ask(connecting, Connecting::connect, &mut time).await?;
        connecting = back;
        match error_of(outcome) {
            0 => return Ok(connecting.descriptor),
            libc::EISCONN if was_left => return Ok(connecting.descriptor),
            libc::EINTR | libc::EALREADY if !time.is_up => was_left = true,
            error => return Err(explain(error, &time)),
        }
        let (outcome, back) = ask(connecting, Connecting::watch, &mut time).await?;
        connecting = back;
        match error_of(outcome) {
            0 => {}
            libc::ECANCELED if !time.is_up => {}
            error => return Err(explain(error, &time)),
        }
    }
}

/// The number of an outcome's error; 0: it is none.
fn error_of(outcome: i64) -> i32 {
    (-outcome).max(0) as i32
}

fn explain(error: i32, time: &Time) -> io::Error {
    match error {
        libc::ECANCELED | libc::EINTR | libc::EALREADY if time.is_up => {
            let text = "the connection's time limit has passed";
            io::Error::new(io::ErrorKind::TimedOut, text)
        }
        error => io::Error::from_raw_os_error(error),
    }
}

/// Asks the kernel, and gets the answer with the payload.
async fn ask(
    connecting: Connecting,
    request: impl Fn(&Connecting) -> Request,
    time: &mut Time,
) -> io::Result<(i64, Connecting)> {
    let (mut connecting, mut asked) = (Some(connecting), None);
    poll_fn(|cx| {
        let asked = asked.get_or_insert_with(|| {
            let payload = connecting.take().expect("asked once");
            Proactor::with_current(|proactor| {
                // SAFETY: the payload owns the address, in a box of its own, and the descriptor.
                Asked(unsafe {
                    Pending::submit(proactor, payload, cx.waker(), |payload| request(payload))
                })
            })
        });
        let Some(Asked(pending)) = asked else {
            return Poll::Ready(Err(outside("a connect")));
        };
        if let Poll::Ready(done) = pending.poll(cx) {
            return Poll::Ready(done);
        }
        if time.ends(cx) {
            // The terminal completion still comes; a connection made just then wins.
            pending.cancel();
        }
        Poll::Pending
    })
    .await
}
