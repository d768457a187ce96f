//! The runtime as hyper wants it: something to spawn on, and something to sleep by.

use std::pin::Pin;
use std::time::Duration;

use ::hyper::rt::{Executor, Timer};

use super::spawn;
use super::time::{self, Instant, Sleep};

/// Spawns hyper's background tasks on the current core.
///
/// The futures need not be `Send`, so HTTP/2 connections, whose tasks are made of your service,
/// stay on their core like everything else.
///
/// # Panics
///
/// `execute` panics outside a runtime.
///
/// # Examples
///
/// ```
/// use hyper::rt::Executor;
/// use quoit::rt::QuoitExecutor;
///
/// # quoit::block_on(async {
/// let here = std::rc::Rc::new(1);
/// QuoitExecutor.execute(async move { assert_eq!(*here, 1) });
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct QuoitExecutor;

impl<F> Executor<F> for QuoitExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    #[track_caller]
    fn execute(&self, future: F) {
        drop(spawn(future));
    }
}

/// hyper's timeouts by the core's timers.
///
/// Its [`Sleep`]s are `Send` and `Sync` as they are, and are set anew in place: a keep-alive
/// timer that each request puts off costs no allocation.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use hyper::rt::Timer;
/// use quoit::rt::QuoitTimer;
///
/// # quoit::block_on(async {
/// let timer = QuoitTimer;
/// let mut sleep = timer.sleep(Duration::from_secs(3600));
/// timer.reset(&mut sleep, timer.now() + Duration::from_millis(1));
/// sleep.await;
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct QuoitTimer;

impl Timer for QuoitTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn ::hyper::rt::Sleep>> {
        Box::pin(time::sleep(duration))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn ::hyper::rt::Sleep>> {
        Box::pin(time::sleep_until(Instant::from_std(deadline)))
    }

    /// The core's clock, which tests can pause.
    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn ::hyper::rt::Sleep>>, deadline: std::time::Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(sleep) => sleep.reset(Instant::from_std(deadline)),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

impl ::hyper::rt::Sleep for Sleep {}
