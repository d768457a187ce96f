//! RESP, the protocol of Redis: commands in, replies out, and nothing of sockets.
//!
//! ```text
//!   Start ──'*3'──► Mark ──'$5'──► Body(5) ──5 bytes and a line end──► Mark … ──► a command
//!     │  ▲                                                                          │
//!     │  └───────────────────────────── reset ──────────────────────────────────────┘
//!     └─ anything else ──► a line of words ("inline", as one types it) ──► a command
//! ```
//!
//! A parser of our own: `redis-protocol` builds a tree of frames, with a vector for each command,
//! starts again from the first byte whenever the last is missing, and knows no inline commands.
//! This one leaves the bytes where they are (in the lease, as a rule) and only notes where each
//! argument stands; it goes on where it had stopped, so bytes that trickle in cost no more.

use std::fmt::{self, Display};
use std::ops::Range;

/// As many arguments as Redis takes.
const MOST_ARGUMENTS: i64 = 1 << 20;

/// How long a line may be: an inline command, or a length.
const LONGEST_LINE: usize = 64 * 1024;

/// Above this many, the room for the places of arguments is given back after the command.
const KEPT_PLACES: usize = 64;

/// What is wrong with the bytes of a client, in Redis' words. Nothing after it can be understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    Count,
    Length,
    Mark(u8),
    LongLine,
    Quotes,
}

impl Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            Self::Count => f.write_str("invalid multibulk length"),
            Self::Length => f.write_str("invalid bulk length"),
            Self::Mark(byte) => write!(f, "expected '$', got '{}'", char::from(*byte)),
            Self::LongLine => f.write_str("too big inline request"),
            Self::Quotes => f.write_str("unbalanced quotes in request"),
        }
    }
}

/// Where the arguments of a command stand.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    bytes: &'a [u8],
    places: &'a [Range<u32>],
}

impl<'a> Command<'a> {
    /// How many arguments there are, the command's name included. Zero is nothing to do.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// # Panics
    ///
    /// When there is no such argument.
    pub fn arg(&self, index: usize) -> &'a [u8] {
        let Range { start, end } = self.places[index];
        &self.bytes[start as usize..end as usize]
    }

    pub fn args(&self, from: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let (bytes, places) = (self.bytes, self.places);
        places[from..].iter().map(|place| &bytes[place.start as usize..place.end as usize])
    }
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Start,
    /// So many arguments are to come, the next one's length first.
    Mark(u32),
    /// As before, and the next argument is so long.
    Body(u32, usize),
    Done,
}

/// Finds commands in bytes. The bytes of a command that has begun must be given again, from its
/// first on, with more behind them.
#[derive(Debug, Default)]
pub struct Parser {
    state: State,
    at: usize,
    places: Vec<Range<u32>>,
    /// The words of an inline command, without their quotes.
    words: Vec<u8>,
    inline: bool,
}

