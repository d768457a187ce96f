//! What makes a request: its fields, their order, its length, and how they are compressed.

use super::*;

pub(super) fn messages() -> Vec<Case> {
    let end = END_HEADERS | END_STREAM;
    let field = field(b"x-sum", b"1");
    vec![
        case(
            "8.1",
            "a request with trailers",
            Response(200),
            vec![post(1), data(1, 0, b"x"), frame(HEADERS, end, 1, &field)],
        ),
        case(
            "8.1",
            "trailers that do not end the stream",
            Malformed,
            vec![post(1), data(1, 0, b"x"), frame(HEADERS, END_HEADERS, 1, &field)],
        ),
        case(
            "8.1",
            "trailers with a pseudo-header field",
            Malformed,
            vec![
                post(1),
                data(1, 0, b"x"),
                frame(HEADERS, end, 1, &[&[0x82][..], &field].concat()),
            ],
        ),
        case("8.1", "many requests at once", Response(200), {
            (0..50).map(|n| request(1 + 2 * n, &get())).collect()
        }),
        case(
            "8.1",
            "a request for what is not there",
            Response(404),
            vec![request(1, &{
                [&[0x82, 0x86][..], &field_indexed(4, b"/nowhere"), &field_indexed(1, b"test")]
                    .concat()
            })],
        ),
    ]
}

pub(super) fn fields() -> Vec<Case> {
    let with = |name: &[u8], value: &[u8]| get_with(&[field(name, value)]);
    vec![
        header("8.2.1", "a name in upper case", Malformed, with(b"X-Test", b"1")),
        header("8.2.1", "a name with a space", Malformed, with(b"x test", b"1")),
        header("8.2.1", "a name with a colon", Malformed, with(b"x:test", b"1")),
        header("8.2.1", "a name with a control character", Malformed, with(b"x\x01test", b"1")),
        header("8.2.1", "a name beyond ASCII", Malformed, with(b"x\xff", b"1")),
        header("8.2.1", "an empty name", Malformed, with(b"", b"1")),
        header("8.2.1", "a value with NUL", Malformed, with(b"x-test", b"a\0b")),
        header("8.2.1", "a value with CR", Malformed, with(b"x-test", b"a\rb")),
        header("8.2.1", "a value with LF", Malformed, with(b"x-test", b"a\nb")),
        header("8.2.1", "a value that begins with a space", Malformed, with(b"x-test", b" a")),
        header("8.2.1", "a value that ends with a tab", Malformed, with(b"x-test", b"a\t")),
        header("8.2.1", "an empty value", Response(200), with(b"x-test", b"")),
        header("8.2.2", "connection", Malformed, with(b"connection", b"keep-alive")),
        header("8.2.2", "proxy-connection", Malformed, with(b"proxy-connection", b"keep-alive")),
        header("8.2.2", "keep-alive", Malformed, with(b"keep-alive", b"timeout=5")),
        header("8.2.2", "transfer-encoding", Malformed, with(b"transfer-encoding", b"chunked")),
        header("8.2.2", "upgrade", Malformed, with(b"upgrade", b"websocket")),
        header("8.2.2", "te: gzip", Malformed, with(b"te", b"gzip")),
        header("8.2.2", "te: trailers", Response(200), with(b"te", b"trailers")),
        header("8.2.3", "a cookie in two fields", Response(200), {
            get_with(&[field(b"cookie", b"a=b"), field(b"cookie", b"c=d")])
        }),
    ]
}

pub(super) fn pseudo_fields() -> Vec<Case> {
    let host = || field_indexed(1, b"test");
    let of = |first: &[u8]| [first, &host()].concat();
    let connect = |more: &[u8]| [&field_indexed(2, b"CONNECT"), more].concat();
    vec![
        header("8.3", "an unknown pseudo-header field", Malformed, get_with(&[field(b":x", b"1")])),
        header("8.3", "a response's pseudo-header field", Malformed, get_with(&[vec![0x88]])),
        header("8.3", "a pseudo-header field after others", Malformed, {
            [&[0x82, 0x86][..], &field(b"x", b"y"), &[0x84]].concat()
        }),
        header("8.3.1", "no :method", Malformed, of(&[0x86, 0x84])),
        header("8.3.1", "no :scheme", Malformed, of(&[0x82, 0x84])),
        header("8.3.1", "no :path", Malformed, of(&[0x82, 0x86])),
        header("8.3.1", "an empty :path", Malformed, {
            of(&[&[0x82, 0x86][..], &field_indexed(4, b"")].concat())
        }),
        header("8.3.1", "a :path that is not one", Malformed, {
            of(&[&[0x82, 0x86][..], &field_indexed(4, b"no path")].concat())
        }),
        header("8.3.1", ":method twice", Malformed, of(&[0x82, 0x82, 0x86, 0x84])),
        header("8.3.1", ":scheme twice", Malformed, of(&[0x82, 0x86, 0x86, 0x84])),
        header("8.3.1", ":path twice", Malformed, of(&[0x82, 0x86, 0x84, 0x84])),
        header("8.3.1", ":authority twice", Malformed, get_with(&[host()])),
        header("8.3.1", "host instead of :authority", Response(200), {
            [&[0x82, 0x86, 0x84][..], &field(b"host", b"test")].concat()
        }),
        header("8.3.1", "an :authority that is none", Malformed, {
            [&[0x82, 0x86, 0x84][..], &field_indexed(1, b"a b")].concat()
        }),
        header("8.3.1", "OPTIONS *", Response(404), {
            let first = [field_indexed(2, b"OPTIONS"), vec![0x86], field_indexed(4, b"*")];
            of(&first.concat())
        }),
        header("8.5", "CONNECT with :scheme and :path", Malformed, connect(&of(&[0x86, 0x84]))),
        header("8.5", "CONNECT without :authority", Malformed, connect(&[])),
    ]
}

