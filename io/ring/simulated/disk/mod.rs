//! A disk in memory with a file system on it: what one host keeps through a crash.
//!
//! ```text
//!   number ──► Handle ──► Opened ──► Node ─┬─ Directory   names
//!               (world)   (flags)          └─ Content     bytes, as read and as on the disk
//! ```
//!
//! Methods are what the kernel does in one go, and answer as system calls do, errors negated.
//! What takes several steps (a write is taken bit by bit) is in `work.rs`. The time is given from
//! outside.
//!
//! Of a file system's life it has what the library can ask for: files are made and opened, read,
//! written, cut, synced and closed. The user is root, whom permissions do not stop; there are no
//! links, and paths that do not begin at the root do so all the same.

mod content;
mod options;
#[cfg(test)]
mod tests;
mod tree;
mod work;

use std::collections::BTreeMap;
use std::fmt;

use self::content::{Content, PAGE};
pub use self::options::{DiskOptions, Survival};
use self::tree::{Kind, Node, NodeId, Place, Tree};
pub(super) use self::work::{Step, Work};
use super::random::Chance;
use super::world;
use crate::io::request::{Stat, StatBuffer};

/// What every process takes from the permissions of its new files.
const UMASK: u32 = 0o022;
/// The longest file.
const LENGTH_MAX: u64 = i64::MAX as u64;
/// One request in so many lets the disk get on with what is dirty.
const WRITE_BACK: usize = 8;

/// An open file. It is good until the next crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handle {
    index: usize,
    crashes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Opened {
    node: NodeId,
    flags: i32,
}

/// One host's disk.
pub struct Disk {
    options: DiskOptions,
    chance: Chance,
    tree: Tree,
    opened: Vec<Option<Opened>>,
    crashes: u64,
    writers: u64,
    /// Nanoseconds after 1970.
    now: u64,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Looks into the disk of the host that runs on this thread. `None` outside of a simulation.
pub fn with_disk<R>(look: impl FnOnce(&mut Disk) -> R) -> Option<R> {
    world::current().map(|world| world.with_disk(look))
}

/// An error once in so many times; zero is never.
fn fails(chance: &mut Chance, one_in: u32) -> bool {
    one_in > 0 && chance.one_in(one_in as usize)
}

impl Disk {
    /// An empty disk: there are `/` and `/tmp`.
    pub(super) fn new(chance: Chance, options: DiskOptions) -> Self {
        let mut disk = Self {
            options,
            chance,
            tree: Tree::new(),
            opened: Vec::new(),
            crashes: 0,
            writers: 0,
            now: 0,
        };
        disk.make_directory("/tmp");
        disk
    }

    /// Changes what the disk does from now on.
    pub fn set_options(&mut self, options: DiskOptions) {
        self.options = options;
    }

    /// What the disk does.
    pub fn options(&self) -> &DiskOptions {
        &self.options
    }

    /// Makes a directory, and those on the way to it. It survives every crash.
    ///
    /// # Panics
    ///
    /// If a file is in the way, or a name too long.
    pub fn make_directory(&mut self, path: &str) {
        let mut way = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            way.push('/');
            way.push_str(name);
            let directory = Kind::Directory(BTreeMap::new());
            match self.tree.find(way.as_bytes()) {
                Ok(Place::Taken(_)) => {}
                Ok(Place::Free(parent, name)) => {
                    let node = Node::new(directory, 0o755, self.now);
                    self.tree.add(parent, name, node);
                }
                Err(error) => panic!("{way} cannot be made: error {}", -error),
            }
        }
        self.tree.sync_names();
    }

