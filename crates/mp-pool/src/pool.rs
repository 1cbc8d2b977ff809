//! The pool: workers, tasks, and who drives the dispatcher.
//!
//! All state is behind one mutex. Results are read by one *driver* at a time: whoever waits for a result becomes the driver if there is
//! none, reads results (its own and others') until its own is there, and hands the role on. So a submit and its answer cross
//! processes twice. While nobody waits and tasks are queued that no worker has room for, a helper thread drives.
//!
//! Death of a worker: recovery takes its end of the task channel back, so that channel's receivers fall to zero; the driver, which a
//! death wakes, sees that, takes in the results that are there, settles what the dispatcher says, and starts another worker. A worker
//! that is still starting has no sentinel yet; while there is one, the driver also looks at its pidfd, at growing intervals.

use crate::builder::PoolBuilder;
use crate::dispatcher::{Dispatcher, Fate, TaskId, WINDOW, WorkerId};
use crate::error::{MapError, PoolError, TaskError};
use crate::map;
use crate::task::Task;
use crate::worker::{self, Entry, READY, REFUSED};
use mp_channel::dynamic::{self, DynMessage, DynReceiver, DynSender};
use mp_channel::{RecvError, SendFailure};
use mp_shm::{Message, Session};
use mp_spawn::code::{FnRef, SealedCode};
use mp_spawn::{JoinError, Process, SpawnError};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What became of a task: the worker's message and the nanoseconds it took, or why there is none.
pub(crate) type Settled = Result<(DynMessage, u64), TaskError>;

/// Sends a task to a worker; may be called again for another try.
type Send = Box<dyn Fn(&DynSender, [u64; 4]) -> Result<(), SendFailure> + std::marker::Send>;

struct Entered {
    entry: SealedCode,
    send: Send,
    /// Nobody wants the value.
    forgotten: bool,
}

struct Worker {
    process: Process<()>,
    tasks: DynSender,
}

/// Counts of what a pool has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Tasks that ended with a message from their worker, a panic included. A chunk of a `map` is one task.
    pub tasks_done: u64,
    /// Tasks that ended without one: their worker died, or they could not be sent.
    pub tasks_failed: u64,
    /// Tries of tasks whose worker died, after the first.
    pub tasks_retried: u64,
    /// Workers started.
    pub workers_started: u64,
    /// Workers that died.
    pub workers_lost: u64,
}

struct State {
    dispatcher: Dispatcher,
    workers: HashMap<WorkerId, Worker>,
    tasks: HashMap<TaskId, Entered>,
    settled: HashMap<TaskId, Settled>,
    next_task: TaskId,
    next_worker: WorkerId,
    /// Somebody reads results.
    driving: bool,
    /// Threads asleep on the condition variable.
    sleepers: usize,
    helper: Option<std::thread::JoinHandle<()>>,
    /// Deaths in the session when workers were last looked at.
    deaths_seen: Option<u32>,
    /// How long to wait before looking at starting workers again.
    start_look: Duration,
    /// Workers in a row that ended before they were ready.
    failed_starts: usize,
    closed: bool,
    broken: Option<String>,
    stats: PoolStats,
}

/// What the pool's handle, its tasks and its helper thread share.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    results: DynReceiver,
    result_sender: DynSender,
    size: usize,
    chunk_size: Option<usize>,
    session: Session,
}

/// A pool of worker processes.
///
/// Dropping it ends the workers: at once if tasks are unfinished, whose waiters then get an error.
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

/// First interval at which starting workers are looked at; doubles up to the last.
const START_LOOK_FIRST: Duration = Duration::from_millis(1);
const START_LOOK_LAST: Duration = Duration::from_millis(100);

