//! What is asked about files (statx(2)), and the answer as plain values.

use std::ffi::c_char;
use std::mem;

use io_uring::{opcode, squeue, types};

use super::answer;

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
#[derive(Clone, Copy, Debug)]
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
