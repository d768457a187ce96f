//! Many cores: a thread each, pinned, with a runtime of its own and nothing shared on the hot path.
//!
//! ```text
//!   run(f)  settle the ring ─► start threads ─► each builds its core ─► all well? ─► each runs f
//!                                                   │ one failed: all end, run answers its error
//!   a core's future returns ─► its tasks run on ─► the last one returned ─► all shut down
//!   a core's future panics ─► all others are stopped, all shut down ─► run goes on with that panic
//! ```

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::{self, AssertUnwindSafe, Location};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Poll, Waker};
use std::thread;

use crate::io::pool::Pool;
use crate::io::ring::{Prepared, RingReport, prepare};
use crate::io::system;
use crate::runtime::builder::Builder;
use crate::runtime::handle::Handle;
use crate::runtime::join::JoinHandle;
use crate::runtime::one::Runtime;
use crate::runtime::stall::Watchdog;

/// How many cores to run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Cores {
    /// One.
    #[default]
    One,
    /// As many as this process may use: its CPU affinity, and what its control group grants
    /// (`cpu.max`, see cgroups(7)).
    All,
    /// So many. More than there are CPUs share them.
    Count(usize),
}

impl Cores {
    fn count(self) -> io::Result<usize> {
        match self {
            Self::One => Ok(1),
            Self::All => Ok(system::parallelism()),
            Self::Count(0) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "a runtime needs a core"))
            }
            Self::Count(count) => Ok(count),
        }
    }
}

/// One core of several, as its own program sees it: which it is, and the way to the others.
///
/// ```
/// use quoit::{Cores, Runtime};
///
/// let sums = Runtime::builder().cores(Cores::Count(2)).run(|core| async move {
///     let next = (core.index() + 1) % core.count();
///     core.spawn_on(next, || async { 20 }).await.unwrap() + core.index()
/// })?;
/// assert_eq!(sums, [20, 21]);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct CoreHandle {
    index: usize,
    group: Arc<Group>,
}

impl CoreHandle {
    /// Which core this is, counted from zero.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many cores there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.group.handles.len()
    }

    /// Which ring all of them use, and why.
    #[must_use]
    pub fn ring(&self) -> &RingReport {
        &self.group.ring
    }

    /// The way to one of the cores.
    ///
    /// # Panics
    ///
    /// When there is no such core.
    #[must_use]
    pub fn handle(&self, index: usize) -> &Handle {
        &self.group.handles[index]
    }

    /// Starts a task on this core, from wherever the handle is: see [`Handle::spawn_with`].
    #[track_caller]
    pub fn spawn<C, F>(&self, start: C) -> JoinHandle<F::Output>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        self.handle(self.index).spawn_with(start)
    }

    /// Starts a task on another core: see [`Handle::spawn_with`].
    ///
    /// # Panics
    ///
    /// When there is no such core.
    #[track_caller]
    pub fn spawn_on<C, F>(&self, index: usize, start: C) -> JoinHandle<F::Output>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        self.handle(index).spawn_with(start)
    }
}

impl CoreHandle {
    /// The handles of a group of cores that somebody else has built.
    pub(crate) fn group(ring: RingReport, handles: Vec<Handle>) -> Vec<Self> {
        let group = Arc::new(Group::new(ring, handles));
        (0..group.handles.len()).map(|index| Self { index, group: group.clone() }).collect()
    }

    /// See `Group::live`.
    pub(crate) async fn live<F: Future>(&self, program: F) -> Option<F::Output> {
        self.group.live(program).await
    }
}

impl fmt::Debug for CoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreHandle")
            .field("index", &self.index)
            .field("count", &self.count())
            .finish()
    }
}

/// What the cores of one `run` share.
struct Group {
    ring: RingReport,
    handles: Vec<Handle>,
    /// Cores whose future has not returned.
    busy: AtomicUsize,
    /// All futures have returned, or one panicked.
    ended: AtomicBool,
    end: Mutex<End>,
}

#[derive(Default)]
struct End {
    panic: Option<Box<dyn Any + Send>>,
    /// One per core that waits for the end.
    waiting: Vec<Waker>,
}

