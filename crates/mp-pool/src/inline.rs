//! Tasks that are done where they are submitted.

use crate::error::{MapError, PoolError, TaskError};
use crate::executor::{Executor, TaskHandle};
use crate::failure;
use mp_shm::Message;
use mp_spawn::panics;

/// Runs each task at once, in the thread that submits it: for debugging, where even threads are in the way.
///
/// A panic in a task is an error of that task, as it is with a [`Pool`](crate::Pool).
///
/// # Examples
/// ```
/// use mp_pool::Inline;
///
/// assert_eq!(Inline.map(|n: u64| n * n, 1..=3)?, [1, 4, 9]);
/// # Ok::<(), mp_pool::MapError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

/// A task that is done.
#[derive(Debug)]
#[must_use = "it holds the task's value, or why there is none"]
pub struct InlineTask<R>(Result<R, TaskError>);

impl Inline {
    /// Does `f(argument)`.
    ///
    /// # Errors
    /// None: it is declared as [`Pool::submit`](crate::Pool::submit) is, so that either can take the other's place.
    pub fn submit<A: Message + Send + 'static, R: Message + Send + 'static>(
        self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<InlineTask<R>, PoolError> {
        Ok(InlineTask(panics::catch(|| f(argument)).map_err(failure::panicked)))
    }

    /// Applies `f` to every input, up to the first that fails.
    ///
    /// # Errors
    /// [`MapError`]: that one.
    pub fn map<A: Message + Send + 'static, R: Message + Send + 'static>(
        self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, MapError> {
        Executor::map(&self, f, inputs)
    }
}

impl<R> InlineTask<R> {
    /// The task's value.
    ///
    /// # Errors
    /// [`TaskError`] tells why it has none.
    pub fn get(self) -> Result<R, TaskError> {
        self.0
    }

    /// Always.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        true
    }
}

impl Executor for Inline {
    type Task<R: Message + Send + 'static> = InlineTask<R>;

    fn submit<A, R>(&self, f: fn(A) -> R, argument: A) -> Result<InlineTask<R>, TaskError>
    where
        A: Message + Send + 'static,
        R: Message + Send + 'static,
    {
        Inline::submit(*self, f, argument).map_err(failure::of_pool)
    }

    fn in_flight_max(&self) -> usize {
        1
    }
}

impl<R: Send> TaskHandle<R> for InlineTask<R> {
    fn get(self) -> Result<R, TaskError> {
        self.0
    }

    fn is_finished(&self) -> bool {
        true
    }
}
