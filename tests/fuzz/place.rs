//! Where operations run: a core of a host that is up, with the objects that all of its cores share.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use quoit::buffer::Lease;
use quoit::net::{OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream};
use quoit::sim::Chance;
use quoit::task::{self, AbortHandle, JoinHandle};
use quoit::{CoreHandle, time};

use crate::files::{self, Opened};
use crate::ledger::Shared;
use crate::program::{How, Op, PLACES};
use crate::streams;

/// As long as anything takes here, in the world's time.
pub(crate) const LONG: Duration = Duration::from_secs(2);

/// A connection, or what is left of it. The directions are: out, in.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    Whole(Arc<TcpStream>, (usize, usize)),
    Reader(Arc<OwnedReadHalf>, (usize, usize)),
    Writer(Arc<OwnedWriteHalf>, (usize, usize)),
}

/// What the cores of one life of a host share.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) streams: [Option<Held>; PLACES],
    pub(crate) listeners: [Option<Arc<TcpListener>>; PLACES],
    pub(crate) files: [Option<Arc<Opened>>; PLACES],
    pub(crate) tasks: [Option<JoinHandle<()>>; PLACES],
    pub(crate) lanes: Vec<AbortHandle>,
    /// Each with what it has to hold.
    pub(crate) leases: Vec<(Lease, Vec<u8>)>,
    /// Tasks that have not ended.
    pub(crate) running: usize,
}

/// The number of the first of its kind from there on.
fn find<T>(places: &[Option<T>], at: usize, fits: impl Fn(&T) -> bool) -> Option<usize> {
    let order = (0..places.len()).map(|step| (at + step) % places.len());
    order.into_iter().find(|place| places[*place].as_ref().is_some_and(&fits))
}

#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) host: usize,
    pub(crate) core: CoreHandle,
    pub(crate) cores: usize,
    pub(crate) linger: Option<Duration>,
    pub(crate) objects: Arc<Mutex<Objects>>,
    pub(crate) shared: Shared,
}

impl Place {
    pub(crate) fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stream(&self, at: usize, fits: impl Fn(&Held) -> bool) -> Option<Held> {
        let objects = self.objects();
        find(&objects.streams, at, fits).and_then(|at| objects.streams[at].clone())
    }

    /// Takes a connection out, for what consumes it.
    pub(crate) fn take_stream(&self, at: usize, fits: impl Fn(&Held) -> bool) -> Option<Held> {
        let mut objects = self.objects();
        find(&objects.streams, at, fits).and_then(|at| objects.streams[at].take())
    }

    /// What stood there is dropped.
    pub(crate) fn put_stream(&self, at: usize, held: Held) {
        let before = self.objects().streams[at % PLACES].replace(held);
        drop(before);
    }

    pub(crate) fn listener(&self, at: usize) -> Option<Arc<TcpListener>> {
        let objects = self.objects();
        find(&objects.listeners, at, |_| true).and_then(|at| objects.listeners[at].clone())
    }

    pub(crate) fn take_listener(&self, at: usize) -> Option<Arc<TcpListener>> {
        let mut objects = self.objects();
        find(&objects.listeners, at, |_| true).and_then(|at| objects.listeners[at].take())
    }

    pub(crate) fn file(&self, at: usize) -> Option<Arc<Opened>> {
        let objects = self.objects();
        find(&objects.files, at, |_| true).and_then(|at| objects.files[at].clone())
    }

    pub(crate) fn take_file(&self, at: usize) -> Option<Arc<Opened>> {
        let mut objects = self.objects();
        find(&objects.files, at, |_| true).and_then(|at| objects.files[at].take())
    }

    fn take_task(&self, at: usize) -> Option<JoinHandle<()>> {
        let mut objects = self.objects();
        find(&objects.tasks, at, |_| true).and_then(|at| objects.tasks[at].take())
    }

