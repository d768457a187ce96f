//! Several cores: each has its share of the keys, and nobody else touches it.
//!
//! ```text
//!   a client's turn ──► Plan ──► a batch for each core that is concerned ──► its store
//!                        │                                                     │
//!   one send ◄── the replies, in the order of the commands ◄── an answer of each
//! ```
//!
//! A core gets one message for a turn, however many of its commands concern it. Commands of one
//! client on one key are carried out in their order; those on keys of different cores at the same
//! time, and so are the parts of one that names several (`MSET` is whole on each core, not on all).

use std::io;
use std::iter::once;
use std::mem;
use std::ops::Range;
use std::rc::Rc;

use ahash::RandomState;
use tokio::sync::{mpsc, oneshot};

use super::Shard;
use super::client::Client;
use super::commands::{self, Call, Merge, Route, cursor};
use super::resp::{Command, Malformed, Parser, Replies, encode};
use super::session::{Target, carry_out};
use super::store::Store;

/// Batches that may wait for a core; who has more for it waits.
const WAITING: usize = 1024;

/// So many parts of commands make a turn, or so many bytes of them.
const MOST_PARTS: usize = 256;
const MOST_BYTES: usize = 256 * 1024;

/// The ways to all cores, and whose each key is.
#[derive(Clone, Debug)]
pub struct Cores {
    here: usize,
    ways: Vec<mpsc::Sender<Batch>>,
    hash: RandomState,
}

/// Commands for another core.
#[derive(Debug)]
pub struct Batch {
    commands: Vec<u8>,
    third: bool,
    answer: oneshot::Sender<Answer>,
}

/// The replies to a batch, and where each ends.
#[derive(Debug, Default)]
struct Answer {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Cores {
    /// What each of so many cores needs: the ways to all, and the end of that to itself.
    pub fn new(count: usize) -> Vec<(Self, mpsc::Receiver<Batch>)> {
        let (ways, ends): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(WAITING)).unzip();
        let hash = RandomState::new();
        let cores = (0..count).map(|here| Self { here, ways: ways.clone(), hash: hash.clone() });
        cores.zip(ends).collect()
    }

    pub fn count(&self) -> usize {
        self.ways.len()
    }

    fn owner(&self, key: &[u8]) -> usize {
        (self.hash.hash_one(key) % self.ways.len() as u64) as usize
    }
}

/// Carries out what other cores ask for, until none of them can ask any more. It waits for nothing
/// else, so cores that ask each other never wait for each other in a ring.
pub async fn answer(mut batches: mpsc::Receiver<Batch>, shard: Rc<Shard>, cores: usize) {
    while let Some(batch) = batches.recv().await {
        let carried_out =
            shard.with(|store| Answer::of(&batch.commands, batch.third, cores, store));
        // An error says that the client has gone.
        let _ = batch.answer.send(carried_out);
    }
}

impl Answer {
    fn of(mut commands: &[u8], third: bool, cores: usize, store: &mut Store) -> Self {
        let mut answer = Self::default();
        let mut parser = Parser::default();
        let mut client = Client::new(0, cores);
        client.third = third;
        while let Ok(Some(length)) = parser.parse(commands, usize::MAX) {
            carry_out(store, &mut client, parser.command(commands), &mut answer.bytes);
            answer.ends.push(answer.bytes.len());
            parser.reset();
            commands = &commands[length..];
        }
        answer
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }
}

/// A turn's commands, by the cores that they concern.
#[derive(Debug)]
pub struct Plan<'a> {
    shard: &'a Shard,
    cores: &'a Cores,
    third: bool,
    batches: Vec<Vec<u8>>,
    /// What needs no core has its reply already.
    replied: Vec<u8>,
    /// Whose each part is, one after the other.
    owners: Vec<usize>,
    pieces: Vec<Piece>,
}

/// What the reply to a command is made of.
#[derive(Debug)]
enum Piece {
    Replied(Range<usize>),
    One(usize),
    Several(Merge, Range<usize>),
}

impl<'a> Plan<'a> {
    pub fn new(shard: &'a Shard, cores: &'a Cores, client: &Client) -> Self {
        Self {
            shard,
            cores,
            third: client.third,
            batches: vec![Vec::new(); cores.count()],
            replied: Vec::new(),
            owners: Vec::new(),
            pieces: Vec::new(),
        }
    }

