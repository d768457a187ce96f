//! What is asked of files.
//!
//! Here the two models differ most. A regular file is always "ready", so readiness has no form for
//! it: what cannot be answered from the page cache at once goes to a thread. Completion has one
//! form for everything, and the kernel decides what needs a worker.

use std::ffi::c_char;

use io_uring::{opcode, squeue, types};

use super::{Attempt, Features, answer};
use crate::io::ring::simulated::world;

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

/// Where the bytes of a read or write are, as far as who submits it can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whence {
    /// In the page cache, most likely.
    Cache,
    /// Not there, most likely.
    Device,
    /// Past the cache (`O_DIRECT`).
    Direct,
}

/// Reads at a position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadAt {
    pub(crate) descriptor: i32,
    pub(crate) address: *mut u8,
    pub(crate) length: u32,
    pub(crate) offset: u64,
    pub(crate) whence: Whence,
}

impl ReadAt {
    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::Read::new(types::Fd(self.descriptor), self.address, self.length)
            .offset(self.offset)
            .build()
    }

    /// Answers from the page cache, or says that it would block (`RWF_NOWAIT`, preadv2(2)).
    ///
    /// An answer that is short because the cache holds only the front of the range would be one
    /// that no other way to read gives: only at the end of the file it stands.
    ///
    /// # Safety
    ///
    /// The descriptor is open and the memory writable.
    pub(crate) unsafe fn attempt(self) -> Attempt {
        if self.whence == Whence::Direct {
            return Attempt::Blocking;
        }
        // SAFETY: handed on.
        let result = unsafe { self.read(libc::RWF_NOWAIT) };
        match u32::try_from(result) {
            Ok(count) if count == 0 || count == self.length => Attempt::Done { result },
            Ok(count) => {
                let rest = Self {
                    // SAFETY: within the memory, of which `count` bytes were just filled.
                    address: unsafe { self.address.add(count as usize) },
                    length: self.length - count,
                    offset: self.offset + u64::from(count),
                    ..self
                };
                // SAFETY: handed on, for a part of the memory.
                match unsafe { rest.read(libc::RWF_NOWAIT) } {
                    0 => Attempt::Done { result },
                    _ => Attempt::Blocking,
                }
            }
            Err(_) => match -result {
                // EOPNOTSUPP: the file system knows no RWF_NOWAIT. EINTR: who waits asks again.
                libc::EAGAIN | libc::EOPNOTSUPP | libc::EINTR => Attempt::Blocking,
                _ => Attempt::Done { result },
            },
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
    pub(crate) whence: Whence,
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

/// Closes a descriptor and tells what the file system had kept for this moment (close(2)). The
/// number is free again whatever the answer, unless that is `ECANCELED`: then nothing was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Close {
    pub(crate) descriptor: i32,
}

impl Close {
    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::Close::new(types::Fd(self.descriptor)).build()
    }

    /// # Safety
    ///
    /// The descriptor is open, and the caller gives it up.
    pub(crate) unsafe fn perform(self) -> i32 {
        // SAFETY: no pointers, and the number is the caller's to give up.
        answer(unsafe { libc::close(self.descriptor) } as isize)
    }
}

/// The flags of an open file (`F_GETFL`), or none where it cannot tell.
pub(crate) fn status_flags(descriptor: i32) -> i32 {
    if let Some(world) = world::of(descriptor) {
        return world.status_flags(descriptor);
    }
    // SAFETY: no pointers.
    unsafe { libc::fcntl(descriptor, libc::F_GETFL) }.max(0)
}

/// Whether reads and writes of a file have positions (lseek(2)). Asked of a pipe or socket anyway,
/// io_uring ignores the offset where pread(2) fails.
pub(crate) fn has_positions(descriptor: i32) -> bool {
    if let Some(world) = world::of(descriptor) {
        return world.is_file(descriptor);
    }
    // SAFETY: no pointers, and nothing moves.
    unsafe { libc::lseek(descriptor, 0, libc::SEEK_CUR) >= 0 }
}
