//! A request in flight at the simulated ring, and what the kernel does about it.
//!
//! ```text
//!   waits ──go_on: something is there──► answers made ──post──► Completion ... the last one: over
//!     │                                      ▲
//!     └── cancelled ──go_on: too late, or ───┘
//!                     ended with what it has come to
//! ```

use std::collections::VecDeque;

use super::disk::Work;
use super::files::Progress;
use super::plan::{Fault, LATE_TURNS};
use super::random::{Chance, mix};
use super::state::State;
use super::trace::name_of;
use crate::io::request::{
    Accept, Completion, Connect, Flags, Interest, Poll, ReceiveMany, Request, SendBytes, Token,
};
use crate::io::ring::Provided;

/// One answer in so many of a multishot request is its last, for no reason that it gives.
const EARLY_END: usize = 12;
/// One accept in so many finds no descriptor free, or a connection that was gone.
const SHORTAGE: usize = 64;
/// One answer in so many to a send is short, though more would have gone out.
const SHORT_SEND: usize = 16;

/// What a request may reach.
pub(super) struct Kernel<'a> {
    pub(super) state: &'a mut State,
    /// The life of the host whose program asks.
    pub(super) boot: usize,
    pub(super) chance: &'a mut Chance,
    pub(super) provided: &'a mut VecDeque<Provided>,
    /// The completion queue has no room for more answers than those that are made.
    pub(super) is_full: bool,
}

/// An answer that is made and not posted yet, and the bytes that go to its buffer then.
struct Answer {
    completion: Completion,
    filled: Option<(Provided, Vec<u8>)>,
}

pub(super) struct Pending {
    pub(super) token: Token,
    /// It waits in the submission queue: the kernel does not know of it.
    pub(super) is_queued: bool,
    request: Request,
    answers: VecDeque<Answer>,
    /// The terminal answer is made.
    is_over: bool,
    /// The terminal answer is posted.
    is_posted: bool,
    is_cancelled: bool,
    pub(super) passed_over: u32,
    /// Bytes that a send has taken.
    taken: usize,
    /// The bytes of a send as they were submitted.
    digest: u64,
    /// The events that a watch has told of.
    seen: Option<u64>,
    /// A connect has sent its first word.
    has_begun: bool,
    /// What a disk does about it.
    work: Option<Work>,
    /// The disk is busy until then.
    due: Option<u64>,
    /// What shall go wrong with it.
    fault: Option<Fault>,
    /// How often it is passed over yet because it shall be late.
    late: u32,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        if let Some(number) = self.descriptor() {
            write!(f, " on {number:#x}")?;
        }
        if self.is_queued {
            f.write_str(", not handed in")?;
        }
        if self.is_cancelled { f.write_str(", cancelled") } else { Ok(()) }
    }
}

