//! The provided buffers that receives may take: what the kernel's buffer ring is to io_uring.

use crate::io::request::Buffers;
use crate::io::ring::Provided;

/// Buffers that are not lent. Last in, first out: the warmest memory is used first.
#[derive(Debug)]
pub(super) struct Provisions {
    free: Vec<u16>,
    /// Address and length by id, as last provided.
    memory: Vec<(*mut u8, u32)>,
    limit: u16,
}

impl Provisions {
    pub(super) fn new(limit: u16) -> Self {
        Self { free: Vec::new(), memory: Vec::new(), limit }
    }

    pub(super) fn len(&self) -> usize {
        self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    pub(super) fn add(&mut self, buffer: Provided) {
        assert!(buffer.id < self.limit, "buffer {} of {}", buffer.id, self.limit);
        let index = usize::from(buffer.id);
        if index >= self.memory.len() {
            self.memory.resize(index + 1, (std::ptr::null_mut(), 0));
        }
        self.memory[index] = (buffer.address, buffer.length);
        debug_assert!(!self.free.contains(&buffer.id), "buffer {} is free already", buffer.id);
        self.free.push(buffer.id);
    }
}

impl Buffers for Provisions {
    #[inline]
    fn take(&mut self) -> Option<(u16, *mut u8, u32)> {
        let buffer = self.free.pop()?;
        let (address, length) = self.memory[usize::from(buffer)];
        Some((buffer, address, length))
    }

    #[inline]
    fn put_back(&mut self, buffer: u16) {
        self.free.push(buffer);
    }
}
