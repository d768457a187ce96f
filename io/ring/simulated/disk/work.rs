//! A file request in flight: what the disk does about it, step by step, and to the memory that it
//! was lent.
//!
//! ```text
//!   slow ──its time──► Wait for the file ──► a write is taken bit by bit ──┐
//!                                            anything else at once ────────┴──► Over ──► land
//!                          memory of a read: scribbled on                             its bytes
//!                          memory of a write: must not change ────────────────────────► checked
//! ```
//!
//! Requests do not wait for each other, except that a write has the file to itself as in the
//! kernel (`i_rwsem`), so writes do not mix and appended bytes stay together. Direct writes over
//! what is there take no turns, and do mix.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

use super::content::PAGE;
use super::{Disk, Handle, Opened, fails};
use crate::io::request::{Metadata, ReadAt, Request, StatBuffer, WriteAt};
use crate::io::ring::simulated::pending::digest;

/// How much of each end of a buffer is scribbled on.
const EDGE: usize = 64;

/// What one step has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::io::ring::simulated) enum Step {
    /// The disk is busy until then, in nanoseconds; a cancel is heard at once.
    Until(u64),
    /// There is more to do.
    GoesOn,
    /// A file was opened; its number is the answer.
    Opened(Handle),
    /// The number is to be closed; how that goes is the answer.
    Close,
    Over(i32),
}

/// What goes to the memory that was lent, with the answer.
#[derive(Default)]
enum Landing {
    #[default]
    Nothing,
    Bytes(Vec<u8>),
    Stat(Box<StatBuffer>),
}

/// A write that has begun.
struct Writing {
    at: u64,
    /// Where it will stop, for whatever reason.
    limit: usize,
    taken: usize,
    /// What it answers at the limit instead of a count.
    error: Option<i32>,
    /// Under this number it has the file to itself.
    writer: Option<u64>,
}

pub(in crate::io::ring::simulated) struct Work {
    due: Option<u64>,
    writing: Option<Writing>,
    landing: Landing,
    /// The bytes of a write as they were submitted.
    digest: u64,
    /// What was in the memory of a read where it is scribbled on.
    saved: Vec<(usize, MaybeUninit<u8>)>,
    /// A cancel came, and is too late.
    is_deaf: Option<bool>,
}

impl Work {
    /// `None` when the request is none for a disk.
    ///
    /// # Safety
    ///
    /// As `Ring::submit`: what the request names stays valid until its answer has landed, and the
    /// same request is given to all other methods.
    pub(in crate::io::ring::simulated) unsafe fn new(request: &Request) -> Option<Self> {
        let mut work = Self {
            due: None,
            writing: None,
            landing: Landing::Nothing,
            digest: 0,
            saved: Vec::new(),
            is_deaf: None,
        };
        match request {
            // SAFETY: the bytes are readable, says the submitter.
            Request::WriteAt(write) => work.digest = digest(unsafe { bytes_of(write) }),
            Request::ReadAt(read) => {
                let length = read.length as usize;
                let edges =
                    (0..length.min(EDGE)).chain(EDGE.max(length.saturating_sub(EDGE))..length);
                // SAFETY: within the memory, of which nothing is said but that it is there.
                let byte = |at| unsafe { read.address.add(at).cast::<MaybeUninit<u8>>().read() };
                work.saved = edges.map(|at| (at, byte(at))).collect();
            }
            Request::Open(_)
            | Request::Synchronize(_)
            | Request::SetLength(_)
            | Request::Allocate(_)
            | Request::Metadata(_)
            | Request::Close(_) => {}
            Request::Nop(_)
            | Request::Poll(_)
            | Request::Accept(_)
            | Request::Connect(_)
            | Request::ReceiveMany(_)
            | Request::SendBytes(_) => return None,
        }
        Some(work)
    }

