//! Handles of tasks: of quoit's, or of those that a real `LocalSet` polls inside one of quoit's.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_real::task as set;

/// Names a task.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Id {
    /// A task of a core.
    Core(quoit::task::TaskId),
    /// A task of a local set.
    Set(set::Id),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(id) => id.fmt(f),
            Self::Set(id) => id.fmt(f),
        }
    }
}

/// The right to a task's result.
#[derive(Debug)]
pub enum JoinHandle<T> {
    /// A task of a core.
    Core(quoit::task::JoinHandle<T>),
    /// A task of a local set.
    Set(set::JoinHandle<T>),
}

impl<T> From<quoit::task::JoinHandle<T>> for JoinHandle<T> {
    fn from(handle: quoit::task::JoinHandle<T>) -> Self {
        Self::Core(handle)
    }
}

impl<T> JoinHandle<T> {
    /// Asks the task to end.
    pub fn abort(&self) {
        match self {
            Self::Core(task) => task.abort(),
            Self::Set(task) => task.abort(),
        }
    }

    /// Whether the result is there.
    pub fn is_finished(&self) -> bool {
        match self {
            Self::Core(task) => task.is_finished(),
            Self::Set(task) => task.is_finished(),
        }
    }

    /// The right to abort it, and nothing else.
    pub fn abort_handle(&self) -> AbortHandle {
        match self {
            Self::Core(task) => AbortHandle::Core(task.abort_handle()),
            Self::Set(task) => AbortHandle::Set(task.abort_handle()),
        }
    }

    /// The task's id.
    pub fn id(&self) -> Id {
        match self {
            Self::Core(task) => Id::Core(task.id()),
            Self::Set(task) => Id::Set(task.id()),
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Core(task) => Pin::new(task).poll(cx).map_err(JoinError::Core),
            Self::Set(task) => Pin::new(task).poll(cx).map_err(JoinError::Set),
        }
    }
}

/// The right to abort a task.
#[derive(Clone, Debug)]
pub enum AbortHandle {
    /// A task of a core.
    Core(quoit::task::AbortHandle),
    /// A task of a local set.
    Set(set::AbortHandle),
}

impl AbortHandle {
    /// Asks the task to end.
    pub fn abort(&self) {
        match self {
            Self::Core(task) => task.abort(),
            Self::Set(task) => task.abort(),
        }
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        match self {
            Self::Core(task) => task.is_finished(),
            Self::Set(task) => task.is_finished(),
        }
    }

    /// The task's id.
    pub fn id(&self) -> Id {
        match self {
            Self::Core(task) => Id::Core(task.id()),
            Self::Set(task) => Id::Set(task.id()),
        }
    }
}

/// Why a task gave no result.
pub enum JoinError {
    /// A task of a core.
    Core(quoit::task::JoinError),
    /// A task of a local set.
    Set(set::JoinError),
}

impl JoinError {
    /// The task was aborted, or its core has ended.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Core(error) => error.is_cancelled(),
            Self::Set(error) => error.is_cancelled(),
        }
    }

    /// The task panicked.
    pub fn is_panic(&self) -> bool {
        match self {
            Self::Core(error) => error.is_panic(),
            Self::Set(error) => error.is_panic(),
        }
    }

    /// What the task panicked with.
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self {
            Self::Core(error) => error.into_panic(),
            Self::Set(error) => error.into_panic(),
        }
    }

    /// What the task panicked with, if it did.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, Self> {
        match self {
            Self::Core(error) => error.try_into_panic().map_err(Self::Core),
            Self::Set(error) => error.try_into_panic().map_err(Self::Set),
        }
    }

    /// The task's id.
    pub fn id(&self) -> Id {
        match self {
            Self::Core(error) => Id::Core(error.id()),
            Self::Set(error) => Id::Set(error.id()),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) => error.fmt(f),
            Self::Set(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) => error.fmt(f),
            Self::Set(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Core(error) => error.into(),
            JoinError::Set(error) => error.into(),
        }
    }
}
