//! `OpenOptions`: how a file is opened.

use std::ffi::CString;
use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::file::File;
use super::flight::Flight;
use super::operation::Operation;
use super::shared::Shared;
use crate::io::descriptor::Descriptor;
use crate::io::operation::outcome_to_result;
use crate::io::payload::Payload;
use crate::io::request::{self, Request};

/// How a file is opened: as [`std::fs::OpenOptions`], and [`direct`](Self::direct).
///
/// Descriptors are close-on-exec, always.
///
/// ```
/// use quoit::fs::OpenOptions;
///
/// # quoit::block_on(async {
/// let missing = OpenOptions::new().read(true).open("/there/is/no/such/file").await;
/// assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    direct: bool,
    mode: u32,
    custom_flags: i32,
}

/// The path that an open lends to the kernel.
struct Opening(CString);

impl Payload for Opening {
    fn abandoned(self, outcome: i64) {
        if let Ok(number) = outcome_to_result(outcome) {
            // SAFETY: the kernel has just opened this number for us, and nobody else knows it.
            drop(unsafe { Descriptor::from_raw(number as RawFd) });
        }
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Nothing chosen: at least one of `read`, `write` and `append` is needed. New files get mode
    /// 0o666 less the process's umask.
    #[must_use]
    pub fn new() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            direct: false,
            mode: 0o666,
            custom_flags: 0,
        }
    }

    /// Whether it can be read.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.read = read;
        self
    }

    /// Whether it can be written. What is there stays, until it is written over.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    /// Whether every write goes to the end, whatever its offset.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.append = append;
        self
    }

    /// Whether it is emptied; needs `write`.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// Whether it is made if it is not there; needs `write` or `append`.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// Whether it has to be made, and is an error if it is there. `create` and `truncate` are
    /// ignored then.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }

    /// Whether reads and writes go past the page cache (`O_DIRECT`, open(2)).
    ///
    /// Then buffer address, length and offset have to be
    /// [aligned](File::direct_alignment), for which [`AlignedBuf`](crate::buffer::AlignedBuf)
    /// helps. What is not is an error that names the alignment, before anything is submitted, where
    /// the kernel tells it (`STATX_DIOALIGN`, Linux 6.1); elsewhere the kernel answers `EINVAL`.
    pub fn direct(&mut self, direct: bool) -> &mut Self {
        self.direct = direct;
        self
    }

    /// The permissions of a file that is made, less the process's umask. Default: 0o666.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// Further flags for open(2), such as `O_NOFOLLOW`. Those of the access mode are ignored.
    pub fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.custom_flags = flags;
        self
    }

    /// Opens the file.
    ///
    /// # Errors
    ///
    /// As open(2). [`InvalidInput`](io::ErrorKind::InvalidInput) when the choices contradict each
    /// other, or the path has a zero byte. [`Unsupported`](io::ErrorKind::Unsupported) when the
    /// file system has no direct I/O.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the file may have been made or emptied all the same; what was opened is closed.
    pub fn open<P: AsRef<Path>>(
        &self,
        path: P,
    ) -> Operation<impl Future<Output = io::Result<File>>> {
        Operation::new(async move {
            let (flags, mode) = (self.flags()?, self.mode);
            let opening = Opening(CString::new(path.as_ref().as_os_str().as_bytes())?);
            let request = move |Opening(path): &mut Opening| {
                Request::Open(request::Open { path: path.as_ptr(), flags, mode })
            };
            // SAFETY: the payload owns the path, which is a block of its own.
            let landing = unsafe { Flight::new(opening, request) }.await;
            let (outcome, _) = landing.map_err(|(error, _)| error)?;
            let number = outcome_to_result(outcome).map_err(|error| self.explain(error))?;
            // SAFETY: the kernel has just opened this number for us.
            let descriptor = unsafe { Descriptor::from_raw(number as RawFd) };
            Ok(File::from_shared(Shared::new(descriptor)))
        })
    }

    fn explain(&self, error: io::Error) -> io::Error {
        if self.direct && error.raw_os_error() == Some(libc::EINVAL) {
            let text = "this file system has no direct I/O (O_DIRECT)";
            return io::Error::new(io::ErrorKind::Unsupported, text);
        }
        error
    }

    /// The flags for open(2), by the rules of `std`.
    fn flags(&self) -> io::Result<i32> {
        let access = match (self.read, self.write, self.append) {
            (true, false, false) => libc::O_RDONLY,
            (false, true, false) => libc::O_WRONLY,
            (true, true, false) => libc::O_RDWR,
            (false, _, true) => libc::O_WRONLY | libc::O_APPEND,
            (true, _, true) => libc::O_RDWR | libc::O_APPEND,
            (false, false, false) => return Err(contradiction("neither read, write nor append")),
        };
        if self.truncate && !self.create_new && (!self.write || self.append) {
            return Err(contradiction("truncate needs write, and no append"));
        }
        if (self.create || self.create_new) && !self.write && !self.append {
            return Err(contradiction("making a file needs write or append"));
        }
        let creation = match (self.create, self.truncate, self.create_new) {
            (_, _, true) => libc::O_CREAT | libc::O_EXCL,
            (true, true, false) => libc::O_CREAT | libc::O_TRUNC,
            (true, false, false) => libc::O_CREAT,
            (false, true, false) => libc::O_TRUNC,
            (false, false, false) => 0,
        };
        let direct = if self.direct { libc::O_DIRECT } else { 0 };
        let custom = self.custom_flags & !libc::O_ACCMODE;
        Ok(access | creation | direct | custom | libc::O_CLOEXEC)
    }
}

fn contradiction(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("open options: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All combinations, against what `std` does with them.
    #[test]
    fn choices_mean_what_they_mean_to_std() {
        let folder = std::env::temp_dir().join(format!("quoit-options-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        for bits in 0..64_u32 {
            let bit = |index: u32| bits >> index & 1 == 1;
            let (mut ours, mut std) = (OpenOptions::new(), std::fs::OpenOptions::new());
            ours.read(bit(0)).write(bit(1)).append(bit(2));
            ours.truncate(bit(3)).create(bit(4)).create_new(bit(5));
            std.read(bit(0)).write(bit(1)).append(bit(2));
            std.truncate(bit(3)).create(bit(4)).create_new(bit(5));
            let _ = std::fs::remove_file(&path);
            let opened = std.open(&path);
            let invalid = opened.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput);
            assert_eq!(ours.flags().is_err(), invalid, "{ours:?}");
            let Ok(file) = opened else { continue };
            let flags = request::status_flags(std::os::fd::AsRawFd::as_raw_fd(&file));
            let kept = libc::O_ACCMODE | libc::O_APPEND;
            assert_eq!(ours.flags().unwrap() & kept, flags & kept, "{ours:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn custom_flags_never_change_the_access_mode() {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_WRONLY);
        let wanted = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        assert_eq!(options.flags().unwrap(), wanted);
    }
}
