//! What a core keeps: keys and values as bytes, some until a deadline.
//!
//! A key that is over is nobody's to see: it is removed when somebody asks for it, or by
//! [`Store::sweep`], which the deadlines are kept in order for.
//!
//! The entries stand in one row ([`IndexMap`]), and a removal puts the last into the gap. So a scan
//! goes through the row backwards: what moves, moves to where the scan is still to come, or stays
//! among what it has seen. It may see a key twice, and misses none that was there all the time.

use std::collections::BTreeSet;

use ahash::RandomState;
use indexmap::IndexMap;

/// A moment, in milliseconds of a clock that never goes back.
pub type Millis = u64;

/// A deadline that never comes.
const NEVER: Millis = Millis::MAX;

#[derive(Debug, Default)]
pub struct Store {
    /// Keyed at random: clients cannot choose keys that collide.
    entries: IndexMap<Box<[u8]>, Entry, RandomState>,
    deadlines: BTreeSet<(Millis, Box<[u8]>)>,
    now: Millis,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    deadline: Millis,
}

/// What becomes of a deadline when a value is set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Keep {
    #[default]
    Forever,
    AsItWas,
    Until(Millis),
}

impl Store {
    /// Tells what time it is. Keys are over by this clock alone.
    pub fn set_now(&mut self, now: Millis) {
        self.now = now;
    }

    pub fn now(&self) -> Millis {
        self.now
    }

    /// How many keys there are; some of them may be over, and not swept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.deadlines.clear();
    }

    fn find(&mut self, key: &[u8]) -> Option<usize> {
        let index = self.entries.get_index_of(key)?;
        if self.entries[index].deadline <= self.now {
            self.remove_at(index);
            return None;
        }
        Some(index)
    }

    fn remove_at(&mut self, index: usize) -> Vec<u8> {
        let (key, entry) = self.entries.swap_remove_index(index).expect("it has been found");
        if entry.deadline != NEVER {
            self.deadlines.remove(&(entry.deadline, key));
        }
        entry.value
    }

    pub fn get(&mut self, key: &[u8]) -> Option<&[u8]> {
        let index = self.find(key)?;
        Some(&self.entries[index].value)
    }

    pub fn contains(&mut self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// Sets a value. What room the last one had is used again.
    pub fn set(&mut self, key: &[u8], value: &[u8], keep: Keep) {
        let Some(index) = self.find(key) else {
            self.entries.insert(key.into(), Entry { value: value.to_vec(), deadline: NEVER });
            if let Keep::Until(deadline) = keep {
                self.expire(key, deadline);
            }
            return;
        };
        let entry = &mut self.entries[index];
        let kept = &mut entry.value;
        if kept.capacity() / 2 > value.len().max(64) {
            *kept = value.to_vec();
        } else {
            kept.clear();
            kept.extend_from_slice(value);
        }
        match keep {
            Keep::Forever if entry.deadline != NEVER => self.set_deadline(index, NEVER),
            Keep::Until(deadline) => self.set_deadline(index, deadline),
            Keep::Forever | Keep::AsItWas => {}
        }
    }

    /// Changes a value in its place, an empty one where there is none, and keeps its deadline.
    pub fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let index = self.find(key).unwrap_or_else(|| {
            let entry = Entry { value: Vec::new(), deadline: NEVER };
            self.entries.insert_full(key.into(), entry).0
        });
        change(&mut self.entries[index].value)
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let index = self.find(key)?;
        Some(self.remove_at(index))
    }

    /// When a key is over: `Some(None)` is never, `None` is that there is no such key.
    pub fn deadline(&mut self, key: &[u8]) -> Option<Option<Millis>> {
        let index = self.find(key)?;
        let deadline = self.entries[index].deadline;
        Some((deadline != NEVER).then_some(deadline))
    }

    /// Lets a key be over then, which may be now. Says whether there is such a key.
    pub fn expire(&mut self, key: &[u8], deadline: Millis) -> bool {
        let Some(index) = self.find(key) else { return false };
        if deadline <= self.now {
            self.remove_at(index);
        } else {
            self.set_deadline(index, deadline);
        }
        true
    }

    /// Lets a key stay. Says whether it had a deadline.
    pub fn persist(&mut self, key: &[u8]) -> bool {
        let Some(index) = self.find(key) else { return false };
        let had = self.entries[index].deadline != NEVER;
        self.set_deadline(index, NEVER);
        had
    }

    fn set_deadline(&mut self, index: usize, deadline: Millis) {
        let (key, entry) = self.entries.get_index_mut(index).expect("it has been found");
        let before = std::mem::replace(&mut entry.deadline, deadline);
        let mut place = (before, key.clone());
        if before != NEVER {
            self.deadlines.remove(&place);
        }
        if deadline != NEVER {
            place.0 = deadline;
            self.deadlines.insert(place);
        }
    }

    /// Removes keys that are over, at most so many. Says whether there may be more.
    pub fn sweep(&mut self, most: usize) -> bool {
        for _ in 0..most {
            match self.deadlines.first() {
                Some((deadline, _)) if *deadline <= self.now => {}
                _ => return false,
            }
            let (_, key) = self.deadlines.pop_first().expect("it is there");
            self.entries.swap_remove(&key);
        }
        true
    }

    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let alive = self.entries.iter().filter(|(_, entry)| entry.deadline > self.now);
        alive.map(|(key, _)| &**key)
    }

    /// Up to `count` keys below `from` in the row, and where to go on: 0 is the end.
    pub fn scan(&self, from: usize, count: usize) -> (usize, impl Iterator<Item = &[u8]>) {
        let from = from.min(self.entries.len());
        let rest = from.saturating_sub(count.max(1));
        let slice = &self.entries.as_slice()[rest..from];
        let alive = slice.iter().filter(|(_, entry)| entry.deadline > self.now);
        (rest, alive.map(|(key, _)| &**key))
    }
}

