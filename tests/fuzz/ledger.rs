//! What must be true of the bytes of each direction of each connection.
//!
//! ```text
//!   sender    chunk 0 (whole) · chunk 1 (whole or nothing) · chunk 2 (any part of it) · ...
//!   receiver  the bytes of all reads, in the order of their answers
//! ```
//!
//! What was received has to be the beginning of some choice of the chunks; and all of it when the
//! end of the stream was seen. Fates are known only as well as the contract tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use quoit::buffer::IoBuf;

use crate::model::FileModel;

/// How much of a chunk goes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    WholeOrNothing,
    /// Exactly so many bytes.
    Exactly(usize),
    AnyPart,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    fate: Fate,
    /// Its buffer, as long as it is alive.
    buffer: Weak<()>,
    /// Its write is under way. When all is over: it was forgotten.
    open: bool,
}

impl Chunk {
    fn new(bytes: Vec<u8>, fate: Fate) -> Self {
        Self { bytes, fate, buffer: Weak::new(), open: true }
    }

    /// The buffer went down with a future that was forgotten before it committed.
    fn is_forgotten(&self) -> bool {
        self.open && self.buffer.strong_count() > 0
    }
}

/// One direction of one connection.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    from: Option<SocketAddr>,
    /// Nobody can tell whose it is: the peer was gone before its address was asked for.
    unknown: bool,
    chunks: Vec<Chunk>,
    got: Vec<u8>,
    /// So much had come when the end was seen.
    end: Option<usize>,
    /// What was seen without being taken, and where.
    peeks: Vec<(usize, Vec<u8>)>,
    /// Its sender crashed: what it had committed may be lost, though the end comes.
    crashed: bool,
    /// The other direction, and whether a write on it has failed: that took the connection's
    /// error, and a read finds the end then (tcp(7)).
    reverse: Option<usize>,
    failed: bool,
    broken: bool,
    writers: usize,
    /// A `write_all` is under way, between whose parts other writes would go.
    exclusive: bool,
}

