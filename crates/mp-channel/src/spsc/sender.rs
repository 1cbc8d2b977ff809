//! The sending end: its forms, and how a message gets into the lane.

#![expect(unsafe_code, reason = "the pending words of the lane")]

use super::{End, Sender, lane, spin};
use crate::control::Refused;
use crate::end::{is_plain, refused_send};
use crate::error::{BatchError, SendError, SendFailure};
use crate::loan::{Lender, Loan, LoanUninit};
use crate::view::{Here, View};
use mp_shm::Message;
use mp_shm::block::Block;
use mp_shm::codec::{Element, Payload, ROOT_BYTES, Room, encode};
use mp_shm::error::SessionError;
use mp_shm::participants::Me;
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use mp_sys::robust;
use std::time::{Duration, Instant};

impl<T: Message> Sender<T> {
    /// Sends `value`, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendError`], which gives the value back: the receiver is gone, or it cannot be encoded.
    #[inline]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::Forever)
    }

    /// Sends `value` if there is room now.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the channel is full.
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::None)
    }

    /// Sends `value`, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the channel stayed full.
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::Until(Deadline::after(timeout)))
    }

    /// Sends `value`, waiting for room until `deadline`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_deadline(&mut self, value: T, deadline: Instant) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::Until(deadline.into()))
    }

    /// Sends a copy of `value`, which stays the caller's; handles in it are cloned. Waits for room as long as it takes.
    ///
    /// # Errors
    /// As [`send`](Self::send), without the value.
    #[inline]
    pub fn send_ref(&mut self, value: &T) -> Result<(), SendFailure> {
        self.end.send(value, Patience::Forever)
    }

    /// Sends a copy of `value` if there is room now.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send), without the value.
    #[inline]
    pub fn try_send_ref(&mut self, value: &T) -> Result<(), SendFailure> {
        self.end.send(value, Patience::None)
    }

    /// Sends a copy of `value`, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout), without the value.
    pub fn send_ref_timeout(&mut self, value: &T, timeout: Duration) -> Result<(), SendFailure> {
        self.end.send(value, Patience::Until(Deadline::after(timeout)))
    }

    /// Sends a copy of `value`, waiting for room until `deadline`.
    ///
    /// # Errors
    /// As [`send_deadline`](Self::send_deadline), without the value.
    pub fn send_ref_deadline(&mut self, value: &T, deadline: Instant) -> Result<(), SendFailure> {
        self.end.send(value, Patience::Until(deadline.into()))
    }

    /// Sends all `values`, one after the other, waiting for room as long as it takes. Gives how many they were.
    ///
    /// What has been sent can be received at once, also while the iterator makes the next one.
    ///
    /// # Errors
    /// [`BatchError`]: how many were sent, and the first one that was not. Those behind it are still in the iterator, if that was lent.
    pub fn send_all(&mut self, values: impl IntoIterator<Item = T>) -> Result<usize, BatchError<T>> {
        let mut sent = 0;
        for value in values {
            self.send(value).map_err(|error| BatchError { sent, error })?;
            sent += 1;
        }
        Ok(sent)
    }

    #[inline]
    fn send_patiently(&mut self, value: T, patience: Patience) -> Result<(), SendError<T>> {
        self.end.send(&value, patience).map_err(|failure| SendError { value, failure })
    }
}

impl<E: Element> Sender<Vec<E>> {
    /// Lends a slice of `len` elements to be filled in and sent, as [`crate::Sender::loan_slice`] does.
    ///
    /// # Errors
    /// [`SendFailure::Session`]: no memory in the session; the elements have more than 2 GiB.
    pub fn loan_slice(&mut self, len: usize) -> Result<Loan<'_, E>, SendFailure> {
        let room = self.end.room(len).map_err(SendFailure::Session)?;
        Ok(Loan::new(room, Lender::Lane(&mut self.end)))
    }

    /// Lends memory for `len` elements to be written and sent, for code that writes through [`MaybeUninit`](std::mem::MaybeUninit).
    ///
    /// # Errors
    /// As [`loan_slice`](Self::loan_slice).
    pub fn loan_uninit(&mut self, len: usize) -> Result<LoanUninit<'_, E>, SendFailure> {
        self.loan_slice(len).map(LoanUninit::new)
    }

    /// Sends a copy of a slice, which the receiver gets as a `Vec`.
    ///
    /// # Errors
    /// As [`Sender::send_ref`], and [`loan_slice`](Self::loan_slice).
    pub fn send_slice(&mut self, elements: &[E]) -> Result<(), SendFailure> {
        self.loan_slice(elements.len())?.send_copy(elements)
    }
}

impl End {
    #[inline]
    fn send<T: Message>(&mut self, value: &T, patience: Patience) -> Result<(), SendFailure> {
        if const { is_plain::<T>() } && size_of::<T>() <= self.view.inline_max() {
            let me = self.alone(patience)?;
            let write = |view: &View, index| view.write_plain(index, &[0; 4], value);
            return self.send_with(me, patience, false, write).map_err(refused_send);
        }
        self.send_encoded(value, patience)
    }

    fn send_encoded<T: Message>(&mut self, value: &T, patience: Patience) -> Result<(), SendFailure> {
        let me = self.view.session.me().map_err(SendFailure::Session)?;
        self.view.fetch_returned(self.expected, me);
        // User code runs here, before the slot is touched.
        let encoded = encode(self.view.session, value, self.expected).map_err(SendFailure::Encode)?;
        if let Some(bytes) = encoded.inline()
            && bytes.len() <= self.view.inline_max()
        {
            let me = self.alone(patience)?;
            let write = |view: &View, index| view.write_bytes(index, &[0; 4], bytes);
            return self.send_with(me, patience, false, write).map_err(refused_send);
        }
        self.expected = encoded.len();
        let mut block = Some(encoded.into_block().map_err(SendFailure::Encode)?);
        let sent = self.send_block(&mut block, patience);
        // Takes the attachments off again.
        drop(block.map(Payload::in_block));
        sent
    }

    /// Room for a message that the caller builds.
    fn room<E: Element>(&self, len: usize) -> Result<Room<E>, SessionError> {
        let me = self.me()?;
        let bytes = len.saturating_mul(size_of::<E>()).saturating_add(ROOT_BYTES);
        self.view.fetch_returned(bytes, me);
        Room::new(self.view.session, len)
    }

    /// Sends the message in `block`, which is still there if it fails.
    pub(crate) fn send_block(
        &mut self,
        block: &mut Option<Block>,
        patience: Patience,
    ) -> Result<(), SendFailure> {
        let me = self.alone(patience)?;
        let has_handles = block.as_ref().is_some_and(Block::has_attachments);
        let spare = self.send_with(me, patience, has_handles, |view, index| {
            block.take().and_then(|block| view.write_block(index, &[0; 4], me.process, block))
        });
        spare.map(drop).map_err(refused_send)
    }

    /// Sends what `write` puts into the slot of an index.
    #[inline]
    fn send_with<R>(
        &mut self,
        me: Me,
        patience: Patience,
        has_handles: bool,
        write: impl FnOnce(&View, u32) -> R,
    ) -> Result<R, Refused> {
        let Self { view, spin: budget, position, head, .. } = self;
        robust::with(|current| {
            let here = Here { view, thread: me.thread };
            let lane = lane(view, &here, current);
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            let index = unsafe { lane.begin_send(*position, head, patience, || spin(view, budget)) }?;
            if has_handles {
                lane.write_handles(*position);
            }
            let written = write(view, index);
            *position = lane.finish_send(*position);
            // Off the way of the message.
            view.fetch_ahead(index);
            Ok(written)
        })
    }
}
