//! A submitted task, as its submitter sees it.

use crate::error::TaskError;
use crate::pool::{Settled, Shared};
use crate::worker::Failure;
use mp_shm::Message;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A task that was submitted to a pool. Dropping it means that nobody wants its value: a task that no worker has yet is not run.
#[must_use = "a task that is dropped may not be run"]
pub struct Task<R> {
    shared: Arc<Shared>,
    id: u64,
    taken: bool,
    returns: PhantomData<fn() -> R>,
}

impl<R> Task<R> {
    pub(crate) fn new(shared: Arc<Shared>, id: u64) -> Self {
        Self { shared, id, taken: false, returns: PhantomData }
    }

    /// Whether the task is done, one way or the other; [`get`](Self::get) then does not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.is_settled(self.id)
    }

    /// Waits for what the worker sent; says how long the task took, in nanoseconds.
    pub(crate) fn settle(mut self) -> Settled {
        self.taken = true;
        self.shared.wait(self.id)
    }
}

impl<R: Message> Task<R> {
    /// Waits for the task's value.
    ///
    /// # Errors
    /// [`TaskError`] tells why it has none.
    pub fn get(self) -> Result<R, TaskError> {
        let (message, _) = self.settle()?;
        match message.decode::<Result<R, Failure>>().map_err(TaskError::Decode)? {
            Ok(value) => Ok(value),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl From<Failure> for TaskError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Panicked(panic) => Self::Panicked(panic),
            Failure::Argument(text) => Self::Argument(text),
            Failure::Value(text) => Self::Value(text),
        }
    }
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<R> Drop for Task<R> {
    fn drop(&mut self) {
        if !self.taken {
            self.shared.forget(self.id);
        }
    }
}
