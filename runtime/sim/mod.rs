//! Deterministic simulation: whole programs, on several hosts, in a world that a seed decides.
//!
//! A test that starts a server and some clients runs them on the machine's clock, its network and
//! its scheduler: it is slow, it differs from run to run, and the interesting failures never come.
//! Here the same programs, unchanged, run on a kernel in memory. Time jumps when nobody has
//! anything to do. Connections have latency, break, stall and are refused; hosts crash and start
//! again; completions come in any order. And the same seed gives the same run, event by event.
//!
//! ```
//! use std::time::Duration;
//! use quoit::net::{TcpListener, TcpStream};
//! use quoit::sim::Sim;
//!
//! async fn serve() {
//!     let listener = TcpListener::bind("0.0.0.0:80").await.expect("nobody else is here");
//!     loop {
//!         // The kernel may be short of descriptors: the next call gets the connection.
//!         let Ok((stream, _)) = listener.accept().await else { continue };
//!         quoit::spawn(async move {
//!             while let Ok(lease) = stream.recv().await {
//!                 if lease.is_empty() || stream.send_all(lease).await.is_err() {
//!                     break;
//!                 }
//!             }
//!         });
//!     }
//! }
//!
//! let mut sim = Sim::new(7);
//! sim.host("server", serve);
//! sim.client("client", async {
//!     quoit::time::sleep(Duration::from_secs(3600)).await; // takes no time
//!     let stream = TcpStream::connect("server:80").await?;
//!     stream.send_all("around the world").await?;
//!     let mut echo = [0; 16];
//!     stream.read_exact(&mut echo).await?;
//!     assert_eq!(&echo, b"around the world");
//!     std::io::Result::Ok(())
//! });
//! sim.run().unwrap();
//! ```
//!
//! # What a host is
//!
//! A name, which others resolve, two addresses (`10.0.0.N` and `fd00::N`, counted from one), a
//! clock, and one or more cores, each a production [`Runtime`](crate::Runtime) on the simulated
//! ring. A [`host`](Sim::host) runs a program that can be started again after a crash; a
//! [`client`](Sim::client) is part of the test, and the simulation is over when all clients have
//! returned. Then the hosts' programs are ended as a dropped runtime ends.
//!
//! # What goes wrong
//!
//! By itself, what may go wrong on one machine: completions come late and in any order, sends are
//! short, buffers and descriptors run out, rings are full ([`Rings`]), the kernel is interrupted.
//! What is done to a world is planned ([`Sim::at`]), done by a program ([`World`]), or drawn from
//! the seed ([`Sim::faults`], [`DiskOptions::drawn`]).
//!
//! # What must not leak in
//!
//! All I/O, time, spawning and blocking work of quoit is simulated, [`spawn_blocking`] included: it
//! runs later, on this thread. What a program takes from elsewhere is not: the standard library's
//! clocks ([`quoit::time`](crate::time) has the host's), threads, random numbers (a `HashMap` with
//! its default hasher iterates in another order in each process), and `thread_local!`, which all
//! hosts of a world share. Two runs of the same seed then differ, and [`check`] says so.
//!
//! A simulated socket has no descriptor: `AsFd` and `as_raw_fd` panic. Further runtimes inside the
//! simulation answer [`Unsupported`](std::io::ErrorKind::Unsupported). A host's signals are those
//! that [`World::terminate`] and [`World::interrupt`] send it.
//!
//! The [explorers](explore) disturb one program everywhere, one run after the other: they cancel
//! each of its futures at every poll, and refuse it every call.
//!
//! [`spawn_blocking`]: crate::task::spawn_blocking

mod check;
pub(crate) mod driver;
pub mod explore;
mod failure;
mod faults;
pub(crate) mod further;
mod machine;
mod settings;
mod world;

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