impl Parser {
    /// Goes on parsing: `Some(n)` is a command of the first n bytes, to be had by
    /// [`command`](Self::command), and to be followed by [`reset`](Self::reset).
    pub fn parse(&mut self, bytes: &[u8], longest: usize) -> Result<Option<usize>, Malformed> {
        loop {
            match self.state {
                State::Start => match bytes.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some((count, next)) = number(bytes, 1, Malformed::Count)? else {
                            return Ok(None);
                        };
                        if count > MOST_ARGUMENTS {
                            return Err(Malformed::Count);
                        }
                        self.at = next;
                        self.state = match u32::try_from(count) {
                            Ok(count @ 1..) => State::Mark(count),
                            _ => State::Done,
                        };
                    }
                    Some(_) => return self.line(bytes),
                },
                State::Mark(left) => {
                    match bytes.get(self.at) {
                        None => return Ok(None),
                        Some(b'$') => {}
                        Some(other) => return Err(Malformed::Mark(*other)),
                    }
                    let Some((length, next)) = number(bytes, self.at + 1, Malformed::Length)?
                    else {
                        return Ok(None);
                    };
                    let length = usize::try_from(length).map_err(|_| Malformed::Length)?;
                    if length > longest.saturating_sub(next) {
                        return Err(Malformed::Length);
                    }
                    self.at = next;
                    self.state = State::Body(left, length);
                }
                State::Body(left, length) => {
                    let end = self.at + length;
                    if bytes.len() < end + 2 {
                        return Ok(None);
                    }
                    // `longest` is below 4 GiB: see `Limits`.
                    self.places.push(self.at as u32..end as u32);
                    self.at = end + 2;
                    self.state = if left == 1 { State::Done } else { State::Mark(left - 1) };
                }
                State::Done => return Ok(Some(self.at)),
            }
        }
    }

    /// How many of `fresh` bytes are worth adding to `have`, before parsing again: never more than
    /// the command needs, so that what follows it need not be copied.
    pub fn wanted(&self, have: usize, fresh: &[u8]) -> usize {
        match self.state {
            State::Body(_, length) => (self.at + length + 2).saturating_sub(have).min(fresh.len()),
            _ => fresh.iter().position(|byte| *byte == b'\n').map_or(fresh.len(), |at| at + 1),
        }
    }

    /// The command that has been found in these bytes.
    pub fn command<'a>(&'a self, bytes: &'a [u8]) -> Command<'a> {
        Command { bytes: if self.inline { &self.words } else { bytes }, places: &self.places }
    }

    /// Makes ready for the next command.
    pub fn reset(&mut self) {
        self.state = State::Start;
        self.at = 0;
        if self.places.capacity() > KEPT_PLACES {
            self.places = Vec::new();
        }
        self.places.clear();
        if self.inline {
            self.inline = false;
            self.words = Vec::new();
        }
    }

    /// An inline command: words between blanks, in quotes as a shell has them.
    fn line(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let Some(end) = bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') else {
            return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(Malformed::LongLine) };
        };
        let mut line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        self.inline = true;
        loop {
            line = line.trim_ascii_start();
            if line.is_empty() {
                break;
            }
            let start = self.words.len();
            line = word(line, &mut self.words)?;
            self.places.push(start as u32..self.words.len() as u32);
        }
        self.at = end + 1;
        self.state = State::Done;
        Ok(Some(end + 1))
    }
}

/// Takes a word off a line, and answers with the rest of it.
fn word<'a>(line: &'a [u8], into: &mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    let quote @ (b'"' | b'\'') = line[0] else {
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        into.extend_from_slice(&line[..end]);
        return Ok(&line[end..]);
    };
    let mut rest = &line[1..];
    loop {
        let (byte, taken) = match rest {
            [] => return Err(Malformed::Quotes),
            [byte, after @ ..] if *byte == quote => {
                // A quote ends a word: what follows must be a blank.
                let ends = after.first().is_none_or(u8::is_ascii_whitespace);
                return if ends { Ok(after) } else { Err(Malformed::Quotes) };
            }
            [b'\\', b'x', high, low, ..] if quote == b'"' && hex(*high, *low).is_some() => {
                (hex(*high, *low).unwrap_or_default(), 4)
            }
            [b'\\', escaped, ..] if quote == b'"' => (unescape(*escaped), 2),
            [b'\\', b'\'', ..] => (b'\'', 2),
            [byte, ..] => (*byte, 1),
        };
        into.push(byte);
        rest = &rest[taken..];
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        other => other,
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// The number at `from`, and where the next line begins.
fn number(bytes: &[u8], from: usize, wrong: Malformed) -> Result<Option<(i64, usize)>, Malformed> {
    let negative = bytes.get(from) == Some(&b'-');
    let first = from + usize::from(negative);
    let mut value = 0_i64;
    for (at, byte) in bytes.iter().enumerate().skip(first) {
        match byte {
            b'0'..=b'9' if at - first < 18 => value = value * 10 + i64::from(byte - b'0'),
            b'\r' if at > first => match bytes.get(at + 1) {
                None => return Ok(None),
                Some(b'\n') => return Ok(Some((if negative { -value } else { value }, at + 2))),
                Some(_) => return Err(wrong),
            },
            _ => return Err(wrong),
        }
    }
    Ok(None)
}

/// Writes replies.
#[derive(Debug)]
pub struct Replies<'a> {
    out: &'a mut Vec<u8>,
    /// The third version of the protocol, which a client may ask for (`HELLO 3`).
    third: bool,
}

impl<'a> Replies<'a> {
    pub fn new(out: &'a mut Vec<u8>, third: bool) -> Self {
        Self { out, third }
    }

