//! A connection without its socket: bytes in, commands out, in whatever pieces the bytes come.
//!
//! ```text
//!   input ──► Parser ──► a whole command, in the input itself ──► Target
//!               │ the rest of the input is half a command
//!               ▼
//!            pending: that half, and what the next inputs bring of it; never of what follows
//! ```
//!
//! Whoever owns the socket sends the replies of a turn together. A turn ends when the input does,
//! or when there are replies enough: the peer must take them before it is served further.

use super::Limits;
use super::client::Client;
use super::commands::{self, Call};
use super::resp::{Command, Malformed, Parser, Replies};
use super::store::Store;

/// Above this, the room of a command that came in pieces is given back.
const KEPT: usize = 16 * 1024;

/// What commands are given to.
pub trait Target {
    /// Carries a command out, or plans to. Says whether the turn should end here.
    fn take(&mut self, client: &mut Client, command: Command<'_>) -> bool;

    /// The client cannot be understood any further.
    fn refuse(&mut self, malformed: Malformed);
}

/// What to do after a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flow {
    /// Send, then read.
    Read,
    /// Send, then give what is left of the input.
    Again,
    /// Send, then close.
    Close,
}

#[derive(Debug)]
pub struct Session {
    client: Client,
    parser: Parser,
    pending: Vec<u8>,
    limits: Limits,
}

impl Session {
    pub fn new(client: Client, limits: Limits) -> Self {
        Self { client, parser: Parser::default(), pending: Vec::new(), limits }
    }

    /// What is known of the client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Takes commands off the input: all, or as many as make a turn.
    pub fn feed(&mut self, input: &mut &[u8], target: &mut impl Target) -> Flow {
        loop {
            match self.next(input, target) {
                Ok(None) => return Flow::Read,
                Ok(Some(_)) if self.client.closing => return Flow::Close,
                Ok(Some(false)) => {}
                Ok(Some(true)) => return Flow::Again,
                Err(malformed) => {
                    target.refuse(malformed);
                    return Flow::Close;
                }
            }
        }
    }

    /// Takes one command: says whether the turn ends with it.
    fn next(
        &mut self,
        input: &mut &[u8],
        target: &mut impl Target,
    ) -> Result<Option<bool>, Malformed> {
        if self.pending.is_empty() {
            return match self.parser.parse(input, self.limits.command)? {
                Some(length) => {
                    let full = Self::give(&mut self.client, &mut self.parser, input, target);
                    *input = &input[length..];
                    Ok(Some(full))
                }
                None => {
                    self.pending.extend_from_slice(input);
                    *input = &[];
                    Ok(None)
                }
            };
        }
        while !input.is_empty() {
            let wanted = self.parser.wanted(self.pending.len(), input);
            self.pending.extend_from_slice(&input[..wanted]);
            *input = &input[wanted..];
            if self.parser.parse(&self.pending, self.limits.command)?.is_some() {
                let full = Self::give(&mut self.client, &mut self.parser, &self.pending, target);
                self.pending.clear();
                self.pending.shrink_to(KEPT);
                return Ok(Some(full));
            }
        }
        Ok(None)
    }

    fn give(
        client: &mut Client,
        parser: &mut Parser,
        bytes: &[u8],
        target: &mut impl Target,
    ) -> bool {
        let command = parser.command(bytes);
        let full = !command.is_empty() && target.take(client, command);
        parser.reset();
        full
    }
}

/// Carries commands out on one store: all there is, where there is one core.
#[derive(Debug)]
pub struct Local<'a> {
    pub store: &'a mut Store,
    pub replies: &'a mut Vec<u8>,
    pub limits: Limits,
}

impl Target for Local<'_> {
    fn take(&mut self, client: &mut Client, command: Command<'_>) -> bool {
        carry_out(self.store, client, command, self.replies);
        self.replies.len() >= self.limits.replies
    }

    fn refuse(&mut self, malformed: Malformed) {
        Replies::new(self.replies, false).error(format_args!("ERR {malformed}"));
    }
}

