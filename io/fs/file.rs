//! `File`: reads and writes at positions, on whichever core asks.
//!
//! A file is bound to no core: each operation is submitted where it is polled first, and answered
//! there. What all of them share is in `shared.rs`.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use super::close::close;
use super::flight::{Flight, Mark};
use super::ledger::EVERYTHING;
use super::metadata::Metadata;
use super::open_options::OpenOptions;
use super::operation::Operation;
use super::shared::Shared;
use super::transfer::{read, write};
use crate::io::buffer::{BufError, IoBuf, IoBufMut};
use crate::io::operation::outcome_to_result;
use crate::io::payload::{AnyPayload, Payload};
use crate::io::request::{self, Request, StatBuffer};

/// An open file.
///
/// Reads and writes name their offset, so there is no position to share, and operations need only
/// `&self`: any number may be in flight. A file belongs to no core. Each operation runs on the core
/// where it is first polled, and its future has to stay there.
///
/// A clone shares the descriptor, and what this page says about "the file" holds across clones. A
/// second `open` of the same path is another file in this respect.
///
/// # Dropped operations
///
/// A read that is dropped changes nothing. A change (`write_at`, `set_len`, `allocate`) that is
/// dropped in flight may happen or not; but never after a later sync, `set_len`, `close` or
/// overlapping write on the file has returned: those wait for it.
///
/// # Failed syncs
///
/// When a sync fails, the kernel may have dropped the pages that it could not write, and says so
/// only once: the next sync would succeed. So the file remembers, and every later write, sync,
/// `set_len`, `allocate` and `close` of it fails. Reads go on. What was written since the last good
/// sync has to be written again to another file.
///
/// # Examples
///
/// ```
/// use quoit::fs::File;
///
/// # let path = std::env::temp_dir().join(format!("quoit-file-{}", std::process::id()));
/// # quoit::block_on(async {
/// let file = File::options().read(true).write(true).create(true).open(&path).await?;
/// file.write_all_at("round and round", 0).await?;
/// file.sync_data().await?;
/// let (count, buffer) = file.read_at(Vec::with_capacity(64), 6).await?;
/// assert_eq!((count, &buffer[..]), (9, &b"and round"[..]));
/// file.close().await
/// # })?;
/// # std::fs::remove_file(path)
/// # ; std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct File {
    shared: Arc<Shared>,
    /// Counts the handles, which the requests in flight are not: they hold `shared` alone.
    handle: Arc<()>,
}

/// A request that keeps the file until the kernel is done, and the memory of its answer longer.
struct Asking<M>(Option<Arc<Shared>>, M);

impl<M> Asking<M> {
    fn number(&mut self, shared: &Arc<Shared>) -> RawFd {
        self.0.get_or_insert_with(|| shared.clone()).number()
    }
}

impl Payload for Asking<Box<StatBuffer>> {
    fn landed(&mut self, _: i64) -> Option<AnyPayload> {
        self.0.take().and_then(Shared::let_go)
    }

    fn stranded(&mut self, wakers: &mut Vec<Waker>) {
        if let Some(shared) = &self.0 {
            shared.strand(wakers);
        }
    }
}

/// A sync. One that nobody waits for still counts when it fails.
impl Payload for Asking<()> {
    fn abandoned(mut self, outcome: i64) {
        drop(self.landed(outcome));
    }

    fn landed(&mut self, outcome: i64) -> Option<AnyPayload> {
        let shared = self.0.take()?;
        shared.synced(outcome);
        shared.let_go()
    }

    fn stranded(&mut self, wakers: &mut Vec<Waker>) {
        if let Some(shared) = &self.0 {
            shared.strand(wakers);
        }
    }
}