    /// Keeps a lease, and lets go of the oldest one, which nobody may have written to.
    pub(crate) fn keep(&self, lease: Lease) {
        let holds = lease.to_vec();
        let old = {
            let mut objects = self.objects();
            objects.leases.push((lease, holds));
            (objects.leases.len() > 6).then(|| objects.leases.remove(0))
        };
        old.into_iter().for_each(|lease| self.let_go(lease));
    }

    pub(crate) fn let_go(&self, (lease, held): (Lease, Vec<u8>)) {
        if lease[..] != held {
            self.shared.lock().fail(format!("a lease has changed: {held:?} to {:?}", &lease[..]));
        }
    }

    /// Notes an error that no program should ever see.
    pub(crate) fn look_at(&self, what: &str, error: &io::Error) {
        const OURS: [i32; 5] =
            [libc::EBADF, libc::EFAULT, libc::EINVAL, libc::ENOTSOCK, libc::ECANCELED];
        // With one core there is no other that could have had what it is about.
        let off_core = self.cores == 1 && error.to_string().contains("another core");
        if off_core || error.raw_os_error().is_some_and(|code| OURS.contains(&code)) {
            self.shared.lock().fail(format!("{what} answers {error:?}"));
        }
    }
}

/// Does with a future what the program says. `None`: it was dropped.
pub(crate) async fn run<F: Future>(how: How, future: F) -> Option<F::Output> {
    run_free(how, || true, future).await
}

/// The same with what may be in somebody's way who was forgotten: only if `is_free` it has to be
/// woken when it is done.
pub(crate) async fn run_free<F: Future>(
    how: How,
    is_free: impl Fn() -> bool,
    future: F,
) -> Option<F::Output> {
    match how {
        How::Cut(polls) => cut(polls, future).await,
        How::Within(limit) => time::timeout(Duration::from_micros(limit), future).await.ok(),
        How::Forget(polls) => forget(polls, future).await,
        How::Full | How::Limit(_) => patient(is_free, future).await,
    }
}

thread_local! {
    /// How much longer than `LONG` operations of this run are waited for, at most, in turn.
    static PATIENCE: RefCell<Chance> = RefCell::new(Chance::new(0));
    /// Operations that were done, and nobody was woken.
    static UNTOLD: Cell<usize> = const { Cell::new(0) };
}

/// A run begins, in which operations end by this chance when nothing comes.
pub(crate) fn be_patient(number: u64) {
    PATIENCE.set(Chance::new(number));
    UNTOLD.set(0);
}

/// So many operations were done when they were asked at last, and nobody had been woken for them.
/// What comes just when one is asked looks the same: but not in another run, which asks later.
pub(crate) fn untold() -> usize {
    UNTOLD.get()
}

