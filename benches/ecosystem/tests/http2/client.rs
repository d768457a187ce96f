//! A client that says what it likes, and writes down what it hears.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Asks;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The stream of the request that shows that everything before it has been seen to.
const PROBE: u32 = 0x7fff_ffff;

/// Far more than a server takes to answer: a case that runs into it has no answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Kinds of frames (RFC 9113, section 6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// What came of a case; of several things, the one that weighs most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Goaway(&'static str),
    Closed,
    Reset(&'static str),
    Response(u16),
    Ack,
    Ignored,
    /// It is no HTTP/2 that came.
    Http1,
    /// Nothing for a long time.
    Silence,
}

impl Outcome {
    pub fn text(self) -> String {
        match self {
            Self::Goaway(code) => format!("GOAWAY {code}"),
            Self::Closed => "closed".to_owned(),
            Self::Reset(code) => format!("RST_STREAM {code}"),
            Self::Response(status) => format!("response {status}"),
            Self::Ack => "acknowledged".to_owned(),
            Self::Ignored => "ignored".to_owned(),
            Self::Http1 => "a response of HTTP/1".to_owned(),
            Self::Silence => "nothing".to_owned(),
        }
    }
}

/// What is done after what the case sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// A request, whose answer ends the case unless something worse does.
    Probe,
    /// Nothing more can be sent, so the connection is to end, or the response to come.
    Wait,
}

/// One case: what is sent, and what an RFC asks for.
pub struct Case {
    pub section: &'static str,
    pub what: &'static str,
    pub asks: Asks,
    /// Everything after the preface and the settings, unless it starts with the preface itself.
    pub send: Vec<u8>,
    pub then: Then,
    /// The settings that the connection begins with.
    pub settings: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `GET /` in the static table (RFC 7541, appendix A), for somebody.
pub fn get() -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84];
    block.extend(field_indexed(1, b"test"));
    block
}

/// A literal without indexing whose name is in the static table.
pub fn field_indexed(index: u8, value: &[u8]) -> Vec<u8> {
    [&[index, value.len() as u8], value].concat()
}

/// A literal without indexing.
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
}

/// A whole request without a body.
pub fn request(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, block)
}

/// Runs a case against a server.
pub fn run(address: SocketAddr, case: &Case) -> Outcome {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    if !case.send.starts_with(b"PRI") {
        bytes.extend(PREFACE);
        bytes.extend(frame(kind::SETTINGS, 0, 0, &case.settings));
    }
    bytes.extend(&case.send);
    if case.then == Then::Probe {
        bytes.extend(request(PROBE, &get()));
    }
    // A server that has ended the connection takes no more: what it said before counts.
    let _ = stream.write_all(&bytes);
    listen(&mut stream, case.then)
}

/// Listens until the end, or until nothing worse can come.
fn listen(stream: &mut TcpStream, then: Then) -> Outcome {
    let (mut so_far, mut acks) = (Outcome::Ignored, 0);
    loop {
        let (kind, flags, id, payload) = match read_frame(stream) {
            Ok(frame) => frame,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Outcome::Http1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return if so_far == Outcome::Ignored { Outcome::Silence } else { so_far };
            }
            Err(_) => return Outcome::Closed,
        };
        let code = |at: usize| {
            let bytes = payload.get(at..at + 4).map(|bytes| bytes.try_into().unwrap());
            let number = bytes.map(u32::from_be_bytes).unwrap_or(u32::MAX);
            CODES.get(number as usize).copied().unwrap_or("unknown")
        };
        let is_end = kind <= kind::HEADERS && flags & flag::END_STREAM != 0;
        match kind {
            kind::GOAWAY => return Outcome::Goaway(code(4)),
            kind::RST_STREAM => so_far = Outcome::Reset(code(0)),
            kind::PING if flags & flag::ACK != 0 => so_far = Outcome::Ack,
            kind::SETTINGS if flags & flag::ACK != 0 => {
                // The first is for the settings that every case begins with.
                acks += 1;
                if acks > 1 {
                    so_far = Outcome::Ack;
                }
            }
            kind::HEADERS if id != PROBE && !matches!(so_far, Outcome::Reset(_)) => {
                so_far = Outcome::Response(status(&payload));
            }
            _ => {}
        }
        let is_refused = kind == kind::RST_STREAM && id == PROBE;
        let is_over = is_end && (id == PROBE || then == Then::Wait);
        if is_over || is_refused {
            return so_far;
        }
    }
}

fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    if head.starts_with(b"HTTP/1.1") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let [_, _, _, kind, flags, a, b, c, d] = head;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok((kind, flags, u32::from_be_bytes([a, b, c, d]), payload))
}

/// The status, which servers put first and, for these, as an index of the static table.
fn status(block: &[u8]) -> u16 {
    // Changes of the dynamic table's size may come before.
    match block.iter().find(|byte| **byte & 0xe0 != 0x20) {
        Some(0x88) => 200,
        Some(0x89) => 204,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        // A literal: three digits, as Huffman codes or not.
        Some(_) => 499,
        None => 0,
    }
}
