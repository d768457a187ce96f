//! What is told of a stall, and how it reads.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::io::system::stack::Frame;
use crate::runtime::id::{NONE, TaskId};

/// Whether a stalled poll goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallState {
    /// It does, and nothing else on its core does.
    Going,
    /// It has returned, or panicked.
    Over,
}

/// A poll that takes longer than [`Builder::stall_limit`](crate::Builder::stall_limit): everything
/// else on its core waits for it.
///
/// It is given to the action of [`Builder::on_stall`](crate::Builder::on_stall), first while the
/// poll goes on, and once more when it is over. Its `Display` is what is printed by default: one
/// line, and one for each call of the stack.
#[derive(Clone, Debug)]
pub struct Stall {
    pub(crate) core: u64,
    pub(crate) thread: String,
    pub(crate) task: u64,
    pub(crate) place: &'static Location<'static>,
    pub(crate) state: StallState,
    pub(crate) elapsed: Duration,
    pub(crate) limit: Duration,
    pub(crate) unreported: u64,
    pub(crate) stack: Result<Vec<Frame>, &'static str>,
}

impl Stall {
    /// Which core it is, as in [`Metrics::core`](crate::Metrics::core).
    #[must_use]
    pub fn core(&self) -> u64 {
        self.core
    }

    /// The name of the thread that drives the core, as far as it has one.
    #[must_use]
    pub fn thread(&self) -> &str {
        &self.thread
    }

    /// The task that is being polled; `None`: it is the future of
    /// [`block_on`](crate::Runtime::block_on) or [`run`](crate::Builder::run).
    #[must_use]
    pub fn task(&self) -> Option<TaskId> {
        (self.task != NONE).then_some(TaskId(self.task))
    }

    /// Where the task was spawned, or where `block_on` or `run` was called.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.place
    }

    /// Whether the poll goes on.
    #[must_use]
    pub fn state(&self) -> StallState {
        self.state
    }

    /// For how long the poll has gone on, or has taken in all. At least: the first quarter of the
    /// limit may have passed before it was seen.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// How many stalls of this runtime were not reported since the last that was, because there
    /// were too many.
    #[must_use]
    pub fn unreported(&self) -> u64 {
        self.unreported
    }

    /// The calls that the thread is in, innermost first; a function that was compiled into its
    /// caller is a frame of its own. The runtime's own calls outside of the poll are left out.
    ///
    /// # Errors
    ///
    /// Why it cannot be told: the feature `stacks` is not enabled, the processor is no x86-64, the
    /// thread did not answer a signal, or the poll is over.
    pub fn stack(&self) -> Result<&[Frame], &'static str> {
        self.stack.as_deref().map_err(|why| *why)
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}", self.core)?;
        if !self.thread.is_empty() {
            write!(f, " ({})", self.thread)?;
        }
        match self.state {
            StallState::Going => write!(f, " is stalled: ")?,
            StallState::Over => write!(f, " goes on: ")?,
        }
        match self.task() {
            Some(task) => write!(f, "task {task}, spawned at {}, ", self.place)?,
            None => write!(f, "the future run at {} ", self.place)?,
        }
        let (elapsed, limit) = (self.elapsed, self.limit);
        match self.state {
            StallState::Going => write!(f, "has been in one poll for {elapsed:.1?}")?,
            StallState::Over => write!(f, "was in one poll for {elapsed:.1?}")?,
        }
        write!(f, ", the limit is {limit:?}")?;
        if self.unreported > 0 {
            write!(f, "; {} other stalls were not reported", self.unreported)?;
        }
        match (&self.stack, self.state) {
            (Ok(frames), _) => show(frames, f),
            (Err(why), StallState::Going) => write!(f, "\n  no stack: {why}"),
            (Err(_), StallState::Over) => Ok(()),
        }
    }
}

fn show(frames: &[Frame], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (number, frame) in frames.iter().enumerate() {
        let function = frame.function.as_deref().unwrap_or("?");
        write!(f, "\n  {number:>3}: {function}")?;
        match (&frame.file, frame.line) {
            (Some(file), Some(line)) => write!(f, "\n         at {file}:{line}")?,
            (Some(file), None) => write!(f, "\n         at {file}")?,
            (None, _) if frame.function.is_none() => write!(f, " ({:#x})", frame.address)?,
            (None, _) => {}
        }
    }
    Ok(())
}

/// Leaves out what is outside of the poll: the loop of the core, the same every time.
pub(crate) fn within_poll(mut frames: Vec<Frame>) -> Vec<Frame> {
    const OUTSIDE: [&str; 3] = ["runtime::task::poll", "Core>::poll_root", "Core::poll_root"];
    let is_outside = |frame: &Frame| {
        let function = frame.function.as_deref().unwrap_or_default();
        function.contains("quoit") && OUTSIDE.iter().any(|outside| function.contains(outside))
    };
    if let Some(end) = frames.iter().position(is_outside) {
        frames.truncate(end);
    }
    frames
}
