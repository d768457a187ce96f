//! Catching signals: a handler that counts, and a thread that may block until it has.
//!
//! ```text
//!   kernel ──► handler: count += 1 ─► post the semaphore ──► `wait` returns, on a thread of ours
//!                       └► the handler that was there before
//! ```
//!
//! The handler may interrupt any instruction of any thread, so it does only what signal-safety(7)
//! allows: atomic additions and `sem_post`. A semaphore rather than a pipe or an eventfd: it takes
//! no descriptor that could run out or be inherited, and a child after fork(2) has its own, where a
//! shared descriptor would tell the parent of the child's signals. execve(2) resets handlers by
//! itself.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, transmute};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The signals that can be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

/// One signal: how often it came, and who was there before us.
struct Caught {
    number: c_int,
    count: AtomicU64,
    before: OnceLock<libc::sigaction>,
}

impl Caught {
    const fn new(number: c_int) -> Self {
        Self { number, count: AtomicU64::new(0), before: OnceLock::new() }
    }
}

static CAUGHT: [Caught; 2] = [Caught::new(libc::SIGINT), Caught::new(libc::SIGTERM)];

static BELL: OnceLock<Semaphore> = OnceLock::new();

/// How often the signal was delivered since `catch`.
#[inline]
pub(crate) fn count(signal: Signal) -> u64 {
    // Acquire, like the handler's Release: who sees the count sees what came before the signal in
    // the thread that raised it.
    CAUGHT[signal as usize].count.load(Ordering::Acquire)
}

/// Blocks until a signal was caught. Each delivery ends one call, now or later.
pub(crate) fn wait() {
    BELL.get_or_init(Semaphore::new).wait();
}

/// Installs the handler, for good. What the signal did by default it does no more; a handler that
/// somebody had installed is still called.
pub(crate) fn catch(signal: Signal) -> io::Result<()> {
    BELL.get_or_init(Semaphore::new);
    let caught = &CAUGHT[signal as usize];
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks; the kernel fills `before`, which is plain data and valid when zeroed too.
    let before = unsafe {
        check(libc::sigaction(caught.number, ptr::null(), before.as_mut_ptr()))?;
        before.assume_init()
    };
    // Before the handler can run, which reads it.
    caught.before.get_or_init(|| before);
    // SAFETY: plain data, of which zero is a valid value.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_signal as *const () as usize;
    // RESTART: system calls of the program's other threads go on as if nothing had been. ONSTACK:
    // threads with small stacks of their own (Go's, say) have set one aside for handlers.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the action is whole, its empty mask included, and its handler async-signal-safe.
    check(unsafe { libc::sigaction(caught.number, &raw const action, ptr::null_mut()) })
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The handler. Reading a set `OnceLock` is one atomic load.
extern "C" fn on_signal(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(caught) = CAUGHT.iter().find(|caught| caught.number == number) else { return };
    caught.count.fetch_add(1, Ordering::Release);
    if let Some(bell) = BELL.get() {
        bell.post();
    }
    if let Some(before) = caught.before.get() {
        pass_on(before, number, info, context);
    }
}

/// Calls the handler that was there before, if it was a function.
fn pass_on(
    before: &libc::sigaction,
    number: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let function = before.sa_sigaction;
    if function == libc::SIG_DFL || function == libc::SIG_IGN {
        return;
    }
    let function = ptr::with_exposed_provenance::<()>(function);
    // SAFETY: whoever installed it did so as a function of the type that the flag tells, to be
    // called for this signal with what the kernel has handed us.
    unsafe {
        if before.sa_flags & libc::SA_SIGINFO != 0 {
            type Informed = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            transmute::<*const (), Informed>(function)(number, info, context);
        } else {
            transmute::<*const (), extern "C" fn(c_int)>(function)(number);
        }
    }
}

/// sem_overview(7): the one way to wake a thread that a handler may use and that is no descriptor.
struct Semaphore {
    /// It must not move, nor go while a handler may use it: it lives in a static.
    inner: Box<UnsafeCell<libc::sem_t>>,
}

// SAFETY: sem_post(3) and sem_wait(3) may be called by any threads at once.
unsafe impl Send for Semaphore {}
// SAFETY: as above.
unsafe impl Sync for Semaphore {}

impl Semaphore {
    fn new() -> Self {
        // SAFETY: plain data, of which zero is a valid value.
        let inner = Box::new(UnsafeCell::new(unsafe { MaybeUninit::zeroed().assume_init() }));
        // SAFETY: room for a semaphore, which stays where it is.
        let result = unsafe { libc::sem_init(inner.get(), 0, 0) };
        assert_eq!(result, 0, "a private semaphore of zero can always be made");
        Self { inner }
    }

    /// Async-signal-safe.
    fn post(&self) {
        // SAFETY: the semaphore is initialised; errno is this thread's own. The handler interrupts
        // code that may be about to read errno. A full semaphore (EOVERFLOW) is a raised one.
        unsafe {
            let errno = libc::__errno_location();
            let before = *errno;
            libc::sem_post(self.inner.get());
            *errno = before;
        }
    }

    fn wait(&self) {
        // SAFETY: the semaphore is initialised. Its only error is EINTR.
        while unsafe { libc::sem_wait(self.inner.get()) } != 0 {}
    }
}