pub use self::check::check;
use self::driver::{Driver, Plan, Step};
use self::failure::Details;
pub use self::failure::{Failure, FailureKind};
pub use self::faults::Faults;
use self::machine::{Main, Program};
pub use self::settings::Link;
use self::settings::Settings;
pub use self::world::{World, note, world};
use crate::io::ring::simulated::world::World as Kernel;
pub use crate::io::ring::simulated::{Books, Chance, Crash, Disk, DiskOptions, Rings, Survival};
use crate::runtime::builder::nanoseconds;
use crate::runtime::one::Report;
use crate::runtime::{Builder, CoreHandle, Metrics};

/// What a program of a simulation may return: `()`, nothing at all because it has no end, or a
/// `Result` whose error fails the simulation.
#[diagnostic::on_unimplemented(message = "a simulated program returns `()` or a `Result`")]
pub trait Outcome {
    #[doc(hidden)]
    fn outcome(self) -> Result<(), String>;
}

impl Outcome for () {
    fn outcome(self) -> Result<(), String> {
        Ok(())
    }
}

/// A program without an end: the only way to name its type is as what such a function returns.
#[expect(private_interfaces, reason = "the type that it names is a public one")]
impl Outcome for <fn() -> ! as Returns>::Output {
    fn outcome(self) -> Result<(), String> {
        self
    }
}

trait Returns {
    type Output;
}

impl<R> Returns for fn() -> R {
    type Output = R;
}

impl<T: Outcome, E: fmt::Debug> Outcome for Result<T, E> {
    fn outcome(self) -> Result<(), String> {
        match self {
            Ok(value) => value.outcome(),
            Err(error) => Err(format!("{error:?}")),
        }
    }
}

/// A simulation: a world, what runs in it, and how long it may take.
///
/// See the [module](self) for an example, and [`check`] for running many seeds.
pub struct Sim {
    world: Rc<Kernel>,
    driver: Driver<'static>,
    settings: Settings,
    faults: Option<Faults>,
    /// The faults that were drawn, for people.
    planned: String,
    time_limit: Duration,
    step_limit: u64,
    has_run: bool,
}

