//! A pool of threads that behaves as a pool of processes does, as far as threads can.
//!
//! ```text
//! ThreadPool ─ submit ─► queue ─┬─► thread 0 ─► slot of the task ─► ThreadTask::get
//!                               └─► thread 1
//! ```
//!
//! Owns: what its users call. [`shared`] has the queue and the threads, [`task`] the handles. A value goes to a slot of its task's own, so
//! a waiter is woken by its own task alone.
//!
//! Nested use: a task that waits for another one which nobody has begun does that itself. So a thread only ever waits for what a
//! thread is at, and tasks that do not wait for each other in a circle get done, however few threads there are.
//!
//! Death: there is none to survive; what kills a thread kills the process.

mod imap;
mod scope;
mod shared;
mod task;

use crate::error::{MapError, PoolError, TaskError, TaskErrorKind};
use crate::executor::{Executor, in_order};
use crate::failure;
use crate::slot::Slot;
use crate::stats::PoolStats;
use crate::worker;
pub use imap::ThreadImap;
use mp_shm::codec::{EncodeError, Payload};
use mp_shm::{Message, Session, codec};
use mp_spawn::code::Pointer;
use mp_spawn::panics;
pub use scope::ThreadScope;
use shared::{Made, Shared, Steps};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
pub use task::ThreadTask;

/// A pool of threads, with what a [`Pool`](crate::Pool) has: to debug code that is meant for processes, and for work that waits rather than
/// computes. Write code for both as generic over [`Executor`](crate::Executor).
///
/// A panic fails its task, with message and place, and costs no thread. Values are moved, not encoded, unless the pool is
/// [checked](ThreadPoolBuilder::checked). A task may submit others to the pool it runs in, and wait for them: one that nobody has begun
/// it then does itself.
///
/// A task may be cancelled while it runs, or [take too long](ThreadPoolBuilder::task_timeout). It is settled then, and its thread is given up: that goes
/// on with it unobserved, since nobody can end a thread, and another takes its place.
///
/// Dropping it ends the threads; waiters of unfinished tasks get an error, and tasks that nobody has begun are not run. If tasks are
/// running, it does not wait for them: nobody can end a thread, so they go on, and their values are dropped. If none is, it waits for initializers and
/// finalizers that are under way.
///
/// What it cannot do: a task that calls `exit`, is killed or exhausts the stack takes the program with it, memory limits are those of the program,
/// and statics are shared.
///
/// # Examples
/// ```
/// use mp_pool::ThreadPool;
///
/// let pool = ThreadPool::new(2)?;
/// assert_eq!(pool.map(|n: u64| n * n, 1..=3)?, [1, 4, 9]);
/// assert_eq!(pool.submit(|name: String| name.len(), "Ada".to_owned())?.get()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ThreadPool {
    shared: Arc<Shared>,
    threads: usize,
    checked: bool,
}

/// Settings of a pool of threads; [`ThreadPool::builder`] makes one.
#[derive(Clone, Debug)]
pub struct ThreadPoolBuilder {
    threads: Option<usize>,
    checked: bool,
    task_timeout: Option<Duration>,
    in_flight: Option<usize>,
    steps: Steps,
}

impl ThreadPoolBuilder {
    /// The number of threads. Default: as many as a [`Pool`](crate::Pool) has workers.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Whether arguments and values are encoded and decoded on their way, as they are on the way to a process and back: what cannot
    /// travel fails here as it would there. Default: no.
    #[must_use]
    pub fn checked(mut self, checked: bool) -> Self {
        self.checked = checked;
        self
    }

    /// Settles a task that runs for longer: it has [timed out](crate::TaskErrorKind::TimedOut). Its thread goes on with it unobserved, as when
    /// it is [cancelled](ThreadTask::cancel), and another one takes that one's place. Default: no limit.
    #[must_use]
    pub fn task_timeout(mut self, time: Duration) -> Self {
        self.task_timeout = Some(time);
        self
    }

    /// Has each thread call `f(argument)` before its first task. What that gives stays in the thread, for its tasks to use by
    /// [`with_worker_state`](crate::with_worker_state). The argument is encoded and decoded for each thread. Should it fail again and again,
    /// the pool is [broken](PoolError::Broken).
    ///
    /// A pool with an initializer has its tasks done by its own threads alone: a thread of another pool that waits for one does not do it itself.
    #[must_use]
    pub fn initializer<A: Message + Send + Sync + 'static, S: 'static>(
        mut self,
        f: fn(A) -> S,
        argument: A,
    ) -> Self {
        self.steps.initialize = Some(Arc::new(move || {
            let there = encode(&argument).map_err(|error| TaskErrorKind::Argument(error.to_string()))?;
            let argument = there.decode().map_err(|error| TaskErrorKind::Argument(error.to_string()))?;
            Ok(Box::new(f(argument)))
        }));
        self
    }

