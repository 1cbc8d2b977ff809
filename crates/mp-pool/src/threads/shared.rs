//! What a pool's handle, its threads and its tasks share.
//!
//! ```text
//! task     queued ─ a thread takes it ─► running ─ done ─► settled
//!            └─ cancel, or the pool is dropped ─┴─ or too late ─► settled
//! thread   of the pool ─ its task was settled by others ─► given up: it ends after that task, and another has its place
//!            └─ its initializer fails ─► given up at once; after too many in a row the pool is broken
//! ```
//!
//! Owns: the queue, and who is at what, behind one mutex; no user code runs under it but a subscriber of `tracing`. Whoever takes a task out of `queue` or `running`
//! settles it, and nobody else: so a value that comes after its task was cancelled finds that it is not wanted.

use crate::error::{PoolError, TaskError, TaskErrorKind};
use crate::failure;
use crate::slot::AnySlot;
use crate::stats::Records;
use crate::threads::ThreadPoolBuilder;
use crate::trace::TaskSpan;
use crate::worker;
use mp_spawn::panics;
use std::any::Any;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

thread_local! {
    /// Of which pool this thread is, and its number there.
    static PLACE: Cell<Option<(usize, u64)>> = const { Cell::new(None) };
}

/// Whether this thread is one of a pool's.
fn is_of_a_pool() -> bool {
    PLACE.get().is_some()
}

/// What a step of a thread's life gave, or why it gave nothing.
pub(super) type Made = Result<Box<dyn Any + Send>, TaskErrorKind>;

/// What a thread does before its first task and after its last one.
#[derive(Clone, Default)]
pub(super) struct Steps {
    pub(super) initialize: Option<Arc<Initialize>>,
    pub(super) finalize: Option<Arc<Finalize>>,
}

type Initialize = dyn Fn() -> Result<Box<dyn Any>, TaskErrorKind> + Send + Sync;
type Finalize = dyn Fn() -> Made + Send + Sync;

/// Runs a step, which is user code.
fn made<T>(step: impl FnOnce() -> Result<T, TaskErrorKind>) -> Result<T, TaskErrorKind> {
    panics::catch(step).unwrap_or_else(|panic| Err(TaskErrorKind::Panicked(panic)))
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { initialize, finalize } = self;
        write!(f, "Steps(initialize {}, finalize {})", initialize.is_some(), finalize.is_some())
    }
}

/// Does a task; fills its slot if [`Shared::done`] says so.
pub(super) type Run = Box<dyn FnOnce(&Shared, u64) + Send>;

pub(super) struct Entered {
    pub(super) id: u64,
    pub(super) run: Run,
    pub(super) slot: Arc<dyn AnySlot>,
    /// It is run although its handle is gone.
    pub(super) is_kept: bool,
}

struct Running {
    slot: Arc<dyn AnySlot>,
    /// The thread of this pool that is at it; none if a thread of another pool does it.
    thread: Option<u64>,
    since: Instant,
}

pub(super) struct State {
    /// In the order of their numbers.
    queue: VecDeque<Entered>,
    running: HashMap<u64, Running>,
    /// Those that take tasks, by number, until somebody waits for their end; those that were given up are not in here.
    threads: HashMap<u64, Option<JoinHandle<()>>>,
    time_keeper: Option<JoinHandle<()>>,
    /// The time keeper waits for a task to begin.
    is_time_keeper_idle: bool,
    next_task: u64,
    next_thread: u64,
    /// Threads in a row whose initializer failed.
    failed_starts: usize,
    /// What finalizers gave.
    finals: Vec<Made>,
    /// Takes no more tasks.
    closed: bool,
    /// Why it cannot do any.
    broken: Option<String>,
    /// The pool is dropped.
    over: bool,
    /// Threads that sleep on `settled`.
    waiters: usize,
    pub(super) records: Records,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something in the queue, or the pool is closed.
    arrived: Condvar,
    /// A task was settled.
    settled: Condvar,
    /// The time keeper has something to look at.
    begun: Condvar,
    threads: usize,
    settings: ThreadPoolBuilder,
}

/// A task that was taken from whoever had it, for the taker to settle.
pub(super) struct Taken {
    id: u64,
    slot: Arc<dyn AnySlot>,
    /// What it would have run.
    unrun: Option<Run>,
}

impl Taken {
    /// Call it without the lock: callbacks are called, and the argument is dropped. Should that panic, it is printed, and no other task suffers.
    pub(super) fn settle(self, kind: TaskErrorKind) {
        let attempts = u32::from(self.unrun.is_none());
        self.slot.fail(TaskError { kind, task: self.id, pid: None, attempts });
        let _ = panics::catch(|| drop(self.unrun));
    }
}

