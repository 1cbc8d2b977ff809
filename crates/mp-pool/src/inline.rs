//! Tasks that are done where they are submitted.

use crate::error::{MapError, PoolError, TaskError};
use crate::executor::{Executor, TaskHandle};
use crate::failure;
use crate::task::WaitableTask;
use mp_shm::Message;
use mp_spawn::panics;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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

/// A task that is done. It has what other tasks have, and never waits.
#[derive(Debug)]
#[must_use = "it holds the task's value, or why there is none"]
pub struct InlineTask<R>(Option<Result<R, TaskError>>);

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
        Ok(InlineTask(Some(panics::catch(|| f(argument)).map_err(failure::panicked))))
    }

    /// Does `f(argument)` and gives its value.
    ///
    /// # Errors
    /// [`TaskError`]: it panicked.
    pub fn apply<A: Message + Send + 'static, R: Message + Send + 'static>(
        self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<R, TaskError> {
        panics::catch(|| f(argument)).map_err(failure::panicked)
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

    /// [`map`](Self::map) as an iterator: each value is made when it is taken. An input that fails is no harm to those behind it.
    pub fn imap<A: Message + Send + 'static, R: Message + Send + 'static, I: IntoIterator<Item = A>>(
        self,
        f: fn(A) -> R,
        inputs: I,
    ) -> impl Iterator<Item = Result<R, MapError>> {
        let failed = |at| move |error| MapError { items: at..at + 1, error };
        inputs.into_iter().enumerate().map(move |(at, input)| self.apply(f, input).map_err(failed(at)))
    }

    /// [`imap`](Self::imap), all at once.
    pub fn map_results<A: Message + Send + 'static, R: Message + Send + 'static>(
        self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Vec<Result<R, MapError>> {
        self.imap(f, inputs).collect()
    }
}

impl<R> InlineTask<R> {
    /// The task's value.
    ///
    /// # Errors
    /// [`TaskError`] tells why it has none.
    ///
    /// # Panics
    /// If it was polled, and has given its value to who did that.
    pub fn get(mut self) -> Result<R, TaskError> {
        self.take()
    }

    fn take(&mut self) -> Result<R, TaskError> {
        self.0.take().expect("polled after it has ended")
    }

    /// Always.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        true
    }

    /// Calls `call` with the task's value, or with why there is none. Should it panic, nobody suffers.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    pub fn on_done(mut self, call: impl FnOnce(Result<R, TaskError>)) {
        let value = self.take();
        // The panic hook has said what there is to say.
        let _ = panics::catch(|| call(value));
    }
}

impl<R> Future for InlineTask<R> {
    type Output = Result<R, TaskError>;

    /// # Panics
    /// If it is polled again.
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(self.take())
    }
}

impl<R> Unpin for InlineTask<R> {}

impl<R> WaitableTask for InlineTask<R> {
    fn wait_any_until(tasks: &[&Self], _: Option<Instant>) -> Option<usize> {
        (!tasks.is_empty()).then_some(0)
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
        InlineTask::get(self)
    }

    fn is_finished(&self) -> bool {
        true
    }

    fn wait_timeout(&self, _: Duration) -> bool {
        true
    }

    /// Never: it is done.
    fn cancel(&self) -> bool {
        false
    }
}
