//! One program's run: two hosts that perform their lanes, a judge that waits for both, and what has
//! to hold afterwards.
//!
//! ```text
//!   lanes ─► tasks are aborted ─► every stream is finished: all bytes, then the end ─► closed
//!     └────────── an exit, a kill or a loss of power may come at any time ──────────┘
//! ```

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::future::{Either, join, join_all, select};
use quoit::sim::{self, Chance, Crash, DiskOptions, Link, Sim, World};
use quoit::{CoreHandle, time};

use crate::files::{self, Opened};
use crate::ledger::Shared;
use crate::place::{self, Held, Objects, Place};
use crate::program::{End, Event, How, Lane, Op, Program, Write};
use crate::streams;

const HOSTS: [&str; 2] = ["a", "b"];

/// What a program came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) failures: Vec<String>,
    pub(crate) trace: u64,
    /// Operations that did something.
    pub(crate) done: u64,
}

thread_local! {
    /// Where panics of this thread have happened, whoever caught them.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Has panics of programs noted instead of printed.
pub(crate) fn note_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
    }));
}

pub(crate) fn run(program: &Program) -> Outcome {
    let mut outcome = run_once(program, 0);
    // A wake that was lost is lost again, whenever it is noticed.
    let is_lost = |number| place::untold() > 0 && run_once(program, number).failures.is_empty();
    if outcome.failures.is_empty() && (1..4).all(is_lost) && place::untold() > 0 {
        outcome.failures.push("an operation was done, and nobody was woken".to_owned());
    }
    outcome
}

fn run_once(program: &Program, number: u64) -> Outcome {
    place::be_patient(number);
    PANICS.take();
    let shared = Shared::default();
    let mut sim = Sim::new(program.seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        set_up(&mut sim, program, &shared);
        let outcome = sim.run();
        if let Err(failure) = outcome {
            shared.lock().fail(format!("{failure}\n{}", failure.waiting()));
        } else {
            check(&sim, program, &shared);
        }
    }));
    let trace = sim.trace_hash();
    let gone = catch_unwind(AssertUnwindSafe(|| drop(sim)));
    let mut ledger = shared.lock();
    if outcome.is_err() || gone.is_err() {
        ledger.fail("a panic has ended the simulation");
    } else {
        ledger.check();
    }
    let panics = PANICS.take();
    ledger.failures.extend(panics);
    let alive = shared.alive.load(Ordering::Relaxed) - ledger.forgotten();
    if alive != 0 {
        ledger.fail(format!("{alive} buffers were never dropped"));
    }
    Outcome { failures: std::mem::take(&mut ledger.failures), trace, done: ledger.done }
}

fn set_up(sim: &mut Sim, program: &Program, shared: &Shared) {
    let mut chance = Chance::new(program.seed ^ 0x5EED);
    let least = Duration::from_micros(20 << chance.below(7));
    sim.links(Link::new(least, least * chance.up_to(4) as u32));
    if let Some(bytes) = program.tight {
        sim.socket_buffers(bytes);
    }
    sim.step_limit(300_000);
    if program.keeps {
        sim.keep_ends();
    }
    let program = Arc::new(program.clone());
    for (host, name) in HOSTS.into_iter().enumerate() {
        let (lives, shared_here) = (Lives::new(&program, host, shared), shared.clone());
        sim.cores(name, program.cores[host], move |core| {
            let place = lives.place(core);
            let (program, shared) = (lives.program.clone(), shared_here.clone());
            async move {
                if place.core.index() == 0 {
                    live(place, &program).await;
                    shared.lock().ended += 1;
                }
            }
        });
        let mut options = DiskOptions::drawn(&mut chance);
        if !program.disk_errors {
            options = options.open_errors(0).read_errors(0).write_errors(0);
            options = options.sync_errors(0).close_errors(0);
        }
        sim.world().disk(name, |disk| {
            disk.make_directory("/data");
            disk.set_options(options);
        });
    }
    plan_ends(sim, &program, shared);
    plan_events(sim, &program, shared);
    let (shared, last) = (shared.clone(), last_event(&program));
    sim.client("judge", async move { judge(&shared, last).await });
}

