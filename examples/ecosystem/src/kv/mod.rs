//! A key-value server that speaks Redis' protocol: `redis-cli`, `redis-benchmark` and the client
//! libraries drive it.
//!
//! ```text
//!   recv() ─lease─► Session ──► Parser ──► a command, still in the lease ──► Store
//!     ▲                                                                        │
//!     └── one send() of all replies ◄── a buffer of the core's ◄───────────────┘
//! ```
//!
//! A turn is what one `recv()` brings: its commands are carried out one after the other, and their
//! replies go out together. Between turns a connection holds no buffer. Everything but `server` and
//! the channels of `cores` knows nothing of sockets: it is fed bytes.
//!
//! | limit | |
//! |---|---|
//! | the bytes of one command, [`Limits::command`] | longer: a protocol error, and the end |
//! | replies that are not sent, [`Limits::replies`] and one more | the client is not read further |
//! | connections of a core, [`Limits::clients`] | further ones are told so, and closed |

pub mod client;
pub mod commands;
pub mod cores;
pub mod resp;
pub mod server;
pub mod session;
pub mod store;

use std::cell::RefCell;

use quoit::time::Instant;
use store::Store;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most 4 GiB.
    pub command: usize,
    pub replies: usize,
    pub clients: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { command: 64 << 20, replies: 256 << 10, clients: 10_000 }
    }
}

/// A core's share of the keys, and its clock.
#[derive(Debug)]
pub struct Shard {
    store: RefCell<Store>,
    started: Instant,
}

impl Default for Shard {
    fn default() -> Self {
        Self { store: RefCell::default(), started: Instant::now() }
    }
}

impl Shard {
    /// Does something with the store, as it is now.
    pub fn with<R>(&self, action: impl FnOnce(&mut Store) -> R) -> R {
        let mut store = self.store.borrow_mut();
        // A millisecond on, so that nothing is over at the beginning of time.
        store.set_now(1 + self.started.elapsed().as_millis() as u64);
        action(&mut store)
    }
}
