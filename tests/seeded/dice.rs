//! Choices for a scenario, and futures that are dropped by choice.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::__private::Chance;
use quoit::{task, time};

/// Choices that the tasks of one scenario share.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Rc<RefCell<Chance>>);

impl Dice {
    pub(crate) fn new(chance: Chance) -> Self {
        Self(Rc::new(RefCell::new(chance)))
    }

    pub(crate) fn of_seed(seed: u64) -> Self {
        Self::new(Chance::new(seed))
    }

    pub(crate) fn below(&self, end: usize) -> usize {
        self.0.borrow_mut().below(end)
    }

    pub(crate) fn up_to(&self, last: usize) -> usize {
        self.0.borrow_mut().up_to(last)
    }

    pub(crate) fn one_in(&self, times: usize) -> bool {
        self.0.borrow_mut().one_in(times)
    }

    /// Polls a future up to some number of times, with wakes of its own or without, and drops it
    /// then.
    pub(crate) async fn cut<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut left = self.up_to(5);
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            left -= 1;
            if left == 0 {
                return Poll::Ready(None);
            }
            // A poll without a reason is always allowed; and the last must come for the cut to.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Runs a future to its end, cuts it, or gives it some time: each is as likely.
    pub(crate) async fn maybe<F: Future>(&self, future: F) -> Option<F::Output> {
        match self.below(3) {
            0 => Some(future.await),
            1 => self.cut(future).await,
            _ => time::timeout(self.moment(), future).await.ok(),
        }
    }

    /// A time in which a little may happen.
    pub(crate) fn moment(&self) -> Duration {
        Duration::from_micros(self.below(1000) as u64)
    }

    /// Lets others go on, now and then for a while.
    pub(crate) async fn dawdle(&self) {
        match self.below(6) {
            0 => time::sleep(self.moment()).await,
            1 => task::yield_now().await,
            _ => {}
        }
    }
}