impl Pending {
    /// # Safety
    ///
    /// As `Ring::submit`: what the request names stays valid until its terminal answer is posted.
    pub(super) unsafe fn new(token: Token, request: Request, fault: Option<Fault>) -> Self {
        let digest = match &request {
            // SAFETY: the bytes are readable, says the submitter.
            Request::SendBytes(send) => digest(unsafe { bytes_of(send) }),
            _ => 0,
        };
        Self {
            token,
            is_queued: true,
            request,
            answers: VecDeque::new(),
            is_over: false,
            is_posted: false,
            is_cancelled: false,
            passed_over: 0,
            taken: 0,
            digest,
            seen: None,
            has_begun: false,
            // SAFETY: handed on.
            work: unsafe { Work::new(&request) },
            due: None,
            fault,
            late: if fault == Some(Fault::Late) { LATE_TURNS } else { 0 },
        }
    }

    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }

    pub(super) fn name(&self) -> &'static str {
        name_of(&self.request)
    }

    pub(super) fn descriptor(&self) -> Option<i32> {
        descriptor_of(&self.request)
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// How many are made and not posted.
    pub(super) fn answers(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn is_posted(&self) -> bool {
        self.is_posted
    }

    pub(super) fn cancel(&mut self) {
        self.is_cancelled = true;
        self.passed_over = 0;
    }

    /// The next answer leaves. Only now its bytes are in its buffer.
    pub(super) fn post(&mut self) -> Completion {
        let Answer { completion, filled } = self.answers.pop_front().expect("it has answers");
        if let Some((buffer, bytes)) = filled {
            assert!(bytes.len() <= buffer.length as usize, "more bytes than the buffer holds");
            // SAFETY: the buffer was provided, is long enough, and is lent with this completion.
            unsafe { buffer.address.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        if completion.is_terminal() {
            self.is_posted = true;
            if let Some(work) = &mut self.work {
                work.land(&self.request);
            }
            if let Request::SendBytes(send) = &self.request {
                // SAFETY: readable until this answer is posted.
                let now = digest(unsafe { bytes_of(send) });
                assert_eq!(now, self.digest, "the bytes of a send changed while it was in flight");
            }
        }
        completion
    }

    /// Does what can be done now. `false`: that was nothing.
    pub(super) fn go_on(&mut self, kernel: &mut Kernel<'_>) -> bool {
        if self.is_over {
            return false;
        }
        if self.late > 0 {
            self.late -= 1;
            return true;
        }
        if let Some(Fault::Fails(error)) = self.fault {
            return self.fail(error, kernel);
        }
        if self.work.is_some() {
            return self.on_disk(kernel);
        }
        if !self.is_cancelled {
            return self.work(kernel);
        }
        // The cancel is too late for what was about to happen, or it is not.
        if kernel.chance.one_in(2) {
            self.work(kernel);
        }
        if !self.is_over {
            let result = match self.request {
                Request::SendBytes(_) if self.taken > 0 => self.taken as i32,
                _ => -libc::ECANCELED,
            };
            self.end(result);
        }
        true
    }

    /// It shall fail: at once, or a multishot request after some answers, too.
    fn fail(&mut self, error: i32, kernel: &mut Kernel<'_>) -> bool {
        let is_multishot = match self.request {
            Request::Accept(_) | Request::ReceiveMany(_) => true,
            Request::Poll(poll) => poll.multishot,
            _ => false,
        };
        if is_multishot && !self.is_cancelled && kernel.chance.one_in(2) {
            self.work(kernel);
            return true;
        }
        let result = match (self.request, self.descriptor()) {
            // A handshake goes on, whoever was not there to wait for it.
            (Request::Connect(connect), _) if [libc::EINTR, libc::EALREADY].contains(&error) => {
                match self.begin(connect, kernel) {
                    Ok(()) => -error,
                    Err(other) => other,
                }
            }
            // The number is gone, whatever the answer (close(2)).
            (Request::Close(close), _) => match kernel.state.close(close.descriptor) {
                0 => -error,
                other => other,
            },
            (_, Some(number)) => kernel.state.fail_call(number, error),
            (_, None) => -error,
        };
        self.end(result)
    }

    fn work(&mut self, kernel: &mut Kernel<'_>) -> bool {
        match self.request {
            Request::Nop(_) => self.end(0),
            Request::Poll(request) => self.poll(request, kernel),
            Request::Accept(request) => self.accept(request, kernel),
            Request::Connect(request) => self.connect(request, kernel),
            Request::ReceiveMany(request) => self.receive(request, kernel),
            Request::SendBytes(request) => self.send(request, kernel),
            Request::Open(_)
            | Request::ReadAt(_)
            | Request::WriteAt(_)
            | Request::Synchronize(_)
            | Request::SetLength(_)
            | Request::Allocate(_)
            | Request::Metadata(_)
            | Request::Close(_) => unreachable!("a disk works on it"),
        }
    }

    /// A disk decides itself how long it takes, and what a cancel does to it.
    fn on_disk(&mut self, kernel: &mut Kernel<'_>) -> bool {
        let work = self.work.as_mut().expect("just seen");
        match kernel.state.work(kernel.boot, work, &self.request, self.is_cancelled) {
            Progress::Until(due) => {
                self.due = Some(due);
                return false;
            }
            Progress::GoesOn => self.due = None,
            Progress::Over(result) => {
                self.due = None;
                self.end(result);
            }
        }
        true
    }

    /// The terminal answer.
    fn end(&mut self, result: i32) -> bool {
        self.answer(result, Flags::NONE, None)
    }

    /// An answer of a multishot request, which now and then is its last.
    fn more(
        &mut self,
        result: i32,
        filled: Option<(Provided, Vec<u8>)>,
        kernel: &mut Kernel<'_>,
    ) -> bool {
        let is_short = self.fault == Some(Fault::Short);
        let is_last = kernel.chance.one_in(EARLY_END) || is_short || kernel.is_full;
        let flags = if is_last { Flags::NONE } else { Flags::NONE.with_more() };
        self.answer(result, flags, filled)
    }

    fn answer(&mut self, result: i32, flags: Flags, filled: Option<(Provided, Vec<u8>)>) -> bool {
        let flags = filled.as_ref().map_or(flags, |(buffer, _)| flags.with_buffer(buffer.id));
        let completion = Completion { token: self.token, result, flags };
        self.is_over = completion.is_terminal();
        self.answers.push_back(Answer { completion, filled });
        true
    }

    /// Looks at once, and then at each event: readiness that stays is not told again.
    fn poll(&mut self, request: Poll, kernel: &mut Kernel<'_>) -> bool {
        if kernel.state.is_shaking_hands(request.descriptor) {
            return false;
        }
        let (count, events) = match kernel.state.stream(request.descriptor) {
            Ok((connection, side)) => {
                let writable = request.interest == Interest::Writable;
                if writable {
                    connection.want_room(side);
                }
                let count = connection.count_of_events(side, writable);
                (count, connection.events(side, request.mask()))
            }
            Err(_) => match kernel.state.listening(request.descriptor) {
                Ok(listening) => {
                    let events = if listening.backlog.is_empty() { 0 } else { libc::POLLIN };
                    (listening.arrived, events)
                }
                Err(error) if error == -libc::EBADF => return self.end(error),
                // Neither connected nor listening (`tcp_poll`).
                Err(_) => (0, libc::POLLOUT | libc::POLLHUP),
            },
        };
        if self.seen.replace(count) == Some(count) || events == 0 {
            return false;
        }
        if request.multishot {
            self.more(events.into(), None, kernel)
        } else {
            self.end(events.into())
        }
    }

    fn accept(&mut self, request: Accept, kernel: &mut Kernel<'_>) -> bool {
        let waiting = match kernel.state.listening(request.descriptor) {
            Ok(listening) => listening.backlog.len(),
            Err(error) => return self.end(error),
        };
        if waiting == 0 {
            return false;
        }
        if kernel.chance.one_in(SHORTAGE) {
            // The connection stays queued.
            let is_out = kernel.state.plan.has_shortages && kernel.chance.one_in(2);
            let error = if is_out { libc::EMFILE } else { libc::ECONNABORTED };
            return self.end(-error);
        }
        let number = kernel.state.accept(request.descriptor).expect("one waits");
        self.more(number, None, kernel)
    }

    /// Sends the first word of a handshake. `Err` is a negated error number.
    fn begin(&mut self, request: Connect, kernel: &mut Kernel<'_>) -> Result<(), i32> {
        self.has_begun = true;
        // SAFETY: the submitter keeps the address until the terminal completion.
        let address = unsafe { *request.address };
        let to = address.to_std().ok_or(-libc::EAFNOSUPPORT)?;
        kernel.state.connect(request.descriptor, to)
    }

    fn connect(&mut self, request: Connect, kernel: &mut Kernel<'_>) -> bool {
        if !self.has_begun {
            return match self.begin(request, kernel) {
                Ok(()) => true,
                Err(error) => self.end(error),
            };
        }
        match kernel.state.connected(request.descriptor) {
            // The handshake went through, and its waiter did not wait for it.
            Some(0) if self.is_cancelled && kernel.chance.one_in(2) => self.end(-libc::ECANCELED),
            Some(result) => self.end(result),
            None => false,
        }
    }

    fn receive(&mut self, request: ReceiveMany, kernel: &mut Kernel<'_>) -> bool {
        let Some(buffer) = kernel.provided.front().copied() else {
            return self.end(-libc::ENOBUFS);
        };
        let mut room = buffer.length as usize;
        if kernel.chance.one_in(2) {
            room = kernel.chance.up_to(room);
        }
        if self.fault == Some(Fault::Short) {
            room = 1;
        }
        match kernel.state.receive(request.descriptor, room, false) {
            Err(error) if error == -libc::EAGAIN => false,
            Err(error) => self.end(error),
            Ok(bytes) if bytes.is_empty() => {
                // Kernels differ in whether the end of the stream lends a buffer.
                let lends = kernel.chance.one_in(4);
                let filled = lends.then(|| kernel.provided.pop_front().expect("just seen"));
                self.answer(0, Flags::NONE, filled.map(|buffer| (buffer, bytes)))
            }
            Ok(bytes) => {
                kernel.provided.pop_front();
                // SAFETY: the buffer was provided, and nobody has it before the completion is
                // posted.
                unsafe { scribble(&buffer, kernel.chance.bits()) };
                self.more(bytes.len() as i32, Some((buffer, bytes)), kernel)
            }
        }
    }

    fn send(&mut self, request: SendBytes, kernel: &mut Kernel<'_>) -> bool {
        // SAFETY: the submitter keeps the bytes readable until the terminal completion.
        let bytes = unsafe { &bytes_of(&request)[self.taken..] };
        let mut count = bytes.len();
        if count > 0 && kernel.chance.one_in(2) {
            count = kernel.chance.up_to(count);
        }
        if self.fault == Some(Fault::Short) {
            count = count.min(1);
        }
        match kernel.state.send(request.descriptor, &bytes[..count]) {
            error if error == -libc::EAGAIN => false,
            // What went out before the error is told, and the error not again (`io_send`).
            error if error < 0 && self.taken > 0 => self.end(self.taken as i32),
            error if error < 0 => self.end(error),
            taken => {
                self.taken += taken as usize;
                let is_short = kernel.chance.one_in(SHORT_SEND) || self.fault == Some(Fault::Short);
                if self.taken < request.length as usize && !is_short {
                    return true;
                }
                self.end(self.taken as i32)
            }
        }
    }
}

/// # Safety
///
/// The request's bytes are readable for as long as the slice is used.
unsafe fn bytes_of<'a>(send: &SendBytes) -> &'a [u8] {
    // SAFETY: handed on.
    unsafe { std::slice::from_raw_parts(send.address, send.length as usize) }
}

/// The number that a request names and that must stay open for it: a close does not mind.
pub(super) fn descriptor_of(request: &Request) -> Option<i32> {
    match request {
        Request::ReadAt(request) => Some(request.descriptor),
        Request::WriteAt(request) => Some(request.descriptor),
        Request::Synchronize(request) => Some(request.descriptor),
        Request::SetLength(request) => Some(request.descriptor),
        Request::Allocate(request) => Some(request.descriptor),
        Request::Metadata(request) => Some(request.descriptor),
        _ => request.descriptor(),
    }
}

pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |digest, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(digest ^ u64::from_le_bytes(word))
    })
}

/// Writes noise to the front of a buffer, where bytes are expected first.
///
/// # Safety
///
/// The buffer was provided, and not lent on since: nobody else touches it.
pub(super) unsafe fn scribble(buffer: &Provided, noise: u64) {
    let count = (buffer.length as usize).min(64);
    for index in 0..count {
        // SAFETY: within the buffer, which is ours now, says the caller.
        unsafe { buffer.address.add(index).write((noise >> (index % 8 * 8)) as u8) };
    }
}