/// Whether a name fits a pattern of Redis: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a literal.
pub fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on when what follows the last star does not fit: one byte further on. Only the
    // last star counts, so this takes at most pattern times name steps.
    let mut again: Option<(&[u8], &[u8])> = None;
    let (mut pattern, mut name) = (pattern, name);
    loop {
        if let [b'*', rest @ ..] = pattern {
            again = Some((rest, name));
            pattern = rest;
            continue;
        }
        let step = match (pattern, name) {
            ([], []) => return true,
            ([_, ..], [byte, after @ ..]) => one(pattern, *byte).map(|rest| (rest, after)),
            _ => None,
        };
        (pattern, name) = match (step, again) {
            (Some(next), _) => next,
            (None, Some((after_star, [_, from @ ..]))) => {
                again = Some((after_star, from));
                (after_star, from)
            }
            _ => return false,
        };
    }
}

/// Whether the first element of a pattern fits a byte; then the rest of the pattern.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'\\', literal, rest @ ..] => (*literal == byte).then_some(rest),
        [b'[', class @ ..] => {
            let (not, mut class) = match class {
                [b'^', class @ ..] => (true, class),
                _ => (false, class),
            };
            let mut found = false;
            loop {
                class = match class {
                    // As in Redis, a class without an end ends with the pattern.
                    [] => return (found != not).then_some(class),
                    [b']', rest @ ..] => return (found != not).then_some(rest),
                    [b'\\', literal, rest @ ..] => {
                        found |= *literal == byte;
                        rest
                    }
                    [low, b'-', high, rest @ ..] => {
                        found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                        rest
                    }
                    [literal, rest @ ..] => {
                        found |= *literal == byte;
                        rest
                    }
                };
            }
        }
        [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn patterns() {
        let fitting: [(&str, &str); 9] = [
            ("*", ""),
            ("h?llo", "hallo"),
            ("h*llo*", "heeello"),
            ("h[ae]llo", "hello"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("a\\*", "a*"),
            ("*a*b", "xaaxb"),
            ("[\\]]", "]"),
        ];
        for (pattern, name) in fitting {
            assert!(fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in
            [("", "a"), ("h?llo", "hllo"), ("h[^e]llo", "hello"), ("a\\*", "ab"), ("*a", "ab")]
        {
            assert!(!fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        // Many stars are no way to keep a core busy.
        assert!(!fits(&b"*a".repeat(1000), &[b'a'; 999]));
    }

    /// A scan misses nothing that was there all the time, whatever is removed meanwhile.
    #[test]
    fn a_scan_misses_nothing() {
        for offset in 0..40_u8 {
            let mut store = Store::default();
            (0..40_u8).for_each(|key| store.set(&[key], b"", Keep::Forever));
            let mut removed = (0..40).map(|step| (step * 7 + offset) % 40);
            let (mut seen, mut cursor) = (HashSet::new(), usize::MAX);
            loop {
                let (next, keys) = store.scan(cursor, 3);
                seen.extend(keys.map(<[u8]>::to_vec));
                store.remove(&[removed.next().unwrap()]);
                store.remove(&[removed.next().unwrap()]);
                if next == 0 {
                    break;
                }
                cursor = next;
            }
            assert!(store.len() > 10);
            assert!(store.keys().all(|key| seen.contains(key)), "{offset}");
        }
    }

    #[test]
    fn deadlines_are_kept() {
        let mut store = Store::default();
        for key in 0..100_u8 {
            store.set(&[key], b"x", Keep::Until(10 + Millis::from(key)));
        }
        store.set(&[0], b"y", Keep::AsItWas);
        store.set(&[1], b"y", Keep::Forever);
        store.set_now(10);
        assert!(!store.contains(&[0]));
        store.set_now(50);
        assert!(store.sweep(10));
        assert_eq!(store.keys().count(), 60);
        assert!(!store.sweep(1000));
        assert_eq!((store.len(), store.deadlines.len()), (60, 59));
        assert!(store.persist(&[60]) && !store.persist(&[60]));
        assert_eq!(store.deadline(&[60]), Some(None));
        store.set_now(1000);
        assert!(!store.sweep(1000));
        assert_eq!((store.len(), store.deadlines.len()), (2, 0));
    }
}