impl Group {
    fn new(ring: RingReport, handles: Vec<Handle>) -> Self {
        let (busy, ended) = (AtomicUsize::new(handles.len()), AtomicBool::new(false));
        Self { ring, handles, busy, ended, end: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach_end(&self, panic: Option<Box<dyn Any + Send>>) {
        let mut end = self.lock();
        self.ended.store(true, Ordering::Release);
        if end.panic.is_none() {
            end.panic = panic;
        }
        let waiting = std::mem::take(&mut end.waiting);
        drop(end);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits for the end.
    async fn ended(&self) {
        let mut registered = false;
        poll_fn(|context| {
            // Only the root future of a core waits here, and its waker is always the same.
            if !registered {
                let mut end = self.lock();
                // Under the lock, where whoever ends it sets the mark and takes the wakers.
                if !self.ended.load(Ordering::Acquire) {
                    end.waiting.push(context.waker().clone());
                }
                registered = true;
            }
            if self.ended.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// A core's life: its future, and then whatever others still send to it. None: the end came
    /// first.
    async fn live<F: Future>(&self, future: F) -> Option<F::Output> {
        let output = {
            let mut future = pin!(future);
            let mut ended = pin!(self.ended());
            poll_fn(|context| match ended.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => future.as_mut().poll(context).map(Some),
            })
            .await?
        };
        if self.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.reach_end(None);
        }
        self.ended().await;
        Some(output)
    }
}

impl Builder {
    /// Runs the same program on every core: see [`Cores`], and [`cores`](Self::cores) for how many.
    ///
    /// Each core gets a thread, pinned to a CPU as [`pin`](Self::pin) says, and builds its own
    /// ring, timers and buffers there. `program` is called once on each thread; its future need not
    /// be `Send`. When a core's future has returned, its tasks run on until the last core's has;
    /// then all cores are shut down as a dropped [`Runtime`] is, and the results come in the order
    /// of the cores.
    ///
    /// # Errors
    ///
    /// When a core cannot be started; the error names the core and the cause. No `program` has run
    /// then.
    ///
    /// # Panics
    ///
    /// When the future of a core panics: the futures and tasks of all other cores are dropped, each
    /// on its core, and `run` goes on with that panic.
    ///
    /// # Examples
    ///
    /// ```
    /// let ids = quoit::Runtime::builder()
    ///     .cores(quoit::Cores::Count(2))
    ///     .run(|core| async move { core.index() })?;
    /// assert_eq!(ids, [0, 1]);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn run<P, F>(self, program: P) -> io::Result<Vec<F::Output>>
    where
        P: Fn(CoreHandle) -> F + Clone + Send + 'static,
        F: Future,
        F::Output: Send + 'static,
    {
        // First, because it refuses to look at the machine from inside a simulation.
        let ring = prepare(self.ring)?;
        let count = self.cores.count()?;
        let cpus = if self.pins(count)? { system::allowed_cpus()? } else { Vec::new() };
        let pool = self.pool();
        let watchdog = self.watchdog()?.map(Arc::new);
        let place = Location::caller();
        let mut starting = Starting::new(count, place);
        for index in 0..count {
            let cpu = (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
            let (builder, ring, pool) = (self.clone(), ring.clone(), pool.clone());
            let seed = Seed { builder, ring, pool, watchdog: watchdog.clone(), cpu };
            starting.start(index, seed, program.clone())?;
        }
        let group = starting.all_started(ring.report().clone())?;
        let outputs = starting.finish();
        Self::end_pool(&pool);
        match group.lock().panic.take() {
            Some(payload) => panic::resume_unwind(payload),
            None => Ok(outputs),
        }
    }
}

impl Builder {
    fn pins(&self, count: usize) -> io::Result<bool> {
        match self.pin {
            Some(pin) => Ok(pin),
            // Under a quota every process would choose the same first CPUs, and fight over them.
            None => Ok(count > 1 && system::parallelism() >= system::allowed_cpus()?.len()),
        }
    }
}

/// What a core is built from, on its thread.
struct Seed {
    builder: Builder,
    ring: Prepared,
    pool: Arc<Pool>,
    watchdog: Option<Arc<Watchdog>>,
    cpu: Option<usize>,
}

impl Seed {
    fn grow(self) -> io::Result<Runtime> {
        if let Some(cpu) = self.cpu {
            system::pin_to(cpu).map_err(|error| {
                let hint = "`Builder::pin(false)` leaves the placement to the kernel";
                io::Error::new(error.kind(), format!("pinning to CPU {cpu}: {error}; {hint}"))
            })?;
        }
        let runtime = self.builder.runtime(self.ring, self.pool)?;
        runtime.watch(self.watchdog.as_deref());
        Ok(runtime)
    }
}

/// The threads of one `run`. Dropped before `all_started` has succeeded, it sends them home.
struct Starting<T> {
    threads: Vec<thread::JoinHandle<()>>,
    gates: Vec<mpsc::Sender<Arc<Group>>>,
    /// Ours goes once all threads have theirs, so that `built` ends if they do.
    build: Option<mpsc::Sender<Built>>,
    built: mpsc::Receiver<Built>,
    outputs: Arc<Mutex<Vec<Option<T>>>>,
    /// Where `run` was called.
    place: &'static Location<'static>,
}

/// Core number so-and-so was built, or not.
type Built = (usize, io::Result<Handle>);

impl<T: Send + 'static> Starting<T> {
    fn new(count: usize, place: &'static Location<'static>) -> Self {
        let outputs = Arc::new(Mutex::new((0..count).map(|_| None).collect()));
        let (build, built) = mpsc::channel();
        let (threads, gates) = (Vec::new(), Vec::new());
        Self { threads, gates, build: Some(build), built, outputs, place }
    }

    fn start<P, F>(&mut self, index: usize, seed: Seed, program: P) -> io::Result<()>
    where
        P: Fn(CoreHandle) -> F + Send + 'static,
        F: Future<Output = T>,
    {
        let (gate, opened) = mpsc::channel::<Arc<Group>>();
        let built = self.build.clone().expect("threads are started before they are awaited");
        let (outputs, place) = (self.outputs.clone(), self.place);
        let threads = seed.builder.threads.clone();
        let body = move || {
            let runtime = match seed.grow() {
                Ok(runtime) => runtime,
                Err(error) => return drop(built.send((index, Err(error)))),
            };
            // The receiver is there as long as anybody wants to know.
            let _ = built.send((index, Ok(runtime.handle())));
            drop(built);
            // A closed gate: another core could not be built.
            let Ok(group) = opened.recv() else { return };
            let core = CoreHandle { index, group: group.clone() };
            let life = async { group.live(program(core)).await };
            let life = || runtime.core().block_on(life, place);
            match panic::catch_unwind(AssertUnwindSafe(life)) {
                Ok(output) => {
                    outputs.lock().unwrap_or_else(PoisonError::into_inner)[index] = output;
                }
                Err(payload) => group.reach_end(Some(payload)),
            }
        };
        let thread = threads.start(&format!("core-{index}"), body);
        let thread = thread.map_err(|error| failed(index, &error))?;
        self.threads.push(thread);
        self.gates.push(gate);
        Ok(())
    }

    /// Waits until every core is built, and lets them go.
    fn all_started(&mut self, ring: RingReport) -> io::Result<Arc<Group>> {
        let count = self.threads.len();
        self.build = None;
        let mut handles: Vec<Option<Handle>> = vec![None; count];
        for (index, built) in self.built.iter().take(count) {
            handles[index] = Some(built.map_err(|error| failed(index, &error))?);
        }
        if handles.iter().any(Option::is_none) {
            self.join();
            unreachable!("a thread ended without a word and without a panic");
        }
        let group = Arc::new(Group::new(ring, handles.into_iter().flatten().collect()));
        for gate in self.gates.drain(..) {
            gate.send(group.clone()).expect("a core that was built waits at its gate");
        }
        Ok(group)
    }

    /// Waits for the threads. The outputs are complete unless the group ended with a panic.
    fn finish(mut self) -> Vec<T> {
        self.join();
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        outputs.drain(..).flatten().collect()
    }
}

impl<T> Starting<T> {
    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // Its panics are caught inside; what is left would be a bug of ours.
            if let Err(payload) = thread.join() {
                panic::resume_unwind(payload);
            }
        }
    }
}

impl<T> Drop for Starting<T> {
    fn drop(&mut self) {
        self.gates.clear();
        if !thread::panicking() {
            self.join();
        }
    }
}

fn failed(index: usize, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("core {index} could not be started: {error}"))
}

#[cfg(test)]
mod tests;
