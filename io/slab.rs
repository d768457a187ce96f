//! A table whose entries are named by index and generation, so that a late name meets nothing
//! instead of a stranger. An entry whose generations are used up is not used again: a name may be
//! kept for ever.

use std::mem;

use crate::io::mailbox::Key;

/// Generations travel in completion tokens, which have 24 bits for them.
const GENERATION_MASK: u32 = (1 << 24) - 1;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Entry<T> {
    Vacant {
        next: u32,
    },
    /// The value is away, and may come back under its name.
    Kept,
    Occupied(T),
}

/// Vacant entries are used again last in, first out: the warm ones first.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<(u32, Entry<T>)>,
    vacant: u32,
    len: usize,
}

impl<T> Slab<T> {
    /// The bytes of one entry.
    #[cfg(test)]
    pub(crate) const ENTRY: usize = size_of::<(u32, Entry<T>)>();

    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), vacant: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if self.vacant == NONE {
            let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 entries");
            self.entries.push((0, Entry::Occupied(value)));
            return Key { index, generation: 0 };
        }
        let index = self.vacant;
        let (generation, entry) = &mut self.entries[index as usize];
        let Entry::Vacant { next } = *entry else { panic!("the free list names a free entry") };
        self.vacant = next;
        *entry = Entry::Occupied(value);
        Key { index, generation: *generation }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.index as usize) {
            Some((generation, Entry::Occupied(value))) if *generation == key.generation => {
                Some(value)
            }
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let value = self.take(key)?;
        self.give_up(key);
        Some(value)
    }

    /// Takes the value out and keeps its name: until `put_back` or `give_up` it names nothing.
    pub(crate) fn take(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        let (_, entry) = &mut self.entries[key.index as usize];
        let Entry::Occupied(value) = mem::replace(entry, Entry::Kept) else { panic!("just seen") };
        self.len -= 1;
        Some(value)
    }

    /// A value under the name that was kept.
    pub(crate) fn put_back(&mut self, key: Key, value: T) {
        *self.kept(key) = Entry::Occupied(value);
        self.len += 1;
    }

    /// The name that was kept is not needed any more.
    pub(crate) fn give_up(&mut self, key: Key) {
        *self.kept(key) = Entry::Vacant { next: self.vacant };
        if key.generation < GENERATION_MASK {
            self.entries[key.index as usize].0 += 1;
            self.vacant = key.index;
        }
    }

    fn kept(&mut self, key: Key) -> &mut Entry<T> {
        let (generation, entry) = &mut self.entries[key.index as usize];
        let is_kept = *generation == key.generation && matches!(entry, Entry::Kept);
        assert!(is_kept, "only of a name that was kept");
        entry
    }

    /// The names of all entries, for shutting down.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let occupied = |(index, (generation, entry)): (usize, &(u32, Entry<T>))| match entry {
            Entry::Occupied(_) => Some(Key { index: index as u32, generation: *generation }),
            Entry::Vacant { .. } | Entry::Kept => None,
        };
        self.entries.iter().enumerate().filter_map(occupied).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_meets_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.index, first.index, "the entry is used again");
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "second"));
        assert_eq!((slab.len(), slab.keys()), (1, vec![second]));
    }

    #[test]
    fn a_name_that_is_kept_meets_nothing_until_its_value_is_back() {
        let mut slab = Slab::new();
        let key = slab.insert("here");
        assert_eq!((slab.take(key), slab.take(key), slab.remove(key)), (Some("here"), None, None));
        assert_eq!((slab.len(), slab.keys(), slab.get_mut(key)), (0, vec![], None));
        let other = slab.insert("other");
        assert_ne!(other.index, key.index, "the place is not free");
        slab.put_back(key, "back");
        assert_eq!((slab.len(), slab.get_mut(key)), (2, Some(&mut "back")));
        slab.take(key);
        slab.give_up(key);
        assert_eq!(slab.get_mut(key), None);
        assert_eq!(slab.insert("next").index, key.index);
    }

    #[test]
    fn no_name_is_ever_given_twice() {
        let mut slab = Slab::new();
        let first = slab.insert(0);
        let mut last = first;
        for _ in 0..=GENERATION_MASK {
            assert!(slab.remove(last).is_some());
            last = slab.insert(1);
        }
        assert_ne!(last.index, first.index, "all names of the first entry were given");
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn entries_are_reused_warmest_first() {
        let mut slab = Slab::new();
        let keys: Vec<_> = (0..4).map(|n| slab.insert(n)).collect();
        slab.remove(keys[1]);
        slab.remove(keys[3]);
        assert_eq!(slab.insert(9).index, keys[3].index);
        assert_eq!(slab.insert(9).index, keys[1].index);
        assert_eq!(slab.insert(9).index, 4);
    }
}
