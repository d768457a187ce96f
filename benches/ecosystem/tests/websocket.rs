//! WebSocket by raw frames: what RFC 6455 asks of a server, asked of the same tungstenite on quoit,
//! on both rings, and on tokio.
//!
//! ```text
//!   a case's frames, then Close ──► server ──► what came until its end, written down ──► compared
//! ```
//!
//! The protocol is the same crate's on either side, so a difference would be ours.
//! `docs/websocket-conformance.md` has what came, and is written by
//!
//! ```text
//! WRITE_TABLE=1 cargo test --manifest-path benches/ecosystem/Cargo.toml --test websocket
//! ```

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]
#![allow(dead_code, reason = "what only the benchmark uses")]

#[path = "../src/http_server.rs"]
mod http_server;
#[path = "../src/runtimes.rs"]
mod runtimes;
#[path = "../src/websocket.rs"]
mod websocket;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;

/// What an RFC asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asks {
    /// This, and then the answer to Close.
    Frames(String),
    /// The connection fails (section 7.1.7), with a Close of this code or without one.
    Failed(u16),
}

impl Asks {
    fn fits(&self, came: &str) -> bool {
        match self {
            Self::Frames(frames) => came == frames,
            Self::Failed(code) => came == "end" || came == format!("close {code}, end"),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Frames(frames) => frames.clone(),
            Self::Failed(code) => format!("fails ({code})"),
        }
    }
}

struct Case {
    section: &'static str,
    what: String,
    asks: Asks,
    send: Vec<u8>,
}

/// A frame of a client, behind a mask that is not all zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | length as u8),
        length @ ..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x11, 0x22, 0x33, 0x44];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

fn case(section: &'static str, what: impl Into<String>, asks: Asks, frames: &[Vec<u8>]) -> Case {
    Case { section, what: what.into(), asks, send: frames.concat() }
}

/// Echoed, or answered, and then closed well.
fn answered(frames: &str) -> Asks {
    Asks::Frames(format!("{frames}close 1000, end"))
}

fn cases() -> Vec<Case> {
    [messages(), pings(), bits(), fragments(), characters(), closing()]
        .into_iter()
        .flatten()
        .collect()
}

fn messages() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
        for (kind, name, byte) in [(TEXT, "text", b'*'), (BINARY, "binary", 0xfe)] {
            let asks = answered(&format!("{name} of {length}, "));
            let what = format!("{name} of {length} bytes");
            cases.push(case("5.6", what, asks, &[frame(FIN | kind, &vec![byte; length])]));
        }
    }
    let unmasked = [vec![FIN | TEXT, 5], b"hello".to_vec()].concat();
    cases.push(case("5.1", "a frame without a mask", Asks::Failed(1002), &[unmasked]));
    cases
}

fn pings() -> Vec<Case> {
    let ping = |payload: &[u8]| frame(FIN | PING, payload);
    vec![
        case("5.5.2", "Ping without payload", answered("pong of 0, "), &[ping(b"")]),
        case("5.5.2", "Ping with payload", answered("pong of 5, "), &[ping(b"hello")]),
        case("5.5.2", "Ping of 125 bytes", answered("pong of 125, "), &[ping(&[0xff; 125])]),
        case("5.5", "Ping of 126 bytes", Asks::Failed(1002), &[ping(&[0xff; 126])]),
        case(
            "5.5",
            "Ping in two fragments",
            Asks::Failed(1002),
            &[frame(PING, b"a"), frame(FIN, b"b")],
        ),
        case("5.5.3", "Pong that nobody waits for", answered(""), &[frame(FIN | PONG, b"x")]),
        case(
            "5.5.3",
            "Pong, and then Ping",
            answered("pong of 1, "),
            &[frame(FIN | PONG, b"x"), ping(b"y")],
        ),
        case("5.5.2", "ten Pings", answered(&"pong of 1, ".repeat(10)), &vec![ping(b"x"); 10]),
    ]
}

