//! The choices for a runtime. Those that only concern several threads are taken and ignored.

use std::io;
use std::time::Duration;

use super::handle::{Choices, Handle};
use super::local::{LocalOptions, LocalRuntime};
use super::{Runtime, RuntimeFlavor};

/// The choices for a runtime.
#[derive(Debug)]
pub struct Builder {
    flavor: RuntimeFlavor,
    choices: Choices,
    core: quoit::Builder,
}

impl Builder {
    fn new(flavor: RuntimeFlavor) -> Self {
        Self { flavor, choices: Choices::default(), core: quoit::Runtime::builder() }
    }

    /// One thread.
    pub fn new_current_thread() -> Self {
        Self::new(RuntimeFlavor::CurrentThread)
    }

    /// Can be told anything, but not built: the test process ends as skipped.
    pub fn new_multi_thread() -> Self {
        Self::new(RuntimeFlavor::MultiThread)
    }

    /// Enables timers and I/O. (quoit always has both; the difference is checked in here.)
    pub fn enable_all(&mut self) -> &mut Self {
        self.enable_io().enable_time()
    }

    /// Enables I/O.
    pub fn enable_io(&mut self) -> &mut Self {
        self.choices.io = true;
        self
    }

    /// Enables timers.
    pub fn enable_time(&mut self) -> &mut Self {
        self.choices.time = true;
        self
    }

    /// Starts with the clock standing.
    pub fn start_paused(&mut self, paused: bool) -> &mut Self {
        self.choices.start_paused = paused;
        self
    }

    /// Names the runtime.
    #[track_caller]
    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        let name = name.into();
        assert!(!name.trim().is_empty(), "runtime name shouldn't be empty");
        self.choices.name = Some(name);
        self
    }

    /// How many threads may block at once.
    #[track_caller]
    pub fn max_blocking_threads(&mut self, threads: usize) -> &mut Self {
        assert!(threads > 0, "Max blocking threads cannot be set to 0");
        self.core = self.core.clone().max_blocking_threads(threads);
        self
    }

    /// How many polls may pass before the driver has a turn.
    #[track_caller]
    pub fn event_interval(&mut self, polls: u32) -> &mut Self {
        assert!(polls > 0, "event_interval must be greater than 0");
        self.core = self.core.clone().task_budget(polls as usize);
        self
    }

    /// Concerns several threads only.
    #[track_caller]
    pub fn global_queue_interval(&mut self, polls: u32) -> &mut Self {
        assert!(polls > 0, "global_queue_interval must be greater than 0");
        self
    }

    /// Concerns several threads only.
    #[track_caller]
    pub fn worker_threads(&mut self, threads: usize) -> &mut Self {
        assert!(threads > 0, "Worker threads cannot be set to 0");
        self
    }

    /// How many completions one turn takes is the ring's business.
    #[track_caller]
    pub fn max_io_events_per_tick(&mut self, events: usize) -> &mut Self {
        assert!(events > 0, "max_io_events_per_tick must be non-zero");
        self
    }

    /// As `max_io_events_per_tick`.
    #[track_caller]
    pub fn max_io_events_per_busy_tick(&mut self, events: usize) -> &mut Self {
        assert!(events > 0, "max_io_events_per_busy_tick must be non-zero");
        self
    }

    /// How long an idle thread of the pool stays.
    pub fn thread_keep_alive(&mut self, idle: Duration) -> &mut Self {
        self.core = self.core.clone().thread_keep_alive(idle);
        self
    }

    /// Threads of the pool have names of their own: quoit's `thread_name` is what those begin with.
    pub fn thread_name(&mut self, _name: impl Into<String>) -> &mut Self {
        self
    }

    /// The stack of a thread of the pool.
    pub fn thread_stack_size(&mut self, bytes: usize) -> &mut Self {
        self.core = self.core.clone().thread_stack_size(bytes);
        self
    }

    /// Threads of the pool have their own name.
    pub fn thread_name_fn<F: Fn() -> String + Send + Sync + 'static>(&mut self, _: F) -> &mut Self {
        self
    }

    /// Never called: quoit has no such hook.
    pub fn on_thread_start<F: Fn() + Send + Sync + 'static>(&mut self, _: F) -> &mut Self {
        self
    }

    /// Never called: quoit has no such hook.
    pub fn on_thread_stop<F: Fn() + Send + Sync + 'static>(&mut self, _: F) -> &mut Self {
        self
    }

    /// Called before the core sleeps.
    pub fn on_thread_park<F: Fn() + Send + Sync + 'static>(&mut self, hook: F) -> &mut Self {
        self.core = self.core.clone().on_thread_park(hook);
        self
    }

    /// Called after the core has slept.
    pub fn on_thread_unpark<F: Fn() + Send + Sync + 'static>(&mut self, hook: F) -> &mut Self {
        self.core = self.core.clone().on_thread_unpark(hook);
        self
    }

    /// Builds it.
    pub fn build(&mut self) -> io::Result<Runtime> {
        self.handle().map(Runtime::from_handle)
    }

    /// Builds one that does not leave the thread.
    pub fn build_local(&mut self, _options: LocalOptions) -> io::Result<LocalRuntime> {
        self.choices.local = true;
        self.build().map(LocalRuntime::from_runtime)
    }

    fn handle(&self) -> io::Result<Handle> {
        if self.flavor == RuntimeFlavor::MultiThread {
            crate::skip("needs the multi-thread flavour");
        }
        Ok(Handle::new(self.core.clone().build()?, self.choices.clone()))
    }
}
