//! What a pool knows, behind its one mutex.

use crate::dispatcher::{Cancelled, Dispatcher, TaskId, WorkerId};
use crate::error::{PoolError, TaskError, TaskErrorKind};
use crate::failure;
use crate::stats::Records;
use crate::worker::{FAILED, FINAL, Failure, READY, REFUSED};
use mp_channel::SendFailure;
use mp_channel::dynamic::{DynMessage, DynReceiver, DynSender, Tag};
use mp_shm::codec::Payload;
use mp_shm::value::Value;
use mp_spawn::Process;
use mp_spawn::code::SealedCode;
use mp_spawn::panics::{self, Panic};
use rustc_hash::FxHashMap;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::task::Waker;
use std::time::{Duration, Instant};

/// What a worker sent for a task.
pub(crate) struct Done {
    pub(crate) payload: Payload,
    pub(crate) task: TaskId,
    pub(crate) pid: u32,
    pub(crate) attempts: u32,
    /// How long it took.
    pub(crate) nanos: u64,
    /// What it was sent as, in KiB.
    pub(crate) argument_kib: u64,
    /// Inputs of a chunk that ended their worker.
    pub(crate) lost: Vec<(u32, TaskError)>,
}

/// What became of a task.
pub(crate) type Settled = Result<Done, TaskError>;

/// Sends a task to a worker; may be called again for another try, then with what is known of the inputs if it is a chunk.
pub(crate) type SendTask = Box<dyn Fn(&DynSender, Tag, Option<&Losses>) -> Result<(), SendFailure> + Send>;

pub(crate) type Call = Box<dyn FnOnce(Settled) + Send>;

/// Who wants to know what becomes of a task.
pub(crate) enum Claim {
    Handle,
    Nobody,
    Call(Call),
}

pub(crate) struct Entered {
    pub(crate) entry: SealedCode,
    pub(crate) send: SendTask,
    pub(crate) claim: Claim,
    pub(crate) waker: Option<Waker>,
    pub(crate) attempts: u32,
    /// The worker that was given it last.
    pub(crate) pid: Option<u32>,
    /// It is run although its handle is gone.
    pub(crate) is_kept: bool,
    /// Whether it is a chunk, whose inputs fail one by one.
    pub(crate) is_chunk: bool,
    pub(crate) losses: Option<Box<Losses>>,
}

/// What is known of the inputs of a chunk that have ended workers.
#[derive(Default)]
pub(crate) struct Losses {
    /// Deaths that inputs of a chunk are charged with.
    pub(crate) charged: HashMap<u32, u32>,
    /// Inputs that are passed over.
    pub(crate) skips: Vec<u32>,
    pub(crate) lost: Vec<(u32, TaskError)>,
}

impl Losses {
    /// The inputs to pass over.
    pub(crate) fn skips_of(losses: Option<&Self>) -> Vec<u32> {
        losses.map_or_else(Vec::new, |losses| losses.skips.clone())
    }

    /// How many inputs there are up to the last that has ended a worker.
    pub(crate) fn reach_of(losses: Option<&Self>) -> u32 {
        losses.and_then(|losses| losses.charged.keys().max()).map_or(0, |last| last.saturating_add(1))
    }
}

pub(crate) struct Worker {
    pub(crate) process: Process<()>,
    pub(crate) tasks: DynSender,
    /// The other end of that: what the worker has not begun can be taken back.
    pub(crate) untaken: DynReceiver,
    pub(crate) progress: Value<u64>,
    /// The task that it runs, and since when; or since when it has had nothing to do. Kept up for who has time-outs.
    pub(crate) since: (Option<TaskId>, Instant),
    /// The pool has ended it on purpose.
    pub(crate) is_ended: bool,
}

/// Why a pool takes no more tasks.
#[derive(Clone)]
pub(crate) enum Broken {
    Text(String),
    Interrupted,
}

