//! What is told to `tracing` (feature `tracing`). Without the feature all of this is empty.
//!
//! ```text
//! pool (span, info) ─┬─ worker started, ready, ended (events, debug)
//!                    └─ task submitted, settled (events, trace)
//! task (span, debug) in the worker or thread that does it
//! ```
//!
//! All but the task's span is told under the pool's mutex, so a subscriber must not use the pool.

use crate::error::TaskErrorKind;

/// The life of a pool, and what happens in it.
#[derive(Debug)]
pub(crate) struct PoolSpan {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

/// Whoever has it is at a task.
pub(crate) struct TaskSpan {
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

#[cfg(feature = "tracing")]
impl PoolSpan {
    pub(crate) fn new() -> Self {
        Self { span: tracing::info_span!("pool") }
    }

    pub(crate) fn worker_started(&self, worker: u64, pid: u32) {
        tracing::debug!(parent: &self.span, worker, pid, "worker started");
    }

    pub(crate) fn worker_ready(&self, worker: u64, pid: u32) {
        tracing::debug!(parent: &self.span, worker, pid, "worker ready");
    }

    pub(crate) fn worker_ended(&self, worker: u64, pid: u32, cause: &str) {
        tracing::debug!(parent: &self.span, worker, pid, cause, "worker ended");
    }

    pub(crate) fn submitted(&self, task: u64) {
        tracing::trace!(parent: &self.span, task, "task submitted");
    }

    /// How long it took, in nanoseconds, or why it was not done. (A panic is in the message of its worker, which who takes the value decodes.)
    pub(crate) fn settled(&self, task: u64, pid: Option<u32>, end: Result<u64, &TaskErrorKind>) {
        let error = end.err().map(tracing::field::display);
        tracing::trace!(parent: &self.span, task, pid, nanos = end.ok(), error, "task settled");
    }
}

#[cfg(feature = "tracing")]
impl TaskSpan {
    pub(crate) fn enter(task: u64, worker: Option<u64>) -> Self {
        Self { _entered: tracing::debug_span!("task", task, worker).entered() }
    }
}

#[cfg(not(feature = "tracing"))]
impl PoolSpan {
    pub(crate) fn new() -> Self {
        Self {}
    }

    pub(crate) fn worker_started(&self, _: u64, _: u32) {}

    pub(crate) fn worker_ready(&self, _: u64, _: u32) {}

    pub(crate) fn worker_ended(&self, _: u64, _: u32, _: &str) {}

    pub(crate) fn submitted(&self, _: u64) {}

    pub(crate) fn settled(&self, _: u64, _: Option<u32>, _: Result<u64, &TaskErrorKind>) {}
}

#[cfg(not(feature = "tracing"))]
impl TaskSpan {
    pub(crate) fn enter(_: u64, _: Option<u64>) -> Self {
        Self {}
    }
}
