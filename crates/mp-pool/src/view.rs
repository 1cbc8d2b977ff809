//! The value of a task, read where its worker wrote it.

use crate::worker::Failure;
use mp_channel::Received;
use mp_shm::Message;
use mp_shm::rkyv::result::ArchivedResult;
use std::fmt;
use std::ops::Deref;

/// The value of a task that was validated, and is read without being rebuilt: it dereferences to the archived form of `R`. See
/// [`Task::get_archived`](crate::Task::get_archived).
///
/// A large one is read in the shared memory that the worker wrote it to, which comes back when this is dropped. It outlives worker and pool.
pub struct TaskValue<R: Message> {
    /// Invariant: it is `Ok`.
    received: Received<Result<R, Failure>>,
}

impl<R: Message> TaskValue<R> {
    /// Gives what was received back if it is no value.
    pub(crate) fn new(received: Received<Result<R, Failure>>) -> Result<Self, Received<Result<R, Failure>>> {
        if received.is_ok() { Ok(Self { received }) } else { Err(received) }
    }

    /// Bytes of the archive.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.received.len_bytes()
    }
}

impl<R: Message> Deref for TaskValue<R> {
    type Target = R::Archived;

    fn deref(&self) -> &R::Archived {
        match &*self.received {
            ArchivedResult::Ok(value) => value,
            ArchivedResult::Err(_) => unreachable!("checked when it was made, and nobody changes an archive"),
        }
    }
}

impl<R: Message> fmt::Debug for TaskValue<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskValue({} bytes)", self.len_bytes())
    }
}
