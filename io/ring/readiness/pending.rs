//! The requests that have not ended: a table with a free list, an index by token, and lists that
//! run through the entries themselves, so that waiting costs no memory of its own.
//!
//! ```text
//!  List { tail } ──► last ──next──► first ──next──► second ─ ─► last      (a ring; empty: NONE)
//!
//!  buckets[hash of token] ──► entry ──chain──► entry ──chain──► NONE
//! ```
//!
//! Each entry stands in at most one list. The table is bounded by the requests in flight; it grows
//! to their largest number and then allocates no more.
//!
//! What an idle connection waits with is a descriptor and a word of flags, and stands in the entry
//! itself. Requests that carry addresses and lengths are longer, and over soon: they stand aside.

use std::mem;
use std::ops::{Index, IndexMut};

use crate::io::request::{Accept, Interest, Poll, ReceiveMany, Request, Token};

const NONE: u32 = u32::MAX;

/// One request in flight: 24 bytes.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) token: Token,
    held: Held,
    next: u32,
    /// Who else has a token of the same hash.
    chain: u32,
}

/// What an entry holds of its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    /// Nothing: the entry is free.
    Free,
    /// Nothing any more: the pool has it, and will answer.
    Pool,
    Accept(i32),
    ReceiveMany(i32),
    /// `fresh`: no look was taken yet. The fields of a `Poll` one by one, which takes four bytes
    /// less than the whole.
    Poll {
        descriptor: i32,
        interest: Interest,
        multishot: bool,
        fresh: bool,
    },
    /// Its place among the long ones.
    Aside(u32),
}

/// The descriptor and the readiness that a request waits for, if any.
#[inline]
pub(super) fn waits_for(request: &Request) -> Option<(i32, Interest)> {
    Some((request.descriptor()?, request.interest()))
}

/// One first-in-first-out list of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct List {
    tail: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { tail: NONE };

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.tail == NONE
    }
}

/// All requests in flight, and those that are free to be used again.
#[derive(Debug, Default)]
pub(super) struct Requests {
    entries: Vec<Pending>,
    /// Long requests, and those of their places that are free.
    aside: Vec<Request>,
    vacant: Vec<u32>,
    /// Free entries, linked through `next`.
    free: List,
    /// Where the chains begin: a power of two of them, and half as many as there are entries or
    /// more. The latest stands first in its chain, so who is over soon is found at once.
    buckets: Vec<u32>,
}

impl Default for List {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Requests {
    pub(super) fn insert(&mut self, token: Token, request: &Request) -> u32 {
        debug_assert_eq!(self.find(token), None, "{token:?} is in flight already");
        let entry = Pending { token, held: self.hold(request), next: NONE, chain: NONE };
        let index = if self.free.is_empty() {
            let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 requests");
            assert_ne!(index, NONE, "fewer than 2^32 requests");
            self.entries.push(entry);
            index
        } else {
            let index = self.free.tail;
            self.free.tail = self[index].next;
            self[index] = entry;
            index
        };
        if self.entries.len() > 2 * self.buckets.len() {
            self.rebuild();
        } else {
            self.enchain(index);
        }
        index
    }

    /// Frees an entry that stands in no list any more, and answers its token.
    pub(super) fn remove(&mut self, index: u32) -> Token {
        assert_ne!(self[index].held, Held::Free, "a request ends once");
        self.unchain(index);
        self.let_go(index, Held::Free);
        self[index].next = mem::replace(&mut self.free.tail, index);
        self[index].token
    }

    /// Takes a request out, for the pool. Its entry stays until the pool answers.
    pub(super) fn give_away(&mut self, index: u32) -> Request {
        let request = self.request(index);
        self.let_go(index, Held::Pool);
        request
    }

    #[inline]
    pub(super) fn is_with_pool(&self, index: u32) -> bool {
        self[index].held == Held::Pool
    }

    /// # Panics
    ///
    /// Panics when it was given away, or has ended.
    #[inline]
    pub(super) fn request(&self, index: u32) -> Request {
        match self[index].held {
            Held::ReceiveMany(descriptor) => Request::ReceiveMany(ReceiveMany { descriptor }),
            Held::Aside(place) => self.aside[place as usize],
            Held::Accept(descriptor) => Request::Accept(Accept { descriptor }),
            Held::Poll { descriptor, interest, multishot, .. } => {
                Request::Poll(Poll { descriptor, interest, multishot })
            }
            held @ (Held::Free | Held::Pool) => panic!("no request waits where it is {held:?}"),
        }
    }

    /// The request, if it stands aside. Each that names no descriptor to wait for does.
    #[inline]
    pub(super) fn aside(&self, index: u32) -> Option<&Request> {
        match self[index].held {
            Held::Aside(place) => Some(&self.aside[place as usize]),
            _ => None,
        }
    }