impl File {
    pub(super) fn from_shared(shared: Shared) -> Self {
        Self { shared: Arc::new(shared), handle: Arc::new(()) }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// As open(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped, what was opened is closed.
    pub fn open<P: AsRef<Path>>(path: P) -> Operation<impl Future<Output = io::Result<Self>>> {
        Operation::new(async move { OpenOptions::new().read(true).open(path).await })
    }

    /// Opens a file for writing: made if it is not there, emptied if it is.
    ///
    /// # Errors
    ///
    /// As open(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the file may have been made or emptied all the same; what was opened is closed.
    pub fn create<P: AsRef<Path>>(path: P) -> Operation<impl Future<Output = io::Result<Self>>> {
        Operation::new(async move {
            OpenOptions::new().write(true).create(true).truncate(true).open(path).await
        })
    }

    /// The choices for opening a file.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Reads into the buffer from `offset` on. The count is less than the buffer's room at the end
    /// of the file, and zero there or beyond. One call moves at most 2,147,479,552 bytes (read(2)).
    ///
    /// A buffer without room answers zero at once.
    ///
    /// # Errors
    ///
    /// As pread(2), with the buffer. [`InvalidInput`](io::ErrorKind::InvalidInput) when the file is
    /// open for [direct](OpenOptions::direct) I/O and something is not aligned; nothing is
    /// submitted then. A pipe or socket cannot be read at a position.
    ///
    /// # Cancel safety
    ///
    /// Dropped in flight, the buffer is dropped when the kernel is done with it; nothing else is
    /// lost.
    #[inline]
    pub fn read_at<B: IoBufMut>(
        &self,
        buffer: B,
        offset: u64,
    ) -> Operation<impl Future<Output = Result<(usize, B), BufError<B>>>> {
        Operation::new(async move {
            let (count, mut buffer) = read(&self.shared, buffer, 0, offset).await?;
            // SAFETY: the kernel has filled that many bytes from the start, within the room.
            unsafe { buffer.set_init(count) };
            Ok((count, buffer))
        })
    }

    /// Reads from `offset` on until the buffer has no room left.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at); and [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when the
    /// file ends before. The buffer comes back with what it held, except that bytes that were read
    /// are written over.
    ///
    /// # Cancel safety
    ///
    /// As [`read_at`](Self::read_at).
    pub fn read_exact_at<B: IoBufMut>(
        &self,
        mut buffer: B,
        offset: u64,
    ) -> Operation<impl Future<Output = Result<B, BufError<B>>>> {
        Operation::new(async move {
            let room = buffer.bytes_total();
            let mut filled = 0;
            while filled < room {
                let count;
                (count, buffer) =
                    read(&self.shared, buffer, filled, offset + filled as u64).await?;
                filled += count;
                // With O_DIRECT, nothing but the end of the file leaves an offset that is not
                // aligned.
                let unaligned = filled < room && !self.shared.is_aligned(offset + filled as u64);
                if count == 0 || unaligned {
                    let text = "the file ends before the buffer is full";
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, text);
                    return Err(BufError::new(error, Some(buffer)));
                }
            }
            // SAFETY: each of the bytes was filled, one part after the other.
            unsafe { buffer.set_init(room) };
            Ok(buffer)
        })
    }

    /// Writes the buffer's bytes at `offset`, beyond the end of the file if need be: what lies
    /// between reads as zeroes. The count may be less than all of them, see
    /// [`write_all_at`](Self::write_all_at). A file opened with [`append`](OpenOptions::append) is
    /// appended to, whatever the offset (pwrite(2), BUGS).
    ///
    /// # Errors
    ///
    /// As pwrite(2), with the buffer; unaligned direct I/O as [`read_at`](Self::read_at). Whatever
    /// the error, a part may have been written.
    ///
    /// # Cancel safety
    ///
    /// Dropped in flight, the write may happen or not, but not after a later sync, `set_len`,
    /// `close` or overlapping write has returned.
    #[inline]
    pub fn write_at<B: IoBuf>(
        &self,
        buffer: B,
        offset: u64,
    ) -> Operation<impl Future<Output = Result<(usize, B), BufError<B>>>> {
        Operation::new(async move { write(&self.shared, buffer, 0, offset).await })
    }