    /// Has each thread call `f` with what the [initializer](Self::initializer) made for it, after its last task, unless it is given up;
    /// [`ThreadPool::join_with`] gives the values.
    #[must_use]
    pub fn finalizer<S: 'static, F: Message + Send + 'static>(mut self, f: fn(S) -> F) -> Self {
        self.steps.finalize = Some(Arc::new(move || {
            let state = worker::take_state().map_err(TaskErrorKind::Argument)?;
            Ok(Box::new(f(state)))
        }));
        self
    }

    /// At most so many tasks, at least 1, are submitted and not done; who submits another waits. Tasks that submit others do not wait. Default: no
    /// limit.
    #[must_use]
    pub fn in_flight(mut self, tasks: usize) -> Self {
        self.in_flight = Some(tasks.max(1));
        self
    }

    /// Makes the pool and starts its threads.
    ///
    /// # Errors
    /// [`PoolError`]: no threads, or one that cannot be started; those that were are ended again.
    pub fn build(self) -> Result<ThreadPool, PoolError> {
        let threads = self.threads.unwrap_or_else(|| crate::Pool::builder().worker_count());
        if threads == 0 {
            return Err(PoolError::NoWorkers);
        }
        let checked = self.checked;
        Ok(ThreadPool { shared: Shared::start(threads, self)?, threads, checked })
    }
}

impl ThreadPool {
    /// A pool of so many threads.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn new(threads: usize) -> Result<Self, PoolError> {
        Self::builder().threads(threads).build()
    }

    /// For a pool with other settings.
    #[must_use]
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder {
            threads: None,
            checked: false,
            task_timeout: None,
            in_flight: None,
            steps: Steps::default(),
        }
    }

    /// Gives `f(argument)` to a thread. Waits first if there is a bound of [tasks in flight](ThreadPoolBuilder::in_flight).
    ///
    /// # Errors
    /// The pool is closed or broken.
    pub fn submit<A: Message + Send + 'static, R: Message + Send + 'static>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<ThreadTask<R>, PoolError> {
        self.enter(f, argument, false)
    }

    fn enter<A: Message + Send + 'static, R: Message + Send + 'static>(
        &self,
        f: impl Pointer<Argument = A, Value = R>,
        argument: A,
        is_kept: bool,
    ) -> Result<ThreadTask<R>, PoolError> {
        let slot = Arc::new(Slot::new());
        let checked = self.checked;
        let run = {
            let slot = slot.clone();
            move |shared: &Shared, id| {
                let call = || if checked { call_checked(f, argument) } else { Ok(f.call(argument)) };
                let value = panics::catch(call).unwrap_or_else(|panic| Err(failure::panicked(panic)));
                let value = value.map_err(|error| TaskError { task: id, attempts: 1, ..error });
                if shared.done(id) {
                    slot.fill(value);
                }
            }
        };
        let id = self.shared.submit(Box::new(run), slot.clone(), is_kept)?;
        Ok(ThreadTask { shared: self.shared.clone(), id, slot, taken: false })
    }

    /// Runs `f(argument)` in a thread and waits for its value: [`submit`](Self::submit) and [`ThreadTask::get`].
    ///
    /// # Errors
    /// [`TaskError`] tells why there is none.
    pub fn apply<A: Message + Send + 'static, R: Message + Send + 'static>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<R, TaskError> {
        self.submit(f, argument).map_err(failure::of_pool)?.get()
    }

    /// Applies `f` to every input, in the pool's threads; gives the values in the order of the inputs.
    ///
    /// Inputs are handed over one by one, taken from the iterator as threads get through with them.
    ///
    /// # Errors
    /// [`MapError`]: the first task, in the order of the inputs, that has no value.
    pub fn map<A: Message + Send + 'static, R: Message + Send + 'static>(
        &self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, MapError> {
        Executor::map(self, f, inputs)
    }

    /// [`map`](Self::map) with a function of two arguments, which come in pairs.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn starmap<A, B, R>(
        &self,
        f: fn(A, B) -> R,
        inputs: impl IntoIterator<Item = (A, B)>,
    ) -> Result<Vec<R>, MapError>
    where
        A: 'static,
        B: 'static,
        R: Message + Send + 'static,
        (A, B): Message + Send + 'static,
    {
        let submit = |input| self.enter(f, input, false).map_err(failure::of_pool);
        in_order(inputs, Executor::in_flight_max(self), submit)
    }

    /// [`map`](Self::map) that gives all values there are, and for each other input why there is none.
    pub fn map_results<A: Message + Send + 'static, R: Message + Send + 'static>(
        &self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Vec<Result<R, MapError>> {
        self.imap(f, inputs).collect()
    }

    /// [`map`](Self::map) as an iterator: values come in the order of the inputs, as soon as they are there. Inputs are taken as values are.
    ///
    /// # Examples
    /// ```
    /// use mp_pool::ThreadPool;
    ///
    /// let pool = ThreadPool::new(2)?;
    /// let first = pool.imap(|n: u64| n * n, 1..).find(|square| square.as_ref().is_ok_and(|&n| n > 50));
    /// assert_eq!(first.transpose()?, Some(64));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap<A: Message + Send + 'static, R: Message + Send + 'static, I: IntoIterator<Item = A>>(
        &self,
        f: fn(A) -> R,
        inputs: I,
    ) -> ThreadImap<'_, A, R, I::IntoIter> {
        ThreadImap::new(self, f, inputs.into_iter(), true)
    }

    /// [`imap`](Self::imap) with values in the order in which they come.
    pub fn imap_unordered<
        A: Message + Send + 'static,
        R: Message + Send + 'static,
        I: IntoIterator<Item = A>,
    >(
        &self,
        f: fn(A) -> R,
        inputs: I,
    ) -> ThreadImap<'_, A, R, I::IntoIter> {
        ThreadImap::new(self, f, inputs.into_iter(), false)
    }

    /// Calls `body` with a scope to submit tasks in, and waits until all of them are done.
    ///
    /// # Examples
    /// ```
    /// use mp_pool::ThreadPool;
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    ///
    /// static SUM: AtomicU32 = AtomicU32::new(0);
    /// fn add(n: u32) { SUM.fetch_add(n, Relaxed); }
    ///
    /// ThreadPool::new(2)?.scope(|scope| (1..=4).try_for_each(|n| scope.submit(add, n).map(drop)))?;
    /// assert_eq!(SUM.load(Relaxed), 10);
    /// # Ok::<(), mp_pool::PoolError>(())
    /// ```
    pub fn scope<T>(&self, body: impl FnOnce(&ThreadScope<'_>) -> T) -> T {
        let scope = ThreadScope::new(self);
        body(&scope)
    }

    /// The number of threads that take tasks. (Those that were given up, and what keeps the time, do not count.)
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What the pool has done so far. Its workers are the threads, each under the process id of this program; those that are lost were given up,
    /// because their task was cancelled or took too long. A task that is done by one that waits for it counts for both.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared.lock().records.stats()
    }

    /// Takes no more tasks. Those that were submitted are run.
    pub fn close(&self) {
        self.shared.refuse();
    }

    /// Takes no more tasks, waits until those that were submitted are done, and until the threads have ended. (A task that has its own pool join
    /// waits for itself.)
    ///
    /// # Errors
    /// The pool is broken.
    pub fn join(self) -> Result<(), PoolError> {
        self.shared.finish().map(drop)
    }

    /// [`join`](Self::join) that gives the values of the threads' [finalizers](ThreadPoolBuilder::finalizer).
    ///
    /// # Errors
    /// The pool is broken; a finalizer failed, or gives another type.
    pub fn join_with<F: Message + Send + 'static>(self) -> Result<Vec<F>, PoolError> {
        let failed = |kind| PoolError::Worker(Box::new(kind));
        let other =
            || TaskErrorKind::Value(format!("the finalizer gives no `{}`", std::any::type_name::<F>()));
        let value = |made: Made| {
            let made = made.map_err(failed)?.downcast();
            made.map(|value| *value).map_err(|_| failed(other()))
        };
        self.shared.finish()?.into_iter().map(value).collect()
    }

    /// Takes no more tasks, and none that nobody has begun is run: all that are not done fail. Those that run go on unobserved.
    pub fn terminate(self) {
        self.shared.close();
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiters = self.shared.waiters();
        f.debug_struct("ThreadPool")
            .field("threads", &self.threads)
            .field("waiters", &waiters)
            .finish_non_exhaustive()
    }
}

