//! What is asked of files.
//!
//! Here the two models differ most. A regular file is always "ready", so readiness has no form for
//! it: what cannot be answered from the page cache at once goes to a thread. Completion has one form
//! for everything, and the kernel decides what needs a worker.

use std::ffi::c_char;
use std::mem;

use io_uring::{opcode, squeue, types};

use super::{Attempt, Features, answer, would_block};

/// The most that one read or write moves (`MAX_RW_COUNT`, read(2)).
pub(crate) const LENGTH_MAX: usize = 0x7fff_f000;

/// Opens a file. The path ends in NUL and stays where it is until the terminal completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) path: *const c_char,
    pub(crate) flags: i32,
    pub(crate) mode: libc::mode_t,
}

impl Open {
    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), self.path)
            .flags(self.flags)
            .mode(self.mode)
            .build()
    }

    /// # Safety
    ///
    /// `path` is a valid C string.
    pub(crate) unsafe fn perform(self) -> i32 {
        // SAFETY: the caller keeps the path valid.
        answer(unsafe { libc::openat(libc::AT_FDCWD, self.path, self.flags, self.mode) } as isize)
    }
}

/// Reads at a position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadAt {
    pub(crate) descriptor: i32,
    pub(crate) address: *mut u8,
    pub(crate) length: u32,
    pub(crate) offset: u64,
}

impl ReadAt {
    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::Read::new(types::Fd(self.descriptor), self.address, self.length)
            .offset(self.offset)
            .build()
    }

    /// Answers from the page cache, or says that it would block (`RWF_NOWAIT`, preadv2(2)). The cache
    /// may hold only the front of the range: a short answer is an answer, as with read(2).
    ///
    /// # Safety
    ///
    /// The descriptor is open and the memory writable.
    pub(crate) unsafe fn attempt(self) -> Attempt {
        // SAFETY: handed on.
        let result = unsafe { self.read(libc::RWF_NOWAIT) };
        // EOPNOTSUPP: the file system knows no RWF_NOWAIT.
        if would_block(result) || result == -libc::EOPNOTSUPP {
            Attempt::Blocking
        } else {
            Attempt::Done { result }
        }
    }

    /// # Safety
    ///
    /// As for `attempt`.
    pub(crate) unsafe fn perform(self) -> i32 {
        // SAFETY: handed on.
        unsafe { self.read(0) }
    }

    unsafe fn read(self, flags: i32) -> i32 {
        let part = libc::iovec { iov_base: self.address.cast(), iov_len: self.length as usize };
        // SAFETY: one valid iovec over memory that the caller keeps writable.
        answer(unsafe {
            libc::preadv2(self.descriptor, &raw const part, 1, self.offset as i64, flags)
        })
    }
}

/// Writes at a position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteAt {
    pub(crate) descriptor: i32,
    pub(crate) address: *const u8,
    pub(crate) length: u32,
    pub(crate) offset: u64,
}

impl WriteAt {
    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::Write::new(types::Fd(self.descriptor), self.address, self.length)
            .offset(self.offset)
            .build()
    }

    /// # Safety
    ///
    /// The descriptor is open and the memory readable.
    pub(crate) unsafe fn perform(self) -> i32 {
        // SAFETY: handed on.
        answer(unsafe {
            libc::pwrite(
                self.descriptor,
                self.address.cast(),
                self.length as usize,
                self.offset as i64,
            )
        })
    }
}

/// Brings a file's bytes (and, unless `data_only`, all its metadata) to the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Synchronize {
    pub(crate) descriptor: i32,
    pub(crate) data_only: bool,
}

impl Synchronize {
    pub(crate) fn encode(self) -> squeue::Entry {
        let flags =
            if self.data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
        opcode::Fsync::new(types::Fd(self.descriptor)).flags(flags).build()
    }

    /// # Safety
    ///
    /// The descriptor is open.
    pub(crate) unsafe fn perform(self) -> i32 {
        // SAFETY: no pointers.
        answer(unsafe {
            if self.data_only {
                libc::fdatasync(self.descriptor)
            } else {
                libc::fsync(self.descriptor)
            }
        } as isize)
    }
}

/// Sets a file's length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetLength {
    pub(crate) descriptor: i32,
    pub(crate) length: u64,
}

impl SetLength {
    pub(crate) fn encode(self, features: &Features) -> Option<squeue::Entry> {
        features
            .truncate
            .then(|| opcode::Ftruncate::new(types::Fd(self.descriptor), self.length).build())
    }

    /// # Safety
    ///
    /// The descriptor is open.
    pub(crate) unsafe fn perform(self) -> i32 {
        // SAFETY: no pointers.
        answer(unsafe { libc::ftruncate(self.descriptor, self.length as i64) } as isize)
    }
}

/// Reserves room for a range of a file (fallocate(2), mode 0).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocate {
    pub(crate) descriptor: i32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Allocate {
    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::Fallocate::new(types::Fd(self.descriptor), self.length).offset(self.offset).build()
    }

    /// # Safety
    ///
    /// The descriptor is open.
    pub(crate) unsafe fn perform(self) -> i32 {
        // SAFETY: no pointers.
        answer(unsafe {
            libc::fallocate(self.descriptor, 0, self.offset as i64, self.length as i64)
        } as isize)
    }
}

/// Room for the answer of `Metadata`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct StatBuffer(pub(crate) libc::statx);

impl StatBuffer {
    pub(crate) fn new() -> Self {
        // SAFETY: a statx of zeroes is a valid value: it is plain integers.
        Self(unsafe { mem::zeroed() })
    }
}

impl std::fmt::Debug for StatBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatBuffer").field("size", &self.0.stx_size).finish_non_exhaustive()
    }
}

/// Asks for a file's metadata (statx(2)): of `descriptor` itself when `path` is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metadata {
    pub(crate) descriptor: i32,
    pub(crate) path: *const c_char,
    pub(crate) flags: i32,
    pub(crate) mask: u32,
    pub(crate) buffer: *mut StatBuffer,
}

impl Metadata {
    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::Statx::new(types::Fd(self.descriptor), self.path, self.buffer.cast())
            .flags(self.flags)
            .mask(self.mask)
            .build()
    }

    /// # Safety
    ///
    /// The path is a valid C string and the buffer writable.
    pub(crate) unsafe fn perform(self) -> i32 {
        // SAFETY: handed on; StatBuffer is a statx.
        answer(unsafe {
            libc::statx(self.descriptor, self.path, self.flags, self.mask, self.buffer.cast())
        } as isize)
    }
}