fn last_event(program: &Program) -> Duration {
    let restarts = program.restarts.iter().map(|(_, at)| *at);
    let ends = program.ends.iter().map(|(_, end)| match end {
        End::Exit(at) | End::Kill(at) | End::PowerLoss(at) => *at,
    });
    let events = program.events.iter().map(|(at, event)| match event {
        Event::Partition(time) | Event::Cut { time, .. } => at + time,
        Event::Reset | Event::Jump { .. } | Event::Wall { .. } => *at,
    });
    Duration::from_micros(restarts.chain(ends).chain(events).max().unwrap_or(0))
}

fn plan_events(sim: &mut Sim, program: &Program, shared: &Shared) {
    let [a, b] = HOSTS;
    for (at, event) in program.events.iter().copied() {
        shared.lock().silent |= matches!(event, Event::Partition(_) | Event::Cut { .. });
        let heals = move |world: &World, time| {
            world.after(Duration::from_micros(time), move |world| world.heal(a, b));
        };
        sim.at(Duration::from_micros(at), move |world| match event {
            Event::Partition(time) => {
                world.partition(a, b);
                heals(world, time);
            }
            Event::Cut { from, time } => {
                world.cut(HOSTS[from], HOSTS[1 - from]);
                heals(world, time);
            }
            Event::Reset => world.reset(a, b),
            Event::Jump { host, by } => world.jump_clock(HOSTS[host], Duration::from_micros(by)),
            Event::Wall { host, by, forwards: true } => {
                world.wall_clock_forwards(HOSTS[host], Duration::from_micros(by));
            }
            Event::Wall { host, by, forwards: false } => {
                world.wall_clock_backwards(HOSTS[host], Duration::from_micros(by));
            }
        });
    }
}

fn plan_ends(sim: &mut Sim, program: &Program, shared: &Shared) {
    for (host, end) in program.ends.iter().copied() {
        let (at, how) = match end {
            End::Exit(_) => continue,
            End::Kill(at) => (at, Crash::Kill),
            End::PowerLoss(at) => (at, Crash::PowerLoss),
        };
        let shared = shared.clone();
        sim.at(Duration::from_micros(at), move |world| {
            let addresses = world.addresses(HOSTS[host]).map(Into::into);
            let mut ledger = shared.lock();
            ledger.crash(host, &addresses);
            if how == Crash::PowerLoss {
                ledger.power_lost(host);
            }
            drop(ledger);
            world.crash(HOSTS[host], how);
        });
    }
    for (host, at) in program.restarts.iter().copied() {
        sim.at(Duration::from_micros(at), move |world| world.restart(HOSTS[host]));
    }
}

/// Waits until both programs are over.
async fn judge(shared: &Shared, last: Duration) -> Result<(), String> {
    time::sleep(last + Duration::from_millis(1)).await;
    for _ in 0..3000 {
        let (started, ended, crashed) = {
            let ledger = shared.lock();
            (ledger.started, ledger.ended, ledger.crashed)
        };
        // A life that crashed does not end; nor is it known how many of them there were.
        let up = (0..2).filter(|host| crashed[*host] && !sim::world().is_up(HOSTS[*host])).count();
        if ended + up >= 2 && (ended == started || crashed.contains(&true)) {
            return Ok(());
        }
        time::sleep(Duration::from_secs(1)).await;
    }
    Err("a program never ends".to_owned())
}

/// The lives of a host, one after the other.
struct Lives {
    program: Arc<Program>,
    host: usize,
    shared: Shared,
    /// Of the life that goes on: they go with the last task that can reach them.
    objects: RefCell<Weak<Mutex<Objects>>>,
}

impl Lives {
    fn new(program: &Arc<Program>, host: usize, shared: &Shared) -> Self {
        let (program, shared) = (program.clone(), shared.clone());
        Self { program, host, shared, objects: RefCell::default() }
    }