impl Shared {
    /// With so many threads, and one that keeps the time if tasks have a limit.
    ///
    /// # Errors
    /// A thread cannot be started; those that were are ended again.
    pub(super) fn start(threads: usize, settings: ThreadPoolBuilder) -> Result<Arc<Self>, PoolError> {
        let state = State {
            queue: VecDeque::new(),
            running: HashMap::new(),
            threads: HashMap::new(),
            time_keeper: None,
            is_time_keeper_idle: false,
            next_task: 0,
            next_thread: 0,
            failed_starts: 0,
            finals: Vec::new(),
            closed: false,
            broken: None,
            over: false,
            waiters: 0,
            records: Records::new(false),
        };
        let shared = Arc::new(Self {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            settled: Condvar::new(),
            begun: Condvar::new(),
            threads,
            settings,
        });
        let started = shared.start_threads(threads);
        if started.is_err() {
            shared.close();
        }
        started.map(|()| shared).map_err(PoolError::Thread)
    }

    fn start_threads(self: &Arc<Self>, threads: usize) -> std::io::Result<()> {
        let mut state = self.lock();
        (0..threads).try_for_each(|_| self.start_thread(&mut state))?;
        if let Some(limit) = self.settings.task_timeout {
            let shared = self.clone();
            let thread = std::thread::Builder::new().name("pool-time".to_owned());
            state.time_keeper = Some(thread.spawn(move || shared.keep_time(limit))?);
        }
        Ok(())
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let number = state.next_thread;
        let shared = self.clone();
        let thread = std::thread::Builder::new().name(format!("pool-{number}"));
        state.threads.insert(number, Some(thread.spawn(move || shared.work(number))?));
        state.next_thread += 1;
        state.records.started(number, std::process::id());
        if self.settings.steps.initialize.is_none() {
            state.records.ready(number);
        }
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this thread, which waits for tasks, may do them: one of a pool's; if they need what an initializer makes, of this one's.
    fn helps(&self) -> bool {
        let has_state = self.settings.steps.initialize.is_some();
        PLACE.get().is_some_and(|place| !has_state || place.0 == self.address())
    }

    /// Only to be compared.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(super) fn submit(&self, run: Run, slot: Arc<dyn AnySlot>, is_kept: bool) -> Result<u64, PoolError> {
        let mut state = self.lock();
        if let Some(most) = self.settings.in_flight.filter(|_| !is_of_a_pool()) {
            while !state.closed && state.queue.len() + state.running.len() >= most {
                state = self.sleep(state, None);
            }
        }
        if let Err(error) = state.check_open() {
            drop(state);
            // With the argument, whose destructor is user code.
            drop(run);
            return Err(error);
        }
        let id = state.next_task;
        state.next_task += 1;
        state.queue.push_back(Entered { id, run, slot, is_kept });
        state.records.span.submitted(id);
        drop(state);
        self.arrived.notify_one();
        Ok(id)
    }

    /// What a thread does.
    fn work(self: &Arc<Self>, number: u64) {
        PLACE.set(Some((self.address(), number)));
        worker::become_worker(number);
        let Steps { initialize, finalize } = &self.settings.steps;
        match initialize.as_ref().map(|initialize| made(|| initialize())).transpose() {
            Ok(state) => worker::keep_state(state),
            Err(kind) => return self.has_failed_to_start(number, &kind),
        }
        self.do_tasks(number);
        // One that was given up is as good as dead.
        if let Some(finalize) = finalize.as_ref().filter(|_| self.lock().threads.contains_key(&number)) {
            let made = made(|| finalize());
            self.lock().finals.push(made);
        }
        // Here, where a destructor that panics is caught.
        let _ = panics::catch(|| worker::keep_state(None));
    }

    /// Another thread takes the place of this one, unless too many have failed.
    fn has_failed_to_start(self: &Arc<Self>, number: u64, why: &TaskErrorKind) {
        let mut state = self.lock();
        if state.closed && state.queue.is_empty() {
            return;
        }
        state.failed_starts += 1;
        if !failure::is_hopeless(state.failed_starts, self.threads) && self.give_up(&mut state, number) {
            return;
        }
        let why = failure::never_ready(&failure::of_initializer(why));
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        for entered in &queue {
            state.records.failed(entered.id, &TaskErrorKind::Pool(PoolError::Broken(why.clone())));
        }
        state.broken = Some(why.clone());
        drop(state);
        self.arrived.notify_all();
        for Entered { id, run, slot, .. } in queue {
            Taken { id, slot, unrun: Some(run) }.settle(TaskErrorKind::Pool(PoolError::Broken(why.clone())));
        }
        self.announce_settled();
    }

