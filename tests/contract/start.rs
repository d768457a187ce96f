//! Starting where io_uring is forbidden, or memory or descriptors are short: with `Auto` by the
//! other ring, with a reason; by name with an error that says what to do. Each case has a process
//! of its own, which it spoils.

use std::io::ErrorKind;

use quoit::{RingChoice, RingKind, Runtime};

use crate::common::*;

/// Refuses `io_uring_setup` with this error number, in this thread and those it starts.
fn forbid_io_uring(errno: i32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD, 0, 0, 0), // the number of the system call
        step(EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(ANSWER, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(ANSWER, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a valid program, which the kernel copies.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
            0
        );
    }
}

/// An echo, to show that the ring that was chosen works.
fn works(runtime: &Runtime) {
    runtime.block_on(async {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"it works").await.unwrap();
        assert_eq!(within("recv", stream.recv()).await.unwrap(), b"it works");
    });
}

fn falls_back(errno: i32, reason: &str, remedy: &str) {
    // SAFETY: no other thread of this process reads the environment now.
    unsafe { std::env::remove_var("QUOIT_RING") };
    forbid_io_uring(errno);
    let runtime = Runtime::new().expect("there is another ring");
    let report = runtime.ring();
    assert_eq!(report.kind(), RingKind::Readiness);
    assert!(report.reason().contains(reason), "{report}");
    assert!(report.remedy().is_some_and(|text| text.contains(remedy)), "{report}");
    works(&runtime);
    let error = Runtime::builder().ring(RingChoice::Uring).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains(reason) && text.contains(remedy), "{text}");
    let chosen = Runtime::builder().ring(RingChoice::Readiness).build().unwrap();
    assert!(chosen.ring().remedy().is_none(), "nobody wanted the other: {}", chosen.ring());
}

#[test]
#[ignore = "a case for a child process"]
fn child_is_forbidden_io_uring() {
    falls_back(libc::EPERM, "seccomp", "seccomp");
}

#[test]
#[ignore = "a case for a child process"]
fn child_has_no_io_uring() {
    falls_back(libc::ENOSYS, "no io_uring", "Linux 6.1");
}

#[test]
#[ignore = "a case for a child process"]
fn child_meets_an_unknown_refusal() {
    falls_back(libc::EOPNOTSUPP, "no io_uring", "Linux");
}

#[test]
fn where_io_uring_cannot_be_had_auto_falls_back_and_a_name_is_refused() {
    in_a_child("start::child_is_forbidden_io_uring");
    in_a_child("start::child_has_no_io_uring");
    in_a_child("start::child_meets_an_unknown_refusal");
}

#[test]
#[ignore = "a case for a child process"]
fn child_builds_by_the_environment() {
    match Runtime::new() {
        Ok(runtime) => println!("built: {}", runtime.ring()),
        Err(error) => println!("refused: {:?}: {error}", error.kind()),
    }
    // What is said in the program goes before the environment.
    let chosen = Runtime::builder().ring(RingChoice::Readiness).build().unwrap();
    assert_eq!(chosen.ring().kind(), RingKind::Readiness);
}

#[test]
fn the_environment_chooses_and_nonsense_is_refused() {
    let case = "start::child_builds_by_the_environment";
    let (output, text) = run_child(case, &[("QUOIT_RING", "readiness")]);
    assert!(output.status.success() && text.contains("built: readiness"), "{text}");
    for nonsense in ["epoll", "URING", "uring,readiness", " "] {
        let (output, text) = run_child(case, &[("QUOIT_RING", nonsense)]);
        assert!(output.status.success(), "{text}");
        let says = ["refused: InvalidInput", "QUOIT_RING", "uring", "readiness"];
        let names = says.into_iter().all(|part| text.contains(part));
        assert!(names, "{nonsense:?}: {text}");
    }
    let (output, text) = run_child(case, &[("QUOIT_RING", "")]);
    assert!(output.status.success() && text.contains("built: "), "{text}");
}

/// Sets a soft and hard limit of this process.
fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limits = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: a valid struct.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limits) }, 0);
}

/// Gives up the capability that lets a process lock memory beyond its limit.
fn drop_ipc_lock() {
    const CAP_IPC_LOCK: u32 = 14;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: version 3 of the interface, which has two sets of three words (capget(2)).
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()), 0);
        for set in &mut sets[0] {
            *set &= !(1 << CAP_IPC_LOCK);
        }
        assert_eq!(libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()), 0);
    }
}

#[test]
#[ignore = "a case for a child process"]
fn child_has_no_locked_memory() {
    // SAFETY: no other thread of this process reads the environment now.
    unsafe { std::env::remove_var("QUOIT_RING") };
    limit(libc::RLIMIT_MEMLOCK, 0);
    drop_ipc_lock();
    let runtime = Runtime::new().expect("there is another ring");
    works(&runtime);
    match Runtime::builder().ring(RingChoice::Uring).build() {
        // Kernels before 5.12 and after 6.14 charge rings against the limit; the others do not.
        Ok(uring) => works(&uring),
        Err(error) => {
            let text = error.to_string();
            if text.contains("memory") {
                assert!(text.contains("RLIMIT_MEMLOCK"), "{text}");
            }
            assert_eq!(runtime.ring().kind(), RingKind::Readiness);
            assert!(runtime.ring().remedy().is_some());
        }
    }
}

#[test]
fn without_locked_memory_auto_still_starts() {
    in_a_child("start::child_has_no_locked_memory");
}

#[test]
#[ignore = "a case for a child process"]
fn child_has_few_descriptors() {
    // SAFETY: no other thread of this process reads the environment now.
    unsafe { std::env::remove_var("QUOIT_RING") };
    let open = open_descriptors();
    let (free, mut refused) = (lowest_free_descriptor(), 0);
    for more in 0..6 {
        set_descriptor_limit(free + more);
        for ring in [RingChoice::Auto, RingChoice::Uring, RingChoice::Readiness] {
            if let Err(error) = Runtime::builder().ring(ring).build() {
                refused += 1;
                let text = error.to_string();
                let helps = text.contains("RLIMIT_NOFILE") && text.contains("ulimit -n");
                assert!(helps, "{ring:?} with {more} to spare: {text}");
            }
        }
    }
    assert!(refused >= 3, "none was to spare");
    set_descriptor_limit(1024);
    for ring in [RingChoice::Auto, RingChoice::Readiness] {
        works(&Runtime::builder().ring(ring).build().unwrap());
    }
    assert_eq!(open_descriptors(), open, "a start that failed leaves nothing open");
}

#[test]
fn a_start_without_descriptors_says_so_and_leaves_nothing_open() {
    in_a_child("start::child_has_few_descriptors");
}

/// epoll's waits are as coarse as the thread allows; a runtime borrows the thread and leaves it as
/// it was.
#[test]
fn a_thread_has_its_timer_slack_back() {
    // SAFETY: the option returns a plain number.
    let slack = || unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) };
    let before = slack();
    assert!(before > 1, "the test needs a thread of the default kind");
    on_each_ring(|builder| {
        let runtime = builder.build().unwrap();
        let within = runtime.block_on(async { slack() });
        let readiness = runtime.ring().kind() == RingKind::Readiness;
        assert_eq!(within, if readiness { 1 } else { before });
        assert_eq!(slack(), before);
    });
}
