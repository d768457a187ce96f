//! No real time, randomness, thread or kernel I/O leaks into a simulation: a child process runs one
//! under a seccomp filter (seccomp(2)) that lets through memory, futex and standard output, and
//! kills it for anything else. To see that the filter bites, other children do what is forbidden.
//!
//! Reading the clock needs no system call (vdso(7)); `check` finds it, as two runs then differ.

use std::collections::HashMap;
use std::env;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::sim::{self, Crash, check};
use quoit::task::spawn_blocking;
use quoit::time::{sleep, timeout};

use crate::common::{echo_once, serve_echo};
use crate::echo::eight_clients;

/// Says to a child what it shall do under the filter.
const DEED: &str = "QUOIT_TEST_DEED";

const ALLOWED: [i64; 11] = [
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_futex,
    libc::SYS_exit_group,
    // Standard output, and standard error for a failure; the filter looks at the descriptor.
    libc::SYS_write,
    libc::SYS_writev,
    // What a panic asks of its thread's stack, to be told rather than killed.
    libc::SYS_rt_sigprocmask,
];

fn child(deed: &str) -> ExitStatus {
    let test = env::current_exe().expect("the test knows its file");
    let mut child = Command::new(test);
    child.args(["--exact", "sandbox::deed", "--nocapture", "--test-threads=1"]);
    child.env(DEED, deed).status().expect("it can be started again")
}

#[test]
fn a_simulation_asks_nothing_of_the_machine() {
    if env::var_os("ASAN_OPTIONS").is_some() {
        // Its own runtime asks the machine for more than the filter allows.
        eprintln!("not looked at: the address sanitizer cannot live under the filter");
        return;
    }
    assert_eq!(child("simulate").code(), Some(0), "it was killed, or has failed");
    for deed in ["hash", "thread", "listen", "runtime"] {
        assert_eq!(child(deed).signal(), Some(libc::SIGSYS), "`{deed}` was let through");
    }
}

/// What a child does; nothing without being told.
#[test]
fn deed() {
    let Ok(deed) = env::var(DEED) else { return };
    lock_in();
    match deed.as_str() {
        "simulate" => simulate(),
        "hash" => drop(HashMap::<u32, u32>::from([(1, 1)])),
        "thread" => drop(std::thread::spawn(|| ())),
        "listen" => drop(TcpListener::bind("127.0.0.1:0")),
        "runtime" => drop(quoit::Runtime::new()),
        other => panic!("no such deed: {other}"),
    }
    // SAFETY: no pointers. The harness would go on in ways that the filter forbids.
    unsafe { libc::_exit(0) }
}

/// Everything that a world has.
fn simulate() {
    check(16, eight_clients);
    check(16, |sim| {
        sim.host("server", || serve_echo(7));
        sim.cores("cores", 2, |core| async move {
            let other = (core.index() + 1) % core.count();
            assert_eq!(core.spawn_on(other, || async { 20 }).await.unwrap(), 20);
        });
        sim.at(Duration::from_secs(5), |world| world.crash("server", Crash::Kill));
        sim.at(Duration::from_secs(6), |world| world.restart("server"));
        sim.client("client", async {
            sim::world().partition("client", "server");
            let connecting = TcpStream::connect("server:7");
            assert!(timeout(Duration::from_secs(1), connecting).await.is_err());
            sim::world().heal_all();
            assert_eq!(spawn_blocking(|| 6 * 7).await.unwrap(), 42);
            sleep(Duration::from_secs(10)).await;
            let stream = TcpStream::connect("server:7").await?;
            echo_once(&stream, b"still there").await
        });
    });
    println!("simulated under the filter");
}

/// From now on this thread may do what is allowed and nothing else.
fn lock_in() {
    const WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut program = Vec::new();
    // `seccomp_data`: the number at 0, the lower half of the first argument at 16.
    for number in ALLOWED {
        let is_write = [libc::SYS_write, libc::SYS_writev].contains(&number);
        program.push(step(WORD, 0, 0, 0));
        program.push(step(EQUAL, number as u32, 0, if is_write { 3 } else { 1 }));
        if is_write {
            program.push(step(WORD, 16, 0, 0));
            program.push(step(ABOVE, 2, 1, 0));
        }
        program.push(step(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0));
    }
    program.push(step(ANSWER, libc::SECCOMP_RET_KILL_PROCESS, 0, 0));
    let length = program.len() as u16;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: plain numbers, and a filter of the stated length that outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        assert_eq!(libc::syscall(libc::SYS_seccomp, mode, 0, &raw const filter), 0);
    }
}
