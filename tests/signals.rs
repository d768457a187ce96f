//! Signals, raised for real. They belong to the whole process: the tests here take turns, and what
//! would end the process (or changes it for good) is done by a child.

use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::pin::{Pin, pin};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use quoit::signal::{ctrl_c, terminate};
use quoit::time::{sleep, timeout};
use quoit::{RingChoice, Runtime};

/// One test at a time raises signals.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const RINGS: [RingChoice; 2] = [RingChoice::Uring, RingChoice::Readiness];

/// Long enough for a signal to have been delivered, if it was going to be.
const A_WHILE: Duration = Duration::from_millis(50);

/// Never reached, unless something hangs.
const LIMIT: Duration = Duration::from_secs(20);

fn raise(signal: i32) {
    // SAFETY: no pointers; the tests that call this have the signal caught.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

/// Polls once, with a waker that nobody hears.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Registers a future from within a task: awaiting it has begun afterwards.
async fn begin<F: Future>(mut future: Pin<&mut F>) {
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[test]
fn waits_may_be_sent_and_shared() {
    fn check<T: Send + Sync>(_: &T) {}
    check(&ctrl_c());
    check(&terminate());
}

#[quoit::test]
async fn a_signal_ends_the_wait_and_only_its_own() {
    let _turn = TURN.lock().await;
    let (mut interrupt, mut end) = (pin!(ctrl_c()), pin!(terminate()));
    begin(interrupt.as_mut()).await;
    begin(end.as_mut()).await;

    raise(libc::SIGTERM);
    timeout(LIMIT, end.as_mut()).await.expect("SIGTERM is heard").expect("it is no error");
    assert!(timeout(A_WHILE, interrupt.as_mut()).await.is_err(), "SIGTERM is no SIGINT");

    raise(libc::SIGINT);
    timeout(LIMIT, interrupt.as_mut()).await.expect("SIGINT is heard").expect("it is no error");
}

#[quoit::test]
async fn a_sleeping_core_is_woken() {
    let _turn = TURN.lock().await;
    let mut end = pin!(terminate());
    begin(end.as_mut()).await;
    let raiser = thread::spawn(|| {
        // By now the core has nothing to do but to wait in the kernel.
        thread::sleep(A_WHILE);
        raise(libc::SIGTERM);
    });
    timeout(LIMIT, end).await.expect("it is heard").expect("it is no error");
    raiser.join().expect("the thread does not panic");
}

#[quoit::test]
async fn what_came_before_the_first_poll_is_not_heard() {
    let _turn = TURN.lock().await;
    let mut early = pin!(terminate());
    begin(early.as_mut()).await;
    let late = terminate(); // called before the signal, polled after it
    raise(libc::SIGTERM);
    timeout(LIMIT, early).await.expect("it is heard").expect("it is no error");

    let mut late = pin!(late);
    assert!(timeout(A_WHILE, late.as_mut()).await.is_err(), "that was before");
    raise(libc::SIGTERM);
    timeout(LIMIT, late).await.expect("the next is heard").expect("it is no error");
}

#[test]
fn every_task_on_every_thread_hears_it() {
    const THREADS: usize = 4;
    const TASKS: usize = 25;
    let _turn = TURN.blocking_lock();
    let (waiting, all_wait) = mpsc::channel();
    let threads: Vec<_> = (0..THREADS)
        .map(|index| {
            let waiting = waiting.clone();
            thread::spawn(move || {
                let runtime = Runtime::builder().ring(RINGS[index % 2]).build()?;
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..TASKS).map(|_| quoit::spawn(ctrl_c())).collect();
                    quoit::task::yield_now().await;
                    waiting.send(()).expect("the test waits");
                    for task in tasks {
                        timeout(LIMIT, task).await.expect("each hears it").expect("no panic")?;
                    }
                    std::io::Result::Ok(())
                })
            })
        })
        .collect();
    (0..THREADS).for_each(|_| all_wait.recv_timeout(LIMIT).expect("each thread gets to wait"));
    raise(libc::SIGINT);
    for thread in threads {
        thread.join().expect("no thread panics").expect("no wait fails");
    }
}

#[quoit::test]
async fn a_storm_of_signals_loses_no_wait() {
    let _turn = TURN.lock().await;
    for _ in 0..500 {
        let mut end = pin!(terminate());
        begin(end.as_mut()).await;
        let raiser = thread::spawn(|| raise(libc::SIGTERM));
        timeout(LIMIT, end).await.expect("each wait hears its signal").expect("it is no error");
        raiser.join().expect("the thread does not panic");
    }
}

#[test]
fn no_runtime_is_needed() {
    let _turn = TURN.blocking_lock();
    let mut end = pin!(terminate());
    assert!(poll_once(end.as_mut()).is_pending());
    raise(libc::SIGTERM);
    futures::executor::block_on(end).expect("it is no error");
}