impl Sim {
    /// A world without hosts. The seed decides everything that is not set: latencies, the size of
    /// socket buffers and rings, the limits of the runtimes, who runs first, which completion comes
    /// when.
    ///
    /// The same seed gives the same world on every machine, for one version of this crate.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let settings = Settings::draw(seed);
        let world = Kernel::new(seed, settings.weather());
        world.set_rings(settings.rings);
        Self {
            driver: Driver::new(world.clone()),
            world,
            settings,
            faults: None,
            planned: String::new(),
            time_limit: Duration::from_secs(24 * 3600),
            step_limit: 20_000_000,
            has_run: false,
        }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.world.seed()
    }

    /// Adds a host that runs `program`, once at the beginning and again after each
    /// [`restart`](World::restart).
    ///
    /// An error that it returns fails the simulation, and so does a panic.
    ///
    /// # Panics
    ///
    /// When there is a host of this name.
    pub fn host<P, F>(&mut self, name: &str, mut program: P) -> Host<'_>
    where
        P: FnMut() -> F + 'static,
        F: Future<Output: Outcome> + 'static,
    {
        self.add(name, 1, false, Box::new(move |_| main(program())))
    }

    /// Adds a host with several cores, each of which runs `program`, as
    /// [`Builder::run`](crate::Builder::run) does. All of them share this thread.
    ///
    /// # Panics
    ///
    /// When there is a host of this name, and for no cores.
    ///
    /// # Examples
    ///
    /// ```
    /// use quoit::sim::Sim;
    ///
    /// let mut sim = Sim::new(1);
    /// sim.cores("pair", 2, |core| async move {
    ///     let other = (core.index() + 1) % core.count();
    ///     assert_eq!(core.spawn_on(other, || async { 20 }).await.unwrap(), 20);
    /// });
    /// sim.client("client", quoit::time::sleep(std::time::Duration::from_secs(1)));
    /// sim.run().unwrap();
    /// ```
    pub fn cores<P, F>(&mut self, name: &str, cores: usize, mut program: P) -> Host<'_>
    where
        P: FnMut(CoreHandle) -> F + 'static,
        F: Future<Output: Outcome> + 'static,
    {
        assert!(cores > 0, "a host needs a core");
        self.add(name, cores, false, Box::new(move |core| main(program(core))))
    }

    /// Adds a client: a host whose program is the test's own, runs once and does not crash. The
    /// simulation lasts until all clients have returned.
    ///
    /// # Panics
    ///
    /// When there is a host of this name.
    pub fn client<F>(&mut self, name: &str, program: F) -> Host<'_>
    where
        F: Future<Output: Outcome> + 'static,
    {
        let mut program = Some(program);
        let start = move |_| main(program.take().expect("a client has one life"));
        self.add(name, 1, true, Box::new(start))
    }

    fn add(
        &mut self,
        name: &str,
        cores: usize,
        is_client: bool,
        program: Program<'static>,
    ) -> Host<'_> {
        let builder = self.settings.builder();
        let name = name.to_owned();
        self.driver.add(Plan { name, program, builder, cores, is_client });
        Host { index: self.driver.last(), sim: self }
    }

    /// Sets what the links between hosts are like, instead of what the seed has drawn. Single ones
    /// can be changed with [`World::set_link`].
    pub fn links(&mut self, link: Link) -> &mut Self {
        self.settings.link = link;
        let weather = self.settings.weather();
        self.world.with(|state| state.set_weather(weather));
        self
    }

    /// Sets how many bytes a direction of a connection holds, sent and not received, at most,
    /// instead of what the seed has drawn. It is at least one.
    pub fn socket_buffers(&mut self, bytes: usize) -> &mut Self {
        self.settings.capacity_max = bytes.max(1);
        let weather = self.settings.weather();
        self.world.with(|state| state.set_weather(weather));
        self
    }

    /// Sets what the rings of all cores are like, instead of what the seed has drawn.
    pub fn rings(&mut self, rings: Rings) -> &mut Self {
        self.settings.rings = rings;
        self.world.set_rings(rings);
        self
    }

    /// Has something happen at a time of the world, counted from its beginning. What is planned for
    /// later than the last client's return does not happen.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use quoit::sim::{Crash, Sim};
    ///
    /// let mut sim = Sim::new(1);
    /// sim.host("db", || std::future::pending::<()>());
    /// sim.at(Duration::from_secs(1), |world| world.crash("db", Crash::PowerLoss));
    /// sim.at(Duration::from_secs(5), |world| world.restart("db"));
    /// sim.client("client", quoit::time::sleep(Duration::from_secs(10)));
    /// sim.run().unwrap();
    /// ```
    pub fn at(&mut self, after: Duration, action: impl FnOnce(&World) + 'static) -> &mut Self {
        let world = self.world();
        self.driver.at(nanoseconds(after), Box::new(move || action(&world)));
        self
    }

    /// Has faults happen at times that the seed draws, besides what is planned with
    /// [`at`](Self::at). What was drawn is told with a failure.
    pub fn faults(&mut self, faults: Faults) -> &mut Self {
        self.faults = Some(faults);
        self
    }

    /// How much time of the world may pass. Default: a day.
    pub fn time_limit(&mut self, limit: Duration) -> &mut Self {
        self.time_limit = limit;
        self
    }

    /// How many steps (turns of cores and arrivals) there may be. Default: 20 million.
    pub fn step_limit(&mut self, limit: u64) -> &mut Self {
        self.step_limit = limit;
        self
    }

    /// The world, to look at it and to change it.
    #[must_use]
    pub fn world(&self) -> World {
        World::new(self.world.clone())
    }

    /// What has become of all connections and bytes.
    #[must_use]
    pub fn books(&self) -> Books {
        self.world.books()
    }

    /// A hash of everything that has happened, in order: the same for each run of a seed.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.world.trace()
    }

    /// The last events, one a line.
    #[must_use]
    pub fn trace(&self) -> String {
        self.world.tell()
    }

    /// What was set, and what the seed has drawn.
    #[must_use]
    pub fn options(&self) -> String {
        format!("{}{}", self.settings, self.planned)
    }

    /// Keeps cores that have ended, for [`ends`](Self::ends), and gives them time to. For the
    /// library's own tests.
    #[doc(hidden)]
    pub fn keep_ends(&mut self) {
        self.driver.grace = Some(Duration::from_secs(60));
    }

    /// What the end of each core has come to, and what was counted by then.
    #[doc(hidden)]
    pub fn ends(&self) -> Vec<(Report, Metrics)> {
        self.driver.cores.iter().filter_map(machine::Core::result).collect()
    }

    /// Runs until every client has returned, and then ends the hosts' programs.
    ///
    /// # Errors
    ///
    /// When a program returns an error, when nothing can ever happen although a client waits, and
    /// when a limit is reached. The error tells who waits for what.
    ///
    /// # Panics
    ///
    /// With the panic of a program, when it was run before, without a client, and inside a runtime.
    pub fn run(&mut self) -> Result<(), Failure> {
        assert!(!self.has_run, "a simulation runs once");
        assert!(self.driver.has_clients(), "a simulation lasts until its clients have returned");
        self.has_run = true;
        if let Some(faults) = self.faults.take() {
            self.planned = faults.plan(self);
        }
        let _entered = self.world.clone().enter();
        self.driver.boot_all();
        while !self.driver.is_over() {
            self.check_limits()?;
            if self.driver.step() == Step::Stands {
                return Err(self.failure(FailureKind::Deadlock));
            }
            if let Some((host, error)) = self.driver.failed.take() {
                return Err(self.failure(FailureKind::Program { host, error }));
            }
        }
        self.driver.end_all();
        match self.driver.failed.take() {
            Some((host, error)) => Err(self.failure(FailureKind::Program { host, error })),
            None => Ok(()),
        }
    }

    fn check_limits(&self) -> Result<(), Failure> {
        let now = self.world.with(|state| state.now());
        if self.driver.steps >= self.step_limit {
            Err(self.failure(FailureKind::StepLimit))
        } else if now > nanoseconds(self.time_limit) {
            Err(self.failure(FailureKind::TimeLimit))
        } else {
            Ok(())
        }
    }

    fn failure(&self, kind: FailureKind) -> Failure {
        let after = Duration::from_nanos(self.world.with(|state| state.now()));
        let (seed, waiting, trace) = (self.seed(), self.driver.describe(), self.trace());
        Failure::new(Details { kind, seed, after, waiting, options: self.options(), trace })
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.seed())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn main<F: Future<Output: Outcome> + 'static>(program: F) -> Main<'static> {
    Box::pin(async move { program.await.outcome() })
}

/// A host that was just added, for further settings.
#[derive(Debug)]
pub struct Host<'a> {
    sim: &'a mut Sim,
    index: usize,
}

impl Host<'_> {
    /// Makes its cores from this builder, instead of one whose limits the seed has drawn. Ring,
    /// cores, pinning, spinning and threads are the simulation's own affair.
    pub fn runtime(&mut self, builder: Builder) -> &mut Self {
        self.sim.driver.plan_mut(self.index).builder = builder;
        self
    }

    /// Sets its clock so much ahead of the others.
    pub fn clock_ahead(&mut self, by: Duration) -> &mut Self {
        self.sim.world.with(|state| state.jump(self.index, nanoseconds(by)));
        self
    }

    /// Its addresses: IPv4 and IPv6.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        self.sim.world.with(|state| state.addresses(self.index))
    }
}