    /// Writes all bytes of the buffer at `offset`.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at), and [`WriteZero`](io::ErrorKind::WriteZero) when the kernel
    /// takes no more.
    ///
    /// # Cancel safety
    ///
    /// As [`write_at`](Self::write_at); a large buffer is written in parts, so some may be written
    /// and others not.
    pub fn write_all_at<B: IoBuf>(
        &self,
        mut buffer: B,
        offset: u64,
    ) -> Operation<impl Future<Output = Result<B, BufError<B>>>> {
        Operation::new(async move {
            let mut written = 0;
            while written < buffer.bytes_init() {
                let count;
                (count, buffer) =
                    write(&self.shared, buffer, written, offset + written as u64).await?;
                if count == 0 {
                    let error = io::Error::new(io::ErrorKind::WriteZero, "the file takes no more");
                    return Err(BufError::new(error, Some(buffer)));
                }
                written += count;
            }
            Ok(buffer)
        })
    }

    /// Brings the file's bytes and metadata to the disk (fsync(2)).
    ///
    /// It covers the writes that had returned before, and those that were dropped before: it waits
    /// for these. A new file's name is another file's content: sync its directory too.
    ///
    /// # Errors
    ///
    /// As fsync(2). The failure is final for the file, see [above](Self#failed-syncs).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the sync may happen or not; should it fail, the file remembers that too.
    pub fn sync_all(&self) -> Operation<impl Future<Output = io::Result<()>>> {
        Operation::new(async move { self.synchronize(false).await })
    }

    /// The same without the metadata that reading the bytes back does not need, such as times
    /// (fdatasync(2)).
    ///
    /// # Errors
    ///
    /// As [`sync_all`](Self::sync_all).
    ///
    /// # Cancel safety
    ///
    /// As [`sync_all`](Self::sync_all).
    pub fn sync_data(&self) -> Operation<impl Future<Output = io::Result<()>>> {
        Operation::new(async move { self.synchronize(true).await })
    }

    async fn synchronize(&self, data_only: bool) -> io::Result<()> {
        self.shared.may_change(EVERYTHING).await?;
        let shared = &self.shared;
        let request = move |syncing: &mut Asking<()>| {
            let descriptor = syncing.number(shared);
            Request::Synchronize(request::Synchronize { descriptor, data_only })
        };
        // SAFETY: the request names no memory, and the payload owns the descriptor.
        let landing = unsafe { Flight::new(Asking(Some(shared.clone()), ()), request) }.await;
        let (outcome, _) = landing.map_err(|(error, _)| error)?;
        outcome_to_result(outcome).map(drop)
    }

    /// Sets the length of the file: cuts off what is beyond, or adds a hole that reads as zeroes.
    ///
    /// # Errors
    ///
    /// As ftruncate(2).
    ///
    /// # Cancel safety
    ///
    /// As [`write_at`](Self::write_at), for every byte from `length` on.
    pub fn set_len(&self, length: u64) -> Operation<impl Future<Output = io::Result<()>>> {
        Operation::new(async move {
            self.shared.may_change(EVERYTHING).await?;
            self.change(length..u64::MAX, move |descriptor| {
                Request::SetLength(request::SetLength { descriptor, length })
            })
            .await
        })
    }

    /// Reserves disk space for `length` bytes from `offset` on, so that writing them later cannot
    /// fail for want of it; the file becomes longer if need be (fallocate(2), mode 0). Writes with
    /// [direct](OpenOptions::direct) I/O go faster where space is allocated.
    ///
    /// # Errors
    ///
    /// As fallocate(2); [`Unsupported`](io::ErrorKind::Unsupported) on some file systems.
    ///
    /// # Cancel safety
    ///
    /// As [`write_at`](Self::write_at).
    pub fn allocate(
        &self,
        offset: u64,
        length: u64,
    ) -> Operation<impl Future<Output = io::Result<()>>> {
        Operation::new(async move {
            let range = offset..offset.saturating_add(length);
            self.shared.may_change(range.clone()).await?;
            self.change(range, move |descriptor| {
                Request::Allocate(request::Allocate { descriptor, offset, length })
            })
            .await
        })
    }