fn bits() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..8 {
        let (first, what) = (FIN | bits << 4 | TEXT, format!("text with reserved bits {bits:03b}"));
        cases.push(case("5.2", what, Asks::Failed(1002), &[frame(first, b"hello")]));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let what = format!("a frame of the unknown opcode {opcode}");
        cases.push(case("5.2", what, Asks::Failed(1002), &[frame(FIN | opcode, b"hello")]));
    }
    cases
}

fn fragments() -> Vec<Case> {
    vec![
        case(
            "5.4",
            "text in two fragments",
            answered("text of 4, "),
            &[frame(TEXT, b"ab"), frame(FIN, b"cd")],
        ),
        case("5.4", "binary in fragments of a byte", answered("binary of 66, "), &{
            let mut frames = vec![frame(BINARY, b"x")];
            frames.extend(vec![frame(0, b"x"); 64]);
            frames.push(frame(FIN, b"x"));
            frames
        }),
        case(
            "5.4",
            "fragments without payload",
            answered("text of 0, "),
            &[frame(TEXT, b""), frame(0, b""), frame(FIN, b"")],
        ),
        case(
            "5.4",
            "Ping between fragments",
            answered("pong of 1, text of 4, "),
            &[frame(TEXT, b"ab"), frame(FIN | PING, b"x"), frame(FIN, b"cd")],
        ),
        case("5.4", "a continuation of nothing", Asks::Failed(1002), &[frame(FIN, b"x")]),
        case(
            "5.4",
            "a continuation of nothing that goes on",
            Asks::Failed(1002),
            &[frame(0, b"x")],
        ),
        case(
            "5.4",
            "text between fragments",
            Asks::Failed(1002),
            &[frame(TEXT, b"ab"), frame(FIN | TEXT, b"cd")],
        ),
    ]
}

fn characters() -> Vec<Case> {
    let word = "κόσμε, \u{10ffff}".as_bytes();
    let length = word.len();
    let mut cases = vec![case(
        "8.1",
        "text beyond ASCII",
        answered(&format!("text of {length}, ")),
        &[frame(FIN | TEXT, word)],
    )];
    for cut in 1..length {
        let what = format!("the same, cut after byte {cut}");
        let frames = [frame(TEXT, &word[..cut]), frame(FIN, &word[cut..])];
        cases.push(case("8.1", what, answered(&format!("text of {length}, ")), &frames));
    }
    let wrong: [(&str, &[u8]); 8] = [
        ("a lone continuation byte", b"a\x80b"),
        ("a start without its continuation", b"a\xceb"),
        ("an end in the middle of a character", b"a\xce"),
        ("an overlong slash", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("a number beyond Unicode", b"\xf4\x90\x80\x80"),
        ("the byte FE", b"\xfe"),
        ("the byte FF", b"\xff"),
    ];
    for (what, bytes) in wrong {
        cases.push(case("8.1", what, Asks::Failed(1007), &[frame(FIN | TEXT, bytes)]));
    }
    cases
}

fn closing() -> Vec<Case> {
    let echoed = |code: u16| Asks::Frames(format!("close {code}, end"));
    let mut cases = vec![
        case(
            "5.5.1",
            "Close without a code",
            Asks::Frames("close, end".into()),
            &[{ frame(FIN | CLOSE, b"") }],
        ),
        case("5.5.1", "Close of one byte", Asks::Failed(1002), &[frame(FIN | CLOSE, b"x")]),
        case("5.5.1", "Close with a reason", echoed(1000), &[close(1000, b"done")]),
        case(
            "5.5.1",
            "Close with a reason of 123 bytes",
            echoed(1000),
            &[close(1000, &[b'x'; 123])],
        ),
        case(
            "5.5.1",
            "Close with a reason of 124 bytes",
            Asks::Failed(1002),
            &[{ close(1000, &[b'x'; 124]) }],
        ),
        case(
            "5.5.1",
            "Close with a reason that is no text",
            Asks::Failed(1007),
            &[{ close(1000, b"\xff") }],
        ),
        case(
            "5.5.1",
            "text after Close",
            echoed(1000),
            &[close(1000, b""), frame(FIN | TEXT, b"x")],
        ),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(case("7.4", format!("Close {code}"), echoed(code), &[close(code, b"")]));
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let what = format!("Close {code}, which nobody may send");
        cases.push(case("7.4", what, Asks::Failed(1002), &[close(code, b"")]));
    }
    cases
}

fn start(contender: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || websocket::serve(contender, listener).unwrap());
    address
}

