//! The sockets: who comes, what they send, and the end.
//!
//! ```text
//!   accept ──► a task for each client: recv, carry out, send ──► … ──► it goes
//!     │ stop
//!     ▼
//!   every client's reading ends: what it has sent is answered, then FIN ──► all gone, or DRAIN
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use quoit::net::{TcpListener, TcpStream};
use quoit::task::JoinSet;
use quoit::time::{interval, timeout};
use tokio::sync::mpsc;

use super::client::Client;
use super::cores::{self, Batch, Cores, Plan};
use super::resp::Replies;
use super::session::{Flow, Local, Session};
use super::{Limits, Shard};

/// How long clients have to end, once the server should.
const DRAIN: Duration = Duration::from_secs(2);

/// How often keys that are over are looked for, and how many go at once.
const SWEEP: Duration = Duration::from_millis(100);
const SWEPT: usize = 1000;

/// Above this, a buffer of replies is not used again; and so many are kept.
const KEPT: usize = 64 * 1024;
const SPARES: usize = 64;

/// What the clients of a core share.
#[derive(Debug)]
struct Core {
    shard: Rc<Shard>,
    /// The ways to the others, if there are any.
    cores: Option<Cores>,
    limits: Limits,
    /// For the replies of those that come next: as many as have ever been on their way to the
    /// kernel at once, and at most `SPARES`.
    spares: RefCell<Vec<Vec<u8>>>,
    clients: RefCell<HashMap<u64, Rc<TcpStream>>>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Served {
    pub clients: u64,
    /// How many had not ended when the time was over.
    pub cut_off: usize,
}

/// Serves alone until `stop` is done, then lets the clients end.
pub async fn serve(listener: TcpListener, limits: Limits, stop: impl Future) -> io::Result<Served> {
    let core = Core {
        shard: Rc::default(),
        cores: None,
        limits,
        spares: RefCell::default(),
        clients: RefCell::default(),
    };
    Rc::new(core).serve(listener, stop).await
}

/// Serves as one of several cores; ends when the others have ended too.
pub async fn serve_core(
    listener: TcpListener,
    limits: Limits,
    (cores, batches): (Cores, mpsc::Receiver<Batch>),
    stop: impl Future,
) -> io::Result<Served> {
    let shard = Rc::<Shard>::default();
    let others = quoit::spawn(cores::answer(batches, shard.clone(), cores.count()));
    let core = Core {
        shard,
        cores: Some(cores),
        limits,
        spares: RefCell::default(),
        clients: RefCell::default(),
    };
    let served = Rc::new(core).serve(listener, stop).await;
    // Clients of the others may still ask for keys that are here.
    others.await.map_err(io::Error::other)?;
    served
}

impl Core {
    async fn serve(self: Rc<Self>, listener: TcpListener, stop: impl Future) -> io::Result<Served> {
        let sweeper = quoit::spawn(sweep(self.shard.clone()));
        let mut tasks = JoinSet::new();
        let mut served = Served::default();
        let mut stop = pin!(stop);
        while let Either::Left((accepted, _)) = select(listener.accept(), stop.as_mut()).await {
            match accepted {
                Ok((stream, _)) => self.enter(&mut served.clients, stream, &mut tasks),
                // Out of descriptors, for example: the next attempt may be luckier.
                Err(error) => eprintln!("kv: {error}"),
            }
            while tasks.try_join_next().is_some() {} // forgets those that have ended
        }
        for stream in listener.close().await? {
            self.enter(&mut served.clients, stream, &mut tasks);
        }
        let streams: Vec<_> = self.clients.borrow().values().cloned().collect();
        for stream in streams {
            // An error says that it has gone already.
            let _ = stream.shutdown_with(Shutdown::Read).await;
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(DRAIN, all).await.is_err() {
            served.cut_off = tasks.len();
            tasks.shutdown().await;
        }
        sweeper.abort();
        Ok(served)
    }

    fn enter(self: &Rc<Self>, count: &mut u64, stream: TcpStream, tasks: &mut JoinSet<()>) {
        *count += 1;
        if self.clients.borrow().len() >= self.limits.clients {
            let mut text = Vec::new();
            Replies::new(&mut text, false).error("ERR max number of clients reached");
            tasks.spawn(async move {
                // It may have gone.
                let _ = stream.send_all(text).await;
            });
            return;
        }
        let (core, id, stream) = (self.clone(), *count, Rc::new(stream));
        self.clients.borrow_mut().insert(id, stream.clone());
        tasks.spawn(async move {
            // A client that goes in the middle of something is no news.
            let _ = core.talk(&stream, id).await;
            core.clients.borrow_mut().remove(&id);
        });
    }

    async fn talk(&self, stream: &TcpStream, id: u64) -> io::Result<()> {
        let cores = self.cores.as_ref().map_or(1, Cores::count);
        let mut session = Session::new(Client::new(id, cores), self.limits);
        loop {
            let lease = stream.recv().await?;
            if lease.is_empty() {
                return Ok(());
            }
            let mut input = &lease[..];
            loop {
                let mut replies = self.spares.borrow_mut().pop().unwrap_or_default();
                let flow = match &self.cores {
                    None => self.shard.with(|store| {
                        let (replies, limits) = (&mut replies, self.limits);
                        session.feed(&mut input, &mut Local { store, replies, limits })
                    }),
                    Some(cores) => {
                        let mut plan = Plan::new(&self.shard, cores, session.client());
                        let flow = session.feed(&mut input, &mut plan);
                        plan.carry_out(&mut replies).await?;
                        flow
                    }
                };
                if !replies.is_empty() {
                    replies = stream.send(replies).await?.1;
                    replies.clear();
                }
                let mut spares = self.spares.borrow_mut();
                if replies.capacity() <= KEPT && spares.len() < SPARES {
                    spares.push(replies);
                }
                drop(spares);
                match flow {
                    Flow::Read => break,
                    Flow::Again => {}
                    Flow::Close => return Ok(()),
                }
            }
        }
    }
}

/// Removes keys whose time is over.
async fn sweep(shard: Rc<Shard>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        while shard.with(|store| store.sweep(SWEPT)) {
            quoit::task::yield_now().await;
        }
    }
}
