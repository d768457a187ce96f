//! Where an operation runs: here if this is a core, else at the home of the current runtime, whose
//! program waits for it with whatever executor it has.

use std::io;

use crate::runtime::require_io;

/// The current runtime must be there, have I/O, and not have ended.
#[track_caller]
pub(super) fn check() -> io::Result<()> {
    if require_io().core().is_closed() {
        return Err(io::Error::new(
            io::ErrorKind::NotConnected,
            "the current runtime is shut down",
        ));
    }
    Ok(())
}

/// Runs what `operation` makes, on a core.
pub(super) async fn run<C, F, R>(operation: C) -> io::Result<R>
where
    C: FnOnce() -> F + Send + 'static,
    F: Future<Output = io::Result<R>> + 'static,
    R: Send + 'static,
{
    check()?;
    if quoit::Handle::try_current().is_some() {
        return operation().await;
    }
    match require_io().core().spawn_with(operation).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(io::Error::new(io::ErrorKind::NotConnected, "the home core is shut down")),
    }
}
