//! A submitted task, as its submitter sees it.

use crate::drive::Shared;
use crate::error::{TaskError, TaskErrorKind};
use crate::state::{Done, Settled};
use crate::view::TaskValue;
use crate::worker::Failure;
use mp_channel::Received;
use mp_shm::Message;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A task that was submitted to a pool. As a future, of any runtime, it gives what [`get`](Self::get) gives.
///
/// Dropping it means that nobody wants its value: a task that no worker has yet is not run.
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

    /// The task's number in its pool: they are counted from 0 on.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the task is done, one way or the other; [`get`](Self::get) then does not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.is_settled(self.id)
    }

    /// Waits until the task is done, for at most `timeout`; says whether it is.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        wait_any_timeout(&[self], timeout).is_some()
    }

    /// Gives the task up: it is [cancelled](TaskErrorKind::Cancelled), unless it is done already. If it runs, its worker is ended, and replaced (also
    /// if a worker takes it at that moment); no other task suffers. Says whether it was cancelled by this.
    pub fn cancel(&self) -> bool {
        self.shared.cancel(self.id)
    }

    /// Waits for what the worker sent.
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
        decode(self.settle())
    }

    /// Waits for the task's value, which is then read where the worker wrote it, in its archived form: nothing is rebuilt, and what is large is not
    /// copied.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Examples
    /// ```
    /// let pool = mp_pool::Pool::builder().workers(1).build()?;
    /// let table = pool.submit(|n: u32| (0..n).collect::<Vec<u32>>(), 1_000_000)?.get_archived()?;
    /// assert_eq!((table.len(), table[999_999].to_native()), (1_000_000, 999_999));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_archived(self) -> Result<TaskValue<R>, TaskError> {
        let Done { payload, task, pid, attempts, .. } = self.settle()?;
        let failed = |kind| TaskError { kind, task, pid: Some(pid), attempts };
        let received = Received::new(payload).map_err(|error| failed(TaskErrorKind::Decode(error)))?;
        TaskValue::new(received).map_err(|received| match received.into_value() {
            Ok(Err(failure)) => failed(failure.into()),
            Ok(Ok(_)) => unreachable!("a value is given as one"),
            Err(error) => failed(TaskErrorKind::Decode(error)),
        })
    }

    /// [`get`](Self::get) that waits for at most `timeout`.
    ///
    /// # Errors
    /// The task, which is not done.
    pub fn get_timeout(self, timeout: Duration) -> Result<Result<R, TaskError>, Self> {
        if self.wait_timeout(timeout) { Ok(self.get()) } else { Err(self) }
    }

    /// Has `call` called with the task's value when that is there, or with why there is none; at once if it is done already. It is called by whichever
    /// thread of this process finds that out, so it should not take long; it may submit further tasks. Should it panic, nobody suffers.
    pub fn on_done(mut self, call: impl FnOnce(Result<R, TaskError>) + Send + 'static) {
        self.taken = true;
        self.shared.call_when_settled(self.id, Box::new(|settled| call(decode(settled))));
    }
}

pub(crate) fn decode<R: Message>(settled: Settled) -> Result<R, TaskError> {
    let Done { payload, task, pid, attempts, .. } = settled?;
    let failed = |kind| TaskError { kind, task, pid: Some(pid), attempts };
    match payload.decode::<Result<R, Failure>>() {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => Err(failed(failure.into())),
        Err(error) => Err(failed(TaskErrorKind::Decode(error))),
    }
}

impl<R: Message> Future for Task<R> {
    type Output = Result<R, TaskError>;

    /// # Panics
    /// If it is polled again after it has ended.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.taken, "polled after it has ended");
        match self.shared.poll(self.id, context.waker()) {
            None => Poll::Pending,
            Some(settled) => {
                self.taken = true;
                Poll::Ready(decode(settled))
            }
        }
    }
}

impl<R> Unpin for Task<R> {}

/// A task of which several can be waited for, by [`wait_any`] and its relatives.
pub trait WaitableTask: Sized {
    /// Waits until one of `tasks` is done, at most until then; gives its place among them. `None` also if there are no tasks, or if they cannot be
    /// waited for together.
    fn wait_any_until(tasks: &[&Self], until: Option<Instant>) -> Option<usize>;
}

impl<R> WaitableTask for Task<R> {
    fn wait_any_until(tasks: &[&Self], until: Option<Instant>) -> Option<usize> {
        let shared = &tasks.first()?.shared;
        if tasks.iter().any(|task| !Arc::ptr_eq(&task.shared, shared)) {
            return None;
        }
        let ids: Vec<u64> = tasks.iter().map(|task| task.id).collect();
        shared.wait_for(until, |state| ids.iter().position(|&id| state.is_settled(id)))
    }
}

/// When a time-out that begins now ends; `None` if that is beyond the end of time.
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Waits until one of `tasks` is done; gives its place among them. `None` if there are no tasks, or they are of several pools.
///
/// In a task of a [`ThreadPool`](crate::ThreadPool) it does those of them itself that nobody has begun.
///
/// # Examples
/// ```
/// use mp_pool::{ThreadPool, wait_any};
///
/// let pool = ThreadPool::new(2)?;
/// let slow = pool.submit(|()| loop { std::thread::park() }, ())?;
/// let quick = pool.submit(|()| (), ())?;
/// assert_eq!(wait_any(&[&slow, &quick]), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait_any<T: WaitableTask>(tasks: &[&T]) -> Option<usize> {
    T::wait_any_until(tasks, None)
}

/// [`wait_any`] for at most `timeout`; `None` also if none was done. It only waits, wherever it is called.
pub fn wait_any_timeout<T: WaitableTask>(tasks: &[&T], timeout: Duration) -> Option<usize> {
    T::wait_any_until(tasks, deadline(timeout))
}

/// Waits until all of `tasks` are done, for at most `timeout` if there is one; says whether they are. They may be of several pools.
pub fn wait_all<T: WaitableTask>(tasks: &[&T], timeout: Option<Duration>) -> bool {
    let until = timeout.and_then(deadline);
    tasks.iter().all(|task| T::wait_any_until(&[*task], until).is_some())
}

/// The tasks of one pool in the order in which they are done.
pub fn as_completed<T: WaitableTask>(tasks: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let mut left: Vec<T> = tasks.into_iter().collect();
    std::iter::from_fn(move || {
        let place = wait_any(&left.iter().collect::<Vec<_>>());
        // Those of several pools come in the order in which they were given.
        place.or((!left.is_empty()).then_some(0)).map(|place| left.remove(place))
    })
}

impl From<Failure> for TaskErrorKind {
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
