//! The cases: what RFC 9113 and RFC 7541 say of what a client may not send, or may.

mod messages;

use self::messages::{compression, fields, lengths, messages, pseudo_fields};
use crate::Asks::{self, Ack, Connection, Ignored, Malformed, Response, Stream};
use crate::client::flag::{ACK, END_HEADERS, END_STREAM, PADDED};
use crate::client::kind::{
    CONTINUATION, DATA, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};
use crate::client::{Case, PREFACE, Then, field, field_indexed, flag, frame, get, request};

const PROTOCOL: &str = "PROTOCOL_ERROR";
const SIZE: &str = "FRAME_SIZE_ERROR";
const FLOW: &str = "FLOW_CONTROL_ERROR";
const GONE: &str = "STREAM_CLOSED";
const HPACK: &str = "COMPRESSION_ERROR";
/// What a server takes at most, unless it says otherwise (section 6.5.2).
const MOST: usize = 16_384;

type Frames = Vec<Vec<u8>>;

/// `POST /echo`, without the end of the stream.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post_with(&[]))
}

fn post_with(more: &[Vec<u8>]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    block.extend(field_indexed(4, b"/echo"));
    block.extend(field_indexed(1, b"test"));
    block.extend(more.concat());
    block
}

/// `GET /` with further fields.
fn get_with(more: &[Vec<u8>]) -> Vec<u8> {
    [get(), more.concat()].concat()
}

fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn priority(stream: u32, on: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[15]].concat())
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &setting(id, value))
}

fn case(section: &'static str, what: &'static str, asks: Asks, frames: Frames) -> Case {
    let settings = Vec::new();
    Case { section, what, asks, send: frames.concat(), then: Then::Probe, settings }
}

/// The same where nothing can follow.
fn last(section: &'static str, what: &'static str, asks: Asks, frames: Frames) -> Case {
    Case { then: Then::Wait, ..case(section, what, asks, frames) }
}

/// A request whose header block is this.
fn header(section: &'static str, what: &'static str, asks: Asks, block: Vec<u8>) -> Case {
    case(section, what, asks, vec![request(1, &block)])
}

pub fn all() -> Vec<Case> {
    let parts = [
        starting(),
        framing(),
        idle_and_half_closed(),
        closed(),
        identifiers(),
        data_and_headers(),
        priority_and_reset(),
        connection_settings(),
        pings_and_goodbyes(),
        windows(),
        continuations(),
        messages(),
        fields(),
        pseudo_fields(),
        lengths(),
        compression(),
    ];
    parts.into_iter().flatten().collect()
}

fn starting() -> Vec<Case> {
    let other = b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec();
    vec![
        case("3.4", "a request after the preface", Response(200), vec![request(1, &get())]),
        last(
            "3.4",
            "a preface that goes wrong in its last line",
            Connection(PROTOCOL),
            vec![other],
        ),
        last(
            "3.4",
            "a preface, and then no SETTINGS but PING",
            Connection(PROTOCOL),
            vec![PREFACE.to_vec(), frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])],
        ),
        case(
            "3.4",
            "a request before the server's settings are acknowledged",
            Response(200),
            vec![request(1, &get()), frame(SETTINGS, ACK, 0, &[])],
        ),
    ]
}

fn framing() -> Vec<Case> {
    let large = vec![0; MOST + 1];
    let filler = field(b"x-filler", &[b'x'; 100]);
    let long = get_with(&vec![filler; MOST / 100]);
    vec![
        case("4.1", "a frame of an unknown type", Ignored, vec![frame(0x16, 0xff, 0, &[0; 8])]),
        case("4.1", "PING with undefined flags", Ack, vec![frame(PING, 0xfe, 0, &[0; 8])]),
        case(
            "4.1",
            "the reserved bit of a stream's number",
            Response(200),
            vec![request(0x8000_0001, &get())],
        ),
        case("4.1", "PING with the reserved bit", Ack, vec![frame(PING, 0, 0x8000_0000, &[0; 8])]),
        case(
            "4.2",
            "DATA of the largest size",
            Response(200),
            vec![post(1), data(1, END_STREAM, &vec![0; MOST])],
        ),
        case("4.2", "DATA that is too large", Stream(SIZE), vec![post(1), data(1, 0, &large)]),
        case("4.2", "HEADERS that are too large", Connection(SIZE), vec![request(1, &long)]),
        case(
            "4.2",
            "SETTINGS that are too large",
            Connection(SIZE),
            vec![frame(SETTINGS, 0, 0, &setting(0xff, 0).repeat(MOST / 6 + 1))],
        ),
        case("4.3", "a block that does not decode", Connection(HPACK), vec![request(1, &[0x40])]),
        last(
            "4.3",
            "PRIORITY amid a block",
            Connection(PROTOCOL),
            vec![
                frame(HEADERS, END_STREAM, 1, &get()),
                priority(1, 0),
                frame(CONTINUATION, END_HEADERS, 1, &field(b"x", b"y")),
            ],
        ),
        last(
            "4.3",
            "HEADERS of another stream amid a block",
            Connection(PROTOCOL),
            vec![frame(HEADERS, END_STREAM, 1, &get()), request(3, &get())],
        ),
        last(
            "5.5",
            "an unknown frame amid a block",
            Connection(PROTOCOL),
            vec![
                frame(HEADERS, END_STREAM, 1, &get()),
                frame(0x16, 0, 1, &[]),
                frame(CONTINUATION, END_HEADERS, 1, &field(b"x", b"y")),
            ],
        ),
    ]
}

