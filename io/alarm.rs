//! A deadline inside the I/O layer: what operations with a time limit wait for.

use std::task::{Context, Poll};
use std::time::Duration;

use crate::io::mailbox::{self, CoreId, Message};
use crate::io::proactor::Proactor;
use crate::io::timers::{Expiry, TimerKey};

/// One deadline on the current core's clock. It starts with the first poll.
#[derive(Debug)]
pub(crate) struct Alarm {
    after: Duration,
    deadline: u64,
    timer: Option<(CoreId, TimerKey)>,
}

impl Alarm {
    pub(crate) fn new(after: Duration) -> Self {
        Self { after, deadline: 0, timer: None }
    }

    /// Ready once the time has passed. Outside a runtime it never is: the operation itself answers.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        Proactor::with_current(|proactor| {
            let now = proactor.clock().now();
            if self.deadline == 0 {
                let after = u64::try_from(self.after.as_nanos()).unwrap_or(u64::MAX);
                self.deadline = now.saturating_add(after).max(1);
            }
            if self.deadline <= now {
                return Poll::Ready(());
            }
            if let Some((core, key)) = self.timer {
                if core == proactor.id() && proactor.with_timers(|timers| timers.is_pending(key)) {
                    let waker = cx.waker().clone();
                    let old = proactor.with_timers(|timers| timers.replace_waker(key, waker));
                    drop(old);
                    return Poll::Pending;
                }
                self.stop();
            }
            let expiry = Expiry::Wake(cx.waker().clone());
            let key = proactor.with_timers(|timers| timers.insert(self.deadline, expiry));
            self.timer = Some((proactor.id(), key));
            Poll::Pending
        })
        .unwrap_or(Poll::Pending)
    }

    fn stop(&mut self) {
        let Some((core, key)) = self.timer.take() else { return };
        if mailbox::current_core() == core {
            let removed = Proactor::with_current(|proactor| {
                proactor.with_timers(|timers| timers.remove(key))
            });
            drop(removed);
        } else {
            let _ = mailbox::post(core, Message::RemoveTimer(key));
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.stop();
    }
}
