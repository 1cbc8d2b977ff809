//! A pool of threads that behaves as a pool of processes does, as far as threads can.
//!
//! ```text
//! ThreadPool ─ submit ─► queue ─┬─► thread 0 ─► slot of the task ─► ThreadTask::get
//!                               └─► thread 1
//! ```
//!
//! Owns: the queue and the threads, behind one mutex; no user code runs under it. A task is in the queue, then in `running` until it
//! is done; its value goes to a slot of its own, so a waiter is woken by its own task alone.
//!
//! Nested use: a task that waits for another one which nobody has begun does that itself. So a thread only ever waits for what a
//! thread is at, and tasks that do not wait for each other in a circle get done, however few threads there are.
//!
//! Death: there is none to survive; what kills a thread kills the process.

use crate::error::{MapError, PoolError, TaskError};
use crate::executor::{Executor, TaskHandle};
use crate::failure;
use crate::slot::{Abandon, Slot};
use mp_shm::codec::{EncodeError, Payload};
use mp_shm::{Message, Session, codec};
use mp_spawn::panics;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

thread_local! {
    /// Whether this thread is one of a pool's.
    static OF_A_POOL: Cell<bool> = const { Cell::new(false) };
}

/// Does a task, says so by [`Shared::done`], and leaves the value in the slot.
type Run = Box<dyn FnOnce(&Shared, u64) + Send>;

struct Entered {
    id: u64,
    run: Run,
    slot: Arc<dyn Abandon>,
}

struct State {
    /// In the order of their numbers.
    queue: VecDeque<Entered>,
    /// Slots of the tasks that threads are at.
    running: HashMap<u64, Arc<dyn Abandon>>,
    next_task: u64,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    /// There is something in the queue, or the pool is closed.
    arrived: Condvar,
}

/// A pool of threads, with what a [`Pool`](crate::Pool) has: to debug code that is meant for processes, and for work that waits rather than
/// computes. Write code for both as generic over [`Executor`](crate::Executor).
///
/// A panic fails its task, with message and place, and costs no thread. Values are moved, not encoded, unless the pool is
/// [checked](ThreadPoolBuilder::checked). A task may submit others to the pool it runs in, and wait for them: one that nobody has begun
/// it then does itself.
///
/// Dropping it ends the threads; waiters of unfinished tasks get an error, and tasks that nobody has begun are not run. If tasks are
/// running, it does not wait for them: nobody can end a thread, so they go on, and their values are dropped.
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
    threads: Vec<JoinHandle<()>>,
    checked: bool,
}

/// Settings of a pool of threads; [`ThreadPool::builder`] makes one.
#[derive(Clone, Debug)]
pub struct ThreadPoolBuilder {
    threads: Option<usize>,
    checked: bool,
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