/// Sends a case, and writes down what comes.
fn run(address: SocketAddr, case: &Case) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = "GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let bytes = [&case.send[..], &close(1000, b"")].concat();
    let mut writer = stream.try_clone().unwrap();
    // A server that has failed the connection takes no more: what it said before counts.
    let writer = thread::spawn(move || drop(writer.write_all(&bytes)));
    let mut came = String::new();
    while let Some((opcode, payload)) = read_frame(&mut stream) {
        let length = payload.len();
        match opcode {
            TEXT => write!(came, "text of {length}, "),
            BINARY => write!(came, "binary of {length}, "),
            PONG => write!(came, "pong of {length}, "),
            CLOSE if length < 2 => write!(came, "close, "),
            CLOSE => {
                write!(came, "close {}, ", u16::from_be_bytes([payload[0], payload[1]]))
            }
            other => write!(came, "opcode {other}, "),
        }
        .unwrap();
    }
    writer.join().unwrap();
    came + "end"
}

/// A frame of a server; none at the end, whether it is a FIN or a reset.
fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut read = |length: usize| {
        let mut bytes = vec![0; length];
        match stream.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no end"),
            Err(_) => None,
        }
    };
    let head = read(2)?;
    let length = match head[1] {
        126 => read(2)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        127 => read(8)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        length => usize::from(length),
    };
    Some((head[0] & 0x0f, read(length)?))
}

#[test]
fn answers_as_tungstenite_on_tokio_does() {
    let tokio = start(runtimes::TOKIO);
    let contenders = [runtimes::URING, runtimes::READINESS].map(|name| (name, start(name)));
    let mut table = String::new();
    let (mut different, mut count, mut fit) = (Vec::new(), 0, 0);
    for case in cases() {
        let expected = run(tokio, &case);
        for (name, address) in contenders {
            let came = run(address, &case);
            if came != expected {
                let (section, what) = (case.section, &case.what);
                different.push(format!("{section} {what}: {came} ({name}), {expected} (tokio)"));
            }
        }
        let as_asked = case.asks.fits(&expected);
        let (mark, asked) = (if as_asked { "yes" } else { "**no**" }, case.asks.text());
        count += 1;
        fit += usize::from(as_asked);
        writeln!(table, "| {} | {} | {asked} | {expected} | {mark} |", case.section, case.what)
            .unwrap();
    }
    assert!(different.is_empty(), "{} of {count}:\n{}", different.len(), different.join("\n"));
    let totals = format!(
        "{count} cases; the same on all three servers in each; as the RFC asks in {fit}.\n"
    );
    let table = HEAD.replacen("TOTALS\n", &totals, 1) + &table;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/websocket-conformance.md");
    if std::env::var_os("WRITE_TABLE").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    let published = std::fs::read_to_string(&file).unwrap();
    assert!(published == table, "{} is out of date: write it with WRITE_TABLE=1", file.display());
}

const HEAD: &str = "\
# WebSocket, case by case

What RFC 6455 asks of a server, sent as raw frames to the same echo by tokio-tungstenite: on the
stream of an upgraded connection of `quoit-http` (io_uring and readiness), and on tokio. The
protocol is the same crate's on either side, so a difference would be quoit's. After each case's
frames the client sends Close 1000.

TOTALS
A connection that is to fail (section 7.1.7) may end with a Close of the code given, or at once.

```text
WRITE_TABLE=1 cargo test --manifest-path benches/ecosystem/Cargo.toml --test websocket
```

| section | sent | asked for | what came | as asked |
|---|---|---|---|---|
";
