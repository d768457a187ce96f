//! HTTP/2 by raw frames: what RFC 9113 and RFC 7541 ask of a server, asked of `quoit_http` on both
//! rings and of hyper on tokio.
//!
//! ```text
//!   cases.rs   what is sent, one line each ──► client.rs   frames, and what comes back
//!                                                  │
//!   servers.rs   the same router on quoit and on tokio ◄──┘
//! ```
//!
//! The protocol is the same crate's on either, so a difference would be ours. A server that is not
//! as the RFC asks fails only where the other one is: `docs/http2-conformance.md` has both, and is
//! written by
//!
//! ```text
//! WRITE_TABLE=1 cargo test --manifest-path benches/ecosystem/Cargo.toml --test http2
//! ```

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod cases;
mod client;
mod servers;

use std::fmt::Write;
use std::path::Path;

use client::Outcome;

/// What an RFC asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// The connection ends with this error.
    Connection(&'static str),
    /// The stream ends with this error, or the connection does.
    Stream(&'static str),
    /// A response with this status.
    Response(u16),
    /// Nothing: the next request is answered.
    Ignored,
    /// An acknowledgement.
    Ack,
    /// A 4xx response, or an error of the stream.
    Malformed,
}

impl Asks {
    /// A server may always close the connection instead of telling why (RFC 9113, section 5.4.1),
    /// and may treat an error of a stream as one of the connection (section 5.4.2).
    fn fits(self, outcome: Outcome) -> bool {
        match self {
            Self::Connection(code) => {
                outcome == Outcome::Goaway(code) || outcome == Outcome::Closed
            }
            Self::Stream(code) => {
                outcome == Outcome::Reset(code) || Self::Connection(code).fits(outcome)
            }
            Self::Response(status) => outcome == Outcome::Response(status),
            Self::Ignored => outcome == Outcome::Ignored,
            Self::Ack => outcome == Outcome::Ack,
            Self::Malformed => {
                matches!(outcome, Outcome::Response(400..=499))
                    || Self::Stream("PROTOCOL_ERROR").fits(outcome)
            }
        }
    }

    fn text(self) -> String {
        match self {
            Self::Connection(code) => format!("connection error {code}"),
            Self::Stream(code) => format!("stream error {code}"),
            Self::Response(status) => format!("response {status}"),
            Self::Ignored => "ignored".to_owned(),
            Self::Ack => "acknowledged".to_owned(),
            Self::Malformed => "stream error PROTOCOL_ERROR, or 4xx".to_owned(),
        }
    }
}

#[test]
fn answers_as_hyper_on_tokio_does() {
    let [tokio, uring, readiness] =
        [servers::tokio(), servers::quoit("quoit-uring"), servers::quoit("quoit-readiness")];
    let mut table = String::from(HEAD);
    let (mut different, mut count, mut fit) = (Vec::new(), 0, 0);
    for case in cases::all() {
        let expected = client::run(tokio, &case);
        for (name, address) in [("io_uring", uring), ("readiness", readiness)] {
            let outcome = client::run(address, &case);
            if outcome != expected {
                let (section, what) = (case.section, case.what);
                different
                    .push(format!("{section} {what}: {outcome:?} ({name}), {expected:?} (tokio)"));
            }
        }
        let as_asked = if case.asks.fits(expected) { "yes" } else { "**no**" };
        count += 1;
        fit += usize::from(case.asks.fits(expected));
        writeln!(
            table,
            "| {} | {} | {} | {} | {as_asked} |",
            case.section,
            case.what,
            case.asks.text(),
            expected.text()
        )
        .unwrap();
    }
    assert!(different.is_empty(), "{} of {count}:\n{}", different.len(), different.join("\n"));
    assert!(count > 100, "{count} cases");
    let totals = format!(
        "{count} cases; the same outcome on all three servers in each; as the RFC asks in {fit}.\n"
    );
    let table = table.replacen("TOTALS\n", &totals, 1);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/http2-conformance.md");
    if std::env::var_os("WRITE_TABLE").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    let published = std::fs::read_to_string(&file).unwrap();
    assert!(published == table, "{} is out of date: write it with WRITE_TABLE=1", file.display());
}

const HEAD: &str = "\
# HTTP/2, case by case

What RFC 9113 and RFC 7541 ask of a server, sent as raw frames to the same axum router on
`quoit-http` (io_uring and readiness) and on hyper and tokio (hyper-util's `auto`, as `axum::serve`
uses it). The sections are those of RFC 9113; *H* is RFC 7541 (HPACK). The protocol is hyper's and
h2's on either side, so a difference would be quoit's; where the outcome is not as the RFC asks, it
is the same on tokio.

TOTALS
An error of a stream may always be one of the connection (section 5.4.2), and an error of the
connection may be told by closing it (section 5.4.1). *Ignored*: the next request was answered, and
nothing else came.

```text
WRITE_TABLE=1 cargo test --manifest-path benches/ecosystem/Cargo.toml --test http2
```

| section | sent | asked for | outcome | as asked |
|---|---|---|---|---|
";
