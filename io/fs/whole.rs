//! A file as a whole: all its bytes at once.

use std::future::Future;
use std::io;
use std::path::Path;

use super::file::File;
use super::operation::Operation;
use crate::io::buffer::{IoBuf, IoBufMut};

/// What a file that is longer than it said is read by, at least.
const STEP: usize = 4096;

/// Reads all bytes of a file.
///
/// It reads at positions, so it is not for pipes and terminals.
///
/// # Errors
///
/// As open(2) and pread(2); [`OutOfMemory`](io::ErrorKind::OutOfMemory) when the file does not fit.
///
/// # Cancel safety
///
/// Dropped, the file is closed.
///
/// # Examples
///
/// ```
/// # let path = std::env::temp_dir().join(format!("quoit-whole-{}", std::process::id()));
/// # quoit::block_on(async {
/// quoit::fs::write(&path, "all of it").await?;
/// assert_eq!(quoit::fs::read(&path).await?, b"all of it");
/// # std::io::Result::Ok(())
/// # })?;
/// # std::fs::remove_file(path)
/// # ; std::io::Result::Ok(())
/// ```
pub fn read<P: AsRef<Path>>(path: P) -> Operation<impl Future<Output = io::Result<Vec<u8>>>> {
    Operation::new(async move {
        let file = File::open(path).await?;
        // Some files, those of /proc among them, do not know their length: it is a hint. One byte
        // more leaves room for the read that finds the end.
        let hint = file.metadata().await.map_or(0, |metadata| metadata.len());
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(usize::try_from(hint).unwrap_or(usize::MAX).saturating_add(1))?;
        loop {
            if bytes.len() == bytes.capacity() {
                bytes.try_reserve(STEP)?;
            }
            let filled = bytes.len();
            let (count, room) = file.read_at(bytes.slice_mut(filled..), filled as u64).await?;
            bytes = room.into_inner();
            if count == 0 {
                return Ok(bytes);
            }
        }
    })
}

/// Writes a file that has just these bytes: made if it is not there, emptied before if it is.
///
/// When it returns, the kernel has the bytes; to have them on the disk, see
/// [`File::sync_all`].
///
/// # Errors
///
/// As open(2), pwrite(2) and close(2).
///
/// # Cancel safety
///
/// Dropped, the file may have none, some or all of the bytes.
pub fn write<P: AsRef<Path>, B: IoBuf>(
    path: P,
    bytes: B,
) -> Operation<impl Future<Output = io::Result<()>>> {
    Operation::new(async move {
        let file = File::create(path).await?;
        file.write_all_at(bytes, 0).await?;
        file.close().await
    })
}
