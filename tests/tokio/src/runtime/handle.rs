//! The way to a runtime from anywhere, and the cores that are at home on a thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::context::{self, Driving, EnterGuard};
use super::metrics::RuntimeMetrics;
use crate::task::JoinHandle;

thread_local! {
    /// The cores whose home is this thread.
    static CORES: RefCell<HashMap<u64, Rc<quoit::Runtime>>> = RefCell::new(HashMap::new());
}

/// What a builder was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    pub(super) name: Option<String>,
    pub(super) time: bool,
    pub(super) io: bool,
    pub(super) start_paused: bool,
    pub(super) local: bool,
}

#[derive(Debug)]
struct Inner {
    id: u64,
    choices: Choices,
    /// The clock is to be stopped at the first `block_on`.
    pause: AtomicBool,
    core: quoit::Handle,
    /// The figures at its end.
    last: OnceLock<quoit::Metrics>,
}

/// The way to a runtime.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

// A panic leaves a core usable, as every panic of a task does.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

/// Names a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The kinds of runtime; there is but one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeFlavor {
    /// One thread.
    CurrentThread,
    /// Never.
    MultiThread,
}

/// There is no current runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryCurrentError(());

impl TryCurrentError {
    /// True.
    pub fn is_missing_context(&self) -> bool {
        true
    }

    /// False.
    pub fn is_thread_local_destroyed(&self) -> bool {
        false
    }
}

impl fmt::Display for TryCurrentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "there is no reactor running, must be called from the context of a Tokio 1.x runtime",
        )
    }
}

impl std::error::Error for TryCurrentError {}

impl Handle {
    pub(super) fn new(core: quoit::Runtime, choices: Choices) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let pause = AtomicBool::new(choices.start_paused);
        let inner = Inner { id, choices, pause, core: core.handle(), last: OnceLock::new() };
        CORES.with_borrow_mut(|cores| cores.insert(id, Rc::new(core)));
        Self { inner: Arc::new(inner) }
    }

    /// The current runtime of this thread.
    #[track_caller]
    pub fn current() -> Self {
        match Self::try_current() {
            Ok(handle) => handle,
            Err(error) => panic!("{error}"),
        }
    }

    /// The current runtime of this thread, if there is one.
    pub fn try_current() -> Result<Self, TryCurrentError> {
        context::current().ok_or(TryCurrentError(()))
    }

    pub(super) fn has_time(&self) -> bool {
        self.inner.choices.time
    }

    pub(super) fn has_io(&self) -> bool {
        self.inner.choices.io
    }

    pub(crate) fn is_local(&self) -> bool {
        self.inner.choices.local
    }

    /// Its core, if this is its home and it has not ended.
    pub(crate) fn at_home(&self) -> Option<Rc<quoit::Runtime>> {
        CORES.try_with(|cores| cores.borrow().get(&self.inner.id).cloned()).ok().flatten()
    }

    /// The figures now, or at its end.
    pub(super) fn figures(&self) -> quoit::Metrics {
        let now = self.at_home().map(|core| core.metrics());
        now.or_else(|| self.inner.last.get().cloned()).expect("a core is asked at home")
    }

    pub(crate) fn core(&self) -> &quoit::Handle {
        &self.inner.core
    }

    /// Starts a task on its core.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if context::drives(self.inner.id) {
            return quoit::spawn(future).into();
        }
        match self.at_home() {
            Some(core) => core.spawn(future).into(),
            None => self.inner.core.spawn_with(move || future).into(),
        }
    }

    /// Starts a task that must be spawned at home.
    #[track_caller]
    pub(crate) fn spawn_local<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        if context::drives(self.inner.id) {
            return quoit::spawn(future).into();
        }
        let Some(core) = self.at_home() else {
            panic!(
                "Local tasks can only be spawned on a LocalRuntime from the thread the runtime \
                 was created on"
            )
        };
        core.spawn(future).into()
    }

    /// Runs blocking work on its pool, in its context.
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, work: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let context = self.clone();
        let work = move || {
            let _context = context.enter();
            work()
        };
        self.inner.core.spawn_blocking(work).into()
    }

    /// Runs `future`: at home with all tasks, elsewhere on a core of its own.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        assert!(
            quoit::Handle::try_current().is_none(),
            "Cannot start a runtime from within a runtime. This happens because a function (like \
             `block_on`) attempted to block the current thread while the thread is being used to \
             drive asynchronous tasks. If you are in an async function, use `.await` on the future \
             instead of blocking on it."
        );
        let _context = self.enter();
        let Some(core) = self.at_home() else { return quoit::block_on(future) };
        let _driving = Driving::new(self.inner.id);
        if self.inner.pause.swap(false, Ordering::Relaxed) {
            core.block_on(async { quoit::time::pause() });
        }
        core.block_on(future)
    }

    /// Makes it the current one of this thread.
    pub fn enter(&self) -> EnterGuard<'_> {
        EnterGuard::new(self.clone())
    }

    /// Which kind it is.
    pub fn runtime_flavor(&self) -> RuntimeFlavor {
        RuntimeFlavor::CurrentThread
    }

    /// Its id.
    pub fn id(&self) -> Id {
        Id(self.inner.id)
    }

    /// Its name.
    pub fn name(&self) -> Option<&str> {
        self.inner.choices.name.as_deref()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> RuntimeMetrics {
        RuntimeMetrics::new(self.clone())
    }

    /// Ends the core. Elsewhere than at home it ends with its thread.
    pub(super) fn shutdown(&self, limit: Option<Duration>) {
        let core = CORES.try_with(|cores| cores.borrow_mut().remove(&self.inner.id)).ok().flatten();
        let Some(core) = core.and_then(Rc::into_inner) else { return };
        // What its tasks drop sees the runtime that they lived in.
        let _context = self.enter();
        let _driving = Driving::new(self.inner.id);
        let _ = self.inner.last.set(core.metrics());
        match limit {
            Some(limit) => drop(core.shutdown(limit)),
            None => drop(core),
        }
    }
}