    fn reply(&mut self, third: bool, write: impl FnOnce(&mut Store, Replies<'_>)) {
        let start = self.replied.len();
        self.shard.with(|store| write(store, Replies::new(&mut self.replied, third)));
        self.pieces.push(Piece::Replied(start..self.replied.len()));
    }

    fn one(&mut self, owner: usize, command: Command<'_>) {
        encode(command.args(0), &mut self.batches[owner]);
        self.pieces.push(Piece::One(owner));
    }

    fn several(&mut self, merge: Merge, step: usize, command: Command<'_>) {
        let start = self.owners.len();
        for first in (1..command.len()).step_by(step) {
            let owner = self.cores.owner(command.arg(first));
            let part: Vec<_> = once(command.arg(0)).chain(command.args(first).take(step)).collect();
            encode(part, &mut self.batches[owner]);
            self.owners.push(owner);
        }
        self.pieces.push(Piece::Several(merge, start..self.owners.len()));
    }

    fn all(&mut self, merge: Merge, command: Command<'_>) {
        let start = self.owners.len();
        for owner in 0..self.cores.count() {
            encode(command.args(0), &mut self.batches[owner]);
            self.owners.push(owner);
        }
        self.pieces.push(Piece::Several(merge, start..self.owners.len()));
    }

    /// Has everything carried out, and writes the replies in the order of the commands.
    pub async fn carry_out(mut self, replies: &mut Vec<u8>) -> io::Result<()> {
        let gone = |_| io::Error::other("a core has ended that has some of the keys");
        let mut waiting = Vec::new();
        for owner in 0..self.batches.len() {
            if owner != self.cores.here && !self.batches[owner].is_empty() {
                let (answer, answered) = oneshot::channel();
                let commands = mem::take(&mut self.batches[owner]);
                let batch = Batch { commands, third: self.third, answer };
                self.cores.ways[owner].send(batch).await.map_err(|_| gone(()))?;
                waiting.push((owner, answered));
            }
        }
        let mut answers: Vec<_> = self.batches.iter().map(|_| Answer::default()).collect();
        let (here, own) = (self.cores.here, &self.batches[self.cores.here]);
        let count = self.cores.count();
        answers[here] = self.shard.with(|store| Answer::of(own, self.third, count, store));
        for (owner, answered) in waiting {
            answers[owner] = answered.await.map_err(|_| gone(()))?;
        }
        self.assemble(&answers, replies);
        Ok(())
    }

    fn assemble(&self, answers: &[Answer], replies: &mut Vec<u8>) {
        let mut next = vec![0; answers.len()];
        let mut take = |owner: usize| {
            next[owner] += 1;
            answers[owner].get(next[owner] - 1)
        };
        for piece in &self.pieces {
            match piece {
                Piece::Replied(place) => replies.extend_from_slice(&self.replied[place.clone()]),
                Piece::One(owner) => replies.extend_from_slice(take(*owner)),
                Piece::Several(how, place) => {
                    let owners = &self.owners[place.clone()];
                    let parts: Vec<_> = owners.iter().map(|owner| take(*owner)).collect();
                    merge(*how, &parts, replies);
                }
            }
        }
    }
}

impl Target for Plan<'_> {
    fn take(&mut self, client: &mut Client, command: Command<'_>) -> bool {
        let before = client.third;
        match commands::find(&command) {
            Err(text) => self.reply(before, |_, mut reply| reply.error(text)),
            Ok(spec) => match spec.route {
                Route::Here => self.reply(before, |store, reply| {
                    commands::run(spec, &mut Call { store, client, command, reply });
                }),
                Route::Key => self.one(self.cores.owner(command.arg(1)), command),
                Route::Keys(step, merge) => self.several(merge, step, command),
                Route::All(merge) => self.all(merge, command),
                Route::Cursor => {
                    let cursor = cursor(command.arg(1)).unwrap_or_default();
                    self.one(cursor % self.cores.count(), command);
                }
            },
        }
        let bytes: usize = self.batches.iter().map(Vec::len).sum();
        self.owners.len() + self.pieces.len() >= MOST_PARTS
            || bytes + self.replied.len() >= MOST_BYTES
            // Those before are to be answered in the version that they were asked in.
            || client.third != before
    }

    fn refuse(&mut self, malformed: Malformed) {
        self.reply(false, |_, mut reply| reply.error(format_args!("ERR {malformed}")));
    }
}

/// Makes one reply of those of several cores; if there is an error among them, that one.
fn merge(how: Merge, parts: &[&[u8]], replies: &mut Vec<u8>) {
    if let Some(error) = parts.iter().find(|part| part.starts_with(b"-")) {
        return replies.extend_from_slice(error);
    }
    let head = |part: &[u8]| {
        let end = part.iter().position(|byte| *byte == b'\r').unwrap_or(part.len());
        (commands::integer(&part[1..end]).unwrap_or_default(), end + 2)
    };
    let sum = parts.iter().map(|part| head(part).0).sum();
    let mut reply = Replies::new(replies, false);
    match how {
        Merge::First => replies.extend_from_slice(parts[0]),
        Merge::Sum => reply.integer(sum),
        Merge::Chain => {
            reply.array(sum as usize);
            parts.iter().for_each(|part| replies.extend_from_slice(&part[head(part).1..]));
        }
    }
}
