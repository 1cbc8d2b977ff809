//! What can go wrong with a pool and with a task.

use mp_channel::{ChannelError, SendFailure};
use mp_shm::codec::DecodeError;
use mp_spawn::panics::Panic;
use mp_spawn::{Ended, JoinError, SpawnError};
use std::fmt;
use std::ops::Range;

/// A pool could not be made, or takes no more tasks.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// A pool needs at least one worker.
    NoWorkers,
    /// A worker could not be started.
    Spawn(SpawnError),
    /// A channel could not be made.
    Channel(ChannelError),
    /// The thread that drives the pool while nobody waits could not be started.
    Thread(std::io::Error),
    /// The initializer's argument, or the finalizer's value.
    Worker(Box<TaskErrorKind>),
    /// The pool is closed.
    Closed,
    /// Workers ended again and again before they were ready, or too many died; the text says how the last one did.
    Broken(String),
    /// Workers were interrupted (SIGINT), as Ctrl-C at a terminal does it to all processes of a program.
    Interrupted,
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorkers => f.write_str("making a pool: at least one worker is needed"),
            Self::Spawn(error) => write!(f, "making a pool: {error}"),
            Self::Channel(error) => write!(f, "making a pool: {error}"),
            Self::Thread(error) => write!(f, "starting the pool's thread: {error}"),
            Self::Worker(kind) => write!(f, "setting a worker up or down: {kind}"),
            Self::Closed => f.write_str("the pool is closed"),
            Self::Broken(text) => write!(f, "the pool is broken: {text}"),
            Self::Interrupted => f.write_str("the pool's workers were interrupted"),
        }
    }
}

impl std::error::Error for PoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Spawn(error) => Some(error),
            Self::Channel(error) => Some(error),
            Self::Thread(error) => Some(error),
            Self::Worker(kind) => kind.source(),
            Self::NoWorkers | Self::Closed | Self::Broken(_) | Self::Interrupted => None,
        }
    }
}

/// A task has no value.
#[derive(Debug)]
#[non_exhaustive]
pub struct TaskError {
    /// What happened.
    pub kind: TaskErrorKind,
    /// The task's number: in a pool they are counted from 0 on, in the order of submission.
    pub task: u64,
    /// The process id of the worker that had it last; none if no worker had it.
    pub pid: Option<u32>,
    /// How often a worker was given it, without those times when it was taken back, or its worker died at another one.
    pub attempts: u32,
}

/// Why a task has no value.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskErrorKind {
    /// It panicked; its worker lives on. (Where panics abort, another one takes its place.)
    Panicked(Panic),
    /// Its worker exited with this code while it ran it.
    Exited(i32),
    /// A signal ended its worker while that ran it.
    Killed {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
    /// Its worker was killed while it ran it, and the kernel has killed for lack of memory meanwhile.
    OutOfMemory,
    /// It ran for longer than it was allowed to; its worker was ended.
    TimedOut,
    /// Somebody cancelled it.
    Cancelled,
    /// It has ended as many workers, and is not tried again.
    Quarantined {
        /// How many.
        deaths: u32,
        /// How the last of them ended.
        last: String,
    },
    /// Its argument could not be encoded.
    Encode(SendFailure),
    /// The worker could not decode its argument.
    Argument(String),
    /// The worker could not encode its value.
    Value(String),
    /// The worker could not find its function.
    Refused(String),
    /// The value arrived but could not be decoded.
    Decode(DecodeError),
    /// The pool was closed, or broke, before the task was done.
    Pool(PoolError),
    /// Its worker ended, and nobody knows how.
    Lost(String),
}

impl TaskErrorKind {
    /// What the end of a worker is for the task that it ran.
    pub(crate) fn of_death(cause: &JoinError) -> Self {
        match cause {
            JoinError::Killed { out_of_memory: true, .. } => Self::OutOfMemory,
            &JoinError::Killed { signal, core_dumped, .. }
            | &JoinError::NotStarted(Ended::Killed { signal, core_dumped }) => {
                Self::Killed { signal, core_dumped }
            }
            JoinError::Panicked(panic) => Self::Panicked(panic.clone()),
            &JoinError::Exited(code) | &JoinError::NotStarted(Ended::Exited(code)) => Self::Exited(code),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl TaskError {
    /// Of a task that no worker was given.
    pub(crate) fn new(kind: TaskErrorKind, task: u64) -> Self {
        Self { kind, task, pid: None, attempts: 0 }
    }

    /// The number of the signal that killed the worker, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.kind {
            TaskErrorKind::Killed { signal, .. } => Some(signal),
            TaskErrorKind::OutOfMemory => Some(9),
            _ => None,
        }
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.kind, TaskErrorKind::Cancelled)
    }

    /// Whether it ran for too long.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(self.kind, TaskErrorKind::TimedOut)
    }
}

impl fmt::Display for TaskErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(panic) => write!(f, "the task panicked: {panic}"),
            Self::Exited(code) => write!(f, "the task's worker exited with code {code}"),
            Self::Killed { signal, core_dumped } => {
                write!(f, "the task's worker was killed by signal {signal}")?;
                f.write_str(if *core_dumped { " (core dumped)" } else { "" })
            }
            Self::OutOfMemory => f.write_str("the task's worker was killed, probably for lack of memory"),
            Self::TimedOut => f.write_str("the task ran for longer than it was allowed to"),
            Self::Cancelled => f.write_str("the task was cancelled"),
            Self::Quarantined { deaths, last } => {
                write!(f, "the task has ended {deaths} workers and is not tried again: {last}")
            }
            Self::Encode(error) => write!(f, "the task's argument: {error}"),
            Self::Argument(text) => write!(f, "the task's argument could not be decoded: {text}"),
            Self::Value(text) => write!(f, "the task's value could not be encoded: {text}"),
            Self::Refused(text) => write!(f, "the task could not be run: {text}"),
            Self::Decode(error) => write!(f, "the task's value: {error}"),
            Self::Pool(error) => write!(f, "the task was not run to its end: {error}"),
            Self::Lost(text) => write!(f, "the task's worker ended: {text}"),
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(pid) = self.pid {
            write!(f, " (task {}, worker {pid}", self.task)?;
            if self.attempts > 1 {
                write!(f, ", {} attempts", self.attempts)?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl TaskErrorKind {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Panicked(panic) => Some(panic),
            Self::Encode(error) => Some(error),
            Self::Decode(error) => Some(error),
            Self::Pool(error) => Some(error),
            _ => None,
        }
    }
}

impl std::error::Error for TaskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

/// A `map` has no values, because a task of it has none.
#[derive(Debug)]
pub struct MapError {
    /// The inputs that were in the failed task, by their position. One if the failing input itself is known.
    pub items: Range<usize>,
    /// What happened.
    pub error: TaskError,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.items.len() == 1 {
            write!(f, "mapping item {}: {}", self.items.start, self.error)
        } else {
            write!(
                f,
                "mapping items {} to {}: {}",
                self.items.start,
                self.items.end.saturating_sub(1),
                self.error
            )
        }
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