impl Broken {
    pub(crate) fn error(&self) -> PoolError {
        match self {
            Self::Text(text) => PoolError::Broken(text.clone()),
            Self::Interrupted => PoolError::Interrupted,
        }
    }
}

pub(crate) struct State {
    /// Tells pools of this process apart; from 1 on.
    pub(crate) number: u64,
    /// Tasks or idle workers have a time-out.
    pub(crate) is_timed: bool,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) workers: FxHashMap<WorkerId, Worker>,
    /// Workers that the pool has let go of, and which have not ended yet.
    pub(crate) leaving: Vec<Process<()>>,
    pub(crate) tasks: FxHashMap<TaskId, Box<Entered>>,
    pub(crate) settled: FxHashMap<TaskId, Box<Settled>>,
    /// What finalizers have sent.
    pub(crate) finals: Vec<DynMessage>,
    /// What sent tasks that are settled, with their arguments, whose destructors are the user's: dropped when the mutex is free.
    pub(crate) spent: Vec<SendTask>,
    /// To be called and woken when the mutex is free.
    pub(crate) calls: Vec<(Call, Settled)>,
    pub(crate) wakes: Vec<Waker>,
    pub(crate) next_task: TaskId,
    pub(crate) next_worker: WorkerId,
    /// How many workers there are to be.
    pub(crate) size: usize,
    /// Unfinished tasks that nobody waits for by blocking.
    pub(crate) in_background: usize,
    /// Workers may have cancelled tasks behind others.
    pub(crate) has_unwanted: bool,
    /// Somebody reads results.
    pub(crate) driving: bool,
    /// How often somebody has begun to.
    pub(crate) drives: u64,
    /// The helper waits to be called.
    pub(crate) helper_sleeps: bool,
    /// Threads asleep until something is settled.
    pub(crate) waiters: usize,
    pub(crate) helper: Option<std::thread::JoinHandle<()>>,
    /// Deaths in the session when workers were last looked at.
    pub(crate) deaths_seen: Option<u32>,
    /// How long to wait before looking at starting workers again.
    pub(crate) start_look: Duration,
    /// Workers in a row that ended before they were ready, and what the last initializer that failed told.
    pub(crate) failed_starts: usize,
    pub(crate) start_failure: Option<String>,
    /// When workers died that nobody ended.
    pub(crate) deaths: VecDeque<Instant>,
    /// Takes no more tasks.
    pub(crate) closed: bool,
    /// The helper is to end.
    pub(crate) over: bool,
    pub(crate) broken: Option<Broken>,
    pub(crate) records: Records,
}

thread_local! {
    /// The number of the pool whose mutex this thread has while it encodes what its user gave it.
    static ENCODING_FOR: Cell<u64> = const { Cell::new(0) };
}

/// Runs user code that encodes something, under the mutex of the pool with this number; it may panic.
fn encoding<T>(pool: u64, encode: impl FnOnce() -> T) -> Result<T, Panic> {
    let before = ENCODING_FOR.replace(pool);
    let encoded = panics::catch(encode);
    ENCODING_FOR.set(before);
    encoded
}

/// Refuses to let the calling thread wait for itself.
///
/// # Panics
/// It encodes something for the pool with this number, and has its mutex.
pub(crate) fn check_not_encoding(pool: u64) {
    assert!(ENCODING_FOR.get() != pool, "what is being encoded for a pool cannot use that pool");
}

/// What of a pool's settings its state needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) tasks_max: Option<u64>,
    pub(crate) memory_max_kib: Option<u64>,
}

impl State {
    /// Why no task can be submitted.
    pub(crate) fn check_open(&self) -> Result<(), PoolError> {
        match &self.broken {
            Some(broken) => Err(broken.error()),
            None if self.closed => Err(PoolError::Closed),
            None => Ok(()),
        }
    }

    pub(crate) fn is_settled(&self, task: TaskId) -> bool {
        self.settled.contains_key(&task) || !self.tasks.contains_key(&task)
    }