impl Executor for ThreadPool {
    type Task<R: Message + Send + 'static> = ThreadTask<R>;

    fn submit<A, R>(&self, f: fn(A) -> R, argument: A) -> Result<ThreadTask<R>, TaskError>
    where
        A: Message + Send + 'static,
        R: Message + Send + 'static,
    {
        ThreadPool::submit(self, f, argument).map_err(failure::of_pool)
    }

    fn in_flight_max(&self) -> usize {
        self.threads() * 2
    }
}

/// What `f` gives if argument and value travel as they do between processes.
fn call_checked<A: Message, R: Message>(
    f: impl Pointer<Argument = A, Value = R>,
    argument: A,
) -> Result<R, TaskError> {
    let there = encode(&argument).map_err(failure::unsendable)?;
    drop(argument);
    let value = f.call(there.decode().map_err(|error| failure::argument(error.to_string()))?);
    let back = encode(&value).map_err(|error| failure::value(error.to_string()))?;
    drop(value);
    back.decode().map_err(failure::undecodable)
}

fn encode<T: Message>(value: &T) -> Result<Payload, EncodeError> {
    let session = Session::current().map_err(EncodeError::Session)?;
    // A panic of the type's serialisation is told as its failure, as a process pool tells it.
    let encoded = panics::catch(|| codec::encode(session, value, 0))
        .unwrap_or_else(|panic| Err(EncodeError::Value(panic.to_string())))?;
    Ok(Payload::in_block(encoded.into_block()?))
}
