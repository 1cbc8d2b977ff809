//! Who drives a pool: reads what workers send, hands out tasks, sees to the dead.
//!
//! All state is behind one mutex. Results are read by one *driver* at a time: whoever waits for a result becomes the driver if there is
//! none, reads results (its own and others') until its own is there, and hands the role on. So a submit and its answer cross
//! processes twice. While nobody waits a helper thread drives, at once if somebody is to be called or woken or there are time-outs, and when
//! nobody has driven for a while if workers may run out of tasks. Callbacks and wakers are called without the mutex.
//!
//! What has been taken in is announced to those that sleep before the mutex is given back: one of them may have waited for it.
//!
//! Death of a worker: recovery takes its end of the task channel back, so that the pool's own receiver is the only one; the driver, which a
//! death wakes, sees that, takes in the results that are there, settles what the dispatcher says, and starts another worker. A worker
//! that is still starting has no sentinel yet; while there is one, the driver also looks at its pidfd, at growing intervals.

use crate::builder::PoolBuilder;
use crate::dispatcher::{Dispatcher, TaskId, WINDOW, WINDOW_MAX};
use crate::error::{PoolError, TaskError, TaskErrorKind};
use crate::state::{Broken, Call, Claim, Entered, Limits, Settled, State, check_not_encoding};
use crate::stats::Records;
use mp_channel::RecvError;
use mp_channel::dynamic::{self, DynReceiver, DynSender};
use mp_shm::Session;
use mp_spawn::{Process, SpawnError};
use mp_sys::poller;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// What the pool's handle, its tasks and its helper thread share.
pub(crate) struct Shared {
    /// As [`State::number`].
    number: u64,
    state: Mutex<State>,
    /// Something was settled, or nobody drives any more.
    changed: Condvar,
    /// The helper may be needed.
    help: Condvar,
    pub(crate) results: DynReceiver,
    pub(crate) result_sender: DynSender,
    results_room: usize,
    pub(crate) settings: PoolBuilder,
    pub(crate) limits: Limits,
    session: Session,
}

/// First interval at which starting workers are looked at; doubles up to the last.
pub(crate) const START_LOOK_FIRST: Duration = Duration::from_millis(1);
/// How often room is made for workers that end.
const DRAIN: Duration = Duration::from_millis(10);
const START_LOOK_LAST: Duration = Duration::from_millis(100);
/// What a worker sends beside the results of its tasks: one that it sent just before it was killed, the announcement that it is ready, and what
/// its finalizer gives.
const BESIDE: usize = 3;
/// Results that there is room for, unless there are so many workers that each needs more to go on at all.
const RESULTS_MAX: usize = 1024;
/// How long tasks stay behind one that runs while another worker has nothing to do.
const UNEVEN_NANOS: u64 = 1_000_000;
/// How often the helper looks whether anybody drives: at first, and when somebody does.
const HELP_LOOK_FIRST: Duration = Duration::from_millis(1);
const HELP_LOOK_LAST: Duration = Duration::from_millis(8);

/// Room for all results there can be of so many workers, so that none waits for a driver: where they are few, of as many tasks as they may have.
fn room_for_results(size: usize) -> usize {
    (size * (WINDOW_MAX + BESIDE)).min(RESULTS_MAX).max(size.max(16) * (WINDOW + BESIDE))
}

