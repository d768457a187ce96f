//! The one table of ambient authority: clock, thread start, CPUs, events, signals.
//!
//! Everything above asks here and nowhere else, so that a simulated core can answer instead of
//! the machine. Deadlines inside the crate are `u64` nanoseconds of `CLOCK_MONOTONIC`: io_uring
//! and `epoll_pwait2` measure with the same clock, so no conversion stands between a timer and
//! the wait.

pub(crate) mod signals;
pub(crate) mod stack;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, UNIX_EPOCH};

/// A time of day, as files have it.
pub(crate) use std::time::SystemTime as WallTime;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "CLOCK_MONOTONIC exists on every Linux");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds that this thread has had of a processor.
pub(crate) fn processor_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "every thread has a processor clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How the threads of a runtime are made.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    /// What their names begin with.
    pub(crate) name: String,
    /// The bytes of their stacks; `None`: as many as `std` gives.
    pub(crate) stack_size: Option<usize>,
}

impl Default for Threads {
    fn default() -> Self {
        Self { name: "quoit".to_owned(), stack_size: None }
    }
}

impl Threads {
    /// Starts a thread, named after its role. It may run wherever the calling thread might before
    /// it was pinned: a pool thread that inherited the pin would compete with the very core that
    /// gave it work.
    pub(crate) fn start(
        &self,
        role: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let before_pin = BEFORE_PIN.with(|slot| slot.borrow().clone());
        let mut builder = Builder::new().name(format!("{}-{role}", self.name));
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        builder.spawn(move || {
            if let Some(mask) = before_pin {
                // Refused, the thread stays on its starter's CPU: slower, not wrong.
                let _ = set_affinity(&mask);
            }
            body();
        })
    }
}

/// One moment as `std` and as we name it. It is the same for the whole process, so that times can
/// be converted to and fro without drifting: `std` keeps its nanoseconds to itself.
pub(crate) fn moment() -> (std::time::Instant, u64) {
    static MOMENT: OnceLock<(std::time::Instant, u64)> = OnceLock::new();
    *MOMENT.get_or_init(|| {
        // Other work may come between two looks at the clock; of several tries take the tightest.
        let tries = (0..8).map(|_| {
            let before = now();
            let std = std::time::Instant::now();
            let took = now() - before;
            (took, std, before + took / 2)
        });
        let (_, std, ours) = tries.min_by_key(|(took, ..)| *took).expect("there are eight");
        (std, ours)
    })
}

/// A counter that can be waited for by its descriptor: eventfd(2), non-blocking.
pub(crate) fn event() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes no pointers.
    let number = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this number; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Raises an event, and wakes who waits for it.
pub(crate) fn raise(event: &OwnedFd) {
    let one = 1_u64;
    // SAFETY: eight readable bytes. A full counter (EAGAIN) is a raised one already, and there is
    // nobody to tell of other errors: the descriptor is ours and valid.
    unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// How many threads this process may run at once: its affinity and its control group's quota.
pub(crate) fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

thread_local! {
    /// Where this thread might run before `pin_to` tied it to one CPU.
    static BEFORE_PIN: RefCell<Option<Vec<u64>>> = const { RefCell::new(None) };
}

/// The CPUs that this thread may run on.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    let mask = affinity()?;
    Ok((0..mask.len() * 64).filter(|cpu| mask[cpu / 64] & (1 << (cpu % 64)) != 0).collect())
}

/// Ties this thread to one CPU, but not the threads that it starts here.
pub(crate) fn pin_to(cpu: usize) -> io::Result<()> {
    let before = affinity()?;
    let mut mask = vec![0_u64; cpu / 64 + 1];
    mask[cpu / 64] = 1 << (cpu % 64);
    set_affinity(&mask)?;
    BEFORE_PIN.with(|slot| {
        slot.borrow_mut().get_or_insert(before);
    });
    Ok(())
}

/// One bit per CPU.
fn affinity() -> io::Result<Vec<u64>> {
    // The kernel wants room for every CPU it could ever have, and says so with EINVAL.
    let mut mask = vec![0_u64; 16];
    loop {
        let size = mask.len() * 8;
        // SAFETY: the kernel writes at most `size` bytes, which are ours.
        let result = unsafe { libc::sched_getaffinity(0, size, mask.as_mut_ptr().cast()) };
        if result == 0 {
            return Ok(mask);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) || mask.len() >= 1 << 14 {
            return Err(error);
        }
        mask.resize(mask.len() * 2, 0);
    }
}

fn set_affinity(mask: &[u64]) -> io::Result<()> {
    // SAFETY: the kernel reads exactly the mask's bytes.
    match unsafe { libc::sched_setaffinity(0, size_of_val(mask), mask.as_ptr().cast()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The time of day.
pub(crate) fn time_of_day_now() -> WallTime {
    WallTime::now()
}

/// The time of day that is so many seconds and nanoseconds after 1970. `None` when `std` cannot say
/// it.
pub(crate) fn wall_time(seconds: i64, nanoseconds: u32) -> Option<WallTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds {
        0.. => UNIX_EPOCH.checked_add(whole),
        _ => UNIX_EPOCH.checked_sub(whole),
    };
    time?.checked_add(Duration::from_nanos(nanoseconds.into()))
}
/// Has the kernel end this thread's waits when they are due, until it is dropped.
///
/// By default they may last up to 50 us longer (timer slack, `PR_SET_TIMERSLACK` in prctl(2)), and
/// epoll's do; io_uring's own waits know no slack. Threads that are started meanwhile inherit it.
#[derive(Debug)]
pub(crate) struct ExactWaits {
    before: libc::c_int,
    /// Of this thread.
    here: std::marker::PhantomData<*const ()>,
}

impl ExactWaits {
    pub(crate) fn begin() -> Self {
        // SAFETY: these options take and return plain numbers.
        let before = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) };
        if before > 1 {
            // SAFETY: as above. Refused, waits are as they were.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
        }
        Self { before, here: std::marker::PhantomData }
    }
}

impl Drop for ExactWaits {
    fn drop(&mut self) {
        if self.before > 1 {
            // SAFETY: as above.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, self.before as libc::c_ulong) };
        }
    }
}
