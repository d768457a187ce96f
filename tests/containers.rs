//! What a container does to a program: io_uring is refused, in one of several ways, and the program
//! runs on readiness, says why, and says what would help. `docs/containers.md` promises it.
//!
//! ```text
//!   test ──fork──► filter (seccomp(2)) or limit ──exec──► this file again, as `program`
//! ```
//!
//! The filter comes from outside, as a container engine's does: the program knows nothing of it.

#![cfg(feature = "macros")]

use std::env;
use std::future::pending;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::time::{Instant, timeout};
use quoit::{RingChoice, Runtime};
use serde_json::{Value, json};

/// Says to a child that it is the program.
const CHILD: &str = "QUOIT_TEST_CONTAINED";

const SETUP: i64 = libc::SYS_io_uring_setup;
const ENTER: i64 = libc::SYS_io_uring_enter;
const REGISTER: i64 = libc::SYS_io_uring_register;
const TIMER: i64 = libc::SYS_timerfd_create;

const BY_SECCOMP: &str = "forbidden, most likely by a seccomp profile";
const NOT_THERE: &str = "this kernel or sandbox has no io_uring";
const ALLOW: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the container's \
                     seccomp profile";

// --- the program ---------------------------------------------------------------------------------

/// Echo over TCP, and a file read back; as a user would write it.
#[quoit::main]
async fn work() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    quoit::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let lease = stream.recv().await?;
        stream.send_all(lease).await
    });
    let stream = TcpStream::connect(address).await?;
    stream.send_all("from inside").await?;
    assert_eq!(&stream.recv().await?[..], b"from inside");
    // Far enough for the kernel's timer, where there is one.
    let (began, limit) = (Instant::now(), Duration::from_millis(20));
    assert!(timeout(limit, pending::<()>()).await.is_err() && began.elapsed() >= limit);

    let path = env::temp_dir().join(format!("quoit-containers-{}", std::process::id()));
    quoit::fs::write(&path, "on the disk").await?;
    let read = quoit::fs::read(&path).await;
    std::fs::remove_file(&path)?;
    assert_eq!(read?, b"on the disk");
    println!("echo, timeout and file: well");
    Ok(())
}

/// What a child does; nothing without being told.
#[test]
fn program() {
    if env::var_os(CHILD).is_some() {
        work().expect("the program can do its work");
    }
}

// --- its containers ------------------------------------------------------------------------------

/// What is taken from the program before it starts.
struct Container {
    /// System calls that answer this number.
    refused: Vec<i64>,
    number: i32,
    no_locked_memory: bool,
}

impl Container {
    fn refusing(calls: &[i64], number: i32) -> Self {
        Self { refused: calls.to_vec(), number, no_locked_memory: false }
    }

    /// Runs the program inside.
    fn run(&self, ring: &str) -> Output {
        let mut child = Command::new(env::current_exe().expect("the test knows its file"));
        child.args(["--exact", "program", "--nocapture", "--test-threads=1"]);
        child.env(CHILD, "1").env("QUOIT_RING", ring).stdin(Stdio::null());
        let mut filter = filter(&self.refused, self.number);
        let no_locked_memory = self.no_locked_memory;
        // SAFETY: between fork and exec it makes system calls, and neither allocates nor locks: the
        // filter was made before.
        unsafe {
            child.pre_exec(move || {
                if no_locked_memory {
                    take_locked_memory()?;
                }
                install(&mut filter)
            });
        }
        child.output().expect("it can be started again")
    }
}

/// A program of BPF (seccomp(2)) that answers `number` to the calls, and lets all others through.
fn filter(calls: &[i64], number: i32) -> Vec<libc::sock_filter> {
    let step = |code: u32, k: u32, jt: u8| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let refuse = libc::SECCOMP_RET_ERRNO | number as u32;
    // The number of the call stands at the start of `seccomp_data`.
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (at, call) in calls.iter().enumerate() {
        let to_the_end = (calls.len() - at) as u8;
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *call as u32, to_the_end));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0));
    program.push(step(libc::BPF_RET | libc::BPF_K, refuse, 0));
    program
}

fn install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: plain numbers, and a filter of the stated length that outlives the call.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
                != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// No locked memory, and no capability to have it all the same, which root would have.
fn take_locked_memory() -> io::Result<()> {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a limit that outlives the call, and plain numbers. Who is not root may not drop it
    // from the bounding set, and does not have it.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
    }
    Ok(())
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn assert_falls_back(container: &Container, reason: &str, remedy: &str) {
    let output = container.run("auto");
    let (said, told) = texts(&output);
    assert!(output.status.success(), "{}\n{said}\n{told}", output.status);
    assert!(said.contains("echo, timeout and file: well"), "{said}");
    let line = told.lines().find(|line| line.starts_with("quoit: readiness: "));
    let line = line.unwrap_or_else(|| panic!("it did not say that it fell back:\n{told}"));
    assert!(line.contains(reason), "{line}");
    assert!(line.contains(&format!("; to get io_uring: {remedy}")), "{line}");
}

#[track_caller]
fn assert_refuses_to_start(container: &Container, reason: &str, remedy: &str) {
    let output = container.run("uring");
    let (said, told) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{said}\n{told}");
    let line = told.lines().find(|line| line.starts_with("quoit: cannot start: io_uring"));
    let line = line.unwrap_or_else(|| panic!("it did not say why it cannot start:\n{told}"));
    assert!(line.contains(reason) && line.contains(remedy), "{line}");
}

/// Whether there is something to take away: these tests may run in a container themselves.
fn has_uring() -> bool {
    let built = Runtime::builder().ring(RingChoice::Uring).build();
    if let Err(error) = &built {
        eprintln!("not looked at: {error}");
    }
    built.is_ok()
}