impl Shared {
    /// What a pool of `size` workers, none of which is started, begins with.
    pub(crate) fn new(settings: PoolBuilder, size: usize) -> Result<Arc<Self>, PoolError> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let results_room = room_for_results(size);
        let (result_sender, results) = dynamic::channel(results_room).map_err(PoolError::Channel)?;
        let session = Session::current().map_err(|error| PoolError::Spawn(SpawnError::Session(error)))?;
        let limits = Limits {
            tasks_max: settings.tasks_max,
            memory_max_kib: settings.memory_max.map(|bytes| bytes >> 10),
        };
        Ok(Arc::new(Self {
            number,
            state: Mutex::new(State {
                number,
                is_timed: settings.task_timeout.is_some() || settings.idle_timeout.is_some(),
                dispatcher: Dispatcher::default(),
                workers: FxHashMap::default(),
                leaving: Vec::new(),
                tasks: FxHashMap::default(),
                settled: FxHashMap::default(),
                finals: Vec::new(),
                spent: Vec::new(),
                calls: Vec::new(),
                wakes: Vec::new(),
                next_task: 0,
                next_worker: 0,
                size,
                in_background: 0,
                has_unwanted: false,
                driving: false,
                drives: 0,
                helper_sleeps: false,
                waiters: 0,
                helper: None,
                deaths_seen: None,
                start_look: START_LOOK_FIRST,
                failed_starts: 0,
                start_failure: None,
                deaths: VecDeque::new(),
                closed: false,
                over: false,
                broken: None,
                records: Records::new(settings.has_timeline),
            }),
            changed: Condvar::new(),
            help: Condvar::new(),
            results,
            result_sender,
            results_room,
            settings,
            limits,
            session,
        }))
    }

    /// # Panics
    /// If user code calls this that encodes something for this pool.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        check_not_encoding(self.number);
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the mutex back, then calls and wakes who is to be, and drops arguments.
    pub(crate) fn release(&self, mut state: MutexGuard<'_, State>) {
        let (calls, wakes) = (std::mem::take(&mut state.calls), std::mem::take(&mut state.wakes));
        let spent = std::mem::take(&mut state.spent);
        drop(state);
        wakes.into_iter().for_each(poller::wake);
        for (call, settled) in calls {
            // The panic hook has said what there is to say.
            let _ = mp_spawn::panics::catch(|| call(settled));
        }
        for send in spent {
            // As above.
            let _ = mp_spawn::panics::catch(|| drop(send));
        }
    }

    /// [`release`](Self::release), and takes the mutex again, if there is anybody to call.
    fn pause<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.calls.is_empty() && state.wakes.is_empty() && state.spent.is_empty() {
            return state;
        }
        self.release(state);
        self.lock()
    }

    /// Takes up a task; waits first if there is a bound of tasks in flight.
    pub(crate) fn enter(self: &Arc<Self>, entered: Entered) -> Result<TaskId, PoolError> {
        if let Some(most) = self.settings.in_flight {
            // A broken or closed pool has none that are unfinished.
            self.wait_for(None, |state| (state.dispatcher.unfinished() < most).then_some(()));
        }
        let mut state = self.lock();
        state.check_open()?;
        let id = state.next_task;
        state.next_task += 1;
        state.tasks.insert(id, Box::new(entered));
        state.records.span.submitted(id);
        state.dispatcher.submit(id);
        if state.dispatcher.packs() && !state.driving {
            // Whoever has done what it had gets more before others are woken.
            state.drives += 1;
            self.take_in_what_is_there(&mut state);
            self.announce(&state);
        } else {
            state.assign(self.limits);
        }
        if state.dispatcher.queued() > 0 {
            self.fill(&mut state);
            state.assign(self.limits);
        }
        self.call_helper(&mut state);
        self.release(state);
        Ok(id)
    }

    /// Waits until `found` gives something, as the driver if there is none; `None` after `until`.
    pub(crate) fn wait_for<T>(
        &self,
        until: Option<Instant>,
        mut found: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            let result = found(&mut state);
            if result.is_some() || until.is_some_and(|until| until <= Instant::now()) {
                if self.needs_driver(&state) || (state.helper_sleeps && state.has_more()) {
                    self.help.notify_one();
                }
                if !state.driving && state.waiters > 0 {
                    self.changed.notify_one();
                }
                self.release(state);
                return result;
            }
            state = if state.driving { self.sleep(state, until) } else { self.drive(state, until) };
            state = self.pause(state);
        }
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>, until: Option<Instant>) -> MutexGuard<'a, State> {
        state.waiters += 1;
        let mut state = match until {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.waiters -= 1;
        state
    }

    /// Waits until a task is settled.
    pub(crate) fn wait(&self, task: TaskId) -> Settled {
        let settled = self.wait_for(None, |state| {
            let settled = state.settled.remove(&task).map(|settled| *settled);
            settled.or_else(|| (!state.tasks.contains_key(&task)).then(|| Err(self.closed(task))))
        });
        settled.unwrap_or_else(|| Err(self.closed(task)))
    }

    fn closed(&self, task: TaskId) -> TaskError {
        TaskError::new(TaskErrorKind::Pool(PoolError::Closed), task)
    }

    pub(crate) fn is_settled(&self, task: TaskId) -> bool {
        let mut state = self.lock();
        if !state.driving {
            self.take_in_what_is_there(&mut state);
        }
        let is_settled = state.is_settled(task);
        self.announce(&state);
        self.release(state);
        is_settled
    }

    pub(crate) fn cancel(&self, task: TaskId) -> bool {
        let mut state = self.lock();
        if !state.driving {
            self.take_in_what_is_there(&mut state);
        }
        let was_there = state.stop(task, TaskErrorKind::Cancelled);
        state.assign(self.limits);
        self.announce(&state);
        self.release(state);
        was_there
    }

    pub(crate) fn forget(&self, task: TaskId) {
        let mut state = self.lock();
        state.settled.remove(&task);
        let is_kept = state.tasks.get(&task).is_some_and(|entered| entered.is_kept);
        if !is_kept && state.dispatcher.withdraw(task) {
            if let Some(entered) = state.tasks.remove(&task) {
                state.in_background -= usize::from(entered.waker.is_some());
                state.spent.push(entered.send);
            }
        } else if let Some(entered) = state.tasks.get_mut(&task) {
            entered.claim = Claim::Nobody;
        }
        self.release(state);
    }

    /// Has a task run although its handle is dropped.
    pub(crate) fn keep(&self, task: TaskId) {
        if let Some(entered) = self.lock().tasks.get_mut(&task) {
            entered.is_kept = true;
        }
    }

    pub(crate) fn session(&self) -> Session {
        self.session
    }

    pub(crate) fn call_when_settled(self: &Arc<Self>, task: TaskId, call: Call) {
        let mut state = self.lock();
        if let Some(settled) = state.settled.remove(&task) {
            state.calls.push((call, *settled));
        } else if let Some(entered) = state.tasks.get_mut(&task) {
            let was_awaited = entered.waker.is_some();
            entered.claim = Claim::Call(call);
            state.in_background += usize::from(!was_awaited);
            self.call_helper(&mut state);
        } else {
            let closed = Err(self.closed(task));
            state.calls.push((call, closed));
        }
        self.release(state);
    }

    /// What became of a task, or `None`, and `waker` is woken when it is known.
    pub(crate) fn poll(self: &Arc<Self>, task: TaskId, waker: &Waker) -> Option<Settled> {
        let mut state = self.lock();
        if !state.driving {
            self.take_in_what_is_there(&mut state);
        }
        let settled = match state.settled.remove(&task) {
            Some(settled) => Some(*settled),
            None => match state.tasks.get_mut(&task) {
                Some(entered) => {
                    let was_awaited = entered.waker.replace(waker.clone()).is_some();
                    state.in_background += usize::from(!was_awaited);
                    self.call_helper(&mut state);
                    None
                }
                None => Some(Err(self.closed(task))),
            },
        };
        self.announce(&state);
        self.release(state);
        settled
    }

    /// Waits for one thing to happen and takes it in, as the driver.
    fn drive<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        // Read before the workers are looked at: a death after that ends the wait.
        let deaths = self.results.deaths();
        let starting = state.workers.keys().any(|&worker| !state.dispatcher.is_ready(worker));
        if starting || state.deaths_seen != Some(deaths) {
            state.deaths_seen = Some(deaths);
            if self.bury(&mut state) {
                state.assign(self.limits);
                self.announce(&state);
                return state;
            }
        }
        let look = starting.then(|| {
            let look = state.start_look;
            state.start_look = (look * 2).min(START_LOOK_LAST);
            Instant::now() + look
        });
        // What is done is not late, however late this thread comes to look.
        let took_in = state.is_timed && self.take_in_what_is_there(&mut state);
        let timer = self.tend(&mut state);
        if took_in {
            // What somebody waits for, this thread too, may be among it.
            self.announce(&state);
            return state;
        }
        let uneven = state.dispatcher.has_idle() && state.dispatcher.with_tasks_behind().next().is_some();
        let uneven = uneven.then(|| Instant::now() + Duration::from_nanos(UNEVEN_NANOS));
        let until = [look, timer, until, uneven].into_iter().flatten().min();
        state.driving = true;
        state.drives += 1;
        drop(state);
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let received = self.results.recv_or_death(deaths, left);
        let mut state = self.lock();
        state.driving = false;
        match received {
            Ok(message) => {
                state.take_in(message, self.limits);
                self.take_in_what_is_there(&mut state);
            }
            Err(RecvError::Death) => {}
            Err(RecvError::Empty) => {
                if uneven.is_some_and(|uneven| uneven <= Instant::now()) {
                    self.even_out(&mut state);
                }
            }
            Err(error) => self.break_down(&mut state, Broken::Text(error.to_string())),
        }
        self.announce(&state);
        state
    }

    /// Nothing has come for a while, a worker has nothing to do, and others have tasks behind the one that they run: those are for all.
    fn even_out(&self, state: &mut State) {
        // It takes longer than what they were given so many for.
        state.dispatcher.pace(UNEVEN_NANOS);
        let with_tasks_behind: Vec<_> = state.dispatcher.with_tasks_behind().collect();
        for worker in with_tasks_behind {
            state.take_back(worker);
        }
        state.end_wasting();
        state.assign(self.limits);
    }

    /// Tasks that each of so many workers may have.
    pub(crate) fn room_of_each(&self, workers: usize) -> usize {
        (self.results_room / workers.max(1)).saturating_sub(BESIDE).clamp(WINDOW, WINDOW_MAX)
    }

    fn announce(&self, state: &State) {
        if state.waiters > 0 {
            self.changed.notify_all();
        }
    }

    /// Says whether there was anything.
    fn take_in_what_is_there(&self, state: &mut State) -> bool {
        let mut took_in = false;
        // Looking first costs less than being refused.
        while !self.results.is_empty()
            && let Ok(message) = self.results.try_recv()
        {
            state.take_in(message, self.limits);
            took_in = true;
        }
        self.let_go(state);
        state.assign(self.limits);
        took_in
    }

    /// Makes sure that tasks are seen to although nobody waits. Without the thread for that the pool is broken.
    fn call_helper(self: &Arc<Self>, state: &mut State) {
        if !self.needs_driver(state) && !state.has_more() {
            return;
        }
        if state.helper.is_some() {
            if state.helper_sleeps || self.needs_driver(state) {
                self.help.notify_one();
            }
            return;
        }
        let shared = self.clone();
        match std::thread::Builder::new().name("mp-pool".to_owned()).spawn(move || shared.help()) {
            Ok(helper) => state.helper = Some(helper),
            Err(error) => self.break_down(state, Broken::Text(PoolError::Thread(error).to_string())),
        }
    }

    fn help(&self) {
        let mut state = self.lock();
        // Whether nobody else drives, so that workers would run out of tasks; looked at the less often the longer others do.
        let (mut is_alone, mut look) = (false, HELP_LOOK_FIRST);
        while !state.over {
            state = if self.needs_driver(&state) || (is_alone && !state.driving && state.has_more()) {
                let state = self.drive(state, None);
                self.pause(state)
            } else if state.has_more() {
                let drives = state.drives;
                let waited = self.help.wait_timeout(state, look);
                let state = waited.unwrap_or_else(PoisonError::into_inner).0;
                is_alone = !state.driving && state.drives == drives;
                look = if is_alone { HELP_LOOK_FIRST } else { HELP_LOOK_LAST.min(look * 2) };
                state
            } else {
                state.helper_sleeps = true;
                let mut state = self.help.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.helper_sleeps = false;
                look = HELP_LOOK_FIRST;
                state
            };
        }
    }

    fn needs_driver(&self, state: &State) -> bool {
        state.needs_driver(self.settings.idle_timeout.is_some())
    }

    /// Lets all tasks be done and all workers end.
    pub(crate) fn finish(&self) -> Result<(), PoolError> {
        self.lock().closed = true;
        self.wait_for(None, |state| (state.dispatcher.unfinished() == 0).then_some(()));
        let mut state = self.lock();
        let workers: Vec<_> = state.workers.keys().copied().collect();
        for worker in workers {
            state.dispatcher.retire(worker);
        }
        self.let_go(&mut state);
        let leaving = std::mem::take(&mut state.leaving);
        let broken = state.broken.clone();
        self.release(state);
        self.see_off(leaving);
        broken.map_or(Ok(()), |broken| Err(broken.error()))
    }

    /// Waits for the end of workers that were let go of. What they still send is taken in, so that none waits for room.
    fn see_off(&self, processes: Vec<Process<()>>) {
        for process in processes {
            // An error means that it is not to be waited for.
            while process.wait_timeout(DRAIN).is_ok_and(|has_ended| !has_ended) {
                let mut state = self.lock();
                self.take_in_what_is_there(&mut state);
                self.release(state);
            }
            // How it ends is nobody's concern any more: it has done all its tasks.
            let _ = process.join();
        }
        let mut state = self.lock();
        self.take_in_what_is_there(&mut state);
        self.release(state);
    }

    /// Ends everything.
    pub(crate) fn close(&self, kills: bool) {
        let mut state = self.lock();
        state.closed = true;
        state.over = true;
        let mut processes: Vec<Process<()>> = std::mem::take(&mut state.leaving);
        // Dropping its task channel tells an idle worker to end.
        processes.extend(state.workers.drain().map(|(_, worker)| worker.process));
        let tasks: Vec<TaskId> = state.tasks.keys().copied().collect();
        for task in tasks {
            state.dispatcher.cancel(task);
            state.fail(task, TaskErrorKind::Pool(PoolError::Closed));
        }
        let helper = state.helper.take();
        self.changed.notify_all();
        self.help.notify_all();
        self.release(state);
        for process in &processes {
            if kills {
                // One that has ended meanwhile is no error, and of one that cannot be killed we can only wait for the end.
                let _ = process.kill();
            }
        }
        self.see_off(processes);
        // From a callback, the helper itself may be the one that drops the pool.
        if let Some(helper) = helper.filter(|helper| helper.thread().id() != std::thread::current().id()) {
            // A panic in it has been printed; there is nobody else to tell.
            let _ = helper.join();
        }
    }
}
