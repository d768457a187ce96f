//! What the load generator and the measurement ask of Linux: epoll, cores, limits, congestion
//! control.

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use socket2::SockRef;

/// Ready sockets taken per `epoll_wait`.
const EVENTS: usize = 1024;

/// Raises the soft limit of open descriptors to the hard one and returns it.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) fills the struct that lives on this stack frame.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit(2) only reads the struct.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// Takes the socket off a pacing congestion control: under bbr even loopback is paced, and then the
/// pacing timer is what gets measured.
pub(crate) fn set_cubic(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_congestion(b"cubic")
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// epoll(7), edge-triggered, each socket registered once for both directions.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1(2) takes no memory.
        let number = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the number is open, new, and ours alone.
        let epoll = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS] })
    }

    /// Watches a socket under the number `id`.
    pub(super) fn add(&self, stream: &TcpStream, id: usize) -> io::Result<()> {
        let flags = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: flags as u32, u64: id as u64 };
        let (epoll, stream) = (self.epoll.as_raw_fd(), stream.as_raw_fd());
        // SAFETY: both descriptors are open and epoll_ctl(2) copies the event.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, stream, &mut event) })?;
        Ok(())
    }

    /// Waits at most `wait`, to the nanosecond: the open loop needs better than milliseconds.
    pub(super) fn wait(&mut self, wait: Duration) -> io::Result<usize> {
        let wait = libc::timespec {
            tv_sec: wait.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(wait.subsec_nanos() as i32),
        };
        // SAFETY: epoll_pwait2(2), Linux 5.11, writes at most `EVENTS` entries into our vector.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS as libc::c_int,
                &raw const wait,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        match check(count as libc::c_int) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            count => count.map(|count| count as usize),
        }
    }

    /// Number and flags of the `index`th event of the last wait.
    pub(super) fn event(&self, index: usize) -> (usize, libc::c_int) {
        let event = self.events[index]; // the struct is packed: copied, never borrowed
        (event.u64 as usize, event.events as libc::c_int)
    }
}

/// The thread on one core, until dropped.
pub(super) struct Pinned(libc::cpu_set_t);

impl Pinned {
    pub(super) fn to(core: usize) -> io::Result<Self> {
        let size = size_of::<libc::cpu_set_t>();
        let mut before = MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: sched_getaffinity(2) writes at most `size` bytes into `before`.
        check(unsafe { libc::sched_getaffinity(0, size, before.as_mut_ptr()) })?;
        // SAFETY: cpu_set_t is an array of integers, for which zeroed bytes are a value.
        let before = unsafe { before.assume_init() };
        pin_to(core)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: sched_setaffinity(2) only reads the set.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.0) };
    }
}

/// Binds the calling thread, and those it will start, to one core.
///
/// # Errors
///
/// When the core does not exist or is not allowed here.
pub(crate) fn pin_to(core: usize) -> io::Result<()> {
    let size = size_of::<libc::cpu_set_t>();
    if core >= size * 8 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("there is no core {core}"),
        ));
    }
    // SAFETY: cpu_set_t is an array of integers, for which zeroed bytes are a value.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the bit is inside the set, checked above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: sched_setaffinity(2) only reads the set.
    check(unsafe { libc::sched_setaffinity(0, size, &set) })
        .map(drop)
        .map_err(|error| io::Error::new(error.kind(), format!("pinning to core {core}: {error}")))
}
