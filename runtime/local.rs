//! Values that belong to a task, not to a thread.
//!
//! ```text
//!   poll:  thread's slot ◄──swap──► the scope's value      the future runs and sees it
//!   after: thread's slot ◄──swap──► the scope's value      also when the poll panics
//! ```
//!
//! The slot is a thread-local that holds the value of the innermost scope that is running.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{mem, thread};

use pin_project_lite::pin_project;

/// Declares [`LocalKey`]s.
///
/// ```
/// quoit::task_local! {
///     /// Which request this task serves.
///     static REQUEST: u64;
/// }
///
/// quoit::block_on(async {
///     let task = quoit::spawn(REQUEST.scope(7, async {
///         quoit::task::yield_now().await;
///         REQUEST.get()
///     }));
///     assert_eq!(task.await.unwrap(), 7);
///     assert!(REQUEST.try_with(|_| ()).is_err());
/// });
/// ```
#[macro_export]
macro_rules! task_local {
    ($($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty);+ $(;)?) => {
        $($(#[$attribute])* $visibility static $name: $crate::task::LocalKey<$type> = {
            ::std::thread_local! {
                static SLOT: ::std::cell::RefCell<::std::option::Option<$type>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }
            $crate::task::LocalKey::from_slot(&SLOT)
        };)+
    };
}

type Slot<T> = &'static thread::LocalKey<RefCell<Option<T>>>;

/// A value that a task carries along; made by [`task_local!`](crate::task_local).
///
/// It is set for one future with [`scope`](Self::scope), and seen by everything that this future
/// calls or polls. Tasks that it spawns do not inherit it.
pub struct LocalKey<T: 'static> {
    slot: Slot<T>,
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    #[must_use]
    pub const fn from_slot(slot: Slot<T>) -> Self {
        Self { slot }
    }

    /// A future that runs `future` with the value set. An inner scope hides an outer one.
    ///
    /// # Cancel safety
    ///
    /// As `future`. When dropped, `future` is dropped with the value set.
    ///
    /// # Examples
    ///
    /// See [`task_local!`](crate::task_local).
    pub fn scope<F: Future>(&'static self, value: T, future: F) -> Scope<T, F> {
        Scope { key: self, value: Some(value), future: Some(future), pinned: PhantomPinned }
    }

    /// Calls `action` with the value set.
    ///
    /// # Panics
    ///
    /// Inside [`with`](Self::with) of the same key.
    ///
    /// ```
    /// quoit::task_local! { static DEPTH: u32; }
    /// assert_eq!(DEPTH.sync_scope(1, || DEPTH.get()), 1);
    /// ```
    #[track_caller]
    pub fn sync_scope<R>(&'static self, value: T, action: impl FnOnce() -> R) -> R {
        let mut value = Some(value);
        self.swapped(&mut value, action)
    }

    /// Calls `action` with a reference to the value.
    ///
    /// # Panics
    ///
    /// Outside a scope of this key; see [`try_with`](Self::try_with).
    ///
    /// ```
    /// quoit::task_local! { static NAME: String; }
    /// let length = NAME.sync_scope("quoit".into(), || NAME.with(|name| name.len()));
    /// assert_eq!(length, 5);
    /// ```
    #[track_caller]
    pub fn with<R>(&'static self, action: impl FnOnce(&T) -> R) -> R {
        match self.try_with(action) {
            Ok(answer) => answer,
            Err(error) => panic!("{error}"),
        }
    }

    /// Calls `action` with a reference to the value.
    ///
    /// # Errors
    ///
    /// Outside a scope of this key.
    pub fn try_with<R>(&'static self, action: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        let mut action = Some(action);
        let answer = self.slot.try_with(|slot| {
            let slot = slot.try_borrow().ok()?;
            let action = action.take().expect("called once");
            slot.as_ref().map(action)
        });
        answer.ok().flatten().ok_or(AccessError(()))
    }

    /// A clone of the value.
    ///
    /// # Panics
    ///
    /// Outside a scope of this key.
    #[must_use]
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    /// A clone of the value.
    ///
    /// # Errors
    ///
    /// Outside a scope of this key.
    pub fn try_get(&'static self) -> Result<T, AccessError>
    where
        T: Clone,
    {
        self.try_with(T::clone)
    }

    /// Runs `action` while the thread's slot and `value` are exchanged.
    #[track_caller]
    fn swapped<R>(&'static self, value: &mut Option<T>, action: impl FnOnce() -> R) -> R {
        struct Restore<'a, T: 'static>(Slot<T>, &'a mut Option<T>);
        impl<T> Drop for Restore<'_, T> {
            fn drop(&mut self) {
                self.0.with(|slot| mem::swap(self.1, &mut *slot.borrow_mut()));
            }
        }
        // The panic stands outside the closure, which would name itself and not the caller.
        let free = self.slot.with(|slot| {
            slot.try_borrow_mut().map(|mut slot| mem::swap(value, &mut *slot)).is_ok()
        });
        assert!(free, "a scope of a task-local was entered inside its own `with`");
        let _restore = Restore(self.slot, value);
        action()
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// There is no value: this is not inside a scope of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessError(());

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task-local has no value here: this is not inside its `scope`")
    }
}

