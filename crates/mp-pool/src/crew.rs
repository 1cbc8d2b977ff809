//! The workers of a pool: starting, replacing, letting go of them.

use crate::builder::processors;
use crate::dispatcher::{Fate, WorkerId};
use crate::drive::{START_LOOK_FIRST, Shared};
use crate::error::{PoolError, TaskError, TaskErrorKind};
use crate::failure;
use crate::state::{Broken, State, Worker};
use crate::worker::{self, NOWHERE, Orders};
use mp_channel::dynamic;
use mp_shm::value::Value;
use mp_spawn::{JoinError, Process, SpawnError};
use std::time::Instant;

/// Variables by which libraries are told how many threads to start.
const THREAD_VARIABLES: [&str; 4] =
    ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"];
/// What a worker and its pool may still send each other when it starts: initializer and finalizer.
const STEPS: usize = 2;
/// SIGINT.
const INTERRUPT: i32 = 2;

impl Shared {
    pub(crate) fn start_worker(&self, state: &mut State) -> Result<(), PoolError> {
        let settings = &self.settings;
        let room = self.room_of_each(state.size);
        let (tasks, receiver) = dynamic::channel(room + STEPS).map_err(PoolError::Channel)?;
        let id = state.next_worker;
        let progress = Value::new(NOWHERE).map_err(|error| PoolError::Spawn(SpawnError::Session(error)))?;
        // Whatever ends this process, no worker outlives it.
        let mut builder = Process::builder().daemon(true).name(format!("{}-{id}", settings.name));
        if let Some(method) = settings.method {
            builder = builder.start_method(method);
        }
        if settings.limits_threads {
            let each = (processors() / state.size.max(1)).max(1).to_string();
            for name in THREAD_VARIABLES.into_iter().filter(|name| std::env::var_os(name).is_none()) {
                builder = builder.env(name, &each);
            }
        }
        if settings.pins
            && let Some(processor) = self.processor(id)
        {
            builder = builder.processors([processor]);
        }
        let orders = Orders {
            worker: id,
            has_initializer: settings.initializer.is_some(),
            has_finalizer: settings.finalizer.is_some(),
            tells_memory: settings.memory_max.is_some(),
        };
        for step in [&settings.initializer, &settings.finalizer].into_iter().flatten() {
            let entry = worker::seal(self.session(), step.entry);
            let entry = entry.map_err(|error| PoolError::Spawn(SpawnError::Code(error)))?;
            let sent = (step.send)(&tasks, [0, entry[0], entry[1], 0]);
            sent.map_err(|error| PoolError::Worker(Box::new(TaskErrorKind::Encode(error))))?;
        }
        let argument = (orders, receiver.clone(), self.result_sender.clone(), progress.clone());
        let process = builder.spawn(worker::main, argument).map_err(PoolError::Spawn)?;
        state.next_worker += 1;
        state.records.started(id, process.pid());
        state.workers.insert(
            id,
            Worker {
                process,
                tasks,
                untaken: receiver,
                progress,
                since: (None, Instant::now()),
                is_ended: false,
            },
        );
        state.dispatcher.worker_started(id, room);
        state.start_look = START_LOOK_FIRST;
        Ok(())
    }

    /// The processor of a worker that is to have one of its own.
    fn processor(&self, worker: WorkerId) -> Option<usize> {
        let mask = mp_sys::cpu::affinity();
        let ours: Vec<usize> =
            (0..mask.len() * 64).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect();
        usize::try_from(worker).ok().and_then(|worker| ours.get(worker % ours.len().max(1)).copied())
    }

    /// Starts workers for tasks that have none, as many as there may be.
    pub(crate) fn fill(&self, state: &mut State) {
        let active = state.dispatcher.active().count();
        let is_over =
            state.over || state.broken.is_some() || (state.closed && state.dispatcher.unfinished() == 0);
        let wanted = if is_over {
            0
        } else if self.settings.idle_timeout.is_some() {
            state.size.min(active + state.dispatcher.queued())
        } else {
            state.size
        };
        for _ in active..wanted {
            if let Err(error) = self.start_worker(state) {
                self.break_down(state, Broken::Text(error.to_string()));
                return;
            }
        }
    }

    /// Lets go of workers that retire and have nothing left to do; others take their place.
    pub(crate) fn let_go(&self, state: &mut State) {
        let spent = state.dispatcher.spent();
        if spent.is_empty() {
            return;
        }
        for id in spent {
            state.dispatcher.died(id);
            state.records.ended(id, String::from("let go of"));
            if let Some(worker) = state.workers.remove(&id) {
                state.records.totals.workers_lost += u64::from(worker.is_ended);
                // Its task channel goes, which tells it to end.
                state.leaving.push(worker.process);
            }
        }
        self.fill(state);
    }