    /// The descriptor and the readiness that the request waits for, if any.
    ///
    /// # Panics
    ///
    /// As `request`.
    #[inline]
    pub(super) fn waits_for(&self, index: u32) -> Option<(i32, Interest)> {
        match self[index].held {
            Held::ReceiveMany(descriptor) | Held::Accept(descriptor) => {
                Some((descriptor, Interest::Readable))
            }
            Held::Poll { descriptor, interest, .. } => Some((descriptor, interest)),
            Held::Aside(place) => waits_for(&self.aside[place as usize]),
            held @ (Held::Free | Held::Pool) => panic!("no request waits where it is {held:?}"),
        }
    }

    /// Whether nobody has looked yet for who asked for readiness itself; from now on somebody has.
    pub(super) fn take_fresh(&mut self, index: u32) -> bool {
        match &mut self[index].held {
            Held::Poll { fresh, .. } => mem::take(fresh),
            _ => false,
        }
    }

    fn hold(&mut self, request: &Request) -> Held {
        match *request {
            Request::ReceiveMany(ReceiveMany { descriptor }) => Held::ReceiveMany(descriptor),
            Request::Accept(Accept { descriptor }) => Held::Accept(descriptor),
            Request::Poll(Poll { descriptor, interest, multishot }) => {
                Held::Poll { descriptor, interest, multishot, fresh: true }
            }
            long => match self.vacant.pop() {
                Some(place) => {
                    self.aside[place as usize] = long;
                    Held::Aside(place)
                }
                None => {
                    self.aside.push(long);
                    // They are no more than the entries, hence fewer than 2^32.
                    Held::Aside(self.aside.len() as u32 - 1)
                }
            },
        }
    }

    fn let_go(&mut self, index: u32, held: Held) {
        if let Held::Aside(place) = mem::replace(&mut self[index].held, held) {
            self.vacant.push(place);
        }
    }

    pub(super) fn find(&self, token: Token) -> Option<u32> {
        let mut index = *self.buckets.get(self.bucket(token))?;
        while index != NONE && self[index].token != token {
            index = self[index].chain;
        }
        (index != NONE).then_some(index)
    }

    /// Spreads a token over all bits by one multiplication. Tokens are ours, never a stranger's
    /// choice, so nobody can aim at a collision.
    #[inline]
    fn bucket(&self, token: Token) -> usize {
        // 2^64 divided by the golden ratio. The highest bits are those that all others went into.
        let product = token.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bits = self.buckets.len().max(2).ilog2();
        (product >> (u64::BITS - bits)) as usize
    }

    #[inline]
    fn enchain(&mut self, index: u32) {
        let bucket = self.bucket(self[index].token);
        self[index].chain = mem::replace(&mut self.buckets[bucket], index);
    }

    fn unchain(&mut self, index: u32) {
        let (bucket, after) = (self.bucket(self[index].token), self[index].chain);
        let mut before = self.buckets[bucket];
        if before == index {
            self.buckets[bucket] = after;
            return;
        }
        while self[before].chain != index {
            before = self[before].chain;
        }
        self[before].chain = after;
    }

    /// More buckets, when there are more entries than ever before.
    #[cold]
    fn rebuild(&mut self) {
        self.buckets.clear();
        self.buckets.resize((self.entries.len().next_power_of_two() / 2).max(16), NONE);
        for index in 0..self.entries.len() as u32 {
            if self[index].held != Held::Free {
                self.enchain(index);
            }
        }
    }

    /// The first and the last of a list.
    #[inline]
    pub(super) fn ends(&self, list: List) -> Option<(u32, u32)> {
        (!list.is_empty()).then(|| (self[list.tail].next, list.tail))
    }

    /// Who stands behind `index` in its list; the first again behind the last.
    #[inline]
    pub(super) fn after(&self, index: u32) -> u32 {
        self[index].next
    }

    #[inline]
    pub(super) fn append(&mut self, list: &mut List, index: u32) {
        let first =
            if list.is_empty() { index } else { mem::replace(&mut self[list.tail].next, index) };
        self[index].next = first;
        list.tail = index;
    }

    /// Takes an entry out of the list that it stands in. The first is the usual one, and the last
    /// knows it; another has to be looked for.
    #[inline]
    pub(super) fn unlink(&mut self, list: &mut List, index: u32) {
        let mut before = list.tail;
        while self[before].next != index {
            before = self[before].next;
            assert_ne!(before, list.tail, "nobody leaves a list that he does not stand in");
        }
        if before == index {
            *list = List::EMPTY;
            return;
        }
        self[before].next = self[index].next;
        if list.tail == index {
            list.tail = before;
        }
    }
}

impl Index<u32> for Requests {
    type Output = Pending;

