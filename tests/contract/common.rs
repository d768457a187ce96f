//! What the tests of the contract share: bytes that know their place, futures that are dropped at a
//! chosen moment, the rings that a body runs on, and children for what touches the whole process.
//! Its peers are in `peer`, and other cores in `other`.

use std::future::{Future, poll_fn};
use std::io::Read;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{env, fs, thread};

use quoit::__private::{books_here, is_simulated, seeds, simulate};
use quoit::net::TcpListener;
use quoit::time::Instant;
use quoit::{Builder, Metrics, RingChoice, Runtime, time};

pub(crate) use crate::other::*;
pub(crate) use crate::peer::*;

/// Long enough for a busy machine, short enough to tell a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Fails instead of hanging.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let start = Instant::now();
    match time::timeout(PATIENCE, future).await {
        // A future that was ready and not woken is found out by the timeout's last look at it.
        Ok(output) if start.elapsed() < PATIENCE => output,
        _ => panic!("{what}: nothing after {PATIENCE:?}"),
    }
}

/// Waits, turn by turn, until something has become true.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        time::sleep(Duration::from_micros(200)).await;
    }
}

/// A few turns of the loop, for things that must *not* happen.
pub(crate) async fn some_turns() {
    for _ in 0..5 {
        time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs `body` on every ring that this machine has, with a fresh builder.
pub(crate) fn on_each_ring(body: impl Fn(Builder)) {
    let asked = env::var("QUOIT_RING").unwrap_or_default();
    for (name, ring) in [("uring", RingChoice::Uring), ("readiness", RingChoice::Readiness)] {
        if !["", "auto", name].contains(&asked.as_str()) {
            continue;
        }
        match Runtime::builder().ring(ring).build() {
            Ok(_) => {
                println!("on the {name} ring");
                body(Runtime::builder().ring(ring));
            }
            Err(error) => {
                let required = env::var("QUOIT_REQUIRE_RINGS").unwrap_or_default();
                assert!(!required.contains(name), "the {name} ring is required: {error}");
                eprintln!("the {name} ring cannot be used, so it is NOT TESTED here: {error}");
            }
        }
    }
}

/// The core that a body runs on: for its books, and to have others like it.
#[derive(Debug)]
pub(crate) struct Core {
    builder: Builder,
}

impl Core {
    pub(crate) fn metrics(&self) -> Metrics {
        books_here()
    }

    /// Another core on the same kind of ring.
    pub(crate) async fn other(&self) -> Other {
        Other::start(self.builder.clone()).await
    }

    /// Runs `body` on another core, which ends with nothing left behind.
    pub(crate) async fn elsewhere<F>(&self, body: impl FnOnce() -> F + Send + 'static) -> F::Output
    where
        F: Future<Output: Send + 'static> + 'static,
    {
        let other = self.other().await;
        let output = other.run(body).await;
        let report = other.end(PATIENCE).await;
        assert!(report.is_clean(), "{report:?}");
        output
    }
}

/// Runs `body` on a fresh runtime of each real ring; it must end with nothing left behind.
pub(crate) fn on_each_runtime(configure: impl Fn(Builder) -> Builder, body: impl AsyncFn(&Core)) {
    on_each_ring(|builder| {
        let builder = configure(builder);
        let runtime = builder.clone().build().expect("this ring was usable just before");
        runtime.block_on(body(&Core { builder }));
        let report = runtime.shutdown(Duration::from_secs(5));
        assert!(report.is_clean(), "{report:?}");
    });
}

/// The same, and under so many seeds on the simulated ring.
pub(crate) fn on_all_rings(
    count: u64,
    configure: impl Fn(Builder) -> Builder,
    body: impl AsyncFn(&Core),
) {
    on_each_runtime(&configure, &body);
    let body = &body;
    let asked = env::var("QUOIT_RING").ok().filter(|asked| asked != "simulated");
    let run = |seed| {
        let run = catch_unwind(AssertUnwindSafe(|| {
            let core = Core { builder: configure(Runtime::builder()) };
            simulate(seed, core.builder.clone(), |_| async move { body(&core).await })
        }));
        let run = run.unwrap_or_else(|panic| {
            eprintln!("failed under seed {seed} (QUOIT_SEED={seed} replays it)");
            resume_unwind(panic)
        });
        let is_clean = run.report.is_clean() && run.books.open == 0 && run.books.are_balanced();
        assert!(is_clean, "seed {seed}: {:?}, {:?}", run.report, run.books);
        run.trace
    };
    for seed in seeds(count, asked.as_deref()) {
        let trace = run(seed);
        if seed == 0 {
            assert_eq!(trace, run(seed), "something comes from outside of the simulation");
        }
    }
}

/// So many bytes or times on a real ring; fewer in a simulation, where one costs a thousandfold.
pub(crate) fn fewer(count: usize, by: usize) -> usize {
    if is_simulated() { count / by } else { count }
}

/// Whether this core has watched something by epoll: it takes a watch back without a turn.
pub(crate) fn is_on_epoll() -> bool {
    books_here().ring.registrations > 0
}

/// A listener, and its address.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    (listener, address)
}

/// A reset, as against an orderly end.
pub(crate) fn is_reset(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ConnectionReset
}

/// Random bytes, of a prime number, so that a stream repeats itself only after a megabyte.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random(0);
    (0..1_048_573).map(|_| random.next() as u8).collect()
});