impl Error for AccessError {}

pin_project! {
    /// See [`LocalKey::scope`].
    #[must_use = "a future does nothing unless it is polled"]
    pub struct Scope<T, F>
    where
        T: 'static,
    {
        key: &'static LocalKey<T>,
        value: Option<T>,
        #[pin]
        future: Option<F>,
        #[pin]
        pinned: PhantomPinned,
    }

    impl<T, F> PinnedDrop for Scope<T, F>
    where
        T: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() && this.value.is_some() {
                this.key.swapped(this.value, || this.future.set(None));
            }
        }
    }
}

impl<T: 'static, F> Scope<T, F> {
    /// Takes the value out, if it is still there; the future then runs without it.
    ///
    /// ```
    /// quoit::task_local! { static NAME: String; }
    /// let mut scope = Box::pin(NAME.scope("quoit".into(), async { NAME.try_get().is_err() }));
    /// assert_eq!(scope.as_mut().take_value().as_deref(), Some("quoit"));
    /// assert!(quoit::block_on(scope), "there is none any more");
    /// ```
    pub fn take_value(self: Pin<&mut Self>) -> Option<T> {
        self.project().value.take()
    }
}

impl<T: 'static, F: Future> Future for Scope<T, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let future = &mut this.future;
        this.key.swapped(this.value, || {
            let running = future.as_mut().as_pin_mut().expect("polled after it was ready");
            let polled = running.poll(context);
            if polled.is_ready() {
                future.set(None);
            }
            polled
        })
    }
}

impl<T: 'static, F> fmt::Debug for Scope<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use crate::runtime::{Runtime, spawn, yield_now};

    crate::task_local! {
        static NUMBER: u32;
        static NAME: &'static str;
    }

    #[test]
    fn interleaved_tasks_each_see_their_own() {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..10)
                .map(|number| {
                    spawn(NUMBER.scope(number, async move {
                        for _ in 0..5 {
                            assert_eq!(NUMBER.get(), number);
                            let inner = NUMBER.scope(number + 100, async {
                                yield_now().await;
                                NUMBER.get()
                            });
                            assert_eq!(inner.await, number + 100);
                        }
                        assert!(NAME.try_with(|_| ()).is_err());
                        // A task does not inherit.
                        assert!(spawn(async { NUMBER.try_with(|_| ()) }).await.unwrap().is_err());
                    }))
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert!(NUMBER.try_with(|_| ()).is_err());
        });
    }

    #[test]
    fn a_panic_and_a_drop_leave_the_slot_as_it_was() {
        let runtime = Runtime::new().unwrap();
        struct Look(Rc<Cell<u32>>);
        impl Drop for Look {
            fn drop(&mut self) {
                self.0.set(NUMBER.get());
            }
        }
        let seen = Rc::new(Cell::new(0));
        runtime.block_on(NUMBER.scope(1, async {
            let look = Look(seen.clone());
            let task = spawn(NUMBER.scope(2, async move {
                let _look = look;
                std::future::pending::<()>().await;
            }));
            yield_now().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            assert_eq!(seen.get(), 2, "dropped with its own value");
            assert!(spawn(NUMBER.scope(3, async { panic!("inside") })).await.is_err());
            assert_eq!(NUMBER.get(), 1);
        }));
        let nested = || NUMBER.sync_scope(1, || NUMBER.with(|_| NUMBER.sync_scope(2, || ())));
        assert!(catch_unwind(AssertUnwindSafe(nested)).is_err());
        assert!(NUMBER.try_with(|_| ()).is_err());
    }
}