/// Counts wakes, and how many hold it.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_dropped_wait_leaves_nothing_behind() {
    let _turn = TURN.blocking_lock();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let holders = Arc::strong_count(&bell);
    {
        let mut end = Box::pin(terminate());
        assert!(end.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(Arc::strong_count(&bell) > holders, "the wait is registered");
    }
    assert_eq!(Arc::strong_count(&bell), holders, "and it is not any more");
    let mut other = pin!(terminate());
    assert!(poll_once(other.as_mut()).is_pending());
    raise(libc::SIGTERM);
    futures::executor::block_on(other).expect("it is no error");
    assert_eq!(bell.0.load(Ordering::SeqCst), 0, "nobody who left is woken");
}

#[test]
fn the_last_waker_is_woken_once() {
    let _turn = TURN.blocking_lock();
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    let mut end = pin!(terminate());
    for bell in &bells {
        let waker = Waker::from(bell.clone());
        assert!(end.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    // Registered later, hence woken later.
    let mut later = pin!(terminate());
    assert!(poll_once(later.as_mut()).is_pending());
    raise(libc::SIGTERM);
    futures::executor::block_on(later).expect("it is no error");
    while bells[1].0.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    assert!(poll_once(end).is_ready());
    assert_eq!(bells.map(|bell| bell.0.load(Ordering::SeqCst)), [0, 1]);
}

#[test]
fn a_waker_that_panics_harms_nobody_else() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics, as the test wants it");
        }
    }
    let _turn = TURN.blocking_lock();
    let mut bomb = pin!(terminate());
    let waker = Waker::from(Arc::new(Bomb));
    assert!(bomb.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..2 {
        let mut end = pin!(terminate());
        assert!(poll_once(end.as_mut()).is_pending());
        raise(libc::SIGTERM);
        futures::executor::block_on(end).expect("it is no error");
    }
}

#[test]
fn programs_that_are_executed_have_the_default_again() {
    let _turn = TURN.blocking_lock();
    assert!(poll_once(pin!(terminate())).is_pending());
    let status = Command::new("sh").args(["-c", "kill $$; echo alive"]).status();
    assert_eq!(status.expect("there is a shell").signal(), Some(libc::SIGTERM));
}

/// What has to happen in a process of its own. Each case says a line, gets a signal, and goes on.
mod case {
    use super::*;

    fn say(line: &str) {
        println!("case: {line}");
    }

    #[test]
    #[ignore = "a case for a child process"]
    fn waits_on_nothing() {
        say("ready");
        thread::sleep(LIMIT);
    }

    #[quoit::test(ring = "readiness")]
    #[ignore = "a case for a child process"]
    async fn waited_once() {
        begin(pin!(terminate())).await;
        say("ready");
        // Nobody waits any more, and still the signal does not end the process.
        sleep(A_WHILE * 4).await;
        say("survived");
    }

    #[test]
    #[ignore = "a case for a child process"]
    fn was_handled_before() {
        static HEARD: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn hear(_: libc::c_int) {
            HEARD.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the handler does nothing but an atomic addition.
        let before = unsafe { libc::signal(libc::SIGTERM, hear as *const () as usize) };
        assert_eq!(before, libc::SIG_DFL);
        let mut end = pin!(terminate());
        assert!(poll_once(end.as_mut()).is_pending());
        say("ready");
        futures::executor::block_on(end).expect("it is no error");
        assert_eq!(HEARD.load(Ordering::SeqCst), 1, "both of us hear it");
        say("survived");
    }
}

/// Runs a case, signals it when it is ready, and answers how it ended and whether it lived on.
fn run_case(name: &str) -> (ExitStatus, bool) {
    let mut command = Command::new(std::env::current_exe().expect("this is a program"));
    command.args(["--exact", &format!("case::{name}"), "--ignored", "--nocapture"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it can be run again");
    let mut survived = false;
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    // The harness prints the test's name in front of the first line.
    for line in output.lines().map(|line| line.expect("it is text")) {
        if line.contains("case: ready") {
            signal(&child);
        }
        survived |= line.contains("case: survived");
    }
    (child.wait().expect("it is our child"), survived)
}

fn signal(child: &Child) {
    let id = i32::try_from(child.id()).expect("process ids are small");
    // SAFETY: no pointers; our own child, which has not been waited for.
    assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
}

#[test]
fn before_the_first_wait_the_default_stands() {
    assert_eq!(run_case("waits_on_nothing").0.signal(), Some(libc::SIGTERM));
}

#[test]
fn after_the_first_wait_the_default_is_gone() {
    let (status, survived) = run_case("waited_once");
    assert!(status.success() && survived, "{status}");
}

#[test]
fn a_handler_that_was_there_is_still_called() {
    let (status, survived) = run_case("was_handled_before");
    assert!(status.success() && survived, "{status}");
}
