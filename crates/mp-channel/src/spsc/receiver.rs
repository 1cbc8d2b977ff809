//! The receiving end: its forms, and how a message gets out of the lane.

#![expect(unsafe_code, reason = "the pending words of the lane")]

use super::{End, Receiver, lane, spin};
use crate::end::{Taken, refused_receive};
use crate::error::RecvError;
use crate::received::Received;
use crate::view::{Here, View};
use mp_shm::Message;
use mp_shm::participants::Me;
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use mp_sys::robust;
use std::time::{Duration, Instant};

impl<T: Message> Receiver<T> {
    /// Receives the next message, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`RecvError`]: the sender is gone and nothing is left; or a message that is not a valid `T`, which is consumed.
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Forever)
    }

    /// Receives the next message if one is there now.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if the channel is empty.
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        self.recv_patiently(Patience::None)
    }

    /// Receives the next message, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if the channel stayed empty.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Until(Deadline::after(timeout)))
    }

    /// Receives the next message, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Until(deadline.into()))
    }

    /// Receives up to `count` messages behind `values`: waits for the first as long as it takes, and takes what is there besides. Gives how
    /// many they were, which is 0 only for a `count` of 0.
    ///
    /// # Errors
    /// As [`recv`](Self::recv). A message that is not a valid `T` is consumed; those before it are in `values`.
    pub fn recv_many(&mut self, values: &mut Vec<T>, count: usize) -> Result<usize, RecvError> {
        self.recv_many_patiently(values, count, Patience::Forever)
    }

    /// [`recv_many`](Self::recv_many) of what is there now.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_many(&mut self, values: &mut Vec<T>, count: usize) -> Result<usize, RecvError> {
        self.recv_many_patiently(values, count, Patience::None)
    }

    /// [`recv_many`](Self::recv_many) that waits for the first one for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_many_timeout(
        &mut self,
        values: &mut Vec<T>,
        count: usize,
        timeout: Duration,
    ) -> Result<usize, RecvError> {
        self.recv_many_patiently(values, count, Patience::Until(Deadline::after(timeout)))
    }

    /// [`recv_many`](Self::recv_many) that waits for the first one until `deadline`.
    ///
    /// # Errors
    /// As [`recv_deadline`](Self::recv_deadline).
    pub fn recv_many_deadline(
        &mut self,
        values: &mut Vec<T>,
        count: usize,
        deadline: Instant,
    ) -> Result<usize, RecvError> {
        self.recv_many_patiently(values, count, Patience::Until(deadline.into()))
    }

    /// Receives the next message to be read where it lies, waiting for it as long as it takes, as [`crate::Receiver::recv_archived`] does.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_archived(&mut self) -> Result<Received<T>, RecvError> {
        self.recv_archived_patiently(Patience::Forever)
    }

    /// [`recv_archived`](Self::recv_archived) of a message that is there now.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_archived(&mut self) -> Result<Received<T>, RecvError> {
        self.recv_archived_patiently(Patience::None)
    }

    /// [`recv_archived`](Self::recv_archived) that waits for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_archived_timeout(&mut self, timeout: Duration) -> Result<Received<T>, RecvError> {
        self.recv_archived_patiently(Patience::Until(Deadline::after(timeout)))
    }

    /// [`recv_archived`](Self::recv_archived) that waits until `deadline`.
    ///
    /// # Errors
    /// As [`recv_deadline`](Self::recv_deadline).
    pub fn recv_archived_deadline(&mut self, deadline: Instant) -> Result<Received<T>, RecvError> {
        self.recv_archived_patiently(Patience::Until(deadline.into()))
    }

    fn recv_archived_patiently(&mut self, patience: Patience) -> Result<Received<T>, RecvError> {
        let mut payload = None;
        self.receive_with(patience, |view, index, me| payload = view.read(index, me.process))?;
        Received::new(payload.ok_or(RecvError::Corrupt)?).map_err(RecvError::Decode)
    }

    /// Receives messages until the sender is gone. A message that is not valid ends it, too.
    pub fn iter(&mut self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Receives the messages that are there, until there is none.
    pub fn try_iter(&mut self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    fn recv_many_patiently(
        &mut self,
        values: &mut Vec<T>,
        count: usize,
        patience: Patience,
    ) -> Result<usize, RecvError> {
        if count == 0 {
            return Ok(0);
        }
        values.push(self.recv_patiently(patience)?);
        for received in 1..count {
            match self.recv_patiently(Patience::None) {
                Ok(value) => values.push(value),
                // What is wrong with the channel is told by the next call.
                Err(RecvError::Empty | RecvError::Disconnected) => return Ok(received),
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    #[inline]
    fn recv_patiently(&mut self, patience: Patience) -> Result<T, RecvError> {
        let mut taken = Taken::nothing();
        self.receive_with(patience, |view, index, me| taken.take::<T>(view, index, me.process))?;
        taken.decode(self.end.view.session)
    }

    #[inline]
    fn receive_with(
        &mut self,
        patience: Patience,
        take: impl FnOnce(&View, u32, Me),
    ) -> Result<(), RecvError> {
        let me = self.end.alone(patience)?;
        let End { view, spin: budget, position, .. } = &mut self.end;
        let refused = robust::with(|current| {
            let here = Here { view, thread: me.thread };
            let lane = lane(view, &here, current);
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            match unsafe { lane.begin_receive(*position, patience, || spin(view, budget)) } {
                Ok(index) => {
                    take(view, index, me);
                    *position = lane.finish_receive(*position);
                    None
                }
                Err(refused) => Some(refused),
            }
        });
        refused.map_or(Ok(()), |refused| Err(refused_receive(refused)))
    }
}

/// Receives messages until the sender is gone, as [`Receiver::iter`].
#[derive(Debug)]
pub struct IntoIter<T>(Receiver<T>);

impl<T: Message> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T: Message> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}
