//! Why a task has no value, where no worker process had it: the one place of this crate's other executors that makes errors. And, for processes and
//! threads, when workers that do not get ready are given up, and what is told then.

use crate::error::{PoolError, TaskError, TaskErrorKind};
use mp_channel::SendFailure;
use mp_shm::codec::{DecodeError, EncodeError};
use mp_spawn::panics::Panic;

pub(crate) fn panicked(panic: Panic) -> TaskError {
    TaskError::new(TaskErrorKind::Panicked(panic), 0)
}

/// The argument could not be encoded where the task was submitted.
pub(crate) fn unsendable(error: EncodeError) -> TaskError {
    TaskError::new(TaskErrorKind::Encode(SendFailure::Encode(error)), 0)
}

/// The argument could not be decoded where the task was to run.
pub(crate) fn argument(text: String) -> TaskError {
    TaskError::new(TaskErrorKind::Argument(text), 0)
}

/// The value could not be encoded where the task ran.
pub(crate) fn value(text: String) -> TaskError {
    TaskError::new(TaskErrorKind::Value(text), 0)
}

/// The value could not be decoded where it was waited for.
pub(crate) fn undecodable(error: DecodeError) -> TaskError {
    TaskError::new(TaskErrorKind::Decode(error), 0)
}

pub(crate) fn refused(text: String) -> TaskError {
    TaskError::new(TaskErrorKind::Refused(text), 0)
}

/// Whether so many workers of a pool of `size` that ended in a row before they were ready are too many.
pub(crate) fn is_hopeless(starts: usize, size: usize) -> bool {
    starts > size.max(4) * 2
}

/// Why a pool is broken whose workers do not get ready.
pub(crate) fn never_ready(why: &str) -> String {
    format!("its workers end before they are ready: {why}")
}

/// Why an initializer has made nothing.
pub(crate) fn of_initializer(kind: &TaskErrorKind) -> String {
    match kind {
        TaskErrorKind::Panicked(panic) => format!("the initializer panicked: {panic}"),
        other => other.to_string(),
    }
}

pub(crate) fn of_pool(error: PoolError) -> TaskError {
    TaskError::new(TaskErrorKind::Pool(error), 0)
}