/// The defaults of Docker and of containerd.
#[test]
fn a_profile_that_answers_eperm() {
    let container = Container::refusing(&[SETUP, ENTER, REGISTER], libc::EPERM);
    assert_falls_back(&container, BY_SECCOMP, ALLOW);
    assert_refuses_to_start(&container, BY_SECCOMP, ALLOW);
}

/// The default of Podman, engines that are older than io_uring, and gVisor.
#[test]
fn a_profile_that_answers_enosys() {
    let container = Container::refusing(&[SETUP, ENTER, REGISTER], libc::ENOSYS);
    assert_falls_back(&container, NOT_THERE, "");
    assert_refuses_to_start(&container, NOT_THERE, "seccomp profile");
}

/// A profile that somebody has made by hand, and where a call was forgotten.
#[test]
fn a_profile_that_lacks_one_call() {
    if !has_uring() {
        return;
    }
    for (call, name) in [(ENTER, "io_uring_enter"), (REGISTER, "io_uring_register")] {
        let container = Container::refusing(&[call], libc::EPERM);
        let reason = format!("{name} is {BY_SECCOMP}");
        assert_falls_back(&container, &reason, ALLOW);
        assert_refuses_to_start(&container, &reason, ALLOW);
        let container = Container::refusing(&[call], libc::ENOSYS);
        assert_falls_back(&container, NOT_THERE, "");
    }
}

/// `QUOIT_RING=readiness` is a choice, not a fall-back: there is nothing to say.
#[test]
fn readiness_by_choice_says_nothing() {
    let container = Container::refusing(&[SETUP, ENTER, REGISTER], libc::EPERM);
    let output = container.run("readiness");
    let (said, told) = texts(&output);
    assert!(
        output.status.success() && said.contains("echo, timeout and file: well"),
        "{said}\n{told}"
    );
    assert!(!told.contains("quoit"), "{told}");
}

/// The timer spares work, and nothing depends on it: there is nothing to say, either.
#[test]
fn a_profile_that_refuses_the_timer() {
    let rings = if has_uring() { &["uring", "readiness"][..] } else { &["readiness"] };
    for ring in rings {
        for number in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
            let output = Container::refusing(&[TIMER], number).run(ring);
            let (said, told) = texts(&output);
            let is_well = said.contains("echo, timeout and file: well");
            assert!(output.status.success() && is_well, "{ring}, {number}: {said}\n{told}");
            assert!(!told.contains("quoit"), "{told}");
        }
    }
}

#[test]
fn no_locked_memory() {
    if !has_uring() {
        return;
    }
    let container = Container { no_locked_memory: true, ..Container::refusing(&[], 0) };
    if container.run("uring").status.success() {
        // Between 5.12 and 6.13 some kernels count a ring's memory elsewhere.
        eprintln!("not looked at: this kernel gives a ring to who may lock no memory");
        return;
    }
    let (reason, remedy) = ("no locked memory is left for a ring", "raise RLIMIT_MEMLOCK");
    assert_falls_back(&container, reason, remedy);
    assert_refuses_to_start(&container, reason, remedy);
}

// --- the recipe ----------------------------------------------------------------------------------

/// `docs/seccomp/allow-io-uring.jq` on a profile. None: there is no jq here.
fn with_io_uring(profile: &Value) -> Option<Result<Value, String>> {
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/seccomp/allow-io-uring.jq");
    let mut jq = Command::new("jq");
    jq.args(["-f", recipe]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut jq = match jq.spawn() {
        Ok(jq) => jq,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("not looked at: there is no jq here");
            return None;
        }
        Err(error) => panic!("jq: {error}"),
    };
    let mut input = jq.stdin.take().expect("it was piped");
    input.write_all(profile.to_string().as_bytes()).expect("jq reads");
    drop(input);
    let output = jq.wait_with_output().expect("jq ends");
    let (said, told) = texts(&output);
    Some(match output.status.success() {
        true => Ok(serde_json::from_str(&said).expect("jq prints JSON")),
        false => Err(told),
    })
}

#[test]
fn the_guide_shows_the_recipe() {
    let shown = include_str!("../docs/containers.md");
    assert!(shown.contains(include_str!("../docs/seccomp/allow-io-uring.jq")));
}

#[test]
fn the_recipe_adds_io_uring_and_changes_nothing_else() {
    let calls = json!(["io_uring_setup", "io_uring_enter", "io_uring_register"]);
    // In the form of the defaults: an answer for the rest, architectures, rules with and without
    // conditions. One rule denies io_uring beside others, one denies nothing else, and one is of
    // the old form.
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "archMap": [{ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": [] }],
        "syscalls": [
            { "names": ["accept4", "epoll_wait"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_BPF"] } },
            { "names": ["vmsplice", "io_uring_enter"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
            { "names": ["io_uring_setup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
            { "name": "io_uring_register", "action": "SCMP_ACT_ERRNO" },
            { "name": "read", "action": "SCMP_ACT_ALLOW", "args": [] },
        ],
    });
    let mut expected = profile.clone();
    let rules = expected["syscalls"].as_array_mut().expect("the list of rules");
    rules[2]["names"] = json!(["vmsplice"]);
    rules.drain(3..5);
    rules.push(json!({ "names": calls, "action": "SCMP_ACT_ALLOW" }));

    let Some(made) = with_io_uring(&profile) else { return };
    let made = made.expect("it is a profile");
    assert_eq!(made, expected);
    assert_eq!(with_io_uring(&made).expect("jq is here").expect("it still is one"), expected);

    for not_a_profile in [json!({}), json!([]), json!("syscalls"), json!({ "syscalls": {} })] {
        let error = with_io_uring(&not_a_profile).expect("jq is here").unwrap_err();
        assert!(error.contains("this is no seccomp profile"), "{error}");
    }
}