    fn do_tasks(&self, number: u64) {
        let mut state = self.lock();
        if self.settings.steps.initialize.is_some() {
            state.failed_starts = 0;
            state.records.ready(number);
        }
        // One that was given up has no place any more.
        while state.threads.contains_key(&number) {
            if let Some(entered) = state.queue.pop_front() {
                state = self.run(state, entered);
            } else if state.closed {
                return;
            } else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn run<'a>(&'a self, mut state: MutexGuard<'a, State>, entered: Entered) -> MutexGuard<'a, State> {
        let Entered { id, run, slot, .. } = entered;
        let thread = PLACE.get().filter(|place| place.0 == self.address()).map(|place| place.1);
        state.running.insert(id, Running { slot, thread, since: Instant::now() });
        if std::mem::take(&mut state.is_time_keeper_idle) {
            self.begun.notify_one();
        }
        drop(state);
        // The task itself is caught further in. Here it is about destructors: of a value that nobody wants, say. They are printed.
        let _ = panics::catch(|| {
            let _span = TaskSpan::enter(id, thread);
            run(self, id);
        });
        let state = self.lock();
        self.announce(&state);
        state
    }

    /// A task has come to its end: says whether its slot is to be filled. Before that is done: who has the value and drops the pool then
    /// finds that nothing is running.
    pub(super) fn done(&self, id: u64) -> bool {
        let mut state = self.lock();
        let Some(running) = state.running.remove(&id) else { return false };
        let nanos = u64::try_from(running.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(thread) = running.thread {
            state.records.finished(thread, id, nanos, 0);
        }
        state.records.done(id, nanos);
        true
    }

    fn announce(&self, state: &State) {
        if state.waiters > 0 {
            self.settled.notify_all();
        }
    }

    /// [`announce`](Self::announce) what was settled without the lock.
    pub(super) fn announce_settled(&self) {
        self.announce(&self.lock());
    }

    /// Sleeps until a task is settled, at most until then.
    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        state.waiters += 1;
        let mut state = match until {
            None => self.settled.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.waiters -= 1;
        state
    }

    /// Waits until `found` gives a place among the tasks `ids`, at most until then. A thread of a pool that would wait for ever does those of
    /// them instead that nobody has begun.
    pub(super) fn wait_for(
        &self,
        ids: &[u64],
        until: Option<Instant>,
        found: impl Fn() -> Option<usize>,
    ) -> Option<usize> {
        let mut state = self.lock();
        loop {
            let place = found();
            if place.is_some() || until.is_some_and(|until| until <= Instant::now()) {
                return place;
            }
            let helps = until.is_none() && self.helps();
            let entered =
                if helps { ids.iter().find_map(|&id| Self::take_back(&mut state, id)) } else { None };
            state = match entered {
                Some(entered) => self.run(state, entered),
                None => self.sleep(state, until),
            };
        }
    }

    /// Waits until there is no task left.
    pub(super) fn wait_until_done(&self) {
        let mut state = self.lock();
        while !(state.queue.is_empty() && state.running.is_empty()) {
            state = self.sleep(state, None);
        }
    }

    /// How many sleep until a task is settled.
    pub(super) fn waiters(&self) -> usize {
        self.lock().waiters
    }

    /// Takes a task back that nobody has begun.
    fn take_back(state: &mut State, id: u64) -> Option<Entered> {
        let at = Self::place_in_queue(state, id)?;
        state.queue.remove(at)
    }

    fn place_in_queue(state: &State, id: u64) -> Option<usize> {
        state.queue.binary_search_by_key(&id, |entered| entered.id).ok()
    }

    /// In a thread of a pool: does a task here, if nobody has begun it.
    pub(super) fn run_here(&self, id: u64) {
        if !self.helps() {
            return;
        }
        let mut state = self.lock();
        if let Some(entered) = Self::take_back(&mut state, id) {
            drop(self.run(state, entered));
        }
    }

    /// Nobody wants the value.
    pub(super) fn forget(&self, id: u64) {
        let mut state = self.lock();
        let at = Self::place_in_queue(&state, id).filter(|&at| !state.queue[at].is_kept);
        let taken_back = at.and_then(|at| state.queue.remove(at));
        // There may be room for another.
        self.announce(&state);
        drop(state);
        // The argument's destructor is user code: it runs here, without the lock.
        drop(taken_back);
    }

    /// Takes a task from whoever has it, to settle it otherwise. The thread that is at it is given up, and another takes its place.
    fn take(self: &Arc<Self>, state: &mut State, id: u64, kind: &TaskErrorKind) -> Option<Taken> {
        let taken = if let Some(Entered { run, slot, .. }) = Self::take_back(state, id) {
            Taken { id, slot, unrun: Some(run) }
        } else {
            let Running { slot, thread, .. } = state.running.remove(&id)?;
            if let Some(thread) = thread {
                self.give_up(state, thread);
            }
            Taken { id, slot, unrun: None }
        };
        state.records.failed(id, kind);
        Some(taken)
    }

    /// If no other can be started, it stays; says whether it does not.
    fn give_up(self: &Arc<Self>, state: &mut State, thread: u64) -> bool {
        let given_up = state.threads.contains_key(&thread) && self.start_thread(state).is_ok();
        if given_up {
            state.threads.remove(&thread);
            state.records.ended(thread, String::from("given up"));
            state.records.totals.workers_lost += 1;
        }
        given_up
    }

    /// Settles a task otherwise, if it is not done; says whether it was not.
    pub(super) fn stop(self: &Arc<Self>, id: u64, kind: TaskErrorKind) -> bool {
        let taken = self.take(&mut self.lock(), id, &kind);
        let was_there = taken.is_some();
        if let Some(taken) = taken {
            taken.settle(kind);
            self.announce_settled();
        }
        was_there
    }

    /// Settles tasks that run for longer than `limit`.
    fn keep_time(self: &Arc<Self>, limit: Duration) {
        let mut state = self.lock();
        while !state.over {
            let now = Instant::now();
            // A limit beyond the end of time is none.
            let due = |running: &Running| running.since.checked_add(limit);
            let is_late = |running: &Running| due(running).is_some_and(|due| due <= now);
            let late = state.running.iter().find(|(_, running)| is_late(running)).map(|(&id, _)| id);
            if let Some(late) = late {
                drop(state);
                self.stop(late, TaskErrorKind::TimedOut);
                state = self.lock();
                continue;
            }
            let next = state.running.values().filter_map(due).min();
            state = if let Some(next) = next {
                self.begun.wait_timeout(state, next - now).unwrap_or_else(PoisonError::into_inner).0
            } else {
                state.is_time_keeper_idle = true;
                self.begun.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Takes no more tasks.
    pub(super) fn refuse(&self) {
        let mut state = self.lock();
        state.closed = true;
        // For those that wait until they may submit.
        self.announce(&state);
        drop(state);
        self.arrived.notify_all();
    }

    /// Takes no more tasks, waits until all are done and the threads have ended; gives what their finalizers gave.
    ///
    /// # Errors
    /// The pool is broken.
    pub(super) fn finish(&self) -> Result<Vec<Made>, PoolError> {
        self.refuse();
        self.wait_until_done();
        let threads = self.lock().take_threads();
        see_off(threads);
        let mut state = self.lock();
        let finals = std::mem::take(&mut state.finals);
        state.broken.clone().map_or(Ok(finals), |why| Err(PoolError::Broken(why)))
    }

    /// Ends everything. Threads that are at a task end after it, unobserved.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.over = true;
        let queue = std::mem::take(&mut state.queue);
        let running = std::mem::take(&mut state.running);
        let threads = state.take_threads();
        let time_keeper = state.time_keeper.take();
        for &id in queue.iter().map(|entered| &entered.id).chain(running.keys()) {
            state.records.failed(id, &TaskErrorKind::Pool(PoolError::Closed));
        }
        drop(state);
        self.arrived.notify_all();
        self.begun.notify_all();
        let is_busy = !running.is_empty();
        let queued =
            queue.into_iter().map(|Entered { id, run, slot, .. }| Taken { id, slot, unrun: Some(run) });
        let running = running.into_iter().map(|(id, Running { slot, .. })| Taken { id, slot, unrun: None });
        for taken in queued.chain(running) {
            taken.settle(TaskErrorKind::Pool(PoolError::Closed));
        }
        self.announce_settled();
        see_off(threads.into_iter().filter(|_| !is_busy).chain(time_keeper));
    }
}

/// Waits for the end of threads.
fn see_off(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    // From a callback, one of them may be the one that drops the pool.
    let current = std::thread::current().id();
    for thread in threads.into_iter().filter(|thread| thread.thread().id() != current) {
        // It does not panic: all that it runs is caught.
        let _ = thread.join();
    }
}

impl State {
    /// Why no task can be submitted.
    fn check_open(&self) -> Result<(), PoolError> {
        match &self.broken {
            Some(why) => Err(PoolError::Broken(why.clone())),
            None if self.closed => Err(PoolError::Closed),
            None => Ok(()),
        }
    }

    /// To wait for; they keep their places.
    fn take_threads(&mut self) -> Vec<JoinHandle<()>> {
        self.threads.values_mut().filter_map(Option::take).collect()
    }
}