    /// A change that names no memory.
    async fn change(
        &self,
        range: Range<u64>,
        request: impl Fn(RawFd) -> Request,
    ) -> io::Result<()> {
        let mark = Mark::new(&self.shared);
        let change = (&*self.shared, mark.ticket(), range);
        let request = |mark: &mut Mark| request(mark.arm(&self.shared));
        // SAFETY: the request names no memory, and the payload owns the descriptor.
        let landing = unsafe { Flight::changing(mark, change, request) }.await;
        let (outcome, mut mark) = landing.map_err(|(error, mark)| {
            // Stopped, or never begun: either way it is over.
            mark.into_iter().for_each(|mut mark| mark.disarm());
            error
        })?;
        mark.disarm();
        outcome_to_result(outcome).map(drop)
    }

    /// What is known about the file (statx(2)).
    ///
    /// # Errors
    ///
    /// As statx(2).
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub fn metadata(&self) -> Operation<impl Future<Output = io::Result<Metadata>>> {
        Operation::new(async move {
            let asking = Asking(Some(self.shared.clone()), Box::new(StatBuffer::new()));
            let request = |asking: &mut Asking<Box<StatBuffer>>| {
                Request::Metadata(request::Metadata {
                    descriptor: asking.number(&self.shared),
                    path: c"".as_ptr(),
                    flags: libc::AT_EMPTY_PATH,
                    buffer: &raw mut *asking.1,
                })
            };
            // SAFETY: the payload owns the descriptor, and the buffer in a box of its own; the path
            // is static.
            let landing = unsafe { Flight::new(asking, request) }.await;
            let (outcome, Asking(_, buffer)) = landing.map_err(|(error, _)| error)?;
            outcome_to_result(outcome)?;
            Ok(Metadata::new(buffer.read()))
        })
    }

    /// Closes the file and tells what the file system had kept for this moment (close(2)). Before,
    /// it waits for all operations that were dropped in flight.
    ///
    /// While there are clones, it waits for dropped changes only, and the last of them closes.
    ///
    /// A file that is dropped instead is closed when the last operation in flight is over. Nobody
    /// waits for that, and nobody hears of an error.
    ///
    /// # Errors
    ///
    /// As close(2); the file is closed all the same. Or that a sync had failed, or that the kernel
    /// still has an operation whose core is gone: then the file stays open.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the file is closed all the same.
    pub async fn close(self) -> io::Result<()> {
        let Self { shared, handle } = self;
        if Arc::into_inner(handle).is_none() {
            shared.clear(EVERYTHING).await?;
            return shared.intact();
        }
        let intact = shared.intact();
        let closed = close(shared.surrender().await?).await;
        intact.and(closed)
    }

    /// The alignment in bytes that address, length and offset need for
    /// [direct](OpenOptions::direct) I/O: the greatest of theirs, hence enough for each. `None`
    /// when the file is not open for direct I/O, or the kernel does not tell.
    ///
    /// ```
    /// # quoit::block_on(async {
    /// # let path = std::env::current_exe()?;
    /// let file = quoit::fs::File::open(path).await?;
    /// assert_eq!(file.direct_alignment(), None);
    /// # std::io::Result::Ok(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn direct_alignment(&self) -> Option<usize> {
        let alignment = self.shared.alignment()?;
        Some(alignment.memory.max(alignment.offset) as usize)
    }

    /// The file as one of `std`.
    ///
    /// # Errors
    ///
    /// The file itself, while there are clones or operations in flight.
    pub fn try_into_std(self) -> Result<std::fs::File, Self> {
        OwnedFd::try_from(self).map(Into::into)
    }
}

impl From<OwnedFd> for File {
    /// Takes over an open descriptor. Flags that matter (`O_APPEND`, `O_DIRECT`) are read from it.
    fn from(descriptor: OwnedFd) -> Self {
        Self::from_shared(Shared::new(descriptor.into()))
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> Self {
        OwnedFd::from(file).into()
    }
}

impl TryFrom<File> for OwnedFd {
    /// The file itself.
    type Error = File;

    /// Fails while there are clones or operations in flight.
    fn try_from(file: File) -> Result<Self, File> {
        let File { shared, handle } = file;
        shared.into_owned_fd().map_err(|shared| File { shared, handle })
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.number()
    }
}