impl Pool {
    /// A pool with one worker for each processor this process may use.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn new() -> Result<Self, PoolError> {
        Self::builder().build()
    }

    /// For a pool with other settings.
    #[must_use]
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    pub(crate) fn start(builder: &PoolBuilder) -> Result<Self, PoolError> {
        let size = builder.worker_count();
        if size == 0 {
            return Err(PoolError::NoWorkers);
        }
        // Room for all results there can be, so that no worker waits for a driver: its tasks, one result it sent just before it was
        // killed, and the announcement that it is ready.
        let (result_sender, results) = dynamic::channel(size * (WINDOW + 2)).map_err(PoolError::Channel)?;
        let session = Session::current().map_err(|error| PoolError::Spawn(SpawnError::Session(error)))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                dispatcher: Dispatcher::new(builder.retries),
                workers: HashMap::new(),
                tasks: HashMap::new(),
                settled: HashMap::new(),
                next_task: 0,
                next_worker: 0,
                driving: false,
                sleepers: 0,
                helper: None,
                deaths_seen: None,
                start_look: START_LOOK_FIRST,
                failed_starts: 0,
                closed: false,
                broken: None,
                stats: PoolStats::default(),
            }),
            changed: Condvar::new(),
            results,
            result_sender,
            size,
            chunk_size: builder.chunk_size,
            session,
        });
        let pool = Self { shared };
        // An error drops the pool, and with it the workers that did start.
        let mut state = pool.shared.lock();
        for _ in 0..size {
            pool.shared.start_worker(&mut state)?;
        }
        drop(state);
        Ok(pool)
    }

    /// Gives `f(argument)` to a worker.
    ///
    /// # Errors
    /// The pool is broken, or the function cannot be named to another process.
    pub fn submit<A: Message + std::marker::Send + 'static, R: Message + 'static>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<Task<R>, PoolError> {
        let entry = self.seal(worker::run_one::<A, R>)?;
        let message = (FnRef::new(f), argument);
        self.enter(entry, Box::new(move |tasks, tag| tasks.try_send(tag, &message)))
    }

    /// Gives a chunk of arguments to one worker.
    pub(crate) fn submit_chunk<A: Message + std::marker::Send + 'static, R: Message + 'static>(
        &self,
        f: fn(A) -> R,
        arguments: Vec<A>,
    ) -> Result<Task<Vec<R>>, PoolError> {
        let entry = self.seal(worker::run_chunk::<A, R>)?;
        let message = (FnRef::new(f), arguments);
        self.enter(entry, Box::new(move |tasks, tag| tasks.try_send(tag, &message)))
    }

    fn seal(&self, entry: fn(worker::Assignment)) -> Result<SealedCode, PoolError> {
        Entry::new(entry).seal(self.shared.session).map_err(|error| PoolError::Spawn(SpawnError::Code(error)))
    }

    fn enter<R>(&self, entry: SealedCode, send: Send) -> Result<Task<R>, PoolError> {
        let mut state = self.shared.lock();
        if let Some(text) = &state.broken {
            return Err(PoolError::Broken(text.clone()));
        }
        let id = state.next_task;
        state.next_task += 1;
        state.tasks.insert(id, Entered { entry, send, forgotten: false });
        state.dispatcher.submit(id);
        state.assign();
        if state.dispatcher.queued() > 0 && !state.driving {
            self.shared.call_helper(&mut state)?;
        }
        drop(state);
        Ok(Task::new(self.shared.clone(), id))
    }

    /// Applies `f` to every input, in worker processes; gives the values in the order of the inputs.
    ///
    /// Inputs are taken from the iterator as workers get through with them, in chunks of about a millisecond's work.
    ///
    /// # Errors
    /// [`MapError`]: the first task, in the order of the inputs, that has no values. A panic names its input; a worker's death names the
    /// inputs of its chunk.
    pub fn map<A: Message + std::marker::Send + 'static, R: Message + 'static>(
        &self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, MapError> {
        map::map(self, f, inputs.into_iter(), self.shared.chunk_size)
    }

    /// The number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shared.size
    }

    /// Process ids of the workers. One that has died is replaced, under another id, when somebody waits for a task.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<u32> {
        self.shared.lock().workers.values().map(|worker| worker.process.pid()).collect()
    }

    /// What the pool has done so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared.lock().stats
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("workers", &self.shared.size).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl State {
    /// Sends queued tasks to workers that have room.
    fn assign(&mut self) {
        while let Some((worker, task)) = self.dispatcher.assign() {
            let (Some(entered), Some(to)) = (self.tasks.get(&task), self.workers.get(&worker)) else {
                continue;
            };
            let tag = [task, entered.entry[0], entered.entry[1], 0];
            // Encoding runs the argument's own code, which may panic.
            let sent = mp_spawn::panics::catch(|| (entered.send)(&to.tasks, tag)).unwrap_or_else(|panic| {
                Err(SendFailure::Encode(mp_shm::codec::EncodeError::Value(panic.to_string())))
            });
            match sent {
                // A worker that has just died: its death will be reported, and the task with it.
                Ok(()) | Err(SendFailure::Disconnected) => {}
                Err(failure) => {
                    self.dispatcher.finished(worker, task);
                    self.settle(task, Err(TaskError::Encode(failure)));
                }
            }
        }
    }

    fn settle(&mut self, task: TaskId, settled: Settled) {
        match settled {
            Ok(_) => self.stats.tasks_done += 1,
            Err(_) => self.stats.tasks_failed += 1,
        }
        let wanted = self.tasks.remove(&task).is_some_and(|entered| !entered.forgotten);
        if wanted {
            self.settled.insert(task, settled);
        }
    }

    /// Takes in a message from a worker.
    fn take_in(&mut self, message: DynMessage) {
        let [task, worker, what, nanos] = message.tag();
        if what == READY {
            self.dispatcher.worker_ready(worker);
            self.failed_starts = 0;
            return;
        }
        if !self.tasks.contains_key(&task) {
            // The second result of a task that was tried again while the first was on its way.
            return;
        }
        self.dispatcher.finished(worker, task);
        let settled = if what == REFUSED {
            Err(TaskError::Refused(message.decode::<String>().unwrap_or_else(|error| error.to_string())))
        } else {
            Ok((message, nanos))
        };
        self.settle(task, settled);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.sleepers -= 1;
        state
    }

    fn wake(&self, state: &State) {
        if state.sleepers > 0 {
            self.changed.notify_all();
        }
    }

    fn start_worker(&self, state: &mut State) -> Result<(), PoolError> {
        let (tasks, receiver) = dynamic::channel(WINDOW).map_err(PoolError::Channel)?;
        let id = state.next_worker;
        state.next_worker += 1;
        // Whatever ends this process, no worker outlives it.
        let builder = Process::builder().daemon(true).name(format!("worker-{id}"));
        let process = builder
            .spawn(worker::main, (id, receiver, self.result_sender.clone()))
            .map_err(PoolError::Spawn)?;
        state.workers.insert(id, Worker { process, tasks });
        state.dispatcher.worker_started(id);
        state.stats.workers_started += 1;
        state.start_look = START_LOOK_FIRST;
        Ok(())
    }

    /// Waits until a task is settled.
    pub(crate) fn wait(&self, task: TaskId) -> Settled {
        let mut state = self.lock();
        loop {
            if let Some(settled) = state.settled.remove(&task) {
                return settled;
            }
            if !state.tasks.contains_key(&task) {
                return Err(TaskError::Pool(PoolError::Closed));
            }
            state = if state.driving { self.sleep(state) } else { self.drive(state) };
        }
    }

    pub(crate) fn is_settled(&self, task: TaskId) -> bool {
        let mut state = self.lock();
        if !state.driving {
            self.take_in_what_is_there(&mut state);
        }
        state.settled.contains_key(&task) || !state.tasks.contains_key(&task)
    }

    pub(crate) fn forget(&self, task: TaskId) {
        let mut state = self.lock();
        state.settled.remove(&task);
        if state.dispatcher.forget(task) {
            state.tasks.remove(&task);
        } else if let Some(entered) = state.tasks.get_mut(&task) {
            entered.forgotten = true;
        }
    }

    /// Waits for one thing to happen and takes it in, as the driver.
    fn drive<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        // Read before the workers are looked at: a death after that ends the wait.
        let deaths = self.results.deaths();
        let starting = state.workers.keys().any(|&worker| !state.dispatcher.is_ready(worker));
        if starting || state.deaths_seen != Some(deaths) {
            state.deaths_seen = Some(deaths);
            if self.bury(&mut state) {
                state.assign();
                self.wake(&state);
                return state;
            }
        }
        let deadline = starting.then(|| {
            let look = state.start_look;
            state.start_look = (look * 2).min(START_LOOK_LAST);
            look
        });
        state.driving = true;
        drop(state);
        let received = self.results.recv_or_death(deaths, deadline);
        let mut state = self.lock();
        state.driving = false;
        match received {
            Ok(message) => {
                state.take_in(message);
                self.take_in_what_is_there(&mut state);
            }
            Err(RecvError::Death | RecvError::Empty) => {}
            Err(error) => self.break_down(&mut state, &error.to_string()),
        }
        state.assign();
        self.wake(&state);
        state
    }

    fn take_in_what_is_there(&self, state: &mut State) {
        while let Ok(message) = self.results.try_recv() {
            state.take_in(message);
        }
        state.assign();
    }

    /// Replaces workers that have died; says whether there were any.
    fn bury(&self, state: &mut State) -> bool {
        let dead: Vec<WorkerId> = state
            .workers
            .iter()
            .filter(|(id, worker)| {
                worker.tasks.is_disconnected()
                    || (!state.dispatcher.is_ready(**id) && worker.process.is_finished())
            })
            .map(|(id, _)| *id)
            .collect();
        for &id in &dead {
            // What the dead had sent counts.
            while let Ok(message) = self.results.try_recv() {
                state.take_in(message);
            }
            let Some(worker) = state.workers.remove(&id) else { continue };
            let was_ready = state.dispatcher.is_ready(id);
            let pid = worker.process.pid();
            let cause = worker.process.join().err().unwrap_or(JoinError::Exited(0));
            state.stats.workers_lost += 1;
            if !was_ready {
                state.failed_starts += 1;
            }
            let text = cause.to_string();
            let mut cause = Some(cause);
            for fate in state.dispatcher.died(id) {
                match fate {
                    Fate::Requeued(_) => {}
                    Fate::Retried(_) => state.stats.tasks_retried += 1,
                    // At most one task is lost with a worker.
                    Fate::Lost(task) => {
                        let cause = cause.take().unwrap_or(JoinError::Lost);
                        state.settle(task, Err(TaskError::WorkerDied { pid, cause }));
                    }
                }
            }
            if state.closed {
                continue;
            }
            if state.failed_starts > self.size.max(4) * 2 {
                self.break_down(state, &text);
            } else if let Err(error) = self.start_worker(state) {
                self.break_down(state, &error.to_string());
            }
        }
        !dead.is_empty()
    }

    /// Gives up: no task can be done any more.
    fn break_down(&self, state: &mut State, text: &str) {
        state.broken = Some(text.to_owned());
        let unfinished: Vec<TaskId> = state.tasks.keys().copied().collect();
        for task in unfinished {
            state.dispatcher.forget(task);
            state.settle(task, Err(TaskError::Pool(PoolError::Broken(text.to_owned()))));
        }
    }

    /// Makes sure that tasks go to workers although nobody waits.
    fn call_helper(self: &Arc<Self>, state: &mut State) -> Result<(), PoolError> {
        if state.helper.is_none() {
            let shared = self.clone();
            let helper = std::thread::Builder::new().name("mp-pool".to_owned()).spawn(move || shared.help());
            state.helper = Some(helper.map_err(PoolError::Thread)?);
        } else {
            self.wake(state);
        }
        Ok(())
    }

    fn help(&self) {
        let mut state = self.lock();
        while !state.closed {
            let needed = state.dispatcher.queued() > 0 && !state.driving;
            state = if needed { self.drive(state) } else { self.sleep(state) };
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let unfinished = state.dispatcher.unfinished() > 0;
        let workers: Vec<Worker> = state.workers.drain().map(|(_, worker)| worker).collect();
        let tasks: Vec<TaskId> = state.tasks.keys().copied().collect();
        for task in tasks {
            state.dispatcher.forget(task);
            state.settle(task, Err(TaskError::Pool(PoolError::Closed)));
        }
        let helper = state.helper.take();
        self.changed.notify_all();
        drop(state);
        let processes: Vec<Process<()>> = workers
            .into_iter()
            .map(|worker| {
                if unfinished {
                    // One that has ended meanwhile is no error, and of one that cannot be killed we can only wait for the end.
                    let _ = worker.process.kill();
                }
                // Dropping its task channel tells an idle worker to end.
                worker.process
            })
            .collect();
        for process in processes {
            // However it ends: nobody waits for anything from it.
            let _ = process.join();
        }
        if let Some(helper) = helper {
            // A panic in it has been printed; there is nobody else to tell.
            let _ = helper.join();
        }
    }
}
