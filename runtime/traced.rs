//! What `tracing` is told of tasks, as tokio-console reads it; nothing without that feature.
//!
//! ```text
//!   spawn ──► span `runtime.spawn` ── entered for each poll, and for the drop ──► closed with the
//!              kind, task.id, task.name, size.bytes, loc.file, loc.line, loc.col     future
//!   waker ──► event `runtime::waker` (op, task.id: the number of the span)
//! ```
//!
//! The span wraps the future, so it ends when the future does, whoever keeps the cell. A span has
//! no parent: a task is nobody's child. A subscriber is foreign code; it is called where a future's
//! own code might run, and nowhere else.

use std::panic::Location;

/// What is known of a task that is being spawned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label<'a> {
    pub(crate) place: &'static Location<'static>,
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody listens"))]
    name: Option<&'a str>,
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody listens"))]
    kind: &'static str,
}

impl<'a> Label<'a> {
    pub(crate) fn task(place: &'static Location<'static>) -> Self {
        Self { place, name: None, kind: "task" }
    }

    /// A task that waits for a thread.
    pub(crate) fn blocking(place: &'static Location<'static>) -> Self {
        Self { place, name: None, kind: "blocking" }
    }

    fn root(place: &'static Location<'static>) -> Self {
        Self { place, name: None, kind: "block_on" }
    }

    pub(crate) fn named(self, name: Option<&'a str>) -> Self {
        Self { name, ..self }
    }
}

/// Which span a task is. Of no size without the feature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpanId {
    /// Zero: nobody listens.
    #[cfg(feature = "tracing")]
    number: u64,
}

#[cfg(feature = "tracing")]
pub(crate) type Traced<F> = tracing::instrument::Instrumented<F>;
#[cfg(not(feature = "tracing"))]
pub(crate) type Traced<F> = F;

/// The future of a task, in its span.
#[cfg(feature = "tracing")]
pub(crate) fn task<F: Future>(future: F, id: u64, label: Label<'_>) -> (Traced<F>, SpanId) {
    let span = tracing::trace_span!(
        target: "quoit::task",
        parent: None,
        "runtime.spawn",
        kind = label.kind,
        task.name = label.name,
        task.id = id,
        size.bytes = size_of::<F>() as u64,
        loc.file = label.place.file(),
        loc.line = label.place.line(),
        loc.col = label.place.column(),
    );
    let number = span.id().map_or(0, |id| id.into_u64());
    (tracing::Instrument::instrument(future, span), SpanId { number })
}

#[cfg(not(feature = "tracing"))]
#[inline(always)]
pub(crate) fn task<F: Future>(future: F, _: u64, _: Label<'_>) -> (Traced<F>, SpanId) {
    (future, SpanId {})
}

/// The future of `block_on`, in its span.
pub(crate) fn root<F: Future>(future: F, place: &'static Location<'static>) -> Traced<F> {
    task(future, crate::runtime::id::NONE, Label::root(place)).0
}

impl SpanId {
    /// A waker of the task was used.
    #[cfg(feature = "tracing")]
    #[inline]
    pub(crate) fn tell(self, op: &'static str) {
        if self.number != 0 {
            tracing::trace!(target: "runtime::waker", op, task.id = self.number);
        }
    }

    /// The same, for nobody.
    #[cfg(not(feature = "tracing"))]
    #[inline(always)]
    #[expect(clippy::unused_self, reason = "it is of no size here")]
    pub(crate) fn tell(self, _: &'static str) {}
}
