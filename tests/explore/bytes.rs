//! The books of the bytes: a counter is sent, and every byte that arrives has its place in it.

use std::ops::Range;

use quoit::net::TcpStream;
use quoit::sim::explore::Explore;
use quoit::task::JoinHandle;

use crate::dawdle;

/// Bytes of a stream are numbered, so there are 256 that differ.
pub(crate) const MOST: usize = 256;

pub(crate) fn counter(places: Range<usize>) -> Vec<u8> {
    assert!(places.end <= MOST, "a byte names its place");
    places.map(|place| place as u8).collect()
}

/// Sends the counter up to `length` in parts, then FIN.
pub(crate) fn feed(stream: TcpStream, length: usize, explore: &Explore) -> JoinHandle<()> {
    let explore = explore.clone();
    quoit::spawn(async move {
        let mut sent = 0;
        while sent < length {
            dawdle(&explore).await;
            let end = (sent + 1 + explore.below(20)).min(length);
            stream.send_all(counter(sent..end)).await.unwrap();
            sent = end;
        }
        stream.shutdown().await.unwrap();
        // The other side ends it: what it has not read is not reset.
        assert!(stream.recv().await.unwrap().is_empty());
    })
}

/// Takes a counter apart: each byte is the next one.
#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) got: usize,
}

impl Sink {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let end = self.got + bytes.len();
        assert!(end <= MOST, "more bytes than were sent");
        assert_eq!(bytes, counter(self.got..end), "from byte {} on", self.got);
        self.got = end;
    }
}

/// What the sender knows of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Sent,
    NotSent,
    /// All of it, or nothing.
    Unknown,
    /// As much of it as there is, from its start.
    Start,
}

/// The parts of a counter that were sent, each with its fate.
#[derive(Default, Debug)]
pub(crate) struct Parts(Vec<(Range<usize>, Fate)>);

impl Parts {
    /// The places of the next part.
    pub(crate) fn next(&self, length: usize) -> Range<usize> {
        let start = self.0.last().map_or(0, |(places, _)| places.end);
        start..start + length
    }

    pub(crate) fn push(&mut self, places: Range<usize>, fate: Fate) {
        assert_eq!(places, self.next(places.len()), "parts follow each other");
        self.0.push((places, fate));
    }

    /// What arrived is what was sent, in order; what was lost, its sender knew of.
    pub(crate) fn check(&self, got: &[u8]) {
        let in_order = got.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(in_order, "repeated or out of order: {got:?}");
        let mut known = 0;
        for (places, fate) in &self.0 {
            let there: Vec<u8> =
                got.iter().copied().filter(|byte| places.contains(&usize::from(*byte))).collect();
            known += there.len();
            let start = counter(places.start..places.start + there.len());
            let fits = match fate {
                Fate::Sent => there.len() == places.len(),
                Fate::NotSent => there.is_empty(),
                Fate::Unknown => there.is_empty() || there.len() == places.len(),
                Fate::Start => there == start,
            };
            assert!(fits, "{places:?} is {fate:?}, and of it came {there:?}");
        }
        assert_eq!(known, got.len(), "bytes that nobody has sent: {got:?}");
    }
}
