//! `#[quoit::test]` seen from outside: this program runs its own ignored tests in a child process,
//! with an environment, and judges what the harness said of them.
//!
//! The cases that must fail are why: a test attribute whose failures are lost would turn every
//! other test here into decoration.

use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The cases run in a child; each is ignored in the ordinary run.
mod case {
    use super::{AtomicUsize, Ordering};
    use std::io;
    use std::time::Duration;

    #[quoit::test]
    #[ignore = "a case for a child process"]
    async fn counts() {
        println!("one run");
    }

    #[quoit::test(ring = "readiness")]
    #[ignore = "a case for a child process"]
    async fn counts_readiness() {
        println!("one run");
    }

    #[quoit::test(seeds = 3)]
    #[ignore = "a case for a child process"]
    async fn counts_seeds() {
        println!("one run");
    }

    #[quoit::test(seeds = 1)]
    #[ignore = "a case for a child process"]
    async fn asks_the_machine() {
        let file = quoit::fs::File::open("/proc/self/exe").await;
        assert!(file.is_ok(), "no such file in a simulation");
    }

    #[quoit::test]
    #[ignore = "a case for a child process"]
    async fn returns_an_error() -> io::Result<()> {
        Err(io::Error::other("the well is dry"))
    }

    #[quoit::test]
    #[ignore = "a case for a child process"]
    async fn panics_on_the_second_run() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        assert_eq!(RUNS.fetch_add(1, Ordering::Relaxed), 0, "the second run");
    }

    #[quoit::test]
    #[should_panic(expected = "as promised")]
    #[ignore = "a case for a child process"]
    async fn panics_as_promised() {
        println!("one run");
        panic!("this panics as promised");
    }

    #[quoit::test]
    #[should_panic]
    #[ignore = "a case for a child process"]
    async fn panics_on_the_first_run_only() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        assert!(RUNS.fetch_add(1, Ordering::Relaxed) > 0);
    }

    #[quoit::test]
    #[should_panic(expected = "promised")]
    #[ignore = "a case for a child process"]
    async fn panics_with_another_message() {
        panic!("something else");
    }

    #[quoit::test(start_paused = true)]
    #[ignore = "a case for a child process"]
    async fn sleeps_for_a_day() {
        quoit::time::sleep(Duration::from_secs(86_400)).await;
        println!("one run");
    }
}

/// Runs one case and returns whether it passed, and everything it printed.
fn run(case: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args(["--exact", &format!("case::{case}"), "--ignored", "--nocapture"]);
    command.env_remove("QUOIT_RING").env_remove("QUOIT_REQUIRE_RINGS");
    command.env_remove("QUOIT_SEED");
    command.envs(environment.iter().copied());
    let output = command.output().expect("this program runs");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("running 1 test"), "no such case: {text}");
    (output.status.success(), text)
}

fn runs(text: &str) -> usize {
    text.matches("one run").count()
}

/// A machine without io_uring has one ring less; `.ci/run` requires both.
fn rings() -> usize {
    let uring = run("counts", &[("QUOIT_RING", "uring")]).0;
    let required = env::var("QUOIT_REQUIRE_RINGS").unwrap_or_default();
    assert!(uring || !required.contains("uring"), "the io_uring ring is required");
    1 + usize::from(uring)
}

#[test]
fn a_body_runs_once_on_every_ring() {
    let (passed, text) = run("counts", &[]);
    assert!(passed, "{text}");
    assert_eq!(runs(&text), rings(), "{text}");
}

#[test]
fn the_environment_and_the_option_choose_one_ring() {
    let (passed, text) = run("counts", &[("QUOIT_RING", "readiness")]);
    assert!(passed && runs(&text) == 1, "{text}");
    let (passed, text) = run("counts_readiness", &[]);
    assert!(passed && runs(&text) == 1, "{text}");
    let (passed, text) = run("counts_readiness", &[("QUOIT_RING", "uring")]);
    assert!(passed && runs(&text) == 0, "{text}");
    assert!(text.contains("NOT RUN"), "leaving out a test must be said: {text}");
}

#[test]
fn a_body_runs_under_as_many_seeds_as_it_asks_for() {
    let (passed, text) = run("counts_seeds", &[]);
    assert!(passed && runs(&text) == rings() + 3, "{text}");
    let (passed, text) = run("counts_seeds", &[("QUOIT_SEED", "7")]);
    assert!(passed && runs(&text) == rings() + 1, "{text}");
    let (passed, text) = run("counts_seeds", &[("QUOIT_RING", "readiness")]);
    assert!(passed && runs(&text) == 1, "{text}");
    let (passed, text) = run("counts", &[("QUOIT_SEED", "7")]);
    assert!(passed && runs(&text) == rings(), "{text}");
    let (passed, text) = run("asks_the_machine", &[]);
    assert!(!passed && text.contains("QUOIT_SEED=0 replays it"), "{text}");
}

#[test]
fn a_misspelt_ring_fails_the_test() {
    for variable in ["QUOIT_RING", "QUOIT_REQUIRE_RINGS"] {
        let (passed, text) = run("counts", &[(variable, "uring,epoll")]);
        assert!(!passed && text.contains(variable), "{text}");
    }
}

#[test]
fn an_error_or_a_panic_on_any_ring_fails_the_test() {
    let (passed, text) = run("returns_an_error", &[]);
    assert!(!passed && text.contains("the well is dry"), "{text}");
    let (passed, text) = run("panics_on_the_second_run", &[]);
    assert_eq!(passed, rings() == 1, "{text}");
    assert!(passed || text.contains("failed on the readiness ring"), "{text}");
}

#[test]
fn should_panic_wants_the_panic_on_every_ring() {
    let (passed, text) = run("panics_as_promised", &[]);
    assert!(passed, "{text}");
    assert_eq!(runs(&text), rings(), "{text}");
    let (passed, text) = run("panics_on_the_first_run_only", &[]);
    assert_eq!(passed, rings() == 1, "{text}");
    assert!(!run("panics_with_another_message", &[]).0);
}

#[test]
fn a_paused_clock_jumps() {
    let (passed, text) = run("sleeps_for_a_day", &[]);
    assert!(passed, "{text}");
    assert_eq!(runs(&text), rings(), "{text}");
}