pub(super) fn lengths() -> Vec<Case> {
    // The name of index 28 does not fit into four bits: the index goes on in a second byte.
    let of = |length: &str| {
        let block = post_with(&[vec![0x0f, 0x0d, length.len() as u8], length.as_bytes().to_vec()]);
        frame(HEADERS, END_HEADERS, 1, &block)
    };
    let twice = post_with(&[field(b"content-length", b"1"), field(b"content-length", b"2")]);
    vec![
        case(
            "8.1.1",
            "as much as content-length says",
            Response(200),
            vec![of("3"), data(1, 0, b"ab"), data(1, END_STREAM, b"c")],
        ),
        case(
            "8.1.1",
            "less than content-length says",
            Malformed,
            vec![of("5"), data(1, END_STREAM, b"abc")],
        ),
        case(
            "8.1.1",
            "more than content-length says",
            Malformed,
            vec![of("2"), data(1, END_STREAM, b"abc")],
        ),
        case(
            "8.1.1",
            "more than content-length says, in two frames",
            Malformed,
            vec![of("2"), data(1, 0, b"ab"), data(1, END_STREAM, b"c")],
        ),
        case(
            "8.1.1",
            "a content-length that is no number",
            Malformed,
            vec![of("x"), data(1, END_STREAM, b"abc")],
        ),
        case(
            "8.1.1",
            "two content-lengths that differ",
            Malformed,
            vec![frame(HEADERS, END_HEADERS, 1, &twice), data(1, END_STREAM, b"a")],
        ),
        case(
            "8.1.1",
            "a content-length, and no body",
            Malformed,
            vec![request(1, &post_with(&[field(b"content-length", b"5")]))],
        ),
    ]
}

pub(super) fn compression() -> Vec<Case> {
    let with = |more: &[u8]| [&get(), more].concat();
    // The same with Huffman codes: "x" is 1111001, and what is left of the byte is ones.
    let coded = |bytes: &[u8]| [&[0, 1, b'x', 0x80 | bytes.len() as u8], bytes].concat();
    vec![
        header(
            "H 2.3.3",
            "an index beyond both tables",
            Connection(HPACK),
            with(&[0xff, 0x80, 0x01]),
        ),
        header("H 2.3.3", "the name of an index beyond both tables", Connection(HPACK), {
            with(&[0x7f, 0x80, 0x01, 1, b'x'])
        }),
        header(
            "H 4.2",
            "a change of the table's size after a field",
            Connection(HPACK),
            with(&[0x20]),
        ),
        header("H 4.2", "a change of the table's size before all fields", Response(200), {
            [&[0x20][..], &get()].concat()
        }),
        header("H 5.1", "an integer without an end", Connection(HPACK), {
            with(&[&[0x0f][..], &[0xff; 20]].concat())
        }),
        header("H 5.1", "an integer that overflows", Connection(HPACK), {
            with(&[&[0xff][..], &[0xff; 9], &[0x7f]].concat())
        }),
        header("H 5.2", "a string that is longer than the block", Connection(HPACK), {
            with(&[0, 1, b'x', 50, b'y'])
        }),
        header("H 5.2", "a string in Huffman codes", Response(200), with(&coded(&[0xf3]))),
        header(
            "H 5.2",
            "padding of more than 7 bits",
            Connection(HPACK),
            with(&coded(&[0xf3, 0xff])),
        ),
        header("H 5.2", "padding that is not ones", Connection(HPACK), with(&coded(&[0xf2]))),
        header("H 5.2", "the symbol EOS", Connection(HPACK), {
            with(&coded(&[0xff, 0xff, 0xff, 0xff]))
        }),
        header("H 6.1", "index 0", Connection(HPACK), with(&[0x80])),
        header("H 6.2.1", "a field that is added to the table, and used", Response(200), {
            with(&[&[0x40, 1, b'x', 1, b'y'][..], &[0xbe]].concat())
        }),
        header("H 6.2.3", "a field that is never indexed", Response(200), {
            with(&[0x10, 1, b'x', 1, b'y'])
        }),
        header("H 6.3", "a table larger than the server allows", Connection(HPACK), {
            [&[0x3f, 0xe2, 0x1f][..], &get()].concat()
        }),
    ]
}