    /// Ends what has run for too long, lets go of who has had nothing to do for long; says when to look again.
    pub(crate) fn tend(&self, state: &mut State) -> Option<Instant> {
        if !state.is_timed {
            return None;
        }
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut is_due = |since: Instant, time: Option<std::time::Duration>| {
            // A time beyond the end of time is none.
            let Some(due) = time.and_then(|time| since.checked_add(time)) else { return false };
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
            due <= now
        };
        let (mut late, mut idle) = (Vec::new(), Vec::new());
        for (&id, worker) in &state.workers {
            match worker.since {
                (Some(task), since) if is_due(since, self.settings.task_timeout) => late.push(task),
                (None, since)
                    if state.dispatcher.is_ready(id)
                        && state.dispatcher.load(id) == 0
                        && is_due(since, self.settings.idle_timeout) =>
                {
                    idle.push(id);
                }
                _ => {}
            }
        }
        for task in late {
            state.stop(task, TaskErrorKind::TimedOut);
        }
        state.assign(self.limits);
        for worker in idle {
            state.dispatcher.retire(worker);
        }
        self.let_go(state);
        next
    }

    /// Replaces workers that have died; says whether there were any.
    pub(crate) fn bury(&self, state: &mut State) -> bool {
        state.leaving.retain(|process| !process.is_finished());
        let dead: Vec<WorkerId> = state
            .workers
            .iter()
            .filter(|(id, worker)| {
                worker.untaken.is_alone()
                    || (!state.dispatcher.is_ready(**id) && worker.process.is_finished())
            })
            .map(|(id, _)| *id)
            .collect();
        for &id in &dead {
            // What the dead had sent counts.
            while let Ok(message) = self.results.try_recv() {
                state.take_in(message, self.limits);
            }
            let Some(worker) = state.workers.remove(&id) else { continue };
            self.bury_one(state, id, worker);
        }
        if !dead.is_empty() {
            self.let_go(state);
            self.fill(state);
        }
        !dead.is_empty()
    }

    fn bury_one(&self, state: &mut State, id: WorkerId, worker: Worker) {
        let was_ready = state.dispatcher.is_ready(id);
        let Worker { process, progress, is_ended, .. } = worker;
        let pid = process.pid();
        let cause = process.join().err().unwrap_or(JoinError::Exited(0));
        let text = cause.to_string();
        state.records.totals.workers_lost += 1;
        state.records.ended(id, text.clone());
        if !is_ended && cause.signal() == Some(INTERRUPT) {
            state.dispatcher.died(id);
            self.break_down(state, Broken::Interrupted);
            return;
        }
        for fate in state.dispatcher.died(id) {
            match fate {
                // The task that it was ended for is settled; this one has come after it, and is no more to blame than the worker.
                Fate::Run(task) if is_ended => state.dispatcher.again(task),
                Fate::Run(task) => self.judge(state, task, pid, &cause, progress.get()),
                Fate::Requeued(task) => state.was_not_begun(task),
            }
        }
        if is_ended {
            return;
        }
        if !was_ready {
            state.failed_starts += 1;
            if failure::is_hopeless(state.failed_starts, state.size) {
                let why = state.start_failure.take().unwrap_or(text);
                self.break_down(state, Broken::Text(failure::never_ready(&why)));
                return;
            }
        }
        if let Some((most, time)) = self.settings.restarts {
            let now = Instant::now();
            state.deaths.push_back(now);
            state.deaths.retain(|death| now.duration_since(*death) <= time);
            if state.deaths.len() > most {
                let deaths = state.deaths.len();
                let text = format!("{deaths} workers died within {time:?}, the last one thus: {text}");
                self.break_down(state, Broken::Text(text));
            }
        }
    }

    /// What becomes of the task that a worker ran when it died.
    fn judge(&self, state: &mut State, task: u64, pid: u32, cause: &JoinError, progress: u64) {
        let retries = self.settings.retries;
        let Some(entered) = state.tasks.get_mut(&task) else { return };
        // Where panics abort. It is the task's own failure, which is not tried again elsewhere either.
        let is_panic = matches!(cause, JoinError::Panicked(_));
        let kind = |deaths: u32| {
            if retries > 0 && !is_panic {
                TaskErrorKind::Quarantined { deaths, last: cause.to_string() }
            } else {
                TaskErrorKind::of_death(cause)
            }
        };
        if entered.is_chunk
            && progress != NOWHERE
            && let Ok(item) = u32::try_from(progress - 1)
        {
            let losses = entered.losses.get_or_insert_default();
            let charged = losses.charged.entry(item).or_insert(0);
            *charged += 1;
            let deaths = *charged;
            if deaths > retries || is_panic {
                losses.skips.push(item);
                let error = TaskError { kind: kind(deaths), task, pid: Some(pid), attempts: deaths };
                losses.lost.push((item, error));
            } else {
                state.records.totals.tasks_retried += 1;
            }
            state.dispatcher.again(task);
            return;
        }
        let deaths = state.dispatcher.charge(task);
        if deaths > retries || is_panic {
            state.dispatcher.gone(task);
            let attempts = entered.attempts;
            state.settle(task, Err(TaskError { kind: kind(deaths), task, pid: Some(pid), attempts }));
        } else {
            state.records.totals.tasks_retried += 1;
            state.dispatcher.again(task);
        }
    }

    /// Gives up: no task can be done any more.
    pub(crate) fn break_down(&self, state: &mut State, broken: Broken) {
        let unfinished: Vec<u64> = state.tasks.keys().copied().collect();
        for task in unfinished {
            state.stop(task, TaskErrorKind::Pool(broken.error()));
        }
        state.broken = Some(broken);
    }
}
