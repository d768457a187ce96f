//! What the library's own tests ask of a simulation besides, so that one body of theirs runs on all
//! rings: further cores for a host, where a real ring takes a thread with a runtime, and calls from
//! where no core is. Not public interface.
//!
//! ```text
//!   program ── start ──► driver: a core, which runs what is sent to it ── Handle ──► program
//!           ── end ────► driver: the end of a runtime, in turns ────────── Report ──► program
//! ```

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::io::mailbox::CoreId;
use crate::io::proactor;
use crate::io::ring::simulated::world::{self, Order};
use crate::runtime::builder::Builder;
use crate::runtime::one::Report;
use crate::runtime::{Handle, id, tasks};

/// What only the driver can grant.
pub(crate) enum Wish {
    Start { boot: usize, builder: Builder, told: Promise<(CoreId, Handle)> },
    End { core: CoreId, deadline: Duration, told: Promise<Report> },
}

impl Wish {
    fn express(self) {
        let world = world::current().expect("further cores are a simulation's");
        world.order(Order::Wish(Box::new(self)));
    }
}

/// What the driver answers later.
pub(crate) struct Promise<T>(Rc<RefCell<Promised<T>>>);

struct Promised<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> Promise<T> {
    fn new() -> Self {
        Self(Rc::new(RefCell::new(Promised { value: None, waker: None })))
    }

    fn share(&self) -> Self {
        Self(self.0.clone())
    }

    pub(crate) fn keep(self, value: T) {
        self.0.borrow_mut().value = Some(value);
        let waker = self.0.borrow_mut().waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    async fn kept(self) -> T {
        poll_fn(|cx| {
            let mut promised = self.0.borrow_mut();
            promised.waker = Some(cx.waker().clone());
            promised.value.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// A core besides those of the host's program. It runs until it is ended, and has to be.
#[derive(Debug)]
pub struct FurtherCore {
    core: CoreId,
    handle: Handle,
}

impl FurtherCore {
    /// Starts one on the host whose program asks.
    ///
    /// # Panics
    ///
    /// Outside of a simulation, as everything here.
    pub async fn start(builder: Builder) -> Self {
        let boot = world::current().expect("further cores are a simulation's").here();
        let promise = Promise::new();
        Wish::Start { boot, builder, told: promise.share() }.express();
        let (core, handle) = promise.kept().await;
        Self { core, handle }
    }

    /// A way to send it something to run.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What [`Runtime::shutdown`](crate::Runtime::shutdown) does, in the world's time.
    pub async fn end(self, deadline: Duration) -> Report {
        let promise = Promise::new();
        Wish::End { core: self.core, deadline, told: promise.share() }.express();
        promise.kept().await
    }
}

/// Does something as a thread without a core would, in the middle of a core's turn.
///
/// # Panics
///
/// Outside of a simulation.
pub fn outside_of_cores<R>(action: impl FnOnce() -> R) -> R {
    let world = world::current().expect("elsewhere there are threads for that");
    let _nobody = world.on_nobody();
    let _tasks = tasks::leave();
    let _task = id::Running::enter(id::NONE);
    let _proactor = proactor::leave();
    action()
}
