//! How a pool is to be.

use crate::error::PoolError;
use crate::pool::Pool;
use crate::worker::{self, Assignment};
use mp_channel::SendFailure;
use mp_channel::dynamic::{DynSender, Tag};
use mp_shm::Message;
use mp_spawn::StartMethod;
use mp_spawn::code::FnRef;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Sends a worker something to do under a tag.
type Send = dyn Fn(&DynSender, Tag) -> Result<(), SendFailure> + std::marker::Send + Sync;

/// What a worker does at its start or its end.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) entry: fn(Assignment),
    pub(crate) send: Arc<Send>,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").finish_non_exhaustive()
    }
}

/// Settings of a pool; [`Pool::builder`] makes one.
#[derive(Clone, Debug)]
#[must_use = "nothing is made before `build`"]
pub struct PoolBuilder {
    pub(crate) workers: Option<usize>,
    pub(crate) name: String,
    pub(crate) method: Option<StartMethod>,
    pub(crate) retries: u32,
    pub(crate) chunk_size: Option<usize>,
    pub(crate) initializer: Option<Step>,
    pub(crate) finalizer: Option<Step>,
    pub(crate) tasks_max: Option<u64>,
    pub(crate) memory_max: Option<u64>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) task_timeout: Option<Duration>,
    pub(crate) restarts: Option<(usize, Duration)>,
    pub(crate) in_flight: Option<usize>,
    pub(crate) pins: bool,
    pub(crate) limits_threads: bool,
    pub(crate) has_timeline: bool,
}

impl PoolBuilder {
    pub(crate) fn new() -> Self {
        Self {
            workers: None,
            name: String::from("worker"),
            method: None,
            retries: 0,
            chunk_size: None,
            initializer: None,
            finalizer: None,
            tasks_max: None,
            memory_max: None,
            idle_timeout: None,
            task_timeout: None,
            restarts: None,
            in_flight: None,
            pins: false,
            limits_threads: true,
            has_timeline: false,
        }
    }

    /// The number of worker processes. Default: `MULTIPROC_WORKERS` from the environment, otherwise the processors that affinity and
    /// cgroup quota leave this process.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// What workers are called, before a number. Default: `worker`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How workers are started; without this, as [`mp_spawn::set_start_method`] says.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = Some(method);
        self
    }

    /// How often a task whose worker died is tried again. Default: 0, the task fails. In a `map` this is for each input. One that panics is not,
    /// also where panics abort.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How many inputs of a `map` go to a worker at a time, at least 1. Default: measured, some eight milliseconds' worth.
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.chunk_size = Some(items.max(1));
        self
    }

    /// Has each worker call `f(argument)` before its first task. What that gives stays in the worker, for its tasks to use by
    /// [`with_worker_state`](crate::with_worker_state). Should it fail again and again, the pool is [broken](PoolError::Broken).
    pub fn initializer<A, S>(mut self, f: fn(A) -> S, argument: A) -> Self
    where
        A: Message + std::marker::Send + Sync + 'static,
        S: 'static,
    {
        let message = (FnRef::new(f), argument);
        self.initializer = Some(Step {
            entry: worker::run_initializer::<A, S>,
            send: Arc::new(move |tasks, tag| tasks.try_send(tag, &message)),
        });
        self
    }

    /// Has each worker that the pool lets go of call `f` with what the initializer made, after its last task. [`Pool::join`] gives the values.
    /// A worker that is killed calls nothing; where panics abort, a call that panics gives nothing.
    pub fn finalizer<S: 'static, F: Message + 'static>(mut self, f: fn(S) -> F) -> Self {
        let message = FnRef::new(f);
        self.finalizer = Some(Step {
            entry: worker::run_finalizer::<S, F>,
            send: Arc::new(move |tasks, tag| tasks.try_send(tag, &message)),
        });
        self
    }

    /// Replaces a worker after so many tasks, at least 1. A chunk of a `map` is one task.
    pub fn tasks_per_worker(mut self, tasks: u64) -> Self {
        self.tasks_max = Some(tasks.max(1));
        self
    }

    /// Replaces a worker that has more than so many bytes of memory in use after a task.
    pub fn memory_per_worker(mut self, bytes: u64) -> Self {
        self.memory_max = Some(bytes);
        self
    }

    /// Ends workers that have had nothing to do for so long; they come back when there are tasks again.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = Some(time);
        self
    }

    /// Ends the worker of a task that runs for longer, whatever it does; the task has [timed out](crate::TaskErrorKind::TimedOut). A chunk of a
    /// `map` is one task.
    pub fn task_timeout(mut self, time: Duration) -> Self {
        self.task_timeout = Some(time);
        self
    }

    /// Breaks the pool when more than `deaths` workers die within `time` that nobody ended on purpose (where panics abort: those of panics included).
    /// Default: any number may, as long as some become ready.
    pub fn restart_limit(mut self, deaths: usize, time: Duration) -> Self {
        self.restarts = Some((deaths, time));
        self
    }

    /// Lets [`Pool::submit`] wait while so many tasks are unfinished. Default: it never waits.
    pub fn in_flight(mut self, tasks: usize) -> Self {
        self.in_flight = Some(tasks.max(1));
        self
    }

    /// Gives each worker a processor of its own, as far as they go round. Default: no.
    pub fn pin(mut self, yes: bool) -> Self {
        self.pins = yes;
        self
    }

    /// Whether libraries that start threads are told, in workers, to start no more of them than there are processors for each worker
    /// (`RAYON_NUM_THREADS`, `OMP_NUM_THREADS`, `OPENBLAS_NUM_THREADS`, `MKL_NUM_THREADS`, where they are not set). Default: yes.
    pub fn limit_threads(mut self, yes: bool) -> Self {
        self.limits_threads = yes;
        self
    }

    /// Keeps who worked on what when, for [`Pool::timeline`]: the last 20 000 tasks. Default: no.
    pub fn timeline(mut self, yes: bool) -> Self {
        self.has_timeline = yes;
        self
    }

    /// Makes the pool and starts its workers.
    ///
    /// # Errors
    /// [`PoolError`]; workers that were started are ended again.
    pub fn build(self) -> Result<Pool, PoolError> {
        Pool::start(self)
    }

    pub(crate) fn worker_count(&self) -> usize {
        let from_environment = || {
            std::env::var("MULTIPROC_WORKERS")
                .ok()
                .and_then(|text| text.parse().ok())
                .filter(|&count| count > 0)
        };
        self.workers.or_else(from_environment).unwrap_or_else(processors)
    }
}

/// How many processors affinity and cgroup quota leave this process.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
