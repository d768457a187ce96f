//! Setting up a ring: the flags we want, a ladder for kernels that lack them, and errors that say
//! what to do.
//!
//! Every step asks the kernel itself. The release number is never looked at: distributions port
//! features back, and containers take them away.

use std::io;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};

use crate::io::request::Features;

/// Submission entries. A turn that queues more submits in between, so this bounds memory (and what
/// counts against `RLIMIT_MEMLOCK`: 52 KiB a ring with 2048 completions), not concurrency.
const SUBMISSIONS: u32 = 256;
/// Completion entries: what may arrive before the kernel keeps the rest in its own memory.
const COMPLETIONS: u32 = 2048;
/// Under `ENOMEM` both are halved down to this many submissions.
const SUBMISSIONS_MIN: u32 = 64;
/// The kernel un-charges the memory of a closed ring late (about 10 ms), so a refusal for memory is
/// tried again for a while before it counts.
const RETRIES: u32 = 5;

const SETUP: &str = "io_uring_setup";

/// The group id of the one provided buffer ring.
pub(super) const BUFFER_GROUP: u16 = 0;

/// How completions are delivered, best first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Delivery {
    /// Only when we enter, in a batch, on our thread (`DEFER_TASKRUN`, Linux 6.1).
    Deferred,
    /// At the next system call of ours, without an interrupt (`COOP_TASKRUN`, Linux 5.19).
    Cooperative,
    /// Whenever the kernel likes.
    Plain,
}

/// A set-up that this kernel is known to accept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    delivery: Delivery,
    pub(super) features: Features,
    /// The wait takes an absolute time (`IORING_ENTER_ABS_TIMER`).
    pub(super) absolute_wait: bool,
    /// A parked core does not count as waiting for the disk (`IORING_ENTER_NO_IOWAIT`).
    pub(super) no_iowait: bool,
}

impl Setup {
    /// Finds the best set-up this kernel accepts, by trying.
    pub(crate) fn probe() -> Result<Self, Refusal> {
        let mut last = None;
        for delivery in [Delivery::Deferred, Delivery::Cooperative, Delivery::Plain] {
            match create(delivery) {
                Ok(ring) => return Self::inspect(&ring, delivery),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
                Err(error) => return Err(Refusal::of(SETUP, &error)),
            }
        }
        let last = last.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
        Err(Refusal::of(SETUP, &last))
    }

    fn inspect(ring: &IoUring, delivery: Delivery) -> Result<Self, Refusal> {
        let mut probe = Probe::new();
        let refused = |error| Refusal::of("io_uring_register", &error);
        ring.submitter().register_probe(&mut probe).map_err(refused)?;
        // A profile may forbid one call of the three; entering with nothing to submit tells.
        ring.submitter().submit().map_err(|error| Refusal::of("io_uring_enter", &error))?;
        let parameters = ring.params();
        // The provided buffer ring and multishot accept came with `SOCKET` in Linux 5.19, multishot
        // receive with `SEND_ZC` in 6.0: neither has a probe of its own.
        if !probe.is_supported(opcode::Socket::CODE) || !parameters.is_feature_ext_arg() {
            return Err(Refusal::too_old());
        }
        Ok(Self {
            delivery,
            features: Features {
                buffer_group: BUFFER_GROUP,
                multishot_receive: probe.is_supported(opcode::SendZc::CODE),
                multishot_accept: true,
                truncate: probe.is_supported(opcode::Ftruncate::CODE),
            },
            // The absolute timer came in the same release as the minimum wait (6.12).
            absolute_wait: parameters.is_feature_min_timeout(),
            no_iowait: parameters.is_feature_no_iowait(),
        })
    }

    /// Makes a ring of this kind for the calling thread.
    pub(super) fn create(&self) -> io::Result<IoUring> {
        create(self.delivery).map_err(|error| Refusal::error(SETUP, &error))
    }

    /// The flags, for people.
    pub(crate) fn describe(&self) -> &'static str {
        match self.delivery {
            Delivery::Deferred => {
                "SINGLE_ISSUER | DEFER_TASKRUN | TASKRUN_FLAG | SUBMIT_ALL | CLAMP"
            }
            Delivery::Cooperative => "COOP_TASKRUN | TASKRUN_FLAG | SUBMIT_ALL | CLAMP",
            Delivery::Plain => "CLAMP",
        }
    }

    /// Whether the submission flags show in user space that an enter would bring completions.
    pub(super) fn shows_work(&self) -> bool {
        self.delivery != Delivery::Plain
    }
}

fn create(delivery: Delivery) -> io::Result<IoUring> {
    let (mut entries, mut retries) = (SUBMISSIONS, 0);
    loop {
        let mut builder = IoUring::builder();
        // A child of fork(2) must not share the queues: its writes would be ours.
        builder.dontfork().setup_clamp().setup_cqsize(COMPLETIONS * entries / SUBMISSIONS);
        match delivery {
            Delivery::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun();
                builder.setup_taskrun_flag().setup_submit_all();
            }
            Delivery::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            Delivery::Plain => {}
        }
        match builder.build(entries) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                if entries > SUBMISSIONS_MIN {
                    entries /= 2;
                } else if retries < RETRIES {
                    retries += 1;
                    std::thread::sleep(Duration::from_millis(4));
                } else {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
}

/// Why io_uring cannot be used here, and what would help.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) remedy: &'static str,
}

impl Refusal {
    fn too_old() -> Self {
        Self {
            reason: "the kernel's io_uring has no provided buffer rings".into(),
            remedy: "run Linux 6.1 or newer",
        }
    }

    /// `call` has answered with `error`.
    pub(crate) fn of(call: &str, error: &io::Error) -> Self {
        let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        let disabled = sysctl.as_deref().map_or("0", str::trim);
        let (what, remedy) = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if disabled != "0" => (
                format!("kernel.io_uring_disabled is {disabled}"),
                "set it with `sysctl kernel.io_uring_disabled=0`, or (for 1) join its group",
            ),
            Some(libc::EPERM | libc::EACCES) => (
                format!("{call} is forbidden, most likely by a seccomp profile"),
                "allow io_uring_setup, io_uring_enter and io_uring_register in the container's \
                 seccomp profile",
            ),
            Some(libc::ENOSYS | libc::EOPNOTSUPP) => (
                "this kernel or sandbox has no io_uring".into(),
                "run Linux 6.1 or newer, and allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the sandbox or its seccomp profile (Podman's forbids them)",
            ),
            Some(libc::ENOMEM) => (
                "no locked memory is left for a ring".into(),
                "raise RLIMIT_MEMLOCK (`ulimit -l`); about 60 KiB a core are needed, and rings of \
                 all processes of the user count",
            ),
            Some(libc::EMFILE | libc::ENFILE) => {
                ("no descriptor is left for a ring".into(), "raise RLIMIT_NOFILE (`ulimit -n`)")
            }
            Some(libc::EINVAL) => (
                "the kernel refuses every set-up flag that is needed".into(),
                "run Linux 6.1 or newer",
            ),
            _ => (format!("{call} failed"), "see io_uring_setup(2) for this error"),
        };
        Self { reason: format!("{what} ({error})"), remedy }
    }

    /// The same as an error of the kind that it is.
    pub(super) fn error(call: &str, error: &io::Error) -> io::Error {
        Self::of(call, error).into_error(error.kind())
    }

    pub(crate) fn into_error(self, kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, format!("io_uring cannot be used: {}; {}", self.reason, self.remedy))
    }
}