    pub fn set_third(&mut self, third: bool) {
        self.third = third;
    }

    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// An error: its code is the first word.
    pub fn error(&mut self, text: impl Display) {
        // A line end of the client's own would end the reply.
        let text = format!("{text}").replace(['\r', '\n'], " ");
        self.line(b'-', text.as_bytes());
    }

    pub fn integer(&mut self, value: i64) {
        self.line(b':', itoa::Buffer::new().format(value).as_bytes());
    }

    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.line(b'$', itoa::Buffer::new().format(bytes.len()).as_bytes());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    pub fn nothing(&mut self) {
        self.out.extend_from_slice(if self.third { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// So many elements follow.
    pub fn array(&mut self, count: usize) {
        self.line(b'*', itoa::Buffer::new().format(count).as_bytes());
    }

    /// So many pairs follow.
    pub fn map(&mut self, count: usize) {
        match self.third {
            true => self.line(b'%', itoa::Buffer::new().format(count).as_bytes()),
            false => self.array(2 * count),
        }
    }

    fn line(&mut self, mark: u8, text: &[u8]) {
        self.out.push(mark);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Writes a command, as a client does.
pub fn encode<'a>(
    arguments: impl IntoIterator<Item = &'a [u8], IntoIter: ExactSizeIterator>,
    out: &mut Vec<u8>,
) {
    let arguments = arguments.into_iter();
    let mut replies = Replies::new(out, false);
    replies.array(arguments.len());
    arguments.for_each(|argument| replies.bulk(argument));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(parser: &Parser, bytes: &[u8]) -> Vec<Vec<u8>> {
        parser.command(bytes).args(0).map(<[u8]>::to_vec).collect()
    }

    /// Every command is found whatever the pieces that its bytes come in.
    #[test]
    fn pieces_make_no_difference() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$5\r\na\r\n\0b\r\n";
        for step in 1..bytes.len() {
            let mut parser = Parser::default();
            let mut end = 0;
            while end < bytes.len() {
                assert_eq!(parser.parse(&bytes[..end], 1 << 20), Ok(None), "{end}");
                let fresh = &bytes[end..(end + step).min(bytes.len())];
                let taken = parser.wanted(end, fresh);
                assert!(taken > 0);
                end += taken;
            }
            assert_eq!(parser.parse(bytes, 1 << 20), Ok(Some(bytes.len())));
            assert_eq!(words(&parser, bytes), [&b"GET"[..], b"a\r\n\0b"]);
        }
    }

    #[test]
    fn inline_words() {
        let line = b"  SET 'a b' \"c\\n\\x41\\\"\" d'e\r\nGET";
        let mut parser = Parser::default();
        assert_eq!(parser.parse(line, 1 << 20), Ok(Some(line.len() - 3)));
        assert_eq!(words(&parser, line), [&b"SET"[..], b"a b", b"c\nA\"", b"d'e"]);
        parser.reset();
        for wrong in [&b"GET \"a\n"[..], b"GET 'a'b\n", b"GET 'a\n"] {
            assert_eq!(Parser::default().parse(wrong, 100), Err(Malformed::Quotes));
        }
        assert_eq!(Parser::default().parse(&[b'x'; 1 << 17], 100), Err(Malformed::LongLine));
    }

    #[test]
    fn what_is_malformed() {
        let cases = [
            (&b"*x\r\n"[..], Malformed::Count),
            (b"*1048577\r\n", Malformed::Count),
            (b"*\r\n", Malformed::Count),
            (b"*9999999999999999999999", Malformed::Count),
            (b"*1\r\n+", Malformed::Mark(b'+')),
            (b"*1\r\n$-1\r\n", Malformed::Length),
            (b"*1\r\n$1048577\r\n", Malformed::Length),
            (b"*1\r\n$1x\r\n", Malformed::Length),
        ];
        for (bytes, wrong) in cases {
            assert_eq!(Parser::default().parse(bytes, 1 << 20), Err(wrong));
        }
        for nothing in [&b"*0\r\n"[..], b"*-1\r\n", b"\r\n"] {
            let mut parser = Parser::default();
            assert_eq!(parser.parse(nothing, 100), Ok(Some(nothing.len())));
            assert!(parser.command(nothing).is_empty());
        }
    }
}
