//! The world as tests and programs see it: to look at it, and to make things happen in it.

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::Link;
use crate::io::ring::simulated::world::{self, Order, World as Kernel};
use crate::io::ring::simulated::{Books, Chance, Crash, Disk};
use crate::io::signal::Signal;
use crate::runtime::builder::nanoseconds;

/// The world whose simulation runs on this thread.
///
/// # Panics
///
/// Outside a simulation.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use quoit::sim::{self, Sim};
///
/// let mut sim = Sim::new(1);
/// sim.host("db", || std::future::pending::<()>());
/// sim.client("client", async {
///     let world = sim::world();
///     world.partition("client", "db");
///     let connecting = quoit::net::TcpStream::connect("db:80");
///     assert!(quoit::time::timeout(Duration::from_secs(60), connecting).await.is_err());
///     world.heal("client", "db");
/// });
/// sim.run().unwrap();
/// ```
#[must_use]
pub fn world() -> World {
    World::new(world::current().expect("no simulation runs on this thread"))
}

/// Puts a line into the trace of the simulation that runs on this thread, if one does.
pub fn note(text: impl fmt::Display) {
    if let Some(world) = world::current() {
        world.note(&text.to_string());
    }
}

/// A way to a simulated world: cheap to clone, and for any of its programs.
///
/// Hosts are named by their names.
///
/// # Panics
///
/// Every method that names a host panics when there is none of this name.
#[derive(Clone)]
pub struct World {
    world: Rc<Kernel>,
}

impl World {
    pub(super) fn new(world: Rc<Kernel>) -> Self {
        Self { world }
    }

