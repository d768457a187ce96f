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

    /// How often the core slept.
    #[track_caller]
    pub fn worker_park_count(&self, worker: usize) -> u64 {
        assert_eq!(worker, 0, "there is one worker");
        self.ask().parks
    }
}
