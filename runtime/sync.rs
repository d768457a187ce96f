//! What the executor shares between threads, from `std` or from loom.
//!
//! The models (`RUSTFLAGS="--cfg loom" cargo test --lib --release loom_`) run the code of `state`,
//! `task`, `inbox` and `tasks` itself, not a copy of it, with every atomic, shared cell and
//! thread-local that it uses replaced by one whose interleavings loom explores.

#[cfg(not(loom))]
pub(crate) use self::real::*;

#[cfg(loom)]
pub(crate) use self::model::*;

#[cfg(not(loom))]
mod real {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering, fence};

    pub(crate) use crossbeam_queue::SegQueue as Queue;

    /// A thread-local that needs no initialisation at run time.
    macro_rules! thread_local_const {
        ($(#[$attribute:meta])* static $name:ident: $type:ty = $value:expr;) => {
            std::thread_local! {
                $(#[$attribute])* static $name: $type = const { $value };
            }
        };
    }
    pub(crate) use thread_local_const;

    /// `std`'s cell with loom's way of asking, so that loom can watch who looks while who writes.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
            look(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
            change(self.0.get())
        }
    }
}

#[cfg(loom)]
mod model {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering, fence};

    use loom::sync::Mutex;
    use std::collections::VecDeque;

    macro_rules! thread_local_const {
        ($(#[$attribute:meta])* static $name:ident: $type:ty = $value:expr;) => {
            loom::thread_local! {
                $(#[$attribute])* static $name: $type = $value;
            }
        };
    }
    pub(crate) use thread_local_const;

    /// Stands for `SegQueue`, which loom cannot see into: first in, first out, from any thread.
    #[derive(Debug)]
    pub(crate) struct Queue<T>(Mutex<VecDeque<T>>);

    impl<T> Queue<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(crate) fn push(&self, value: T) {
            self.0.lock().unwrap().push_back(value);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.0.lock().unwrap().pop_front()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.lock().unwrap().is_empty()
        }

        pub(crate) fn len(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }
}