    /// How much time has passed since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.world.with(|state| state.now()))
    }

    /// The addresses of a host: IPv4 and IPv6.
    #[must_use]
    pub fn addresses(&self, host: &str) -> [IpAddr; 2] {
        let host = self.host(host);
        self.world.with(|state| state.addresses(host))
    }

    /// Lets nothing through between two hosts, in both directions. Connects time out, and what is
    /// sent stalls until [`heal`](Self::heal); it goes on some time later, as retransmissions have
    /// it, or the connection fails after a quarter of an hour.
    pub fn partition(&self, one: &str, other: &str) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Lets nothing through from one host to another. The other direction works: but what it
    /// carries is not acknowledged.
    pub fn cut(&self, from: &str, to: &str) {
        let (from, to) = (self.host(from), self.host(to));
        self.world.with(|state| state.block(from, to, true));
    }

    /// Lets everything through again between two hosts, in both directions.
    pub fn heal(&self, one: &str, other: &str) {
        let (one, other) = (self.host(one), self.host(other));
        self.world.with(|state| {
            state.block(one, other, false);
            state.block(other, one, false);
        });
    }

    /// Lets everything through again between all hosts.
    pub fn heal_all(&self) {
        self.world.with(|state| {
            for from in 0..state.hosts() {
                (0..state.hosts()).for_each(|to| state.block(from, to, false));
            }
        });
    }

    /// Changes what a direction between two hosts is like. What is on the way is not touched.
    pub fn set_link(&self, from: &str, to: &str, link: Link) {
        let (from, to) = (self.host(from), self.host(to));
        self.world.with(|state| {
            let is_blocked = state.link(from, to).is_blocked;
            *state.link(from, to) = link.to_io();
            state.link(from, to).is_blocked = is_blocked;
        });
    }

    /// Resets every connection between two hosts, as a middle box does: both sides see
    /// [`ConnectionReset`](std::io::ErrorKind::ConnectionReset).
    pub fn reset(&self, one: &str, other: &str) {
        let (one, other) = (self.host(one), self.host(other));
        self.world.with(|state| state.reset_between(one, other));
    }

    /// Ends a host in the middle of whatever it does, as soon as the turn of whoever asks is over.
    /// Its futures are dropped where they stand, and do no more I/O. One that is down stays down.
    ///
    /// # Panics
    ///
    /// When it is a client: the simulation would never be over.
    pub fn crash(&self, host: &str, how: Crash) {
        let host = self.host(host);
        self.world.order(Order::Crash { host, how });
    }

    /// Starts a host that is down, with a fresh program. One that is up goes on.
    pub fn restart(&self, host: &str) {
        let host = self.host(host);
        self.world.order(Order::Restart { host });
    }

    /// Sends a host SIGTERM, as soon as the turn of whoever asks is over: its program hears of it
    /// by [`terminate`](crate::signal::terminate). One that has never waited for it is killed, as
    /// by [`Crash::Kill`]. A host that is down hears nothing.
    ///
    /// # Panics
    ///
    /// When it is a client that has never waited for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use quoit::sim::{self, Sim};
    ///
    /// let mut sim = Sim::new(1);
    /// sim.host("server", || async {
    ///     quoit::signal::terminate().await.unwrap();
    ///     sim::note("ends in order");
    /// });
    /// sim.at(Duration::from_secs(1), |world| world.terminate("server"));
    /// sim.client("client", quoit::time::sleep(Duration::from_secs(2)));
    /// sim.run().unwrap();
    /// assert!(sim.trace().contains("says: ends in order"));
    /// ```
    pub fn terminate(&self, host: &str) {
        let host = self.host(host);
        self.world.order(Order::Signal { host, signal: Signal::Terminate });
    }

    /// Sends a host SIGINT, as [`terminate`](Self::terminate) does SIGTERM: its program hears of it
    /// by [`ctrl_c`](crate::signal::ctrl_c).
    ///
    /// # Panics
    ///
    /// When it is a client that has never waited for it.
    pub fn interrupt(&self, host: &str) {
        let host = self.host(host);
        self.world.order(Order::Signal { host, signal: Signal::Interrupt });
    }

    /// Whether a host is up.
    #[must_use]
    pub fn is_up(&self, host: &str) -> bool {
        let host = self.host(host);
        self.world.with(|state| state.is_host_up(host))
    }

    /// Has the clock of a host jump forwards: timers that this makes due fire at once.
    pub fn jump_clock(&self, host: &str, by: Duration) {
        let host = self.host(host);
        self.world.with(|state| state.jump(host, nanoseconds(by)));
    }

    /// Has the clock of a host drift from now on: it gains so many microseconds in each second, or
    /// loses them if they are negative, and its time of day with it. Zero ends that.
    ///
    /// # Panics
    ///
    /// For a million or more below zero: the clock would stand, or go back.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use quoit::sim::{self, Sim};
    /// use quoit::time::sleep;
    ///
    /// let mut sim = Sim::new(1);
    /// sim.host("server", || async {
    ///     sleep(Duration::from_secs(10)).await;
    ///     sim::note("the lease has expired");
    /// });
    /// sim.world().drift_clock("server", 10_000); // one in a hundred
    /// sim.client("client", sleep(Duration::from_millis(9_910)));
    /// sim.run().unwrap();
    /// assert!(sim.trace().contains("the lease has expired"));
    /// ```
    pub fn drift_clock(&self, host: &str, parts_per_million: i32) {
        let host = self.host(host);
        self.world.with(|state| state.set_rate(host, parts_per_million));
    }

    /// Has the time of day of a host jump forwards, and nothing else: see
    /// [`time_of_day`](crate::time::time_of_day).
    pub fn wall_clock_forwards(&self, host: &str, by: Duration) {
        self.jump_wall(host, i64::try_from(by.as_nanos()).unwrap_or(i64::MAX));
    }

    /// Has the time of day of a host jump backwards, and nothing else.
    pub fn wall_clock_backwards(&self, host: &str, by: Duration) {
        self.jump_wall(host, i64::try_from(by.as_nanos()).map_or(i64::MIN, |by| -by));
    }

    fn jump_wall(&self, host: &str, by: i64) {
        let host = self.host(host);
        self.world.with(|state| state.jump_wall(host, by));
    }

    /// Has something happen so much later.
    pub fn after(&self, wait: Duration, action: impl FnOnce(&Self) + 'static) {
        let time = self.world.with(|state| state.now()).saturating_add(nanoseconds(wait));
        let world = self.clone();
        self.world.order(Order::At { time, action: Box::new(move || action(&world)) });
    }

    /// Looks into the disk of a host, up or down, or changes it: its files and its faults.
    ///
    /// A host that [crashes](Self::crash) for want of power keeps what was synced; see
    /// [`Survival`](super::Survival).
    ///
    /// # Panics
    ///
    /// When `look` itself asks the world for something.
    ///
    /// # Examples
    ///
    /// ```
    /// use quoit::sim::{self, Sim};
    ///
    /// let mut sim = Sim::new(1);
    /// sim.client("reader", async {
    ///     sim::world().disk("reader", |disk| disk.put("/etc/motto", b"nothing is lost"));
    ///     assert_eq!(quoit::fs::read("/etc/motto").await.unwrap(), b"nothing is lost");
    /// });
    /// sim.run().unwrap();
    /// ```
    pub fn disk<R>(&self, host: &str, look: impl FnOnce(&mut Disk) -> R) -> R {
        let host = self.host(host);
        self.world.with(|state| look(state.disk(host)))
    }

    /// What has become of all connections and bytes.
    #[must_use]
    pub fn books(&self) -> Books {
        self.world.books()
    }

    /// Choices for a program, of the world's seed and this number.
    #[must_use]
    pub fn chance(&self, number: u64) -> Chance {
        Chance::of(self.world.seed(), 2 << 32 ^ number)
    }

    /// Puts a line into the trace.
    pub fn note(&self, text: impl fmt::Display) {
        self.world.note(&text.to_string());
    }

    fn host(&self, name: &str) -> usize {
        let host = self.world.with(|state| state.host_named(name));
        host.unwrap_or_else(|| panic!("no host of this simulation is called {name:?}"))
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.world.seed())
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}