/// Awaits a future for as long as anything can still happen. It is asked only when it was woken,
/// and at last once more.
async fn patient<F: Future>(is_free: impl Fn() -> bool, future: F) -> Option<F::Output> {
    let more = PATIENCE.with_borrow_mut(|chance| chance.below(500_000));
    let mut over = pin!(time::sleep(LONG + Duration::from_micros(more as u64)));
    let (mut future, told) = (pin!(future), Arc::new(Told::default()));
    let waker = Waker::from(told.clone());
    poll_fn(|cx| {
        told.waker.lock().unwrap().clone_from(cx.waker());
        let is_over = over.as_mut().poll(cx).is_ready();
        let is_told = told.is_told.swap(false, Ordering::Relaxed);
        if !is_told && !is_over {
            return Poll::Pending;
        }
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => {
                UNTOLD.set(UNTOLD.get() + usize::from(!is_told && is_free()));
                Poll::Ready(Some(output))
            }
            Poll::Pending if is_over => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Hands a wake on, and notes it.
struct Told {
    is_told: AtomicBool,
    waker: Mutex<Waker>,
}

impl Default for Told {
    fn default() -> Self {
        Self { is_told: AtomicBool::new(true), waker: Mutex::new(Waker::noop().clone()) }
    }
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.is_told.store(true, Ordering::Relaxed);
        let waker = self.waker.lock().unwrap().clone();
        waker.wake();
    }
}

async fn cut<F: Future>(mut left: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        left = left.saturating_sub(1);
        if left == 0 {
            return Poll::Ready(None);
        }
        // The last poll has to come.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// What it has borrowed is free again, and what it owns is gone for good.
async fn forget<F: Future>(mut left: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let output = poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        cx.waker().wake_by_ref();
        future.as_mut().poll(cx).map(Some)
    });
    let output = output.await;
    if output.is_none() {
        std::mem::forget(future);
    }
    output
}

/// Counts a task while it is there.
struct Running(Place);

impl Running {
    fn new(place: &Place) -> Self {
        place.objects().running += 1;
        Self(place.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.objects().running -= 1;
    }
}

/// Starts a task on one of the cores.
pub(crate) fn spawn<C, F>(place: &Place, core: usize, body: C) -> JoinHandle<()>
where
    C: FnOnce(Place) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (running, place) = (Running::new(place), place.clone());
    place.core.clone().spawn_on(core % place.cores, move || async move {
        let body = body(place);
        body.await;
        drop(running);
    })
}

/// Awaits a task; its panic is a failure.
pub(crate) async fn join(place: &Place, task: &mut JoinHandle<()>) {
    if let Err(error) = task.await {
        if error.is_panic() {
            place.shared.lock().fail(format!("a task has panicked: {error:?}"));
        }
    }
}

pub(crate) fn perform(place: Place, op: Op) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        match op {
            Op::Spawn { .. }
            | Op::Join { .. }
            | Op::AbortTask(_)
            | Op::DropTask(_)
            | Op::AbortLane(_) => on_task(&place, op).await,
            Op::Blocking { how } => blocking(&place, how).await,
            Op::Sleep(micros) => time::sleep(Duration::from_micros(micros)).await,
            Op::Yield => task::yield_now().await,
            Op::Together(ops) => together(&place, ops).await,
            Op::Open { .. }
            | Op::File { .. }
            | Op::CloneFile { .. }
            | Op::CloseFile { .. }
            | Op::DropFile(_) => files::perform(&place, op).await,
            _ => streams::perform(&place, op).await,
        }
    })
}

/// Begins them in this order, and goes on with them in any.
async fn together(place: &Place, ops: Vec<Op>) {
    let mut chance = Chance::new(place.shared.lock().done);
    let mut left: Vec<_> = ops.into_iter().map(|op| perform(place.clone(), op)).collect();
    poll_fn(|cx| {
        left.retain_mut(|op| op.as_mut().poll(cx).is_pending());
        chance.shuffle(&mut left);
        if left.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn on_task(place: &Place, op: Op) {
    match op {
        Op::Spawn { core, into, op } => {
            let task = spawn(place, core, |place| perform(place, *op));
            let before = place.objects().tasks[into].replace(task);
            drop(before);
        }
        Op::Join { at, how } => {
            if let Some(mut task) = place.take_task(at) {
                run(how, join(place, &mut task)).await;
            }
        }
        Op::AbortTask(at) => {
            if let Some(mut task) = place.take_task(at) {
                task.abort();
                join(place, &mut task).await;
            }
        }
        Op::DropTask(at) => drop(place.take_task(at)),
        Op::AbortLane(at) => {
            let lane = {
                let objects = place.objects();
                (!objects.lanes.is_empty()).then(|| objects.lanes[at % objects.lanes.len()].clone())
            };
            lane.into_iter().for_each(|lane| lane.abort());
        }
        _ => unreachable!("not about a task: {op:?}"),
    }
}

async fn blocking(place: &Place, how: How) {
    let shared = place.shared.clone();
    let work = task::spawn_blocking(move || {
        let counted = shared.counted(vec![1; 10]);
        counted.bytes.len()
    });
    if let Some(outcome) = run(how, work).await {
        if !matches!(outcome, Ok(10)) {
            place.shared.lock().fail(format!("blocking work answers {outcome:?}"));
        }
    }
}
