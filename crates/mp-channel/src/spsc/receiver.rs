//! The receiving end: its forms, and how messages get out of the lane.

#![expect(unsafe_code, reason = "the pending words of the lane, and values that are copied from their slots")]

use super::{End, Receiver, lane, spin};
use crate::end::{Taken, refused_receive};
use crate::error::RecvError;
use crate::lane::Lane;
use crate::received::Received;
use crate::view::{Here, View};
use mp_shm::Message;
use mp_shm::codec::{is_own_archive, validate};
use mp_shm::participants::Me;
use mp_sync::patience::Patience;
use mp_sync::spin::gather;
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
    /// As [`recv`](Self::recv). A message that is not a valid `T` is consumed; the others that were taken are in `values`.
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
        self.receive_one(patience, |view, index, me| payload = view.read(index, me.process))?;
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
        self.gather(count, patience);
        let mut received = 0;
        while received < count {
            let patience = if received == 0 { patience } else { Patience::None };
            match self.recv_run(values, count - received, patience) {
                Ok(taken) => received += taken,
                // What is wrong with the channel is told by the next call.
                Err(RecvError::Empty | RecvError::Disconnected) if received != 0 => break,
                Err(error) => return Err(error),
            }
        }
        self.end.streams = received > 1;
        Ok(received)
    }

    /// Lets more messages come, for some µs at most, where they have come faster than one by one: who looks for the next one takes its line from
    /// the sender that writes it.
    fn gather(&self, count: usize, patience: Patience) {
        let End { view, spin: budget, position, streams, .. } = &self.end;
        let shape = view.shape();
        let last =
            u32::try_from(count).map_or(shape.batch(), |count| count.min(shape.batch())).saturating_sub(1);
        if *streams && last != 0 && patience != Patience::None && spin(view, budget).is_some() {
            let last = shape.forward(*position, last);
            let is_there = || self.end.with(|lane| lane.can_receive(last));
            if !is_there() {
                gather(is_there);
            }
        }
    }

    /// Receives one message or several, up to `count`; gives how many.
    fn recv_run(
        &mut self,
        values: &mut Vec<T>,
        count: usize,
        patience: Patience,
    ) -> Result<usize, RecvError> {
        if !is_own_archive::<T>() {
            values.push(self.recv_patiently(patience)?);
            return Ok(1);
        }
        let most = u32::try_from(count).unwrap_or(u32::MAX).min(self.end.view.shape().batch()).max(1);
        let mut run = Run::new(values, most);
        let mut other = Taken::nothing();
        self.receive_with(patience, |lane, position, view, me| {
            let taken = lane.take_run(position, most, |index| run.take(view, index));
            if taken == 0 {
                other.take::<T>(view, lane.shape.index(position), me.process);
            }
            taken.max(1)
        })?;
        if run.taken == 0 {
            values.push(other.decode(self.end.view.session)?);
            return Ok(1);
        }
        run.finish()
    }

    #[inline]
    fn recv_patiently(&mut self, patience: Patience) -> Result<T, RecvError> {
        let mut taken = Taken::nothing();
        self.receive_one(patience, |view, index, me| taken.take::<T>(view, index, me.process))?;
        taken.decode(self.end.view.session)
    }

    /// Waits for a message and lets `take` take it from its slot.
    #[inline]
    fn receive_one(
        &mut self,
        patience: Patience,
        take: impl FnOnce(&View, u32, Me),
    ) -> Result<(), RecvError> {
        self.receive_with(patience, |lane, position, view, me| {
            take(view, lane.shape.index(position), me);
            1
        })
    }

    /// Waits for a message at the position that `take` gets, and lets it take that one and those behind it; it gives how many it took.
    #[inline]
    fn receive_with(
        &mut self,
        patience: Patience,
        take: impl FnOnce(&Lane<'_, View, Here<'_>>, u64, &View, Me) -> u32,
    ) -> Result<(), RecvError> {
        let me = self.end.alone(patience)?;
        let End { view, spin: budget, position, .. } = &mut self.end;
        let refused = robust::with(|current| {
            let here = Here { view, thread: me.thread };
            let lane = lane(view, &here, current);
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            match unsafe { lane.begin_receive(*position, patience, || spin(view, budget)) } {
                Ok(()) => {
                    let taken = take(&lane, *position, view, me);
                    *position = lane.finish_receive(*position, taken);
                    None
                }
                Err(refused) => Some(refused),
            }
        });
        refused.map_or(Ok(()), |refused| Err(refused_receive(refused)))
    }
}

/// Messages that are their own archives, on their way from their slots to behind `values`.
struct Run<'a, T> {
    values: &'a mut Vec<T>,
    taken: usize,
}

impl<'a, T: Message> Run<'a, T> {
    fn new(values: &'a mut Vec<T>, most: u32) -> Self {
        values.reserve(most as usize);
        Self { values, taken: 0 }
    }

    /// Copies the message in a slot, if it lies there with the size of a `T` and there is room for it.
    #[inline]
    fn take(&mut self, view: &View, index: u32) -> bool {
        match (view.inline(index), self.values.spare_capacity_mut().get_mut(self.taken)) {
            (Some((from, len)), Some(to)) if len == size_of::<T>() => {
                // SAFETY: as many bytes lie there, which nobody writes before the slot is given back; the target has room for a `T`.
                unsafe { to.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from, size_of::<T>()) };
                self.taken += 1;
                true
            }
            _ => false,
        }
    }

    /// Makes the valid ones values. User code may run here.
    fn finish(self) -> Result<usize, RecvError> {
        let mut result = Ok(self.taken);
        let from = self.values.len();
        for at in from..from + self.taken {
            let place = self.values.as_mut_ptr().cast_const().wrapping_add(at);
            // SAFETY: `take` has copied as many bytes to behind the values, which still have that room.
            let bytes = unsafe { std::slice::from_raw_parts(place.cast::<u8>(), size_of::<T>()) };
            match validate::<T>(bytes) {
                // SAFETY: valid, its own archive and with nothing to drop, so it may be moved as bytes. `push` finds room, at this place or at that of an
                // invalid one before it.
                Ok(()) => self.values.push(unsafe { place.read() }),
                Err(error) => result = result.and(Err(RecvError::Decode(error))),
            }
        }
        result
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
