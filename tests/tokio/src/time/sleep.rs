//! `Sleep`: quoit's on a core; anywhere else a task at home sleeps for it.

use std::marker::PhantomPinned;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::Instant;
use crate::runtime::Handle;

pin_project! {
    /// Ready at its deadline.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited or polled"]
    pub struct Sleep {
        sleep: quoit::time::Sleep,
        home: Handle,
        elsewhere: Option<Arc<Mutex<Elsewhere>>>,
        // quoit's may move; tokio's may not, and a test asks.
        #[pin]
        pinned: PhantomPinned,
    }
}

#[derive(Debug, Default)]
struct Elsewhere {
    over: bool,
    waker: Option<Waker>,
}

impl Sleep {
    pub(super) fn new(deadline: Instant, home: Handle) -> Self {
        let sleep = quoit::time::sleep_until(deadline);
        Self { sleep, home, elsewhere: None, pinned: PhantomPinned }
    }

    /// When it is ready.
    pub fn deadline(&self) -> Instant {
        self.sleep.deadline()
    }

    /// Whether the deadline has come.
    pub fn is_elapsed(&self) -> bool {
        self.sleep.is_elapsed()
    }

    /// Sets another deadline.
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        let this = self.project();
        Pin::new(this.sleep).reset(deadline);
        *this.elsewhere = None;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if quoit::Handle::try_current().is_some() {
            return Pin::new(this.sleep).poll(cx);
        }
        let deadline = this.sleep.deadline();
        let elsewhere = this.elsewhere.get_or_insert_with(|| {
            let shared = Arc::new(Mutex::new(Elsewhere::default()));
            let sleeper = shared.clone();
            drop(this.home.core().spawn_with(move || async move {
                quoit::time::sleep_until(deadline).await;
                let waker = {
                    let mut shared = sleeper.lock().expect("no panic while it is locked");
                    shared.over = true;
                    shared.waker.take()
                };
                waker.into_iter().for_each(Waker::wake);
            }));
            shared
        });
        let mut shared = elsewhere.lock().expect("no panic while it is locked");
        if shared.over {
            return Poll::Ready(());
        }
        shared.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