    /// Puts a file on the disk, over what is there, with the directories on the way to it. It is
    /// synced.
    ///
    /// # Panics
    ///
    /// If the path is that of a directory, or goes through a file.
    pub fn put(&mut self, path: &str, bytes: &[u8]) {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.make_directory(directory);
        }
        let id = match self.tree.find(path.as_bytes()) {
            Ok(Place::Taken(id)) => id,
            Ok(Place::Free(parent, name)) => {
                let node = Node::new(Kind::File(Content::default()), 0o644, self.now);
                self.tree.add(parent, name, node)
            }
            Err(error) => panic!("{path} cannot be put: error {}", -error),
        };
        self.tree.sync_names();
        let node = self.tree.node(id);
        node.modified = self.now;
        let content = node.content().expect("a file is put where no directory is");
        content.set_length(0);
        content.write(0, bytes, u64::MAX);
        content.sync();
    }

    /// The bytes of a file as a read would find them now; `None`: there is no such file.
    #[must_use]
    pub fn contents(&mut self, path: &str) -> Option<Vec<u8>> {
        let Ok(Place::Taken(id)) = self.tree.find(path.as_bytes()) else { return None };
        let content = self.tree.node(id).content()?;
        let length = usize::try_from(content.length()).expect("a file that fits into memory");
        Some(content.read(0, length))
    }

    /// How many files are open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.opened.iter().flatten().count()
    }

    /// The power goes and comes back. What was synced is there; of what was not, see [`Survival`].
    /// Files that are open answer `EIO` from now on, and requests in flight do nothing more.
    pub fn crash(&mut self) {
        self.crashes += 1;
        self.opened.clear();
        let Self { options: DiskOptions { survival, sector, .. }, chance, tree, .. } = self;
        for node in tree.nodes() {
            node.writer = None;
            if let Some(content) = node.content() {
                content.crash(*survival, *sector, chance);
            }
        }
        tree.crash(*survival, chance);
    }

    /// The time of day, in nanoseconds after 1970.
    pub(super) fn set_time(&mut self, now: u64) {
        self.now = now;
    }

    /// How long the next request takes, in nanoseconds.
    fn latency(&mut self) -> u64 {
        let (least, most) = (self.options.latency.start(), self.options.latency.end());
        let span = (*most - *least).as_nanos() as u64;
        least.as_nanos() as u64 + self.chance.bits() % (span + 1)
    }

    /// The disk gets on with what is dirty, now and then.
    fn write_back(&mut self) {
        if !self.chance.one_in(WRITE_BACK) {
            return;
        }
        let Self { options: DiskOptions { survival, sector, .. }, chance, tree, .. } = self;
        for node in tree.nodes() {
            if let Some(content) = node.content() {
                content.write_back(*survival, *sector, chance);
            }
        }
    }

    fn free_pages(&mut self) -> u64 {
        let taken: u64 = self.tree.nodes().filter_map(|node| Some(node.content()?.pages())).sum();
        (self.options.capacity / PAGE as u64).saturating_sub(taken)
    }

    fn opened(&self, handle: Handle) -> Result<Opened, i32> {
        if handle.crashes != self.crashes {
            return Err(-libc::EIO);
        }
        Ok(self.opened[handle.index].expect("the world forgets a handle that it closes"))
    }

    /// openat(2).
    pub(super) fn open(&mut self, path: &[u8], flags: i32, mode: u32) -> Result<Handle, i32> {
        let has = |flag| flags & flag == flag;
        if has(libc::O_CREAT | libc::O_DIRECTORY) {
            return Err(-libc::EINVAL);
        }
        if has(libc::O_TMPFILE) || has(libc::O_PATH) {
            return Err(-libc::EOPNOTSUPP);
        }
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let place = self.tree.find(path)?;
        if fails(&mut self.chance, self.options.open_errors) {
            return Err(-libc::EMFILE);
        }
        let node = match place {
            Place::Taken(_) if has(libc::O_CREAT | libc::O_EXCL) => return Err(-libc::EEXIST),
            Place::Taken(id) => match self.tree.node(id).kind {
                Kind::Directory(_) if writes || has(libc::O_CREAT) || has(libc::O_TRUNC) => {
                    return Err(-libc::EISDIR);
                }
                Kind::Directory(_) if has(libc::O_DIRECT) => return Err(-libc::EINVAL),
                Kind::File(_) if has(libc::O_DIRECTORY) => return Err(-libc::ENOTDIR),
                _ => id,
            },
            Place::Free(..) if !has(libc::O_CREAT) => return Err(-libc::ENOENT),
            Place::Free(..) if path.ends_with(b"/") => return Err(-libc::EISDIR),
            Place::Free(parent, name) => {
                let permissions = mode & 0o7777 & !UMASK;
                let node = Node::new(Kind::File(Content::default()), permissions, self.now);
                self.tree.add(parent, name, node)
            }
        };
        if has(libc::O_TRUNC) {
            self.cut(node, 0);
        }
        let only_now = libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY | libc::O_TRUNC;
        let opened = Some(Opened { node, flags: flags & !(only_now | libc::O_CLOEXEC) });
        let index = match self.opened.iter().position(Option::is_none) {
            Some(index) => {
                self.opened[index] = opened;
                index
            }
            None => {
                self.opened.push(opened);
                self.opened.len() - 1
            }
        };
        Ok(Handle { index, crashes: self.crashes })
    }

    fn cut(&mut self, node: NodeId, length: u64) {
        let node = self.tree.node(node);
        node.modified = self.now;
        node.content().expect("lengths are set of files only").set_length(length);
    }

    /// close(2). The handle is gone whatever the answer.
    pub(super) fn close(&mut self, handle: Handle) -> i32 {
        let Ok(opened) = self.opened(handle) else { return 0 };
        self.opened[handle.index] = None;
        if !fails(&mut self.chance, self.options.close_errors) {
            return 0;
        }
        if let Some(content) = self.tree.node(opened.node).content() {
            content.lose(self.options.sector, &mut self.chance);
        }
        -libc::EIO
    }

    /// What F_GETFL tells of an open file.
    pub(super) fn flags(&self, handle: Handle) -> i32 {
        self.opened(handle).map_or(0, |opened| opened.flags)
    }

    /// What direct I/O has to be aligned to.
    pub(super) fn alignment(&self) -> u32 {
        self.options.sector as u32
    }

    /// Whether a range can be read or written through this handle.
    fn check(&self, opened: Opened, address: usize, at: u64, length: u32) -> Result<(), i32> {
        if at.checked_add(length.into()).is_none_or(|end| end > LENGTH_MAX) {
            return Err(-libc::EINVAL);
        }
        let all = address as u64 | at | u64::from(length);
        if opened.flags & libc::O_DIRECT != 0 && all % u64::from(self.alignment()) != 0 {
            return Err(-libc::EINVAL);
        }
        Ok(())
    }

    /// pread(2) into memory at `address`. The bytes may be fewer than there are.
    pub(super) fn read(
        &mut self,
        handle: Handle,
        address: usize,
        at: u64,
        length: u32,
    ) -> Result<Vec<u8>, i32> {
        let opened = self.opened(handle)?;
        if opened.flags & libc::O_ACCMODE == libc::O_WRONLY {
            return Err(-libc::EBADF);
        }
        self.check(opened, address, at, length)?;
        let now = self.now;
        let node = self.tree.node(opened.node);
        let content = node.content().ok_or(-libc::EISDIR)?;
        if fails(&mut self.chance, self.options.read_errors) {
            return Err(-libc::EIO);
        }
        let mut bytes = content.read(at, length as usize);
        // As a mount with `relatime`, which most are.
        if node.accessed <= node.modified {
            node.accessed = now;
        }
        if !bytes.is_empty() && fails(&mut self.chance, self.options.short_reads) {
            bytes.truncate(self.shorter(opened, bytes.len()));
        }
        Ok(bytes)
    }

    /// Some of a count: with direct I/O whole sectors, since offsets have to stay aligned.
    fn shorter(&mut self, opened: Opened, count: usize) -> usize {
        let some = self.chance.up_to(count);
        let direct = opened.flags & libc::O_DIRECT != 0;
        let unit = if direct { self.options.sector } else { 1 };
        some.next_multiple_of(unit).min(count)
    }

    /// A read that is answered at once if it can be (`RWF_NOWAIT`); `None` if not.
    pub(super) fn try_read(
        &mut self,
        handle: Handle,
        at: u64,
        length: u32,
    ) -> Option<Result<Vec<u8>, i32>> {
        if fails(&mut self.chance, self.options.cache_misses) {
            return None;
        }
        let result = self.read(handle, 0, at, length);
        // A short answer stands at the end of the file only.
        let end = at + result.as_ref().map_or(0, Vec::len) as u64;
        let all = match &result {
            Ok(bytes) => bytes.len() == length as usize || self.is_end(handle, end),
            Err(_) => true,
        };
        all.then_some(result)
    }

    fn is_end(&mut self, handle: Handle, at: u64) -> bool {
        let Ok(opened) = self.opened(handle) else { return true };
        self.tree.node(opened.node).content().is_none_or(|content| content.length() <= at)
    }

    /// fsync(2), or fdatasync(2), which differs in what nobody here asks for after a crash: times.
    pub(super) fn synchronize(&mut self, handle: Handle) -> i32 {
        let opened = match self.opened(handle) {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        let Self { options, chance, tree, .. } = self;
        if let Some(content) = tree.node(opened.node).content() {
            if fails(chance, options.sync_errors) {
                content.lose(options.sector, chance);
                return -libc::EIO;
            }
            content.sync();
        }
        tree.synced(opened.node, options.survival);
        0
    }

    /// ftruncate(2). `None`: a write has the file just now.
    pub(super) fn set_length(&mut self, handle: Handle, length: u64) -> Option<i32> {
        let opened = match self.opened(handle) {
            Ok(opened) => opened,
            Err(error) => return Some(error),
        };
        if opened.flags & libc::O_ACCMODE == libc::O_RDONLY || length > LENGTH_MAX {
            return Some(-libc::EINVAL);
        }
        if self.tree.node(opened.node).writer.is_some() {
            return None;
        }
        if fails(&mut self.chance, self.options.write_errors) {
            return Some(-libc::EIO);
        }
        self.cut(opened.node, length);
        Some(0)
    }

    /// fallocate(2), mode 0. `None`: a write has the file just now.
    pub(super) fn allocate(&mut self, handle: Handle, at: u64, length: u64) -> Option<i32> {
        let opened = match self.opened(handle) {
            Ok(opened) => opened,
            Err(error) => return Some(error),
        };
        if at > LENGTH_MAX || length > LENGTH_MAX || length == 0 {
            return Some(-libc::EINVAL);
        }
        if opened.flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Some(-libc::EBADF);
        }
        if at + length > LENGTH_MAX {
            return Some(-libc::EFBIG);
        }
        if self.tree.node(opened.node).writer.is_some() {
            return None;
        }
        if fails(&mut self.chance, self.options.write_errors) {
            return Some(-libc::EIO);
        }
        let (free, now) = (self.free_pages(), self.now);
        let node = self.tree.node(opened.node);
        let content = node.content().expect("a directory is never open for writing");
        if !content.reserve(at, at + length, free) {
            return Some(-libc::ENOSPC);
        }
        node.modified = now;
        Some(0)
    }

    /// statx(2) of an open file.
    pub(super) fn metadata(&mut self, handle: Handle) -> Result<StatBuffer, i32> {
        let node = self.opened(handle)?.node;
        Ok(self.stat(node))
    }

    /// statx(2) of a path.
    pub(super) fn metadata_of(&mut self, path: &[u8]) -> Result<StatBuffer, i32> {
        match self.tree.find(path)? {
            Place::Taken(id) => Ok(self.stat(id)),
            Place::Free(..) => Err(-libc::ENOENT),
        }
    }

    fn stat(&mut self, id: NodeId) -> StatBuffer {
        let alignment = self.alignment();
        let node = self.tree.node(id);
        let time = |at: u64| Some(((at / 1_000_000_000) as i64, (at % 1_000_000_000) as u32));
        let (kind, links, length, pages) = match &node.kind {
            Kind::File(content) => (libc::S_IFREG, 1, content.length(), content.pages()),
            Kind::Directory(_) => (libc::S_IFDIR, 2, PAGE as u64, 1),
        };
        let stat = Stat {
            length,
            mode: kind | node.permissions,
            modified: time(node.modified),
            accessed: time(node.accessed),
            created: time(node.created),
            device: libc::makedev(8, 1),
            // As ext4 numbers its root.
            inode: id as u64 + 2,
            links,
            user: 0,
            group: 0,
            block_size: PAGE as u32,
            blocks: pages * (PAGE / 512) as u64,
        };
        StatBuffer::of(&stat, (kind == libc::S_IFREG).then_some(alignment))
    }
}
