//! The server process: this executable again, with `--serve`.

use std::io;
use std::pin::pin;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::{Either, select};
use quoit::__private::trace::{self, Span, SpanKind};
use quoit::net::TcpListener;
use quoit::{RingChoice, Runtime};

use crate::cli::{Driver, Options, Pin};
use crate::control::{self, Calls, Hello, Server, TurnEvent, TurnKind};
use crate::{echo, system};

/// Starts a server child on `core`, or on any.
pub(crate) fn start(
    driver: Driver,
    core: Option<usize>,
    spin: u64,
    trace: usize,
) -> io::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--control", "--serve", driver.name()]);
    command.args(["--spin", &spin.to_string(), "--trace", &trace.to_string()]);
    if let Some(core) = core {
        command.args(["--pin", &format!("{core}:{core}")]);
    }
    Server::start(command).map_err(|error| {
        io::Error::new(error.kind(), format!("starting the {} server: {error}", driver.name()))
    })
}

/// The runtime that is measured.
pub(crate) fn runtime(driver: Driver, spin: u64) -> io::Result<Runtime> {
    let builder = Runtime::builder().spin(Duration::from_micros(spin));
    let builder = match driver {
        Driver::Readiness => builder.ring(RingChoice::Readiness),
        Driver::Uring => builder.ring(RingChoice::Uring),
        Driver::UringSubmit => builder.ring(RingChoice::Uring).send_inline(false),
    };
    builder.build()
}

/// `--serve`: serves until killed or, with `--control`, until stdin ends.
pub(crate) fn run(driver: Driver, options: &Options) -> io::Result<()> {
    system::raise_descriptor_limit()?;
    // Before the runtime: every thread it starts inherits the core.
    if let Some(Pin::Cores { server, .. }) = options.pin {
        system::pin_to(server)?;
    }
    let runtime = runtime(driver, options.spin)?;
    let ring = runtime.ring();
    let mut hello = Hello {
        port: 0,
        ring: ring.kind().to_string(),
        reason: ring.reason().to_owned(),
        remedy: ring.remedy().map(str::to_owned),
        flags: ring.flags().to_owned(),
    };
    let (sender, questions) = unbounded();
    trace::start(if options.control { options.trace } else { 0 });
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
        // Accepted sockets inherit it.
        let cubic = system::set_cubic(&listener);
        hello.port = listener.local_addr()?.port();
        if options.control {
            thread::spawn(move || control_thread(&hello, &sender));
        } else {
            println!("echo on 127.0.0.1:{}, ring {}: {}", hello.port, hello.ring, hello.reason);
            if let Err(error) = cubic {
                println!("the machine's default congestion control stays: {error}");
            }
            drop(sender); // nobody will ask
        }
        match select(pin!(echo::serve(listener)), pin!(tell(questions, &runtime))).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(((), serving)) => serving.await,
        }
    })
}

/// What only the core can answer: counters and record belong to it.
enum Question {
    Calls(mpsc::Sender<Calls>),
    Trace(mpsc::Sender<Vec<TurnEvent>>),
}

async fn tell(mut questions: UnboundedReceiver<Question>, runtime: &Runtime) {
    while let Some(question) = questions.next().await {
        // Whoever asked may have given up.
        match question {
            Question::Calls(answer) => drop(answer.send(calls(runtime))),
            Question::Trace(answer) => drop(answer.send(recorded())),
        }
    }
}

/// What the loop has recorded, from its first span on.
pub(crate) fn recorded() -> Vec<TurnEvent> {
    let mut spans = trace::take();
    // They stand in the order of their ends, and a task's calls end before it does.
    spans.sort_by_key(|span| (span.began, std::cmp::Reverse(span.took)));
    let first = spans.first().map_or(0, |span| span.began);
    let event = |span: &Span| {
        let kind = match span.kind {
            SpanKind::Enter => TurnKind::Enter,
            SpanKind::Receive => TurnKind::Recv,
            SpanKind::Send => TurnKind::Send,
            SpanKind::Task => TurnKind::Task,
            _ => TurnKind::Call,
        };
        TurnEvent { t_ns: span.began - first, kind, n: span.n, took_ns: Some(span.took) }
    };
    spans.iter().map(event).collect()
}

/// What the runtime has asked of the kernel so far.
pub(crate) fn calls(runtime: &Runtime) -> Calls {
    let metrics = runtime.metrics();
    Calls {
        turns: metrics.turns,
        enters: metrics.ring.enters,
        direct: metrics.ring.direct_calls,
        registrations: metrics.ring.registrations,
        pool_jobs: metrics.ring.pool_jobs,
    }
}

fn control_thread(hello: &Hello, core: &UnboundedSender<Question>) {
    let calls = || ask(core, Question::Calls);
    let trace = || ask(core, Question::Trace).unwrap_or_default();
    let outcome = control::answer(hello, calls, trace);
    if let Err(error) = &outcome {
        eprintln!("duel: control pipe: {error}");
    }
    std::process::exit(i32::from(outcome.is_err()));
}

fn ask<T>(
    core: &UnboundedSender<Question>,
    question: fn(mpsc::Sender<T>) -> Question,
) -> Option<T> {
    let (sender, answer) = mpsc::channel();
    core.unbounded_send(question(sender)).ok()?;
    answer.recv_timeout(Duration::from_secs(5)).ok()
}
