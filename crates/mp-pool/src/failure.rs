//! Why a task has no value, where no worker process had it: the one place of this crate's other executors that makes errors.

use crate::error::{PoolError, TaskError};
use mp_channel::SendFailure;
use mp_shm::codec::{DecodeError, EncodeError};
use mp_spawn::panics::Panic;

pub(crate) fn panicked(panic: Panic) -> TaskError {
    TaskError::Panicked(panic)
}

/// The argument could not be encoded where the task was submitted.
pub(crate) fn unsendable(error: EncodeError) -> TaskError {
    TaskError::Encode(SendFailure::Encode(error))
}

/// The argument could not be decoded where the task was to run.
pub(crate) fn argument(text: String) -> TaskError {
    TaskError::Argument(text)
}

/// The value could not be encoded where the task ran.
pub(crate) fn value(text: String) -> TaskError {
    TaskError::Value(text)
}

/// The value could not be decoded where it was waited for.
pub(crate) fn undecodable(error: DecodeError) -> TaskError {
    TaskError::Decode(error)
}

pub(crate) fn refused(text: String) -> TaskError {
    TaskError::Refused(text)
}

pub(crate) fn of_pool(error: PoolError) -> TaskError {
    TaskError::Pool(error)
}