    fn place(&self, core: CoreHandle) -> Place {
        let objects = self.objects.borrow().upgrade().unwrap_or_default();
        if core.index() == 0 {
            self.shared.lock().started += 1;
            self.objects.replace(Arc::downgrade(&objects));
        }
        let (host, shared, cores) = (self.host, self.shared.clone(), core.count());
        let linger = self.program.linger.map(Duration::from_micros);
        Place { host, core, cores, linger, objects, shared }
    }
}

/// The program of one life: over when it is, or at its exit.
async fn live(place: Place, program: &Program) {
    let exit = program.ends.iter().find_map(|(host, end)| match end {
        End::Exit(at) if *host == place.host => Some(Duration::from_micros(*at)),
        _ => None,
    });
    let lanes: Vec<Lane> =
        program.lanes.iter().filter(|lane| lane.host == place.host).cloned().collect();
    let whole = async {
        perform_all(&place, lanes).await;
        finish(&place).await;
    };
    match exit {
        None => whole.await,
        Some(at) => {
            let exit = pin!(time::sleep(at));
            if let Either::Right(_) = select(pin!(whole), exit).await {
                // Everything stands where it stood: the runtime's end has to clear it.
            }
        }
    }
}

async fn perform_all(place: &Place, lanes: Vec<Lane>) {
    let mut tasks = Vec::new();
    for Lane { core, ops, .. } in lanes {
        let task = place::spawn(place, core, |place| perform_lane(place, ops));
        place.objects().lanes.push(task.abort_handle());
        tasks.push(task);
    }
    for task in &mut tasks {
        place::join(place, task).await;
    }
    let tasks: Vec<_> = place.objects().tasks.iter_mut().filter_map(Option::take).collect();
    for mut task in tasks {
        task.abort();
        place::join(place, &mut task).await;
    }
    // Those that nobody holds end by themselves.
    while place.objects().running > 0 {
        time::sleep(Duration::from_millis(100)).await;
    }
}

async fn perform_lane(place: Place, ops: Vec<Op>) {
    for op in ops {
        place::perform(place.clone(), op).await;
    }
}

/// Brings everything that is there to its end, where all that was promised can be seen.
async fn finish(place: &Place) {
    let listeners: Vec<_> = place.objects().listeners.iter_mut().filter_map(Option::take).collect();
    let mut streams = Vec::new();
    for listener in listeners.into_iter().filter_map(Arc::into_inner) {
        streams.extend(place.objects().streams.iter_mut().filter_map(Option::take));
        streams::close(place, listener, 0, How::Full).await;
    }
    streams.extend(place.objects().streams.iter_mut().filter_map(Option::take));
    // Without its reader nobody takes what comes, and the peer may wait for that: it is closed. So
    // is one in whose lines a future stands that was forgotten.
    let readers: Vec<_> = streams.iter().filter_map(reader_ways).collect();
    streams.retain(|held| {
        let (Held::Whole(_, ways) | Held::Reader(_, ways) | Held::Writer(_, ways)) = held;
        let is_read = !matches!(held, Held::Writer(..)) || readers.contains(ways);
        is_read && !place.shared.lock().is_stuck(*ways)
    });
    // A stream is served by one of the cores; on the others this fails at once.
    let finishing = (0..place.cores).map(|core| {
        let streams = streams.clone();
        let mut task = place::spawn(place, core, move |place| finish_streams(place, streams));
        async move { place::join(place, &mut task).await }
    });
    let finishing = join_all(finishing.collect::<Vec<_>>());
    let limit = Duration::from_secs(600);
    if time::timeout(limit, finishing).await.is_err() && !place.shared.lock().silent {
        place.shared.lock().fail(format!("streams of host {} have no end", place.host));
    }
    for held in streams {
        let Held::Whole(stream, _) = held else { continue };
        if let Some(stream) = Arc::into_inner(stream) {
            // Of another core, or reset.
            let _ = time::timeout(limit, stream.close()).await;
        }
    }
    finish_files(place).await;
    let leases = std::mem::take(&mut place.objects().leases);
    leases.into_iter().for_each(|lease| place.let_go(lease));
}

fn reader_ways(held: &Held) -> Option<(usize, usize)> {
    if let Held::Reader(_, ways) = held { Some(*ways) } else { None }
}

