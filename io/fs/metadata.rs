//! `Metadata`: what statx(2) told.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;

use crate::io::request::Stat;
use crate::io::system::{WallTime, wall_time};

// The file type bits of a mode (inode(7)): the same on every architecture.
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// What is known about a file, from [`File::metadata`](super::File::metadata).
///
/// Names and meanings are those of [`std::fs::Metadata`] and its Unix extension.
#[derive(Clone)]
pub struct Metadata {
    stat: Stat,
}

/// A time that the file system may not keep.
fn time(time: Option<(i64, u32)>) -> io::Result<WallTime> {
    time.and_then(|(seconds, nanoseconds)| wall_time(seconds, nanoseconds)).ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "the file system does not keep this time")
    })
}

impl Metadata {
    pub(super) fn new(stat: Stat) -> Self {
        Self { stat }
    }

    /// The length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length of metadata, as in std")]
    pub fn len(&self) -> u64 {
        self.stat.length
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.mode() & TYPE == REGULAR
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.mode() & TYPE == DIRECTORY
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.mode() & TYPE == SYMLINK
    }

    /// The kind of file and its permissions, as `st_mode` (inode(7)).
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.stat.mode
    }

    /// The permissions.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        Permissions::from_mode(self.mode())
    }

    /// When the bytes were last changed.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) where it is not known.
    pub fn modified(&self) -> io::Result<WallTime> {
        time(self.stat.modified)
    }

    /// When it was last read, as far as the mount keeps note of it.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) where it is not known.
    pub fn accessed(&self) -> io::Result<WallTime> {
        time(self.stat.accessed)
    }

    /// When it was made.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) where it is not known.
    pub fn created(&self) -> io::Result<WallTime> {
        time(self.stat.created)
    }

    /// The device that it is on.
    #[must_use]
    pub fn dev(&self) -> u64 {
        self.stat.device
    }

    /// Its number on the device.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.stat.inode
    }

    /// How many names it has.
    #[must_use]
    pub fn nlink(&self) -> u64 {
        self.stat.links.into()
    }

    /// The user it belongs to.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.stat.user
    }

    /// The group it belongs to.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.stat.group
    }

    /// The block size in bytes that suits it best.
    #[must_use]
    pub fn blksize(&self) -> u64 {
        self.stat.block_size.into()
    }

    /// How many blocks of 512 bytes it takes on the disk.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.stat.blocks
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("len", &self.len())
            .field("mode", &format_args!("{:o}", self.mode()))
            .field("modified", &self.modified().ok())
            .finish_non_exhaustive()
    }
}
