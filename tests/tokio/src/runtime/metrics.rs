//! Figures of a runtime, as far as quoit counts the same things. They can be asked for at home.

use super::Handle;

/// The figures of a runtime.
#[derive(Clone, Debug)]
pub struct RuntimeMetrics {
    handle: Handle,
}

impl RuntimeMetrics {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    fn ask(&self) -> quoit::Metrics {
        self.handle.figures()
    }

    /// One.
    pub fn num_workers(&self) -> usize {
        1
    }

    /// How many tasks live.
    pub fn num_alive_tasks(&self) -> usize {
        self.ask().tasks_alive
    }

    /// How much other threads have sent that the core has not looked at.
    pub fn global_queue_depth(&self) -> usize {
        self.ask().remote_waiting
    }

    /// How often the core went to sleep and woke up. It is awake when it is asked, so that each
    /// sleep counts as two.
    #[track_caller]
    pub fn worker_park_unpark_count(&self, worker: usize) -> u64 {
        2 * self.worker_park_count(worker)
    }

    /// How often the core slept.
    #[track_caller]
    pub fn worker_park_count(&self, worker: usize) -> u64 {
        assert_eq!(worker, 0, "there is one worker");
        self.ask().parks
    }
}