fn idle_and_half_closed() -> Vec<Case> {
    let idle = "5.1, idle";
    let half = "5.1, half-closed";
    vec![
        case(idle, "DATA", Connection(PROTOCOL), vec![data(1, END_STREAM, b"x")]),
        case(idle, "RST_STREAM", Connection(PROTOCOL), vec![reset(1)]),
        case(idle, "WINDOW_UPDATE", Connection(PROTOCOL), vec![window(1, 100)]),
        case(
            idle,
            "CONTINUATION",
            Connection(PROTOCOL),
            vec![frame(CONTINUATION, END_HEADERS, 1, &get())],
        ),
        case(idle, "PRIORITY", Ignored, vec![priority(1, 0)]),
        case(half, "DATA", Stream(GONE), vec![request(1, &get()), data(1, END_STREAM, b"x")]),
        case(half, "HEADERS", Stream(GONE), vec![request(1, &get()), request(1, &get())]),
        case(
            half,
            "CONTINUATION",
            Connection(PROTOCOL),
            vec![request(1, &get()), frame(CONTINUATION, END_HEADERS, 1, &field(b"x", b"y"))],
        ),
        case(half, "WINDOW_UPDATE", Response(200), vec![request(1, &get()), window(1, 100)]),
        case(half, "PRIORITY", Response(200), vec![request(1, &get()), priority(1, 0)]),
    ]
}

fn closed() -> Vec<Case> {
    let section = "5.1, closed";
    let open = || vec![post(1), reset(1)];
    vec![
        case(
            section,
            "DATA after RST_STREAM",
            Stream(GONE),
            [open(), vec![data(1, 0, b"x")]].concat(),
        ),
        case(section, "HEADERS after RST_STREAM", Stream(GONE), {
            [open(), vec![request(1, &get())]].concat()
        }),
        case(section, "CONTINUATION after RST_STREAM", Connection(PROTOCOL), {
            [open(), vec![frame(CONTINUATION, END_HEADERS, 1, &get())]].concat()
        }),
        case(section, "WINDOW_UPDATE after RST_STREAM", Ignored, {
            [open(), vec![window(1, 100)]].concat()
        }),
        case(section, "RST_STREAM after RST_STREAM", Ignored, [open(), vec![reset(1)]].concat()),
        case(
            section,
            "PRIORITY after RST_STREAM",
            Ignored,
            [open(), vec![priority(1, 0)]].concat(),
        ),
    ]
}

fn identifiers() -> Vec<Case> {
    vec![
        case(
            "5.1.1",
            "a request on an even stream",
            Connection(PROTOCOL),
            vec![request(2, &get())],
        ),
        case(
            "5.1.1",
            "a request on a lower stream than before",
            Connection(PROTOCOL),
            vec![request(5, &get()), request(3, &get())],
        ),
        case("5.1.1", "a request on stream 0", Connection(PROTOCOL), vec![request(0, &get())]),
        case(
            "5.1.1",
            "streams that leave numbers out",
            Response(200),
            vec![request(7, &get()), request(21, &get())],
        ),
        case("5.1.2", "more streams than the server allows", Stream("REFUSED_STREAM"), {
            (0..300).map(|n| post(1 + 2 * n)).collect()
        }),
    ]
}