    /// Makes the pool and starts its threads.
    ///
    /// # Errors
    /// [`PoolError`]: no threads, or one that cannot be started; those that were are ended again.
    pub fn build(self) -> Result<ThreadPool, PoolError> {
        let count = self.threads.unwrap_or_else(|| crate::Pool::builder().worker_count());
        if count == 0 {
            return Err(PoolError::NoWorkers);
        }
        let state = State { queue: VecDeque::new(), running: HashMap::new(), next_task: 0, closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), arrived: Condvar::new() });
        // An error drops the pool, and ends the threads that did start.
        let mut pool = ThreadPool { shared, threads: Vec::with_capacity(count), checked: self.checked };
        for number in 0..count {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new().name(format!("pool-{number}"));
            pool.threads.push(thread.spawn(move || shared.work()).map_err(PoolError::Thread)?);
        }
        Ok(pool)
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
        ThreadPoolBuilder { threads: None, checked: false }
    }

    /// Gives `f(argument)` to a thread.
    ///
    /// # Errors
    /// None so far: it is declared as [`Pool::submit`](crate::Pool::submit) is, so that either can take the other's place.
    pub fn submit<A: Message + Send + 'static, R: Message + Send + 'static>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<ThreadTask<R>, PoolError> {
        let slot = Arc::new(Slot::new());
        let checked = self.checked;
        let run = {
            let slot = slot.clone();
            move |shared: &Shared, id| {
                let call = || if checked { call_checked(f, argument) } else { Ok(f(argument)) };
                let value = panics::catch(call).unwrap_or_else(|panic| Err(failure::panicked(panic)));
                shared.done(id);
                drop(slot.fill(value));
            }
        };
        let mut state = self.shared.lock();
        let id = state.next_task;
        state.next_task += 1;
        state.queue.push_back(Entered { id, run: Box::new(run), slot: slot.clone() });
        drop(state);
        self.shared.arrived.notify_one();
        Ok(ThreadTask { shared: self.shared.clone(), id, slot })
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

    /// The number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len()
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
fn call_checked<A: Message, R: Message>(f: fn(A) -> R, argument: A) -> Result<R, TaskError> {
    let there = encode(&argument).map_err(failure::unsendable)?;
    drop(argument);
    let value = f(there.decode().map_err(|error| failure::argument(error.to_string()))?);
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does.
    fn work(&self) {
        OF_A_POOL.set(true);
        let mut state = self.lock();
        loop {
            if let Some(entered) = state.queue.pop_front() {
                self.run(state, entered);
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn run(&self, mut state: MutexGuard<'_, State>, Entered { id, run, slot }: Entered) {
        state.running.insert(id, slot);
        drop(state);
        // The task itself is caught further in. Here it is about destructors: of a value that nobody wants, say. They are printed.
        let _ = panics::catch(|| run(self, id));
    }

    /// Before the value is in its slot: who has it and drops the pool then finds that nothing is running.
    fn done(&self, id: u64) {
        let slot = self.lock().running.remove(&id);
        drop(slot);
    }

    /// Takes a task back that nobody has begun.
    fn take_back(state: &mut State, id: u64) -> Option<Entered> {
        let at = state.queue.binary_search_by_key(&id, |entered| entered.id).ok()?;
        state.queue.remove(at)
    }

    /// Does a task here, if nobody has begun it.
    fn run_here(&self, id: u64) {
        let mut state = self.lock();
        if let Some(entered) = Self::take_back(&mut state, id) {
            self.run(state, entered);
        }
    }

    fn forget(&self, id: u64) {
        let taken_back = Self::take_back(&mut self.lock(), id);
        // The argument's destructor is user code: it runs here, without the lock.
        drop(taken_back);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        let running: Vec<_> = state.running.values().cloned().collect();
        drop(state);
        self.shared.arrived.notify_all();
        for slot in queue.iter().map(|entered| &entered.slot).chain(&running) {
            slot.abandon();
        }
        drop(queue);
        // Threads that are at a task end after it, unobserved.
        if running.is_empty() {
            for thread in self.threads.drain(..) {
                // It does not panic: all that it runs is caught.
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

/// A task that was submitted to a [`ThreadPool`]. Dropping it means that nobody wants its value: a task that nobody has begun is not run.
#[must_use = "a task that is dropped may not be run"]
pub struct ThreadTask<R> {
    shared: Arc<Shared>,
    id: u64,
    slot: Arc<Slot<R>>,
}

impl<R> ThreadTask<R> {
    /// Waits for the task's value. In a task of a `ThreadPool`, does the task that it waits for if nobody has begun it.
    ///
    /// # Errors
    /// [`TaskError`] tells why it has none.
    pub fn get(self) -> Result<R, TaskError> {
        if OF_A_POOL.get() {
            self.shared.run_here(self.id);
        }
        self.slot.wait()
    }

    /// Whether the task is done, one way or the other; [`get`](Self::get) then does not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.slot.is_filled()
    }
}

impl<R: Send> TaskHandle<R> for ThreadTask<R> {
    fn get(self) -> Result<R, TaskError> {
        ThreadTask::get(self)
    }

    fn is_finished(&self) -> bool {
        ThreadTask::is_finished(self)
    }
}

impl<R> fmt::Debug for ThreadTask<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadTask").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<R> Drop for ThreadTask<R> {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}