impl Direction {
    /// Where in what was received each choice of the first chunks may end.
    fn check(&self, may_be_cut: bool) -> Result<(), String> {
        if self.unknown {
            return Ok(());
        }
        for (at, seen) in &self.peeks {
            let rest = &self.got[(*at).min(self.got.len())..];
            if rest.iter().zip(seen).any(|(got, seen)| got != seen) {
                return Err(format!("a look at {at} saw {seen:?}, a read {rest:?}"));
            }
        }
        let (mut ends, mut is_beginning) = (vec![0], self.got.is_empty());
        for chunk in &self.chunks {
            let mut next = Vec::new();
            for start in ends {
                let rest = &self.got[start..];
                let same = rest.iter().zip(&chunk.bytes).take_while(|(a, b)| a == b).count();
                let length = chunk.bytes.len();
                let lengths = match chunk.fate {
                    _ if chunk.is_forgotten() => 0..=0,
                    Fate::Exactly(count) => count..=count,
                    Fate::WholeOrNothing | Fate::AnyPart => 0..=length,
                };
                let skips = chunk.fate == Fate::WholeOrNothing;
                let allowed = |count: &usize| !skips || *count == 0 || *count == length;
                next.extend(
                    lengths.clone().filter(allowed).filter(|c| *c <= same).map(|c| start + c),
                );
                is_beginning |= same == rest.len() && *lengths.end() >= same;
            }
            next.sort_unstable();
            next.dedup();
            is_beginning |= next.contains(&self.got.len());
            ends = next;
        }
        if !is_beginning {
            return Err("what came is no beginning of what was sent".to_owned());
        }
        match self.end {
            Some(end) if end != self.got.len() => Err(format!("bytes after the end at {end}")),
            Some(_) if !self.crashed && !may_be_cut && !ends.contains(&self.got.len()) => {
                Err("the end came, and not everything before it".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// What one program comes to.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    names: BTreeMap<(SocketAddr, SocketAddr), usize>,
    directions: Vec<Direction>,
    pub(crate) files: [Vec<FileModel>; 2],
    pub(crate) failures: Vec<String>,
    stuck: BTreeSet<usize>,
    may_be_lost: Vec<Weak<()>>,
    pub(crate) started: usize,
    pub(crate) ended: usize,
    /// Hosts that have crashed.
    pub(crate) crashed: [bool; 2],
    /// Power went, or what was sent got lost: peers may wait for ever. A host that knows nothing of
    /// the connection any more sends nothing again, and nobody a reset.
    pub(crate) silent: bool,
    /// Connections that `accept` and `close` have handed to the program.
    pub(crate) handed: u64,
    /// A `close` was dropped, and with it what it would have returned.
    pub(crate) discarded: bool,
    /// Operations that did something, to see that programs are not empty.
    pub(crate) done: u64,
}

impl Ledger {
    /// The directions of a connection: out, and in.
    pub(crate) fn ways(&mut self, local: SocketAddr, peer: SocketAddr) -> (usize, usize) {
        if peer.ip().is_unspecified() {
            let next = self.directions.len();
            let unknown = || Direction { unknown: true, ..Direction::default() };
            self.directions.extend([unknown(), unknown()]);
            return (next, next + 1);
        }
        let (out, back) = (self.way(local, peer), self.way(peer, local));
        self.directions[out].reverse = Some(back);
        self.directions[back].reverse = Some(out);
        (out, back)
    }

    /// A future stands in a line of this connection for ever: nobody gets past it.
    pub(crate) fn stuck(&mut self, (out, _): (usize, usize)) {
        self.stuck.insert(out);
    }

    pub(crate) fn is_stuck(&self, (out, _): (usize, usize)) -> bool {
        self.stuck.contains(&out)
    }

    /// Buffers that were forgotten with their futures, when all is over.
    pub(crate) fn forgotten(&self) -> usize {
        let chunks = self.directions.iter().flat_map(|direction| &direction.chunks);
        let lost = self.may_be_lost.iter().filter(|life| life.strong_count() > 0);
        chunks.filter(|chunk| chunk.is_forgotten()).count() + lost.count()
    }

    /// The future that owns this buffer may be forgotten before it commits.
    pub(crate) fn may_lose(&mut self, buffer: &Counted) {
        self.may_be_lost.push(Arc::downgrade(&buffer.life));
    }

    /// A write has failed.
    pub(crate) fn failed(&mut self, way: usize) {
        self.directions[way].failed = true;
    }

    fn way(&mut self, from: SocketAddr, to: SocketAddr) -> usize {
        let next = self.directions.len();
        let way = *self.names.entry((from, to)).or_insert(next);
        if way == next {
            self.directions.push(Direction { from: Some(from), ..Direction::default() });
        }
        way
    }

    pub(crate) fn fail(&mut self, text: impl Into<String>) {
        self.failures.push(text.into());
    }

    pub(crate) fn got(&mut self, way: usize, bytes: &[u8]) {
        let direction = &mut self.directions[way];
        direction.got.extend_from_slice(bytes);
        self.done += 1;
    }

    pub(crate) fn ended(&mut self, way: usize) {
        let direction = &mut self.directions[way];
        direction.end.get_or_insert(direction.got.len());
        if direction.broken {
            self.failures.push(format!("direction {way}: an orderly end after an error"));
        }
    }

    /// A read was told how the connection has failed: so is every later one.
    pub(crate) fn broken(&mut self, way: usize) {
        self.directions[way].broken = true;
    }

    pub(crate) fn peeked(&mut self, way: usize, bytes: &[u8]) {
        let direction = &mut self.directions[way];
        direction.peeks.push((direction.got.len(), bytes.to_vec()));
    }

    /// The host with these addresses crashes.
    pub(crate) fn crash(&mut self, host: usize, addresses: &[IpAddr]) {
        self.crashed[host] = true;
        for direction in &mut self.directions {
            let is_theirs = |ip: IpAddr| addresses.contains(&ip) || ip.is_loopback();
            direction.crashed |= direction.from.is_none_or(|from| is_theirs(from.ip()));
        }
    }

    /// Its peers may wait for ever; what its disk has is not known any more, since a close does
    /// not sync.
    pub(crate) fn power_lost(&mut self, host: usize) {
        self.silent = true;
        self.files[host].iter_mut().for_each(|file| file.closed = false);
    }

    pub(crate) fn check(&mut self) {
        for (way, direction) in self.directions.iter().enumerate() {
            let reverse = direction.reverse.map(|reverse| &self.directions[reverse]);
            let exact = |chunk: &Chunk| matches!(chunk.fate, Fate::Exactly(_));
            let is_cut = reverse.is_some_and(|one| one.failed || !one.chunks.iter().all(exact));
            if let Err(text) = direction.check(is_cut) {
                let text = format!("direction {way}: {text}: {direction:?}");
                self.failures.push(text);
            }
        }
    }
}

/// The ledger, for everyone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    ledger: Arc<Mutex<Ledger>>,
    pub(crate) alive: Arc<AtomicUsize>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Bytes that nobody else sends on this direction. `None`: another write is in the way.
    pub(crate) fn chunk(&self, way: usize, length: usize, whole_slice: bool) -> Option<Sending> {
        let seed = {
            let ledger = self.lock();
            (way * 1009 + ledger.directions[way].chunks.len() * 131) as u64
        };
        let mut chance = quoit::sim::Chance::new(seed);
        let bytes = (0..length).map(|_| chance.bits() as u8).collect();
        self.chunk_of(way, bytes, whole_slice)
    }

    /// As `chunk`, with these bytes.
    pub(crate) fn chunk_of(&self, way: usize, bytes: Vec<u8>, exclusive: bool) -> Option<Sending> {
        let mut ledger = self.lock();
        let direction = &mut ledger.directions[way];
        if direction.exclusive || exclusive && direction.writers > 0 {
            return None;
        }
        direction.writers += 1;
        direction.exclusive = exclusive;
        direction.chunks.push(Chunk::new(bytes.clone(), Fate::AnyPart));
        let chunk = direction.chunks.len() - 1;
        Some(Sending { shared: self.clone(), way, chunk, bytes, if_dropped: Fate::AnyPart })
    }

    pub(crate) fn counted(&self, bytes: Vec<u8>) -> Counted {
        self.alive.fetch_add(1, Ordering::Relaxed);
        Counted { bytes, alive: self.alive.clone(), life: Arc::default() }
    }
}

/// A chunk whose write is under way.
#[derive(Debug)]
pub(crate) struct Sending {
    shared: Shared,
    way: usize,
    chunk: usize,
    pub(crate) bytes: Vec<u8>,
    if_dropped: Fate,
}

impl Sending {
    /// What dropping its future now would make of it.
    pub(crate) fn if_dropped(&mut self, fate: Fate) {
        self.if_dropped = fate;
        self.settle(fate);
    }

    /// The buffer that its bytes go out in.
    pub(crate) fn counted(&self) -> Counted {
        let buffer = self.shared.counted(self.bytes.clone());
        let life = Arc::downgrade(&buffer.life);
        self.shared.lock().directions[self.way].chunks[self.chunk].buffer = life;
        buffer
    }

    fn settle(&self, fate: Fate) {
        self.shared.lock().directions[self.way].chunks[self.chunk].fate = fate;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.settle(self.if_dropped);
        let mut ledger = self.shared.lock();
        let direction = &mut ledger.directions[self.way];
        direction.chunks[self.chunk].open = false;
        direction.writers -= 1;
        direction.exclusive = false;
        ledger.done += 1;
    }
}

/// A buffer that is counted, and scribbled over when it goes.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
    life: Arc<()>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.bytes.fill(0xdd);
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

// SAFETY: handed on to a vector, which keeps the promise and is not touched meanwhile.
unsafe impl IoBuf for Counted {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes.stable_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes.bytes_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction(chunks: &[(&str, Fate)], got: &str, ended: bool) -> Result<(), String> {
        let chunk = |(bytes, fate): &(&str, Fate)| Chunk::new((*bytes).into(), *fate);
        let end = ended.then_some(got.len());
        let (chunks, got) = (chunks.iter().map(chunk).collect(), got.into());
        Direction { chunks, got, end, ..Direction::default() }.check(false)
    }

    #[test]
    fn the_oracle_tells_what_was_lost_repeated_or_reordered() {
        use Fate::{AnyPart, Exactly, WholeOrNothing};
        let sent = [("abc", Exactly(3)), ("def", WholeOrNothing), ("ghi", Exactly(2))];
        for right in ["abcdefgh", "abcgh"] {
            assert!(direction(&sent, right, true).is_ok(), "{right}");
        }
        for beginning in ["", "ab", "abcde", "abcg", "abcdef"] {
            assert!(direction(&sent, beginning, false).is_ok(), "{beginning}");
            assert!(direction(&sent, beginning, true).is_err(), "{beginning}");
        }
        for wrong in ["b", "abcabc", "abcdegh", "abcdefghi", "defabcgh", "abcghdef"] {
            assert!(direction(&sent, wrong, false).is_err(), "{wrong}");
        }
        assert!(direction(&[("abc", AnyPart), ("xy", Exactly(2))], "axy", true).is_ok());
        assert!(direction(&[("abc", AnyPart), ("xy", Exactly(2))], "ax", true).is_err());
    }
}
