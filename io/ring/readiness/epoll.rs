//! The epoll instance: register, wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::io::ring::Waiting;
use crate::io::system;
use crate::io::trace::{self, SpanKind};

/// The most events taken by one wait, and the most descriptors tried again in one turn. When more
/// are ready, the kernel hands out the rest by the next wait, in turn. As many as the pool has
/// buffers at the start, for each may fill one: a turn then works within what stays in the cache,
/// and ends no receive for want of a buffer. With twice as many, 1024 connections of short messages
/// took 1.12 times as long.
pub(crate) const EVENTS_MAX: usize = 32;

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// Of the doorbell, and of what else only rings.
pub(in crate::io::ring) const EDGES_OF_DOORBELL: u32 = (libc::EPOLLIN | libc::EPOLLET) as u32;

pub(in crate::io::ring) struct Epoll {
    instance: OwnedFd,
    events: Box<[libc::epoll_event]>,
    /// `epoll_pwait2` (Linux 5.11) takes nanoseconds; `epoll_wait` takes milliseconds.
    nanoseconds: bool,
}

/// One event: what was registered with it, and the state of the descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Event {
    pub(super) data: u64,
    pub(super) events: u32,
}

impl Epoll {
    pub(in crate::io::ring) fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let number = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this number; nobody else owns it.
        let instance = unsafe { OwnedFd::from_raw_fd(number) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX].into_boxed_slice();
        let mut epoll = Self { instance, events, nanoseconds: true };
        // Probed, not asked of the release: ENOSYS from an old kernel, EPERM from a seccomp profile
        // that does not know the call.
        epoll.nanoseconds = epoll.wait_nanoseconds(0) >= 0;
        Ok(epoll)
    }

    /// Watches a descriptor, or answers the negated error number.
    pub(in crate::io::ring) fn register(&self, number: i32, events: u32, data: u64) -> i32 {
        let result = self.control(libc::EPOLL_CTL_ADD, number, events, data);
        if result == -libc::EEXIST {
            // It was forgotten but not closed, and has come back.
            return self.change(number, events, data);
        }
        result
    }

    /// Watches a descriptor for other events than before. That reports its present state, just as
    /// registering does.
    pub(super) fn change(&self, number: i32, events: u32, data: u64) -> i32 {
        self.control(libc::EPOLL_CTL_MOD, number, events, data)
    }

    /// Stops watching; it does not matter if nothing was watched.
    pub(super) fn remove(&self, number: i32) {
        self.control(libc::EPOLL_CTL_DEL, number, 0, 0);
    }

    fn control(&self, operation: i32, number: i32, events: u32, data: u64) -> i32 {
        let mut event = libc::epoll_event { events, u64: data };
        let instance = self.instance.as_raw_fd();
        let began = trace::begin();
        // SAFETY: one valid event, which the call only reads.
        let result = unsafe { libc::epoll_ctl(instance, operation, number, &raw mut event) };
        let result = if result < 0 { -last_error() } else { 0 };
        trace::end(began, SpanKind::Call, || i64::from(result));
        result
    }

    /// Waits as told and answers how many events there are. A signal ends the wait with none: the
    /// caller turns again, and finds what the handler has done.
    pub(in crate::io::ring) fn wait(&mut self, waiting: Waiting) -> io::Result<usize> {
        let count = match waiting {
            Waiting::No => self.wait_milliseconds(0),
            Waiting::Until(None) => self.wait_milliseconds(-1),
            Waiting::Until(Some(deadline)) => match deadline.saturating_sub(system::now()) {
                0 => self.wait_milliseconds(0),
                left if self.nanoseconds => self.wait_nanoseconds(left),
                left => self.wait_milliseconds(milliseconds(left)),
            },
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) if last_error() == libc::EINTR => Ok(0),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// One event of the last wait.
    #[inline]
    pub(super) fn event(&self, index: usize) -> Event {
        let event = self.events[index];
        Event { data: event.u64, events: event.events }
    }

    fn wait_milliseconds(&mut self, timeout: i32) -> i32 {
        let (events, count) = (self.events.as_mut_ptr(), EVENTS_MAX as i32);
        // SAFETY: room for the stated number of events.
        unsafe { libc::epoll_wait(self.instance.as_raw_fd(), events, count, timeout) }
    }

    fn wait_nanoseconds(&mut self, timeout: u64) -> i32 {
        /// `struct __kernel_timespec`: 64 bits in each field on every machine.
        #[repr(C)]
        struct Timespec {
            seconds: i64,
            nanoseconds: i64,
        }
        let timeout = Timespec {
            seconds: (timeout / 1_000_000_000) as i64,
            nanoseconds: (timeout % 1_000_000_000) as i64,
        };
        let (events, count) = (self.events.as_mut_ptr(), EVENTS_MAX as i32);
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: room for the stated number of events, a valid timespec, and no signal mask, of
        // which the size is then not looked at.
        let count = unsafe {
            let instance = self.instance.as_raw_fd();
            let call = libc::SYS_epoll_pwait2;
            libc::syscall(call, instance, events, count, &raw const timeout, no_mask, 0_usize)
        };
        count as i32
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.instance.as_fd()
    }
}

/// Whole milliseconds, rounded up: rounded down, a wait would end before its deadline and the core
/// would spin through the last fraction.
fn milliseconds(nanoseconds: u64) -> i32 {
    i32::try_from(nanoseconds.div_ceil(NANOSECONDS_PER_MILLISECOND)).unwrap_or(i32::MAX)
}

fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_round_up() {
        assert_eq!(milliseconds(1), 1);
        assert_eq!(milliseconds(1_000_000), 1);
        assert_eq!(milliseconds(1_000_001), 2);
        assert_eq!(milliseconds(u64::MAX), i32::MAX);
    }

    #[test]
    fn both_clocks_keep_the_deadline() {
        let mut epoll = Epoll::new().unwrap();
        for nanoseconds in [epoll.nanoseconds, false] {
            epoll.nanoseconds = nanoseconds;
            let deadline = system::now() + 3_500_000;
            assert_eq!(epoll.wait(Waiting::Until(Some(deadline))).unwrap(), 0);
            assert!(system::now() >= deadline);
        }
    }
}
