//! A timer of the kernel's that stays set from one wait to the next.
//!
//! A wait with a time limit has the kernel start a timer and, when something else ends the wait,
//! take it back. Most limits are far away and never reached: they are timeouts. So those stand in
//! one timer that the ring watches like any descriptor, and the waits themselves have no limit.
//!
//! ```text
//!   wait until t ── t is near ────────────────────────────► a limit of its own: it will be reached
//!                └─ t is far ──► is the timer set to t, or ──► yes: wait
//!                                to something before t?    └─► no: set it to t, and wait
//! ```
//!
//! It may fire before anything is due: who waited for that time has given up since. Then the core
//! finds nothing to do, and its next wait sets it anew. So it fires in vain at most once for each
//! time that it is set, and is set anew only after it has fired or for something earlier.
//!
//! On a virtual machine with Linux 6.18 it saves 0.3 to 0.5 microseconds of a wait.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Waiting;
use crate::io::system;

/// What is at most so far away, in nanoseconds, is near. On a core that sleeps through to it, the
/// timer would cost a call more than the limit; on a busy one, the limit costs more in all
/// the waits until then.
const NEAR: u64 = 2_000_000;

#[derive(Debug)]
pub(super) struct KernelTimer {
    /// `None`: it cannot be had here, and every wait has its own limit.
    timer: Option<OwnedFd>,
    /// It fires then, and has not fired.
    set: Option<u64>,
}

impl KernelTimer {
    /// # Errors
    ///
    /// When there is no descriptor or no memory left. Where the call itself is refused, by a
    /// seccomp profile say, it does without.
    pub(super) fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no pointers.
        let number = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if number < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Err(error),
                _ => Ok(Self { timer: None, set: None }),
            };
        }
        // SAFETY: the kernel just gave us this number; nobody else owns it.
        Ok(Self { timer: Some(unsafe { OwnedFd::from_raw_fd(number) }), set: None })
    }

    /// What the ring is to watch, for edges: nobody reads the timer.
    pub(super) fn number(&self) -> Option<i32> {
        self.timer.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The ring cannot watch it.
    pub(super) fn give_up(&mut self) {
        *self = Self { timer: None, set: None };
    }

    /// To be called when the ring sees it fire.
    pub(super) fn fired(&mut self) {
        self.set = None;
    }

    /// What is left for the wait itself to keep.
    #[inline]
    pub(super) fn take_over(&mut self, waiting: Waiting) -> Waiting {
        match waiting {
            Waiting::Until(Some(deadline)) if self.fires_by(deadline) => Waiting::Until(None),
            _ => waiting,
        }
    }

    #[inline]
    fn fires_by(&mut self, deadline: u64) -> bool {
        self.set.is_some_and(|set| set <= deadline) || self.is_set_to(deadline)
    }

    #[inline(never)]
    fn is_set_to(&mut self, deadline: u64) -> bool {
        let Some(timer) = &self.timer else { return false };
        if deadline.saturating_sub(system::now()) <= NEAR {
            return false;
        }
        let is_set = set(timer, deadline);
        self.set = is_set.then_some(deadline);
        is_set
    }
}

/// Sets a timer, fired or not, to a time of `CLOCK_MONOTONIC`. It then counts from zero.
fn set(timer: &OwnedFd, deadline: u64) -> bool {
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let at = libc::timespec {
        tv_sec: libc::time_t::try_from(deadline / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: (deadline % 1_000_000_000) as _,
    };
    let time = libc::itimerspec { it_interval: never, it_value: at };
    let (flags, old) = (libc::TFD_TIMER_ABSTIME, std::ptr::null_mut());
    // SAFETY: a valid time, which the call only reads, and no room for the old one.
    unsafe { libc::timerfd_settime(timer.as_raw_fd(), flags, &raw const time, old) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: u64 = 1_000_000_000;

    fn until(deadline: u64) -> Waiting {
        Waiting::Until(Some(deadline))
    }

    #[test]
    fn a_near_time_is_kept_by_the_wait_and_a_far_one_by_the_timer() {
        let mut timer = KernelTimer::new().unwrap();
        for none in [Waiting::No, Waiting::Until(None), until(0), until(system::now() + NEAR / 2)] {
            assert_eq!((timer.take_over(none), timer.set), (none, None));
        }
        let far = system::now() + FAR;
        assert_eq!((timer.take_over(until(far)), timer.set), (Waiting::Until(None), Some(far)));
    }

    #[test]
    fn it_is_set_again_for_what_comes_before_it_and_for_nothing_else() {
        let mut timer = KernelTimer::new().unwrap();
        let first = system::now() + 2 * FAR;
        for (deadline, set) in [(first, first), (first + 1, first), (first - 1, first - 1)] {
            assert_eq!(timer.take_over(until(deadline)), Waiting::Until(None));
            assert_eq!(timer.set, Some(set));
        }
        // What is near has its own limit, and the timer stays.
        let near = until(system::now() + NEAR / 2);
        assert_eq!((timer.take_over(near), timer.set), (near, Some(first - 1)));
        timer.fired();
        assert_eq!(timer.take_over(until(first)), Waiting::Until(None));
        assert_eq!(timer.set, Some(first));
    }

    #[test]
    fn it_fires_when_it_is_set_to() {
        let mut timer = KernelTimer::new().unwrap();
        let mut poll =
            libc::pollfd { fd: timer.number().unwrap(), events: libc::POLLIN, revents: 0 };
        let mut fired = 0;
        while fired < 2 {
            let deadline = system::now() + 10 * NEAR;
            let is_set = timer.take_over(until(deadline)) == Waiting::Until(None);
            // SAFETY: one valid entry.
            let is_early = unsafe { libc::poll(&raw mut poll, 1, 0) } > 0;
            // This thread may have slept in between.
            if !is_set && system::now() + NEAR >= deadline {
                continue;
            }
            assert!(is_set && (!is_early || system::now() >= deadline));
            // SAFETY: one valid entry.
            assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 5_000) }, 1);
            assert!(system::now() >= deadline);
            timer.fired();
            fired += 1;
        }
    }

    #[test]
    fn without_a_timer_every_wait_has_its_limit() {
        let mut timer = KernelTimer::new().unwrap();
        timer.give_up();
        let far = until(system::now() + FAR);
        assert_eq!((timer.take_over(far), timer.number()), (far, None));
    }
}
