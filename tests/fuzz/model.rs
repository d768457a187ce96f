//! What a file may hold: for each byte, what it can be.
//!
//! A change that has returned makes its bytes certain. One that was dropped or has failed adds a
//! possibility, until a read of the settled file tells. That a dropped change must not come after a
//! later sync, cut or overlapping write has returned follows: these leave no possibility of it.

use std::ops::Range;

/// No program writes behind this.
const SPAN: usize = 2048;

#[derive(Debug)]
pub(crate) struct FileModel {
    /// What each byte may be.
    bytes: Vec<Vec<u8>>,
    length: (usize, usize),
    /// Dropped changes may still come.
    pub(crate) unsettled: bool,
    /// An operation is under way.
    pub(crate) busy: bool,
    pub(crate) handles: usize,
    /// It was closed, and awaited.
    pub(crate) closed: bool,
    /// A sync has failed.
    pub(crate) failed: bool,
    last_id: u8,
}

impl FileModel {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![vec![0]; SPAN],
            length: (0, 0),
            unsettled: false,
            busy: false,
            handles: 0,
            closed: false,
            failed: false,
            last_id: 0,
        }
    }

    /// A value that no other change near it writes.
    pub(crate) fn next_id(&mut self) -> u8 {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        self.last_id
    }

    /// A write begins, and may come to anything.
    pub(crate) fn begin(&mut self, range: Range<usize>, id: u8) {
        self.unsettled = true;
        self.length.1 = self.length.1.max(range.end);
        for byte in &mut self.bytes[range] {
            byte.push(id);
        }
    }

    /// It has written so much, and nothing else.
    pub(crate) fn wrote(&mut self, range: Range<usize>, id: u8, count: usize, was: (usize, bool)) {
        let end = range.start + count;
        self.bytes[range.start..end].fill(vec![id]);
        for byte in &mut self.bytes[end..range.end] {
            byte.retain(|one| *one != id);
        }
        (self.length.1, self.unsettled) = was;
        if count > 0 {
            self.length = (self.length.0.max(end), self.length.1.max(end));
        }
    }

    /// For `wrote`, from before `begin`.
    pub(crate) fn before(&self) -> (usize, bool) {
        (self.length.1, self.unsettled)
    }

    pub(crate) fn begin_cut(&mut self, length: usize) {
        self.unsettled = true;
        self.length = (self.length.0.min(length), self.length.1.max(length));
        for byte in &mut self.bytes[length..] {
            byte.push(0);
        }
    }

    pub(crate) fn was_cut(&mut self, length: usize) {
        self.length = (length, length);
        self.bytes[length..].fill(vec![0]);
        self.unsettled = false;
    }

    /// Space is reserved: the file may become longer, and nothing else.
    pub(crate) fn begin_allocate(&mut self, end: usize) {
        self.unsettled = true;
        self.length.1 = self.length.1.max(end);
    }

    pub(crate) fn allocated(&mut self, end: usize, was: (usize, bool)) {
        (self.length.1, self.unsettled) = was;
        self.length = (self.length.0.max(end), self.length.1.max(end));
    }

    pub(crate) fn is_length(&self, length: usize) -> bool {
        (self.length.0..=self.length.1).contains(&length)
    }

    /// What a read has found. `all`: there was no more.
    pub(crate) fn read(&mut self, at: usize, found: &[u8], all: bool) -> Result<(), String> {
        let end = at + found.len();
        if !found.is_empty() && end > self.length.1 || all && end < self.length.0 {
            return Err(format!("{} bytes at {at}, the length is {:?}", found.len(), self.length));
        }
        for (place, byte) in found.iter().enumerate() {
            let possible = &mut self.bytes[at + place];
            if !possible.contains(byte) {
                let place = at + place;
                return Err(format!("byte {place} is {byte}, and can only be {possible:?}"));
            }
            if !self.unsettled {
                *possible = vec![*byte];
            }
        }
        if !self.unsettled && !found.is_empty() {
            self.length.0 = self.length.0.max(end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_write_is_possible_until_something_covers_it() {
        let mut file = FileModel::new();
        let was = file.before();
        file.begin(0..10, 1);
        file.wrote(0..10, 1, 8, was);
        assert!(file.read(0, &[1; 8], true).is_ok() && file.read(0, &[1; 9], false).is_err());
        file.begin(4..12, 2);
        assert!(file.read(0, &[1, 1, 1, 1, 2, 1, 2], false).is_ok());
        assert!(file.read(3, &[2], false).is_err());
        let was = file.before();
        file.begin(0..8, 3);
        file.wrote(0..8, 3, 8, was);
        assert!(file.read(4, &[2], false).is_err(), "it came after a write over it");
        assert!(file.read(8, &[2], false).is_ok());
        file.was_cut(6);
        assert!(file.read(0, &[3; 6], true).is_ok() && file.read(0, &[3; 7], true).is_err());
    }
}