async fn finish_streams(place: Place, streams: Vec<Held>) {
    let finish = |held: Held| {
        let place = &place;
        let writing = async |held: &Held| {
            // On other cores it would only fail.
            if place.cores == 1 && !matches!(held, Held::Reader(..)) {
                streams::write(place, held, Write::All, 50, How::Full).await;
            }
            streams::shut_down(place, held).await;
        };
        async move { join(writing(&held), read_to_end(place, &held)).await }
    };
    join_all(streams.into_iter().map(finish)).await;
}

async fn read_to_end(place: &Place, held: &Held) {
    let (Held::Whole(_, (_, way)) | Held::Reader(_, (_, way)) | Held::Writer(_, (_, way))) = held;
    if let Err(error) = read_all(place, held).await {
        streams::read_failed(place, *way, &error);
    }
}

/// By slice and by lease in turn, and both see the end.
async fn read_all(place: &Place, held: &Held) -> io::Result<()> {
    let mut into = [0; 50];
    match held {
        Held::Whole(stream, (_, way)) => loop {
            let count = stream.read(&mut into).await?;
            streams::got(place, *way, &into[..count]);
            let lease = stream.recv().await?;
            streams::got(place, *way, &lease);
            if lease.is_empty() {
                return Ok(());
            }
        },
        Held::Reader(reader, (_, way)) => loop {
            let count = reader.read(&mut into).await?;
            streams::got(place, *way, &into[..count]);
            let lease = reader.recv().await?;
            streams::got(place, *way, &lease);
            if lease.is_empty() {
                return Ok(());
            }
        },
        Held::Writer(..) => Ok(()),
    }
}

/// Closes the files, and compares what the disk has.
async fn finish_files(place: &Place) {
    let files: Vec<_> = place.objects().files.iter_mut().filter_map(Option::take).collect();
    for opened in files.into_iter().filter_map(Arc::<Opened>::into_inner) {
        files::close(place, opened).await;
    }
    let mut ledger = place.shared.lock();
    if ledger.crashed[place.host] {
        return;
    }
    for number in 0..ledger.files[place.host].len() {
        let path = files::path(number);
        let there = sim::world().disk(HOSTS[place.host], |disk| disk.contents(&path));
        let model = &mut ledger.files[place.host][number];
        if let (true, Some(bytes)) = (model.closed, there) {
            let right = model.read(0, &bytes, true);
            if let Err(text) = right {
                ledger.fail(format!("file {number}, closed: {text}"));
            }
        }
    }
}

/// What has to hold when all is over.
fn check(sim: &Sim, program: &Program, shared: &Shared) {
    let mut ledger = shared.lock();
    let books = sim.books();
    let mut expect = |holds: bool, text: &str| {
        if !holds {
            ledger.failures.push(format!("{text}: {books:?}"));
        }
    };
    expect(books.are_balanced(), "the simulation itself has lost something");
    expect(books.leaked == 0, "descriptors are leaked");
    if !program.keeps {
        return;
    }
    expect(books.open == 0, "descriptors are open");
    let (mut accepted, mut delivered, mut undelivered) = (0, 0, 0);
    for (report, metrics) in sim.ends() {
        let resources = metrics.resources;
        accepted += resources.connections_accepted;
        delivered += resources.connections_delivered;
        undelivered += resources.connections_undelivered;
        let text = format!("the books of a core: {report:?} {metrics:?}");
        let alive = [
            metrics.streams_open,
            metrics.listeners_open,
            metrics.operations_open,
            metrics.requests_in_flight,
            metrics.leases_out,
            metrics.tasks_alive,
        ];
        let is_empty = alive == [0; 6] && resources.unknown_completions == 0;
        expect(report.is_clean() && is_empty, &text);
    }
    expect(accepted == delivered + undelivered, "an accepted connection is lost");
    let (handed, discarded) = (ledger.handed, ledger.discarded);
    if !ledger.crashed.contains(&true) {
        let is_exact = if discarded { delivered >= handed } else { delivered == handed };
        if !is_exact || books.accepted != accepted {
            let text = format!("{delivered} connections delivered, {handed} received: {books:?}");
            ledger.failures.push(text);
        }
    }
}
