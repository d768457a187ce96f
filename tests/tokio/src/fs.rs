//! Files as a whole, over quoit. What has a position is the real tokio's, which fails.

use std::io;
use std::path::Path;

pub use tokio_real::fs::*;

use crate::runtime::Handle;

/// The contents of a file.
pub async fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    // Here a file needs the current runtime, not only a core.
    drop(Handle::current());
    quoit::fs::read(path).await
}

/// The contents of a file that is a text.
pub async fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = read(path).await?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
