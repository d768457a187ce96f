//! The key-value server: what it answers, in whatever pieces, on one core and on several, and to
//! Redis' own tools.

mod servers;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use ecosystem::kv::server::{Served, serve};
use ecosystem::kv::{Limits, resp};
use quoit::net::{TcpListener, TcpStream};
use quoit::task::JoinHandle;
use quoit::time::{sleep, timeout};
use servers::{Running, SOON, find, until};
use tokio::sync::oneshot;

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<Served>>,
}

async fn start(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    Server { address, stop, task: quoit::spawn(serve(listener, limits, stopped)) }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(self) -> Served {
        self.stop.send(()).unwrap();
        timeout(SOON, self.task).await.unwrap().unwrap().unwrap()
    }
}

/// Says something inline, and hears just this.
async fn says(stream: &TcpStream, command: &str, answer: &str) {
    stream.send_all(format!("{command}\r\n")).await.unwrap();
    let mut heard = vec![0; answer.len()];
    timeout(SOON, stream.read_exact(&mut heard)).await.expect(command).expect(command);
    assert_eq!(String::from_utf8_lossy(&heard), answer, "{command}");
}

const NO_INTEGER: &str = "-ERR value is not an integer or out of range\r\n";
const SYNTAX: &str = "-ERR syntax error\r\n";

