//! What is asked about files (statx(2)), and the answer as plain values.

use std::ffi::c_char;
use std::mem;

use io_uring::{opcode, squeue, types};

use super::answer;
use crate::io::ring::simulated::world;

/// All that anyone here wants to know. What a file system does not know costs nothing.
const MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_DIOALIGN;

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

impl StatBuffer {
    /// The answer that tells these values, and what direct I/O on the file has to be aligned to.
    pub(crate) fn of(told: &Stat, alignment: Option<u32>) -> Self {
        let Self(mut stat) = Self::new();
        let mut mask = libc::STATX_BASIC_STATS & !libc::STATX_MTIME & !libc::STATX_ATIME;
        let mut set = |bit, into: &mut libc::statx_timestamp, time: Option<(i64, u32)>| {
            if let Some((seconds, nanoseconds)) = time {
                (into.tv_sec, into.tv_nsec) = (seconds, nanoseconds);
                mask |= bit;
            }
        };
        set(libc::STATX_MTIME, &mut stat.stx_mtime, told.modified);
        set(libc::STATX_CTIME, &mut stat.stx_ctime, told.modified);
        set(libc::STATX_ATIME, &mut stat.stx_atime, told.accessed);
        set(libc::STATX_BTIME, &mut stat.stx_btime, told.created);
        if let Some(alignment) = alignment {
            mask |= libc::STATX_DIOALIGN;
            (stat.stx_dio_mem_align, stat.stx_dio_offset_align) = (alignment, alignment);
        }
        (stat.stx_mask, stat.stx_mode) = (mask, told.mode as u16);
        (stat.stx_size, stat.stx_blocks) = (told.length, told.blocks);
        (stat.stx_blksize, stat.stx_nlink) = (told.block_size, told.links);
        (stat.stx_uid, stat.stx_gid, stat.stx_ino) = (told.user, told.group, told.inode);
        stat.stx_dev_major = libc::major(told.device);
        stat.stx_dev_minor = libc::minor(told.device);
        Self(stat)
    }

    /// What was told, as plain values.
    pub(crate) fn read(&self) -> Stat {
        let Self(stat) = self;
        let time = |bit, time: libc::statx_timestamp| {
            (stat.stx_mask & bit != 0).then_some((time.tv_sec, time.tv_nsec))
        };
        Stat {
            length: stat.stx_size,
            mode: stat.stx_mode.into(),
            modified: time(libc::STATX_MTIME, stat.stx_mtime),
            accessed: time(libc::STATX_ATIME, stat.stx_atime),
            created: time(libc::STATX_BTIME, stat.stx_btime),
            device: libc::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            links: stat.stx_nlink,
            user: stat.stx_uid,
            group: stat.stx_gid,
            block_size: stat.stx_blksize,
            blocks: stat.stx_blocks,
        }
    }
}

/// What is known about a file. Times are seconds and nanoseconds after 1970, where they are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stat {
    pub(crate) length: u64,
    pub(crate) mode: u32,
    pub(crate) modified: Option<(i64, u32)>,
    pub(crate) accessed: Option<(i64, u32)>,
    pub(crate) created: Option<(i64, u32)>,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) links: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) block_size: u32,
    pub(crate) blocks: u64,
}

/// Asks for a file's metadata (statx(2)): of `descriptor` itself when `path` is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metadata {
    pub(crate) descriptor: i32,
    pub(crate) path: *const c_char,
    pub(crate) flags: i32,
    pub(crate) buffer: *mut StatBuffer,
}

impl Metadata {
    pub(crate) fn encode(self) -> squeue::Entry {
        opcode::Statx::new(types::Fd(self.descriptor), self.path, self.buffer.cast())
            .flags(self.flags)
            .mask(MASK)
            .build()
    }

    /// # Safety
    ///
    /// The path is a valid C string and the buffer writable.
    pub(crate) unsafe fn perform(self) -> i32 {
        // SAFETY: handed on; StatBuffer is a statx.
        answer(unsafe {
            libc::statx(self.descriptor, self.path, self.flags, MASK, self.buffer.cast())
        } as isize)
    }
}

/// What direct I/O on an open file needs: the alignment of memory, and that of offset and length,
/// in bytes. `None` where the kernel does not tell (before Linux 6.1, and some file systems).
pub(crate) fn direct_alignment(descriptor: i32) -> Option<(u32, u32)> {
    if let Some(world) = world::of(descriptor) {
        let alignment = world.direct_alignment();
        return Some((alignment, alignment));
    }
    let mut buffer = StatBuffer::new();
    let request = Metadata {
        descriptor,
        path: c"".as_ptr(),
        flags: libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
        buffer: &raw mut buffer,
    };
    // SAFETY: the path is a C string, and the buffer lives past the call.
    let result = unsafe { request.perform() };
    let StatBuffer(stat) = buffer;
    let told = result == 0
        && stat.stx_mask & libc::STATX_DIOALIGN != 0
        && stat.stx_dio_mem_align > 0
        && stat.stx_dio_offset_align > 0;
    told.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_what_was_put_in() {
        let told = Stat {
            length: 1,
            mode: 0o100_644,
            modified: Some((2, 3)),
            accessed: None,
            created: Some((4, 5)),
            device: libc::makedev(6, 7),
            inode: 8,
            links: 9,
            user: 10,
            group: 11,
            block_size: 12,
            blocks: 13,
        };
        let buffer = StatBuffer::of(&told, Some(512));
        assert_eq!(buffer.read(), told);
        assert_eq!((buffer.0.stx_dio_mem_align, buffer.0.stx_dio_offset_align), (512, 512));
        assert_eq!(StatBuffer::of(&told, None).0.stx_mask & libc::STATX_DIOALIGN, 0);
    }
}