/// The bytes at this place of the stream with this seed: one that is lost, doubled or moved shows,
/// whatever the chunks.
pub(crate) fn bytes_of(seed: u64, from: usize, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let here = pattern_at(seed, from + bytes.len());
        bytes.extend_from_slice(&here[..here.len().min(length - bytes.len())]);
    }
    bytes
}

fn pattern_at(seed: u64, place: usize) -> &'static [u8] {
    let shift = (seed % 1_000).wrapping_mul(7_919) as usize;
    &PATTERN[(place + shift) % PATTERN.len()..]
}

/// Checks that `bytes` stand at `place`, without a dump of kilobytes when they do not.
#[track_caller]
pub(crate) fn check_bytes(seed: u64, place: usize, bytes: &[u8]) {
    let mut checked = 0;
    while checked < bytes.len() {
        let here = pattern_at(seed, place + checked);
        let length = here.len().min(bytes.len() - checked);
        let chunk = &bytes[checked..checked + length];
        if chunk != &here[..length] {
            let at = chunk.iter().zip(here).position(|(a, b)| a != b).unwrap_or_default();
            panic!("a wrong byte at {} (in what was to start at {place})", place + checked + at);
        }
        checked += length;
    }
}

/// SplitMix64: the same numbers for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// When a future is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before it was ever polled.
    Unpolled,
    /// After its first poll, which left it waiting.
    Waiting,
    /// When it was woken, before it could look why: the moment that loses things.
    Woken,
    /// Not at all.
    Never,
}

impl Moment {
    pub(crate) const ALL: [Self; 4] = [Self::Unpolled, Self::Waiting, Self::Woken, Self::Never];

    pub(crate) fn any(random: &mut Random) -> Self {
        Self::ALL[random.below(Self::ALL.len())]
    }
}

/// Polls `future` and drops it at `moment`; its output if that came first.
pub(crate) async fn dropped_at<F: Future>(moment: Moment, future: F) -> Option<F::Output> {
    if moment == Moment::Unpolled {
        drop(future);
        return None;
    }
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        if moment == Moment::Woken && polls > 1 {
            return Poll::Ready(None);
        }
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if moment == Moment::Waiting => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A waker that counts, to poll step by step.
#[derive(Debug, Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// One poll with this waker.
    pub(crate) fn poll<F: Future + ?Sized>(
        self: &Arc<Self>,
        future: Pin<&mut F>,
    ) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Open descriptors of this process, which is only meaningful in one of its own; or of the
/// simulated world.
pub(crate) fn open_descriptors() -> usize {
    if is_simulated() {
        return quoit::sim::world().books().open;
    }
    fs::read_dir("/proc/self/fd").expect("Linux has it").count()
}

/// The number that the next descriptor will have. With the limit there, there is no next one.
pub(crate) fn lowest_free_descriptor() -> u64 {
    // SAFETY: dup makes a new number, which is closed again.
    unsafe {
        let free = libc::dup(0);
        assert!(free >= 0);
        libc::close(free);
        free as u64
    }
}

/// Sets the soft limit of descriptors of this process, and answers what it was.
pub(crate) fn set_descriptor_limit(limit: u64) -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid struct for both calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits), 0);
        let before = std::mem::replace(&mut limits.rlim_cur, limit);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits), 0);
        before
    }
}

/// Processor time of this process so far.
pub(crate) fn processor_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the struct, which is valid when zeroed.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let of = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Runs an ignored test of this program in a process of its own, and expects it to pass. Its name
/// is the path that the harness prints.
pub(crate) fn in_a_child(case: &str) {
    let (output, text) = run_child(case, &[]);
    assert!(output.status.success(), "{case}: {}\n{text}", output.status);
}

/// As `in_a_child`, with an environment, judged by the caller.
pub(crate) fn run_child(case: &str, environment: &[(&str, &str)]) -> (Output, String) {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args(["--exact", case, "--ignored", "--nocapture", "--test-threads", "1"]);
    command.envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("this program runs");
    let (mut out, mut err) =
        (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let errors = thread::spawn(move || {
        let mut text = Vec::new();
        err.read_to_end(&mut text).map(|_| text)
    });
    let watchdog = Watchdog::start(child.id());
    let mut stdout = Vec::new();
    out.read_to_end(&mut stdout).expect("a pipe");
    let status = child.wait().expect("our child");
    let hung = watchdog.stop();
    let stderr = errors.join().expect("no panic").expect("a pipe");
    let output = Output { status, stdout, stderr };
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("running 1 test"), "no such case as {case}: {text}");
    assert!(!hung, "{case} hung: {text}");
    (output, text)
}

/// Ends a child that hangs.
struct Watchdog {
    stop: std::sync::mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watchdog {
    fn start(child: u32) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            let hung = stopped.recv_timeout(3 * PATIENCE) == Err(Timeout);
            if hung {
                // SAFETY: our own child, which nobody has waited for yet.
                unsafe { libc::kill(child as i32, libc::SIGKILL) };
            }
            hung
        });
        Self { stop, thread }
    }

    fn stop(self) -> bool {
        drop(self.stop);
        self.thread.join().expect("no panic")
    }
}