fn data_and_headers() -> Vec<Case> {
    let padded = |pad: u8| [&[pad][..], b"x", &[0; 4]].concat();
    let block = |pad: u8| [&[pad][..], &get(), &[0; 4]].concat();
    let all = END_HEADERS | END_STREAM;
    vec![
        case("6.1", "DATA on stream 0", Connection(PROTOCOL), vec![data(0, 0, b"x")]),
        case(
            "6.1",
            "DATA with padding",
            Response(200),
            vec![post(1), data(1, END_STREAM | PADDED, &padded(4))],
        ),
        case(
            "6.1",
            "DATA with more padding than payload",
            Connection(PROTOCOL),
            vec![post(1), data(1, END_STREAM | PADDED, &padded(6))],
        ),
        case(
            "6.1",
            "DATA that is empty",
            Response(200),
            vec![post(1), data(1, 0, &[]), data(1, END_STREAM, &[])],
        ),
        case(
            "6.2",
            "HEADERS with padding",
            Response(200),
            vec![frame(HEADERS, all | PADDED, 1, &block(4))],
        ),
        case(
            "6.2",
            "HEADERS with more padding than payload",
            Connection(PROTOCOL),
            vec![frame(HEADERS, all | PADDED, 1, &block(255))],
        ),
        case(
            "6.2",
            "HEADERS with a priority",
            Response(200),
            vec![frame(
                HEADERS,
                all | flag::PRIORITY,
                1,
                &[&[0, 0, 0, 0, 15][..], &get()].concat(),
            )],
        ),
        case(
            "6.2",
            "HEADERS with padding and a priority",
            Response(200),
            vec![frame(HEADERS, all | flag::PRIORITY | PADDED, 1, &{
                [&[2, 0, 0, 0, 0, 15][..], &get(), &[0; 2]].concat()
            })],
        ),
        case(
            "6.2",
            "HEADERS too short for their priority",
            Connection(SIZE),
            vec![frame(HEADERS, all | flag::PRIORITY, 1, &[0, 0])],
        ),
    ]
}

fn priority_and_reset() -> Vec<Case> {
    vec![
        case(
            "5.3.1",
            "HEADERS that depend on themselves",
            Stream(PROTOCOL),
            vec![frame(HEADERS, END_HEADERS | END_STREAM | flag::PRIORITY, 1, &{
                [&[0, 0, 0, 1, 15][..], &get()].concat()
            })],
        ),
        case("5.3.1", "PRIORITY that depends on itself", Stream(PROTOCOL), vec![priority(1, 1)]),
        case("6.3", "PRIORITY on stream 0", Connection(PROTOCOL), vec![priority(0, 1)]),
        case(
            "6.3",
            "PRIORITY of 4 bytes",
            Stream(SIZE),
            vec![post(1), frame(PRIORITY, 0, 1, &[0; 4])],
        ),
        case("6.4", "RST_STREAM on stream 0", Connection(PROTOCOL), vec![reset(0)]),
        case(
            "6.4",
            "RST_STREAM of 3 bytes",
            Connection(SIZE),
            vec![post(1), frame(RST_STREAM, 0, 1, &[0; 3])],
        ),
        case(
            "7",
            "RST_STREAM with an unknown code",
            Ignored,
            vec![post(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 0xff])],
        ),
        case(
            "6.6",
            "PUSH_PROMISE by a client",
            Connection(PROTOCOL),
            vec![
                post(1),
                frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get()].concat()),
            ],
        ),
    ]
}

fn connection_settings() -> Vec<Case> {
    vec![
        case("6.5", "SETTINGS", Ack, vec![frame(SETTINGS, 0, 0, &[])]),
        case(
            "6.5",
            "an acknowledgement with a payload",
            Connection(SIZE),
            vec![frame(SETTINGS, ACK, 0, &setting(4, 1000))],
        ),
        case("6.5", "SETTINGS on a stream", Connection(PROTOCOL), vec![frame(SETTINGS, 0, 1, &[])]),
        case("6.5", "SETTINGS of 3 bytes", Connection(SIZE), vec![frame(SETTINGS, 0, 0, &[0; 3])]),
        case("6.5.2", "ENABLE_PUSH of 2", Connection(PROTOCOL), vec![settings(2, 2)]),
        case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", Connection(FLOW), vec![settings(4, 1 << 31)]),
        case("6.5.2", "MAX_FRAME_SIZE of 16,383", Connection(PROTOCOL), vec![settings(5, 16_383)]),
        case("6.5.2", "MAX_FRAME_SIZE of 2^24", Connection(PROTOCOL), vec![settings(5, 1 << 24)]),
        case("6.5.2", "MAX_FRAME_SIZE of 2^24 - 1", Ack, vec![settings(5, (1 << 24) - 1)]),
        case("6.5.2", "ENABLE_CONNECT_PROTOCOL of 2", Connection(PROTOCOL), vec![settings(8, 2)]),
        case("6.5.2", "an unknown setting", Ack, vec![settings(0xff, 1)]),
        case(
            "6.5.3",
            "one setting twice in a frame",
            Ack,
            vec![frame(SETTINGS, 0, 0, &[setting(4, 100), setting(4, 70_000)].concat())],
        ),
        case(
            "6.5.3",
            "an acknowledgement that nobody waits for",
            Ignored,
            vec![frame(SETTINGS, ACK, 0, &[])],
        ),
        case("H 4.2", "HEADER_TABLE_SIZE of 0", Ack, vec![settings(1, 0)]),
    ]
}