    /// Goes on. `file` is what the request's number names, or the error that it names nothing.
    pub(in crate::io::ring::simulated) fn step(
        &mut self,
        request: &Request,
        file: Result<Handle, i32>,
        disk: &mut Disk,
        now: u64,
    ) -> Step {
        let due = *self.due.get_or_insert_with(|| now.saturating_add(disk.latency()));
        if let Request::ReadAt(read) = request {
            self.scribble(read, disk.chance.bits());
        }
        if now < due {
            return Step::Until(due);
        }
        disk.write_back();
        match request {
            Request::Open(open) => {
                // SAFETY: a C string until the answer, says the submitter.
                match disk.open(unsafe { text(open.path) }, open.flags, open.mode) {
                    Ok(handle) => Step::Opened(handle),
                    Err(error) => Step::Over(error),
                }
            }
            Request::Metadata(metadata) => self.metadata(*metadata, file, disk),
            _ => match file {
                Ok(handle) => self.step_of_file(request, handle, disk),
                Err(error) => Step::Over(error),
            },
        }
    }

    fn step_of_file(&mut self, request: &Request, handle: Handle, disk: &mut Disk) -> Step {
        let perhaps = |result: Option<i32>| result.map_or(Step::GoesOn, Step::Over);
        match request {
            Request::ReadAt(read) => {
                match disk.read(handle, read.address.addr(), read.offset, read.length) {
                    Ok(bytes) => {
                        let count = bytes.len() as i32;
                        self.landing = Landing::Bytes(bytes);
                        Step::Over(count)
                    }
                    Err(error) => Step::Over(error),
                }
            }
            Request::WriteAt(write) => perhaps(self.write(*write, handle, disk)),
            Request::Synchronize(_) => Step::Over(disk.synchronize(handle)),
            Request::SetLength(request) => perhaps(disk.set_length(handle, request.length)),
            Request::Allocate(request) => {
                perhaps(disk.allocate(handle, request.offset, request.length))
            }
            Request::Close(_) => Step::Close,
            _ => unreachable!("no work was made of {request:?}"),
        }
    }

    fn metadata(&mut self, request: Metadata, file: Result<Handle, i32>, disk: &mut Disk) -> Step {
        // SAFETY: a C string until the answer, says the submitter.
        let path = unsafe { text(request.path) };
        let told = if path.is_empty() && request.flags & libc::AT_EMPTY_PATH != 0 {
            file.and_then(|handle| disk.metadata(handle))
        } else {
            disk.metadata_of(path)
        };
        match told {
            Ok(stat) => {
                self.landing = Landing::Stat(Box::new(stat));
                Step::Over(0)
            }
            Err(error) => Step::Over(error),
        }
    }

    /// Takes some of the bytes of a write. The answer, when it is over.
    fn write(&mut self, request: WriteAt, handle: Handle, disk: &mut Disk) -> Option<i32> {
        let opened = match disk.opened(handle) {
            Ok(opened) => opened,
            Err(error) => return Some(error),
        };
        if self.writing.is_none() {
            match begin(request, opened, disk) {
                Ok(begun) => self.writing = Some(begun?),
                Err(error) => return Some(error),
            }
        }
        let writing = self.writing.as_mut()?;
        // SAFETY: readable until the answer, says the submitter.
        let rest = unsafe { &bytes_of(&request)[writing.taken..writing.limit] };
        let some = if rest.is_empty() || disk.chance.one_in(2) {
            rest
        } else {
            &rest[..disk.chance.up_to(rest.len())]
        };
        let (free, now) = (disk.free_pages(), disk.now);
        let node = disk.tree.node(opened.node);
        node.modified = now;
        let content = node.content().expect("a directory is never open for writing");
        let taken = content.write(writing.at + writing.taken as u64, some, free);
        writing.taken += taken;
        let result = match writing {
            _ if taken < some.len() && writing.taken == 0 => -libc::ENOSPC,
            _ if taken < some.len() => writing.taken as i32,
            Writing { error: Some(error), taken, limit, .. } if taken == limit => *error,
            Writing { taken, limit, .. } if taken == limit => *taken as i32,
            _ => return None,
        };
        self.let_go(opened, disk);
        Some(result)
    }

    /// Others may write to the file.
    fn let_go(&mut self, opened: Opened, disk: &mut Disk) {
        let mine = self.writing.take().and_then(|writing| writing.writer);
        let node = disk.tree.node(opened.node);
        if mine.is_some() && node.writer == mine {
            node.writer = None;
        }
    }