    #[inline]
    fn index(&self, index: u32) -> &Pending {
        &self.entries[index as usize]
    }
}

impl IndexMut<u32> for Requests {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut Pending {
        &mut self.entries[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::request::{Nop, SendBytes};

    fn receive(descriptor: i32) -> Request {
        Request::ReceiveMany(ReceiveMany { descriptor })
    }

    fn filled(count: u64) -> (Requests, List) {
        let (mut requests, mut list) = (Requests::default(), List::EMPTY);
        for token in 0..count {
            let index = requests.insert(Token(token), &Request::Nop(Nop));
            requests.append(&mut list, index);
        }
        (requests, list)
    }

    fn tokens(requests: &Requests, list: List) -> Vec<u64> {
        let mut tokens = Vec::new();
        if let Some((mut index, last)) = requests.ends(list) {
            loop {
                tokens.push(requests[index].token.0);
                if index == last {
                    break;
                }
                index = requests.after(index);
            }
        }
        tokens
    }

    #[test]
    fn a_list_keeps_its_order_whoever_leaves() {
        for (leaver, left) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
            let (mut requests, mut list) = filled(3);
            let index = requests.find(Token(leaver)).unwrap();
            requests.unlink(&mut list, index);
            assert_eq!(requests.remove(index), Token(leaver));
            assert_eq!(tokens(&requests, list), left);
            assert_eq!(requests.find(Token(leaver)), None);

            let index = requests.insert(Token(9), &Request::Nop(Nop));
            requests.append(&mut list, index);
            assert_eq!(tokens(&requests, list), [left[0], left[1], 9]);
            assert_eq!(requests.entries.len(), 3, "the free entry was used again");
        }
    }

    #[test]
    fn the_last_leaver_empties_the_list() {
        let (mut requests, mut list) = filled(1);
        requests.unlink(&mut list, 0);
        assert!(list.is_empty());
        assert_eq!(tokens(&requests, list), [0_u64; 0]);
    }

    #[test]
    fn each_is_found_by_its_token_and_only_as_long_as_it_is_there() {
        let kinds = [1_u64, 3, 6];
        let token = |index: u64| Token(kinds[index as usize % 3] << 56 | (index % 7) << 32 | index);
        let mut requests = Requests::default();
        assert_eq!(requests.find(token(0)), None);
        let indices: Vec<_> =
            (0..1000).map(|index| requests.insert(token(index), &receive(index as i32))).collect();
        let gone = |place: usize| place % 3 == 1;
        for (place, &index) in indices.iter().enumerate() {
            assert_eq!(requests.find(token(place as u64)), Some(index));
            if gone(place) {
                assert_eq!(requests.remove(index), token(place as u64));
            }
        }
        for (place, &index) in indices.iter().enumerate() {
            let found = requests.find(token(place as u64));
            assert_eq!(found, (!gone(place)).then_some(index));
        }
        // The buckets are half as many as the entries, and a chain is what an entry costs to find.
        let chain = |mut index: u32| {
            let mut length = 0;
            while index != NONE {
                (index, length) = (requests[index].chain, length + 1);
            }
            length
        };
        let longest = requests.buckets.iter().map(|first| chain(*first)).max();
        assert!(longest < Some(8), "{longest:?}");
    }

    #[test]
    fn a_request_comes_out_as_it_went_in() {
        let poll = |interest, multishot| Request::Poll(Poll { descriptor: 3, interest, multishot });
        let send = |length| {
            Request::SendBytes(SendBytes { descriptor: 4, address: b"bytes".as_ptr(), length })
        };
        let all = [
            receive(1),
            Request::Accept(Accept { descriptor: 2 }),
            poll(Interest::Readable, true),
            poll(Interest::Writable, false),
            send(1),
            Request::Nop(Nop),
            send(2),
        ];
        let mut requests = Requests::default();
        // Twice: the second time each long one stands where another stood.
        for all in [all, std::array::from_fn(|place| all[all.len() - 1 - place])] {
            let indices: Vec<_> =
                (0..).map(Token).zip(&all).map(|(t, r)| requests.insert(t, r)).collect();
            for (&index, request) in indices.iter().zip(&all) {
                assert_eq!(format!("{:?}", requests.request(index)), format!("{request:?}"));
                assert_eq!(requests.waits_for(index), waits_for(request));
                let waits = waits_for(request).is_some();
                assert!(waits || requests.aside(index).is_some(), "{request:?} stands aside");
                assert_eq!(requests.take_fresh(index), matches!(request, Request::Poll(_)));
                assert!(!requests.take_fresh(index), "only the first look is the first");
            }
            let away = requests.give_away(indices[4]);
            assert_eq!(format!("{away:?}"), format!("{:?}", all[4]));
            assert!(requests.is_with_pool(indices[4]) && !requests.is_with_pool(indices[1]));
            for index in indices {
                requests.remove(index);
            }
        }
        assert_eq!((requests.aside.len(), requests.vacant.len()), (3, 3), "places are used again");
    }

    #[test]
    #[should_panic(expected = "does not stand in")]
    fn who_leaves_a_list_stands_in_it() {
        let (mut requests, mut list) = filled(2);
        let stranger = requests.insert(Token(9), &receive(1));
        requests.unlink(&mut list, stranger);
    }

    #[test]
    fn an_entry_is_small() {
        // Every armed receive has one.
        assert_eq!(size_of::<Pending>(), 24);
    }

    #[test]
    #[should_panic(expected = "a request ends once")]
    fn ending_twice_is_a_bug() {
        let (mut requests, mut list) = filled(1);
        requests.unlink(&mut list, 0);
        requests.remove(0);
        requests.remove(0);
    }
}
