//! The pool: what its users call. [`drive`](crate::drive) has who does the work, [`state`](crate::state) what is known.

use crate::builder::PoolBuilder;
use crate::dispatcher::{WINDOW, WINDOW_MAX};
use crate::drive::Shared;
use crate::error::{MapError, PoolError, TaskError, TaskErrorKind};
use crate::map::{self, Imap};
use crate::meter::Meter;
use crate::scope::Scope;
use crate::state::{Claim, Entered, Losses, SendTask};
use crate::stats::PoolStats;
use crate::task::Task;
use crate::worker::{self, Assignment, Failure, OnPanic, Span};
use mp_shm::{Array, Message, ShmSafe};
use mp_spawn::SpawnError;
use mp_spawn::code::{CodeRef, FnRef, Pointer, SealedCode};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A pool of worker processes.
///
/// Dropping it ends the workers: at once if tasks are unfinished, whose waiters then get an error. [`join`](Self::join) lets them finish.
///
/// # Examples
/// ```
/// use mp_pool::Pool;
/// let pool = Pool::builder().workers(2).build()?;
/// let squares = pool.map(|n: u64| n * n, 1..=1000)?;
/// assert_eq!(squares[999], 1_000_000);
/// let task = pool.submit(|name: String| name.len(), "Ada".to_owned())?;
/// assert_eq!(task.get()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// A pool with one worker for each processor this process may use.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn new() -> Result<Self, PoolError> {
        Self::builder().build()
    }

    /// For a pool with other settings.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    pub(crate) fn start(settings: PoolBuilder) -> Result<Self, PoolError> {
        let size = settings.worker_count();
        if size == 0 {
            return Err(PoolError::NoWorkers);
        }
        let pool = Self { shared: Shared::new(settings, size)? };
        // An error drops the pool, and with it the workers that did start.
        let mut state = pool.shared.lock();
        for _ in 0..size {
            pool.shared.start_worker(&mut state)?;
        }
        drop(state);
        Ok(pool)
    }

    /// Gives `f(argument)` to a worker. Waits first if there is a bound of [tasks in flight](PoolBuilder::in_flight).
    ///
    /// # Errors
    /// The pool is closed or broken, or the function cannot be named to another process.
    pub fn submit<A: Message + Send + 'static, R: Message + 'static>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<Task<R>, PoolError> {
        let entry = self.seal(worker::run_one::<A, R>)?;
        let message = (FnRef::new(f), argument);
        self.enter(entry, false, Box::new(move |tasks, tag, _| tasks.try_send(tag, &message)))
    }

    /// Runs `f(argument)` in a worker and waits for its value: [`submit`](Self::submit) and [`Task::get`].
    ///
    /// # Errors
    /// [`TaskError`] tells why there is none.
    pub fn apply<A: Message + Send + 'static, R: Message + 'static>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<R, TaskError> {
        let task = self.submit(f, argument);
        task.map_err(|error| TaskError::new(TaskErrorKind::Pool(error), 0))?.get()
    }

    /// Gives a chunk of arguments to one worker.
    pub(crate) fn submit_chunk<F: Pointer<Argument: Message + Send + 'static, Value: Message + 'static>>(
        &self,
        f: F,
        arguments: Vec<F::Argument>,
        on_panic: OnPanic,
    ) -> Result<Task<Vec<F::Value>>, PoolError> {
        let entry = self.seal(match on_panic {
            OnPanic::GoOn => worker::run_chunk::<F>,
            OnPanic::EndChunk => worker::run_chunk_to_panic::<F>,
        })?;
        let message: Mutex<worker::Chunk<F>> = Mutex::new((CodeRef::of(f), arguments, Vec::new()));
        let send: SendTask = Box::new(move |tasks, tag, losses| {
            let mut message = message.lock().unwrap_or_else(PoisonError::into_inner);
            message.2 = Losses::skips_of(losses);
            tasks.try_send(tag, &*message)
        });
        self.enter(entry, true, send)
    }

    /// Gives a range of a shared array to one worker, which may leave the end of it after so many nanoseconds; its value is how many it has done.
    pub(crate) fn submit_range<A: ShmSafe + Copy, R: ShmSafe + Copy>(
        &self,
        f: fn(A) -> R,
        (inputs, outputs): (&Array<A>, &Array<R>),
        (from, len): (u64, u32),
        nanos: u64,
    ) -> Result<Task<u32>, PoolError> {
        let entry = self.seal(worker::run_range::<A, R>)?;
        let (f, inputs, outputs) = (FnRef::new(f), inputs.clone(), outputs.clone());
        let send: SendTask = Box::new(move |tasks, tag, losses| {
            // What has ended workers is not left to a chunk that knows nothing of that.
            let span = Span { from, len, nanos, at_least: Losses::reach_of(losses) };
            let skips = Losses::skips_of(losses);
            let message: worker::Part<A, R> = (f, inputs.clone(), outputs.clone(), span, skips);
            tasks.try_send(tag, &message)
        });
        self.enter(entry, true, send)
    }

    fn seal(&self, entry: fn(Assignment)) -> Result<SealedCode, PoolError> {
        worker::seal(self.shared.session(), entry).map_err(|error| PoolError::Spawn(SpawnError::Code(error)))
    }

    fn enter<R>(&self, entry: SealedCode, is_chunk: bool, send: SendTask) -> Result<Task<R>, PoolError> {
        let entered = Entered {
            entry,
            send,
            claim: Claim::Handle,
            waker: None,
            attempts: 0,
            pid: None,
            is_kept: false,
            is_chunk,
            losses: None,
        };
        let id = self.shared.enter(entered)?;
        Ok(Task::new(self.shared.clone(), id))
    }

    /// Applies `f` to every input, in worker processes; gives the values in the order of the inputs. A function of two arguments has
    /// [`starmap`](Self::starmap), one of more takes a tuple apart: `pool.map(|(a, b, c): (u32, u32, u32)| add(a, b, c), triples)`.
    ///
    /// Inputs are taken from the iterator as workers get through with them, in chunks of some eight milliseconds' work. When a worker is lost, the other
    /// inputs of its chunk are run once more. When an input panics, those behind it in its chunk are not run.
    ///
    /// # Errors
    /// [`MapError`]: the first input that has no value. (All of a chunk if its worker died before it began the first.)
    pub fn map<A: Message + Send + 'static, R: Message + 'static>(
        &self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, MapError> {
        map::map(self, f, inputs.into_iter())
    }

    /// [`map`](Self::map) with a function of two arguments, which come in pairs.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    ///
    /// # Examples
    /// ```
    /// let pool = mp_pool::Pool::builder().workers(2).build()?;
    /// assert_eq!(pool.starmap(u64::pow, [(2, 5), (3, 2), (10, 3)])?, [32, 9, 1000]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn starmap<A, B, R>(
        &self,
        f: fn(A, B) -> R,
        inputs: impl IntoIterator<Item = (A, B)>,
    ) -> Result<Vec<R>, MapError>
    where
        A: 'static,
        B: 'static,
        R: Message + 'static,
        (A, B): Message + Send + 'static,
    {
        map::map(self, f, inputs.into_iter())
    }

    /// Applies `f` to every element of `inputs`, which workers read where it lies, and puts the values into `outputs`, in place: nothing travels but
    /// what is to be done. When a worker is lost, the other inputs of its chunk are run once more.
    ///
    /// # Errors
    /// [`MapError`]: the first input without a value, of which `outputs` keeps what was there. All others have been run.
    ///
    /// # Panics
    /// If the arrays have different lengths.
    pub fn map_into<A: ShmSafe + Copy, R: ShmSafe + Copy>(
        &self,
        f: fn(A) -> R,
        inputs: &Array<A>,
        outputs: &Array<R>,
    ) -> Result<(), MapError> {
        map::map_into(self, f, (inputs, outputs), Meter::default())
    }

    /// [`map_into`](Self::map_into) of a slice, which is put into shared memory once for all workers.
    ///
    /// # Errors
    /// As there; no memory in the session.
    pub fn map_slice<A: ShmSafe + Copy, R: ShmSafe + Copy>(
        &self,
        f: fn(A) -> R,
        inputs: &[A],
    ) -> Result<Vec<R>, MapError> {
        map::map_slice(self, f, inputs, Meter::default())
    }

    /// [`map`](Self::map) that gives all values there are, and for each other input why there is none. (Of a chunk that failed as a whole the first has
    /// the failure, the others its text.)
    pub fn map_results<A: Message + Send + 'static, R: Message + 'static>(
        &self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Vec<Result<R, MapError>> {
        self.imap(f, inputs).collect()
    }

    /// [`map`](Self::map) as an iterator: values come in the order of the inputs, as soon as they are there. Inputs are taken as values are.
    pub fn imap<A: Message + Send + 'static, R: Message + 'static, I: IntoIterator<Item = A>>(
        &self,
        f: fn(A) -> R,
        inputs: I,
    ) -> Imap<'_, A, R, I::IntoIter> {
        Imap::new(self, f, inputs.into_iter(), true)
    }

    /// [`imap`](Self::imap) with values in the order in which they come.
    pub fn imap_unordered<A: Message + Send + 'static, R: Message + 'static, I: IntoIterator<Item = A>>(
        &self,
        f: fn(A) -> R,
        inputs: I,
    ) -> Imap<'_, A, R, I::IntoIter> {
        Imap::new(self, f, inputs.into_iter(), false)
    }

    /// Calls `body` with a scope to submit tasks in, and waits until all of them are done.
    pub fn scope<T>(&self, body: impl FnOnce(&Scope<'_>) -> T) -> T {
        let scope = Scope::new(self);
        body(&scope)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The number of workers that there are to be.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shared.lock().size
    }

    /// The number of workers, and of chunks of so many inputs that they and the queue are to have for nobody to wait. More than a few chunks for each are
    /// so many inputs at most as a worker has tasks.
    pub(crate) fn workers_and_ahead(&self, inputs: usize) -> (usize, usize) {
        let state = self.shared.lock();
        let window = state.dispatcher.window().min(WINDOW_MAX / inputs.max(1)).max(WINDOW);
        (state.size, state.size * (window + 1))
    }

    /// Changes the number of workers, to at least 1. More are started at once; of those too many each ends when it has done what it has.
    ///
    /// # Errors
    /// A worker could not be started; the others are. The pool is closed or broken.
    pub fn resize(&self, workers: usize) -> Result<(), PoolError> {
        if workers == 0 {
            return Err(PoolError::NoWorkers);
        }
        let mut state = self.shared.lock();
        state.check_open()?;
        state.size = workers;
        let mut active: Vec<_> = state.dispatcher.active().collect();
        active.sort_by_key(|&worker| (state.dispatcher.load(worker), std::cmp::Reverse(worker)));
        for &worker in active.iter().take(active.len().saturating_sub(workers)) {
            state.dispatcher.retire(worker);
            state.take_back(worker);
        }
        state.end_wasting();
        self.shared.let_go(&mut state);
        let missing = workers.saturating_sub(active.len());
        let started = (0..missing).try_for_each(|_| self.shared.start_worker(&mut state));
        state.assign(self.shared.limits);
        self.shared.release(state);
        started
    }

    /// Process ids of the workers. One that has died is replaced, under another id, when somebody waits for a task.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<u32> {
        self.shared.lock().workers.values().map(|worker| worker.process.pid()).collect()
    }

    /// What the pool has done so far; printed it is a table.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared.lock().records.stats()
    }

    /// A picture (SVG) of who worked on what when; `None` if the pool [keeps no timeline](PoolBuilder::timeline).
    #[must_use]
    pub fn timeline(&self) -> Option<String> {
        self.shared.lock().records.timeline()
    }

    /// Takes no more tasks. Those that were submitted are run.
    pub fn close(&self) {
        self.shared.lock().closed = true;
    }

    /// Takes no more tasks, waits until those that were submitted are done, and until the workers have ended.
    ///
    /// # Errors
    /// The pool is broken.
    pub fn join(self) -> Result<(), PoolError> {
        self.shared.finish()
    }

    /// [`join`](Self::join) that gives the values of the workers' [finalizers](PoolBuilder::finalizer), of those included that were replaced before.
    ///
    /// # Errors
    /// The pool is broken; a finalizer failed, or gives another type.
    pub fn join_with<F: Message>(self) -> Result<Vec<F>, PoolError> {
        self.shared.finish()?;
        let finals = std::mem::take(&mut self.shared.lock().finals);
        let value = |message: mp_channel::dynamic::DynMessage| match message.decode::<Result<F, Failure>>() {
            Ok(value) => value.map_err(|failure| PoolError::Worker(Box::new(failure.into()))),
            Err(error) => Err(PoolError::Worker(Box::new(TaskErrorKind::Decode(error)))),
        };
        finals.into_iter().map(value).collect()
    }

    /// Ends the workers at once, whatever they do. Tasks that are not done fail.
    pub fn terminate(self) {
        self.shared.close(true);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers()).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let is_busy = self.shared.lock().dispatcher.unfinished() > 0;
        self.shared.close(is_busy);
    }
}