    /// Sends queued tasks to workers that have room.
    pub(crate) fn assign(&mut self, limits: Limits) {
        while let Some((worker, task)) = self.dispatcher.assign() {
            if limits.tasks_max.is_some_and(|most| self.dispatcher.given(worker) >= most) {
                self.dispatcher.retire(worker);
            }
            let (Some(entered), Some(to)) = (self.tasks.get_mut(&task), self.workers.get(&worker)) else {
                continue;
            };
            let tag = [task, entered.entry[0], entered.entry[1], 0];
            // Encoding runs the argument's own code, which may panic.
            let losses = entered.losses.as_deref();
            let sent = encoding(self.number, || (entered.send)(&to.tasks, tag, losses));
            let sent = sent.unwrap_or_else(|panic| {
                Err(SendFailure::Encode(mp_shm::codec::EncodeError::Value(panic.to_string())))
            });
            match sent {
                // A worker that has just died: its death will be reported, and the task with it.
                Ok(()) | Err(SendFailure::Disconnected) => {
                    entered.attempts += 1;
                    entered.pid = Some(to.process.pid());
                    self.touch(worker);
                }
                Err(SendFailure::Full) => self.dispatcher.had_no_room(worker, task),
                Err(failure) => {
                    self.dispatcher.finished(worker, task);
                    self.fail(task, TaskErrorKind::Encode(failure));
                }
            }
        }
    }

    /// Notes since when a worker has been at what it is at.
    fn touch(&mut self, worker: WorkerId) {
        if self.is_timed
            && let running = self.dispatcher.running(worker)
            && let Some(worker) = self.workers.get_mut(&worker)
            && worker.since.0 != running
        {
            worker.since = (running, Instant::now());
        }
    }

    /// The task has no value.
    pub(crate) fn fail(&mut self, task: TaskId, kind: TaskErrorKind) {
        if let Some(entered) = self.tasks.get(&task) {
            let (pid, attempts) = (entered.pid, entered.attempts);
            self.settle(task, Err(TaskError { kind, task, pid, attempts }));
        }
    }

    pub(crate) fn settle(&mut self, task: TaskId, settled: Settled) {
        match &settled {
            Ok(done) => {
                self.records.totals.tasks_done += 1;
                self.records.span.settled(task, Some(done.pid), Ok(done.nanos));
            }
            Err(error) => {
                self.records.totals.tasks_failed += 1;
                self.records.span.settled(task, error.pid, Err(&error.kind));
            }
        }
        let Some(entered) = self.tasks.remove(&task) else { return };
        let Entered { send, claim, waker, .. } = *entered;
        self.spent.push(send);
        if waker.is_some() || matches!(claim, Claim::Call(_)) {
            self.in_background -= 1;
        }
        self.wakes.extend(waker);
        match claim {
            Claim::Handle => {
                self.settled.insert(task, Box::new(settled));
            }
            Claim::Nobody => {}
            Claim::Call(call) => self.calls.push((call, settled)),
        }
    }

    /// Ends a task that is not done, whatever it takes; says whether it was there.
    pub(crate) fn stop(&mut self, task: TaskId, kind: TaskErrorKind) -> bool {
        if !self.tasks.contains_key(&task) {
            return false;
        }
        self.fail(task, kind);
        match self.dispatcher.cancel(task) {
            Cancelled::Gone => {}
            Cancelled::Run(worker) => self.end(worker),
            Cancelled::Behind(worker) => {
                self.take_back(worker);
                // The worker may have taken it meanwhile, even before one that was taken back: then nothing more comes before it.
                self.has_unwanted = true;
                self.end_wasting();
            }
        }
        true
    }

