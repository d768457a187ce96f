//! What a program wants to be called for.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

type Hook = Arc<dyn Fn() + Send + Sync>;

/// See the methods of `Builder` of the same names.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) on_thread_park: Option<Hook>,
    pub(crate) on_thread_unpark: Option<Hook>,
}

// They are called with nothing of ours half-done; what a panic leaves of their own is theirs.
impl UnwindSafe for Hooks {}
impl RefUnwindSafe for Hooks {}

pub(crate) fn call(hook: Option<&Hook>) {
    if let Some(hook) = hook {
        hook();
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("on_thread_park", &self.on_thread_park.is_some())
            .field("on_thread_unpark", &self.on_thread_unpark.is_some())
            .finish()
    }
}
