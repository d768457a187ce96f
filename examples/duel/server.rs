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
use quoit::net::TcpListener;
use quoit::{RingChoice, Runtime};

use crate::cli::{Driver, Options, Pin};
use crate::control::{self, Calls, Hello, Server};
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
    let choice = match driver {
        Driver::Readiness => RingChoice::Readiness,
        Driver::Uring => RingChoice::Uring,
    };
    Runtime::builder().ring(choice).spin(Duration::from_micros(spin)).build()
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

/// The ring's counters belong to its core, so they are read there.
async fn tell(mut questions: UnboundedReceiver<mpsc::Sender<Calls>>, runtime: &Runtime) {
    while let Some(answer) = questions.next().await {
        // The asker may have given up.
        let _ = answer.send(calls(runtime));
    }
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

fn control_thread(hello: &Hello, core: &UnboundedSender<mpsc::Sender<Calls>>) {
    let ask = || {
        let (sender, answer) = mpsc::channel();
        core.unbounded_send(sender).ok()?;
        answer.recv_timeout(Duration::from_secs(5)).ok()
    };
    let outcome = control::answer(hello, ask, Vec::new);
    if let Err(error) = &outcome {
        eprintln!("duel: control pipe: {error}");
    }
    std::process::exit(i32::from(outcome.is_err()));
}