    /// Takes tasks back that a worker has not begun, for others to do. It takes its next one at the same time: so of several any may stay with it.
    pub(crate) fn take_back(&mut self, worker: WorkerId) {
        let Some(at) = self.workers.get(&worker) else { return };
        if !self.dispatcher.is_ready(worker) && !at.is_ended {
            // What its steps take is there, too.
            return;
        }
        let tasks: Vec<TaskId> =
            std::iter::from_fn(|| at.untaken.try_recv().ok()).map(|message| message.tag()[0]).collect();
        for task in self.dispatcher.taken_back(worker, &tasks) {
            self.was_not_begun(task);
        }
        // It may have nothing now, and the task that was its first is somebody else's.
        self.touch(worker);
    }

    /// A task that a worker was given was not begun there.
    pub(crate) fn was_not_begun(&mut self, task: TaskId) {
        if let Some(entered) = self.tasks.get_mut(&task) {
            entered.attempts = entered.attempts.saturating_sub(1);
        }
    }

    /// Ends workers that run what nobody wants any more.
    pub(crate) fn end_wasting(&mut self) {
        if self.has_unwanted {
            let wasting: Vec<WorkerId> = self.dispatcher.wasting().collect();
            for worker in wasting {
                self.end(worker);
            }
            self.has_unwanted = self.dispatcher.has_unwanted();
        }
    }

    /// Kills a worker on purpose; that it is dead is found like any death. It gets nothing more.
    fn end(&mut self, worker: WorkerId) {
        self.dispatcher.retire(worker);
        if let Some(ended) = self.workers.get_mut(&worker) {
            ended.is_ended = true;
            // One that has ended meanwhile is no error.
            let _ = ended.process.kill();
        }
        self.take_back(worker);
    }

    /// Takes in a message from a worker.
    pub(crate) fn take_in(&mut self, message: DynMessage, limits: Limits) {
        let [task, worker, what, nanos] = message.tag();
        let (what, memory_kib, argument_kib) = crate::worker::parts(what);
        match what {
            READY => {
                self.dispatcher.worker_ready(worker);
                if self.has_unwanted {
                    self.take_back(worker);
                }
                self.records.ready(worker);
                self.failed_starts = 0;
            }
            FAILED => {
                self.start_failure = Some(match message.decode::<Failure>() {
                    Ok(failure) => failure::of_initializer(&failure.into()),
                    Err(error) => error.to_string(),
                });
                return;
            }
            FINAL => {
                self.finals.push(message);
                return;
            }
            what => {
                if !self.dispatcher.finished(worker, task) {
                    return;
                }
                self.dispatcher.pace(nanos);
                self.records.finished(worker, task, nanos, memory_kib);
                if limits.memory_max_kib.is_some_and(|most| memory_kib > most) {
                    self.dispatcher.retire(worker);
                    self.take_back(worker);
                }
                if what == REFUSED {
                    let text = message.decode::<String>().unwrap_or_else(|error| error.to_string());
                    self.fail(task, TaskErrorKind::Refused(text));
                } else if let Some(entered) = self.tasks.get_mut(&task) {
                    let pid = entered.pid.unwrap_or_default();
                    let lost = entered.losses.take().map_or_else(Vec::new, |losses| losses.lost);
                    let attempts = entered.attempts;
                    self.settle(
                        task,
                        Ok(Done {
                            payload: message.into_payload(),
                            task,
                            pid,
                            attempts,
                            nanos,
                            argument_kib,
                            lost,
                        }),
                    );
                }
            }
        }
        self.end_wasting();
        self.touch(worker);
    }

    /// Whether tasks need somebody to see to them at once though nobody waits.
    pub(crate) fn needs_driver(&self, has_idle_timeout: bool) -> bool {
        !self.driving
            && (self.in_background > 0
                || (self.is_timed && self.dispatcher.unfinished() > 0)
                || (has_idle_timeout && !self.workers.is_empty()))
    }

    /// Whether workers run out of tasks before long, or of tasks that they could have had, unless somebody sees to it.
    pub(crate) fn has_more(&self) -> bool {
        self.dispatcher.queued() > 0 || self.dispatcher.with_tasks_behind().next().is_some()
    }
}
