//! What can go wrong with a pool and with a task.

use mp_channel::{ChannelError, SendFailure};
use mp_shm::codec::DecodeError;
use mp_spawn::panics::Panic;
use mp_spawn::{JoinError, SpawnError};
use std::fmt;
use std::ops::Range;

/// A pool could not be made, or takes no more tasks.
#[derive(Debug)]
pub enum PoolError {
    /// A pool needs at least one worker.
    NoWorkers,
    /// A worker could not be started.
    Spawn(SpawnError),
    /// A channel could not be made.
    Channel(ChannelError),
    /// The thread that drives the pool while nobody waits could not be started.
    Thread(std::io::Error),
    /// The pool is closed.
    Closed,
    /// Workers ended again and again before they were ready; the text says how the last one did.
    Broken(String),
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorkers => f.write_str("making a pool: at least one worker is needed"),
            Self::Spawn(error) => write!(f, "making a pool: {error}"),
            Self::Channel(error) => write!(f, "making a pool: {error}"),
            Self::Thread(error) => write!(f, "starting the pool's thread: {error}"),
            Self::Closed => f.write_str("the pool is closed"),
            Self::Broken(text) => {
                write!(f, "the pool is broken: its workers end before they are ready: {text}")
            }
        }
    }
}

impl std::error::Error for PoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Spawn(error) => Some(error),
            Self::Channel(error) => Some(error),
            Self::Thread(error) => Some(error),
            Self::NoWorkers | Self::Closed | Self::Broken(_) => None,
        }
    }
}

/// A task has no value.
#[derive(Debug)]
pub enum TaskError {
    /// It panicked; its worker lives on.
    Panicked(Panic),
    /// Its worker died while it held the task (and the policy's retries are used up).
    WorkerDied {
        /// The worker's process id.
        pid: u32,
        /// How it died.
        cause: JoinError,
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
}

impl TaskError {
    /// The number of the signal that killed the worker, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::WorkerDied { cause, .. } => cause.signal(),
            _ => None,
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(panic) => write!(f, "the task panicked: {panic}"),
            Self::WorkerDied { pid, cause } => write!(f, "the task's worker {pid} died: {cause}"),
            Self::Encode(error) => write!(f, "the task's argument: {error}"),
            Self::Argument(text) => write!(f, "the task's argument could not be decoded: {text}"),
            Self::Value(text) => write!(f, "the task's value could not be encoded: {text}"),
            Self::Refused(text) => write!(f, "the task could not be run: {text}"),
            Self::Decode(error) => write!(f, "the task's value: {error}"),
            Self::Pool(error) => write!(f, "the task was not run to its end: {error}"),
        }
    }
}

impl std::error::Error for TaskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Panicked(panic) => Some(panic),
            Self::WorkerDied { cause, .. } => Some(cause),
            Self::Encode(error) => Some(error),
            Self::Decode(error) => Some(error),
            Self::Pool(error) => Some(error),
            Self::Argument(_) | Self::Value(_) | Self::Refused(_) => None,
        }
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
