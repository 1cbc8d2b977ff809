//! A task of a pool of threads, as its submitter sees it.

use super::shared::Shared;
use crate::error::{TaskError, TaskErrorKind};
use crate::executor::TaskHandle;
use crate::slot::{AnySlot, Slot};
use crate::task::{self, WaitableTask};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A task that was submitted to a [`ThreadPool`](crate::ThreadPool). As a future, of any runtime, it gives what [`get`](Self::get) gives.
///
/// Dropping it means that nobody wants its value: a task that nobody has begun is not run.
#[must_use = "a task that is dropped may not be run"]
pub struct ThreadTask<R> {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) slot: Arc<Slot<R>>,
    /// The value was taken, or has somebody else who wants it.
    pub(super) taken: bool,
}

impl<R> ThreadTask<R> {
    /// The task's number in its pool: they are counted from 0 on.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the task's value. In a task of a `ThreadPool`, does the task that it waits for if nobody has begun it.
    ///
    /// # Errors
    /// [`TaskError`] tells why it has none.
    pub fn get(mut self) -> Result<R, TaskError> {
        self.taken = true;
        self.shared.run_here(self.id);
        self.slot.wait()
    }

    /// Gives the task up: it is [cancelled](TaskErrorKind::Cancelled), unless it is done already. One that nobody has begun is not run. If
    /// it runs, nobody can end it: its thread goes on with it unobserved, its value is dropped, and another thread takes the place of
    /// that one, so no other task suffers. Says whether it was cancelled by this.
    ///
    /// # Examples
    /// ```
    /// use mp_pool::{ThreadPool, ThreadTask};
    ///
    /// let pool = ThreadPool::new(1)?;
    /// let endless: ThreadTask<()> = pool.submit(|()| loop { std::thread::park() }, ())?;
    /// assert!(endless.cancel());
    /// assert!(endless.get().is_err_and(|error: mp_pool::TaskError| error.is_cancelled()));
    /// assert_eq!(pool.apply(|n: u32| n + 1, 1)?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) -> bool {
        self.shared.stop(self.id, TaskErrorKind::Cancelled)
    }
}

impl<R: Send> ThreadTask<R> {
    /// Whether the task is done, one way or the other; [`get`](Self::get) then does not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.slot.is_filled()
    }

    /// Waits until the task is done, for at most `timeout`; says whether it is. It only waits, also in a task of a `ThreadPool`: what nobody has
    /// begun [`get`](Self::get) does there itself.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.slot.wait_until(task::deadline(timeout))
    }

    /// [`get`](Self::get) that waits for at most `timeout`, as [`wait_timeout`](Self::wait_timeout) does.
    ///
    /// # Errors
    /// The task, which is not done.
    pub fn get_timeout(self, timeout: Duration) -> Result<Result<R, TaskError>, Self> {
        if self.wait_timeout(timeout) { Ok(self.get()) } else { Err(self) }
    }

    /// Has `call` called with the task's value when that is there, or with why there is none; at once if it is done already. It is called by whichever
    /// thread finds that out, one of the pool's as a rule, so it should not take long; it may submit further tasks. Should it panic, nobody suffers.
    pub fn on_done(mut self, call: impl FnOnce(Result<R, TaskError>) + Send + 'static) {
        self.taken = true;
        self.slot.call(Box::new(call));
    }
}

impl<R: Send> Future for ThreadTask<R> {
    type Output = Result<R, TaskError>;

    /// In a task of a `ThreadPool`, does the task if nobody has begun it: its thread may be the only one.
    ///
    /// # Panics
    /// If it is polled again after it has ended.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.taken, "polled after it has ended");
        self.shared.run_here(self.id);
        match self.slot.poll(context.waker()) {
            None => Poll::Pending,
            Some(outcome) => {
                self.taken = true;
                Poll::Ready(outcome)
            }
        }
    }
}

impl<R: Send> WaitableTask for ThreadTask<R> {
    fn wait_any_until(tasks: &[&Self], until: Option<Instant>) -> Option<usize> {
        let shared = &tasks.first()?.shared;
        if tasks.iter().any(|task| !Arc::ptr_eq(&task.shared, shared)) {
            return None;
        }
        let ids: Vec<u64> = tasks.iter().map(|task| task.id).collect();
        shared.wait_for(&ids, until, || tasks.iter().position(|task| task.is_finished()))
    }
}

impl<R: Send> TaskHandle<R> for ThreadTask<R> {
    fn get(self) -> Result<R, TaskError> {
        ThreadTask::get(self)
    }

    fn is_finished(&self) -> bool {
        ThreadTask::is_finished(self)
    }

    fn wait_timeout(&self, timeout: Duration) -> bool {
        ThreadTask::wait_timeout(self, timeout)
    }

    fn cancel(&self) -> bool {
        ThreadTask::cancel(self)
    }
}

impl<R> fmt::Debug for ThreadTask<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadTask").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<R> Drop for ThreadTask<R> {
    fn drop(&mut self) {
        if !self.taken {
            self.shared.forget(self.id);
        }
    }
}