/// Carries one command out.
pub fn carry_out(
    store: &mut Store,
    client: &mut Client,
    command: Command<'_>,
    replies: &mut Vec<u8>,
) {
    let mut reply = Replies::new(replies, client.third);
    match commands::find(&command) {
        Ok(spec) => commands::run(spec, &mut Call { store, client, command, reply }),
        Err(text) => reply.error(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::resp::encode;
    use super::*;

    fn session() -> Session {
        let limits = Limits { command: 1 << 16, replies: 1 << 12, clients: 1 };
        Session::new(Client::new(1, 1), limits)
    }

    fn feed(session: &mut Session, store: &mut Store, mut input: &[u8]) -> (Flow, Vec<u8>) {
        let mut replies = Vec::new();
        let limits = session.limits;
        loop {
            let mut target = Local { store, replies: &mut replies, limits };
            match session.feed(&mut input, &mut target) {
                Flow::Again => {}
                flow => return (flow, replies),
            }
        }
    }

    /// The replies are the same whatever the pieces, and only half a command is ever kept.
    #[test]
    fn pieces_make_no_difference() {
        let mut bytes = Vec::new();
        for index in 0..20_u8 {
            let value = vec![b'\n'; usize::from(index) * 20];
            encode([&b"SET"[..], &[index], &value], &mut bytes);
            bytes.extend_from_slice(b"GET nothing\r\n\r\n");
            encode([&b"get"[..], &[index]], &mut bytes);
        }
        let whole = feed(&mut session(), &mut Store::default(), &bytes);
        assert_eq!(whole.1.windows(4).filter(|four| *four == b"$-1\r").count(), 20);
        for step in [1, 2, 3, 7, 30, 100, 1000] {
            let (mut session, mut store) = (session(), Store::default());
            let mut replies = Vec::new();
            for piece in bytes.chunks(step) {
                let (flow, some) = feed(&mut session, &mut store, piece);
                assert_eq!(flow, Flow::Read);
                replies.extend(some);
                assert!(session.pending.len() < 450);
            }
            assert!(session.pending.is_empty());
            assert_eq!(replies, whole.1, "{step}");
        }
    }

    /// A turn ends when there are replies enough, and goes on where it had ended.
    #[test]
    fn a_turn_is_no_longer_than_its_replies() {
        let (mut session, mut store) = (session(), Store::default());
        let mut bytes = Vec::new();
        encode([&b"SET"[..], b"large", &[b'x'; 3000]], &mut bytes);
        (0..10).for_each(|_| encode([&b"GET"[..], b"large"], &mut bytes));
        let mut input = &bytes[..];
        let mut lengths = Vec::new();
        loop {
            let mut replies = Vec::new();
            let limits = session.limits;
            let mut target = Local { store: &mut store, replies: &mut replies, limits };
            let flow = session.feed(&mut input, &mut target);
            lengths.push(replies.len());
            if flow == Flow::Read {
                break;
            }
        }
        let one = "$3000\r\n".len() + 3000 + 2;
        assert_eq!(lengths, [5 + 2 * one, 2 * one, 2 * one, 2 * one, 2 * one, 0]);
    }

    #[test]
    fn what_cannot_be_understood_ends_it() {
        let (flow, replies) = feed(&mut session(), &mut Store::default(), b"PING\r\n*1\r\nx");
        assert_eq!(flow, Flow::Close);
        assert_eq!(replies, b"+PONG\r\n-ERR Protocol error: expected '$', got 'x'\r\n");
        let (flow, replies) = feed(&mut session(), &mut Store::default(), b"*1\r\n$70000\r\n");
        assert_eq!(flow, Flow::Close);
        assert_eq!(replies, b"-ERR Protocol error: invalid bulk length\r\n");
    }
}