fn pings_and_goodbyes() -> Vec<Case> {
    vec![
        case("6.7", "PING", Ack, vec![frame(PING, 0, 0, b"12345678")]),
        case("6.7", "PING that is an answer", Ignored, vec![frame(PING, ACK, 0, b"12345678")]),
        case("6.7", "PING on a stream", Connection(PROTOCOL), vec![frame(PING, 0, 1, &[0; 8])]),
        case("6.7", "PING of 6 bytes", Connection(SIZE), vec![frame(PING, 0, 0, &[0; 6])]),
        case("6.8", "GOAWAY on a stream", Connection(PROTOCOL), vec![frame(GOAWAY, 0, 1, &[0; 8])]),
        case("6.8", "GOAWAY of 4 bytes", Connection(SIZE), vec![frame(GOAWAY, 0, 0, &[0; 4])]),
        last(
            "6.8",
            "GOAWAY after a request, which is answered",
            Response(200),
            vec![request(1, &get()), frame(GOAWAY, 0, 0, &[0; 8])],
        ),
    ]
}

fn windows() -> Vec<Case> {
    let most = (1 << 31) - 1;
    let begun = |case: Case| Case { settings: setting(4, 0), ..case };
    vec![
        case(
            "6.9",
            "WINDOW_UPDATE of 0 for the connection",
            Connection(PROTOCOL),
            vec![window(0, 0)],
        ),
        case(
            "6.9",
            "WINDOW_UPDATE of 0 for a stream",
            Stream(PROTOCOL),
            vec![post(1), window(1, 0)],
        ),
        case(
            "6.9",
            "WINDOW_UPDATE of 3 bytes",
            Connection(SIZE),
            vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
        ),
        case(
            "6.9.1",
            "a window above 2^31 - 1 for the connection",
            Connection(FLOW),
            vec![window(0, most), window(0, most)],
        ),
        case(
            "6.9.1",
            "a window above 2^31 - 1 for a stream",
            Stream(FLOW),
            vec![post(1), window(1, most), window(1, most)],
        ),
        begun(last("6.9.1", "a window that opens byte by byte", Response(200), {
            let mut frames = vec![request(1, &get())];
            frames.extend(vec![window(1, 1); 5]);
            frames
        })),
        begun(last(
            "6.9.2",
            "a window that opens by SETTINGS",
            Response(200),
            vec![request(1, &get()), settings(4, 100)],
        )),
        case(
            "6.9.2",
            "SETTINGS that lift a stream's window above 2^31 - 1",
            Connection(FLOW),
            vec![post(1), window(1, most - 65_535), settings(4, 65_536)],
        ),
        case("6.9.1", "more DATA than the window of a stream", Stream(FLOW), {
            let mut frames = vec![post(1)];
            frames.extend(vec![data(1, 0, &vec![0; MOST]); 80]);
            frames
        }),
    ]
}

fn continuations() -> Vec<Case> {
    let open = || frame(HEADERS, END_STREAM, 1, &get());
    let more = |stream| frame(CONTINUATION, 0, stream, &field(b"x", b"y"));
    let end = |stream| frame(CONTINUATION, END_HEADERS, stream, &field(b"x", b"y"));
    vec![
        case(
            "6.10",
            "several CONTINUATIONs",
            Response(200),
            vec![open(), more(1), more(1), end(1)],
        ),
        last(
            "6.10",
            "DATA amid a block",
            Connection(PROTOCOL),
            vec![frame(HEADERS, 0, 1, &post_with(&[])), data(1, END_STREAM, b"x")],
        ),
        last("6.10", "CONTINUATION on stream 0", Connection(PROTOCOL), vec![open(), end(0)]),
        last("6.10", "CONTINUATION on another stream", Connection(PROTOCOL), vec![open(), end(3)]),
        case(
            "6.10",
            "CONTINUATION after the end of a block",
            Connection(PROTOCOL),
            vec![open(), end(1), end(1)],
        ),
        case(
            "6.10",
            "CONTINUATION after DATA",
            Connection(PROTOCOL),
            vec![post(1), data(1, 0, b"x"), end(1)],
        ),
    ]
}