#[quoit::test]
async fn commands_do_what_those_of_redis_do() {
    let server = start(Limits::default()).await;
    let stream = server.connect().await;
    for (command, answer) in [
        ("PING", "+PONG\r\n"),
        ("ping hello", "$5\r\nhello\r\n"),
        ("ECHO \"a b\"", "$3\r\na b\r\n"),
        ("GET a", "$-1\r\n"),
        ("SET a 1", "+OK\r\n"),
        ("SET a 2 NX", "$-1\r\n"),
        ("SET a 2 NX GET", "$1\r\n1\r\n"),
        ("SET b 2 XX", "$-1\r\n"),
        ("SET a 2 XX GET", "$1\r\n1\r\n"),
        ("GET a", "$1\r\n2\r\n"),
        ("SET a 5 NX XX", SYNTAX),
        ("SET a 5 EX", SYNTAX),
        ("SET a 5 EX x", NO_INTEGER),
        ("SET a 5 EX 0", "-ERR invalid expire time in 'set' command\r\n"),
        ("INCR a", ":3\r\n"),
        ("INCRBY a 39", ":42\r\n"),
        ("DECRBY a 2", ":40\r\n"),
        ("DECR n", ":-1\r\n"),
        ("SET big 9223372036854775807", "+OK\r\n"),
        ("INCR big", "-ERR increment or decrement would overflow\r\n"),
        ("SET text 01", "+OK\r\n"),
        ("INCR text", NO_INTEGER),
        ("APPEND text 23", ":4\r\n"),
        ("STRLEN text", ":4\r\n"),
        ("STRLEN none", ":0\r\n"),
        ("MSET x 1 y 2", "+OK\r\n"),
        ("MSET x 1 y", "-ERR wrong number of arguments for 'mset' command\r\n"),
        ("MGET x none y", "*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n"),
        ("EXISTS x y x none", ":3\r\n"),
        ("DBSIZE", ":6\r\n"),
        ("DEL x none y", ":2\r\n"),
        ("TTL a", ":-1\r\n"),
        ("TTL none", ":-2\r\n"),
        ("EXPIRE a 100", ":1\r\n"),
        ("TTL a", ":100\r\n"),
        ("SET a 1 KEEPTTL", "+OK\r\n"),
        ("TTL a", ":100\r\n"),
        ("PERSIST a", ":1\r\n"),
        ("PERSIST a", ":0\r\n"),
        ("SET a 1 EX 50", "+OK\r\n"),
        ("TTL a", ":50\r\n"),
        ("SET a 1", "+OK\r\n"),
        ("TTL a", ":-1\r\n"),
        ("EXPIRE a -1", ":1\r\n"),
        ("EXISTS a", ":0\r\n"),
        ("KEYS te?t", "*1\r\n$4\r\ntext\r\n"),
        ("SCAN 0 MATCH b* COUNT 100", "*2\r\n$1\r\n0\r\n*1\r\n$3\r\nbig\r\n"),
        ("TYPE big", "+string\r\n"),
        ("FLUSHALL", "+OK\r\n"),
        ("DBSIZE", ":0\r\n"),
        ("SELECT 0", "+OK\r\n"),
        ("SELECT 1", "-ERR DB index is out of range\r\n"),
        ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("CLIENT SETNAME me", "+OK\r\n"),
        ("CLIENT GETNAME", "$2\r\nme\r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("NO such", "-ERR unknown command 'NO', with args beginning with: 'such' \r\n"),
        ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
        ("HELLO 3", "%6\r\n$6\r\nserver\r\n"),
    ] {
        says(&stream, command, answer).await;
    }
    drop(stream);
    assert_eq!(server.end().await, Served { clients: 1, cut_off: 0 });
}

#[quoit::test]
async fn keys_are_over_in_time() {
    let server = start(Limits::default()).await;
    let stream = server.connect().await;
    says(&stream, "SET a 1 PX 30", "+OK\r\n").await;
    says(&stream, "SET b 1 PX 30000", "+OK\r\n").await;
    says(&stream, "SET c 1 PX 30", "+OK\r\n").await;
    says(&stream, "GET a", "$1\r\n1\r\n").await;
    sleep(Duration::from_millis(40)).await;
    says(&stream, "GET a", "$-1\r\n").await;
    // Nobody asks for the other one: it is swept.
    sleep(Duration::from_millis(200)).await;
    says(&stream, "DBSIZE", ":1\r\n").await;
    drop(stream);
    server.end().await;
}

/// A client that sends much and reads nothing is not read further; when it reads, it has it all.
#[quoit::test]
async fn a_client_that_does_not_read_holds_little() {
    let server = start(Limits { replies: 10_000, ..Limits::default() }).await;
    let stream = server.connect().await;
    let mut set = Vec::new();
    resp::encode([&b"SET"[..], b"large", &[b'x'; 100_000]], &mut set);
    stream.send_all(set).await.unwrap();
    let gets = 2000_usize;
    let ask = async {
        for _ in 0..gets {
            stream.send_all("GET large\r\n").await.unwrap();
        }
    };
    // Others are served meanwhile.
    let other = server.connect().await;
    timeout(SOON, ask).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    says(&other, "PING", "+PONG\r\n").await;
    let mut left = 5 + gets * (9 + 100_000 + 2);
    while left > 0 {
        let lease = timeout(SOON, stream.recv()).await.unwrap().unwrap();
        assert!(!lease.is_empty());
        left -= lease.len();
    }
    drop((stream, other));
    assert_eq!(server.end().await, Served { clients: 2, cut_off: 0 });
}

#[quoit::test]
async fn limits_are_kept() {
    let server = start(Limits { clients: 2, command: 1000, ..Limits::default() }).await;
    let streams = [server.connect().await, server.connect().await];
    for stream in &streams {
        says(stream, "PING", "+PONG\r\n").await;
    }
    let third = server.connect().await;
    let said = timeout(SOON, third.recv()).await.unwrap().unwrap();
    assert_eq!(&*said, b"-ERR max number of clients reached\r\n");
    assert!(timeout(SOON, third.recv()).await.unwrap().unwrap().is_empty());

    says(&streams[0], "*2\r\n$3\r\nGET\r\n$1001", "-ERR Protocol error: invalid bulk length\r\n")
        .await;
    assert!(timeout(SOON, streams[0].recv()).await.unwrap().unwrap().is_empty());
    says(&streams[1], "QUIT", "+OK\r\n").await;
    assert!(timeout(SOON, streams[1].recv()).await.unwrap().unwrap().is_empty());
    drop(streams);
    assert_eq!(server.end().await.cut_off, 0);
}

/// What has come before the end is answered, and then the end is told.
#[quoit::test]
async fn a_shutdown_answers_what_has_come() {
    let server = start(Limits::default()).await;
    let streams = [server.connect().await, server.connect().await];
    for stream in &streams {
        says(stream, "PING", "+PONG\r\n").await;
        stream.send_all("INCR a\r\n".repeat(100)).await.unwrap();
    }
    sleep(Duration::from_millis(20)).await;
    let end = server.end();
    let hear = async {
        let mut heard = 0;
        for stream in &streams {
            loop {
                let lease = stream.recv().await.unwrap();
                if lease.is_empty() {
                    break;
                }
                heard += lease.iter().filter(|byte| **byte == b':').count();
            }
        }
        heard
    };
    let (served, heard) = futures::join!(end, timeout(SOON, hear));
    assert_eq!((served, heard.unwrap()), (Served { clients: 2, cut_off: 0 }, 200));
}

/// The program, on a ring, with so many cores: a process of its own, which tools may block on.
struct Program {
    process: Running,
    port: String,
}

impl Program {
    fn start(ring: &str, cores: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
        command.args(["127.0.0.1:0", "--cores", cores]).env("QUOIT_RING", ring);
        let mut process = Running(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        let output = process.0.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let port = line.split(':').nth(1).and_then(|rest| rest.split([',', '\n']).next()).unwrap();
        Self { process, port: port.to_owned() }
    }

    /// Ends well when asked to.
    fn end(mut self) {
        self.process.tell("-TERM");
        until("it ends", || self.process.0.try_wait().unwrap().is_some());
        assert!(self.process.0.wait().unwrap().success());
    }
}

fn tool(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(find(program, "redis-tools")?).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

const RINGS: [&str; 2] = ["uring", "readiness"];

#[test]
fn redis_cli_is_served() {
    for (ring, cores) in RINGS.into_iter().flat_map(|ring| [(ring, "1"), (ring, "3")]) {
        let server = Program::start(ring, cores);
        let cli =
            |arguments: &[&str]| tool("redis-cli", &[&["-p", &server.port], arguments].concat());
        let Some(pong) = cli(&["ping"]) else { return };
        assert_eq!(pong, "PONG\n");
        // As it is used at a terminal, the third version too.
        assert_eq!(cli(&["-3", "get", "none"]).unwrap(), "\n");
        for key in 0..100 {
            assert_eq!(cli(&["set", &format!("key:{key}"), "x"]).unwrap(), "OK\n");
        }
        let mut keys: Vec<_> = cli(&["--scan"]).unwrap().lines().map(str::to_owned).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 100, "{ring}, {cores} cores");
        assert_eq!(cli(&["keys", "key:1?"]).unwrap().lines().count(), 10);
        assert!(cli(&["info"]).unwrap().contains("redis_version:"));
        server.end();
    }
}

#[test]
fn redis_benchmark_is_served() {
    for (ring, cores) in RINGS.into_iter().flat_map(|ring| [(ring, "1"), (ring, "2")]) {
        let server = Program::start(ring, cores);
        for (pipeline, tests) in [("1", "ping,get,set,incr,mset"), ("16", "get,set,incr,mset")] {
            let arguments = ["-p", &server.port, "-n", "2000", "-c", "20", "-r", "100", "-q"];
            let arguments = [&arguments[..], &["-P", pipeline, "-t", tests]].concat();
            let Some(text) = tool("redis-benchmark", &arguments) else { return };
            let count = text.matches("requests per second").count();
            assert_eq!(count, tests.split(',').count() + usize::from(pipeline == "1"), "{text}");
            assert!(!text.contains("rror"), "{text}");
        }
        server.end();
    }
}

/// The replies of several cores are those of one, in order.
#[test]
fn several_cores_answer_as_one() {
    let mut said = Vec::new();
    for key in 0..100 {
        for command in ["SET k# #", "INCR k#", "MGET k# none k1 k#", "EXISTS k# k1 none"] {
            said.extend(format!("{command}\r\n").replace('#', &key.to_string()).into_bytes());
        }
    }
    for command in [
        "MSET a 1 b 2 c 3 d 4 e 5",
        "MGET a b c d e",
        "DEL a b none",
        "DBSIZE",
        "PING",
        "INCR",
        "NO",
        "SET k1 text",
        "INCR k1",
        "HELLO 3",
        "GET none",
        "HELLO 2",
        "GET none",
        "FLUSHALL",
        "DBSIZE",
        "KEYS *",
        "SCAN x",
        "QUIT",
    ] {
        said.extend(format!("{command}\r\n").into_bytes());
    }
    for ring in RINGS {
        let heard = ["1", "2", "5"].map(|cores| {
            let server = Program::start(ring, cores);
            let address = format!("127.0.0.1:{}", server.port);
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(&said).unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            server.end();
            heard
        });
        assert!(heard[0].contains("*5\r\n$1\r\n1\r\n$1\r\n2\r\n"), "{}", heard[0]);
        assert!(heard[0].contains("role\r\n$6\r\nmaster\r\n_\r\n"), "{}", heard[0]);
        assert_eq!(heard[0], heard[1], "{ring}");
        assert_eq!(heard[0], heard[2], "{ring}");
    }
}