    /// It was cancelled. What it has come to, unless it goes on all the same: what a device or a
    /// worker of the kernel's has begun is not taken back.
    pub(in crate::io::ring::simulated) fn cancel(
        &mut self,
        request: &Request,
        file: Result<Handle, i32>,
        disk: &mut Disk,
    ) -> Option<i32> {
        if *self.is_deaf.get_or_insert_with(|| disk.chance.one_in(2)) {
            return None;
        }
        let taken = self.writing.as_ref().map_or(0, |writing| writing.taken);
        if let Ok(opened) = file.and_then(|handle| disk.opened(handle)) {
            self.let_go(opened, disk);
        }
        // A close that did not happen says so; interrupted, it would have happened (close(2)).
        let interrupted = !matches!(request, Request::Close(_)) && disk.chance.one_in(4);
        Some(match (taken, interrupted) {
            (1.., _) => taken as i32,
            (0, true) => -libc::EINTR,
            (0, false) => -libc::ECANCELED,
        })
    }

    /// Until its answer is there, the memory of a read is the disk's.
    fn scribble(&self, read: &ReadAt, noise: u64) {
        for (at, _) in &self.saved {
            // SAFETY: within the memory, which is lent until the answer has landed.
            unsafe { read.address.add(*at).write((noise >> (at % 8 * 8)) as u8) };
        }
    }

    /// The answer leaves: only now its bytes are where they belong. The rest of the memory is as it
    /// was.
    ///
    /// # Panics
    ///
    /// If the bytes of a write have changed since it was submitted.
    pub(in crate::io::ring::simulated) fn land(&mut self, request: &Request) {
        match (request, &self.landing) {
            (Request::ReadAt(read), landing) => {
                for (at, byte) in self.saved.drain(..) {
                    // SAFETY: within the memory, which is lent until this has landed.
                    unsafe { read.address.add(at).cast::<MaybeUninit<u8>>().write(byte) };
                }
                if let Landing::Bytes(bytes) = landing {
                    assert!(bytes.len() <= read.length as usize, "more bytes than were asked for");
                    // SAFETY: as above, and long enough.
                    unsafe { read.address.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
                }
            }
            (Request::Metadata(metadata), Landing::Stat(stat)) => {
                // SAFETY: lent until this has landed.
                unsafe { metadata.buffer.write(**stat) };
            }
            (Request::WriteAt(write), _) => {
                // SAFETY: readable until this has landed.
                let now = digest(unsafe { bytes_of(write) });
                assert_eq!(now, self.digest, "the bytes of a write changed while it was in flight");
            }
            _ => {}
        }
    }
}

/// Begins a write, when the file is free for one; `None` before.
fn begin(request: WriteAt, opened: Opened, disk: &mut Disk) -> Result<Option<Writing>, i32> {
    if opened.flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(-libc::EBADF);
    }
    disk.check(opened, request.address.addr(), request.offset, request.length)?;
    let node = disk.tree.node(opened.node);
    if node.writer.is_some() {
        return Ok(None);
    }
    let length = node.content().expect("a directory is never open for writing").length();
    let has = |flag| opened.flags & flag != 0;
    let at = if has(libc::O_APPEND) { length } else { request.offset };
    let end = at.saturating_add(request.length.into());
    let shares = has(libc::O_DIRECT) && end <= length.next_multiple_of(PAGE as u64);
    let mut writing =
        Writing { at, limit: request.length as usize, taken: 0, error: None, writer: None };
    if writing.limit > 0 && fails(&mut disk.chance, disk.options.write_errors) {
        writing.error = Some(-libc::EIO);
        writing.limit = disk.chance.below(writing.limit);
    } else if writing.limit > 0 && fails(&mut disk.chance, disk.options.short_writes) {
        writing.limit = disk.shorter(opened, writing.limit);
    }
    if !shares {
        disk.writers += 1;
        writing.writer = Some(disk.writers);
        disk.tree.node(opened.node).writer = writing.writer;
    }
    Ok(Some(writing))
}

/// # Safety
///
/// The request's bytes are readable for as long as the slice is used.
unsafe fn bytes_of<'a>(write: &WriteAt) -> &'a [u8] {
    // SAFETY: handed on.
    unsafe { std::slice::from_raw_parts(write.address, write.length as usize) }
}

/// # Safety
///
/// A C string for as long as the slice is used.
unsafe fn text<'a>(path: *const c_char) -> &'a [u8] {
    // SAFETY: handed on.
    unsafe { CStr::from_ptr(path) }.to_bytes()
}
