//! Building a message in place: [`Sender::loan_slice`] and [`Sender::loan_uninit`], also of [`spsc`].
//!
//! A loan is memory of the session; sending it hands the memory over. The receiver gets a `Vec<E>`, or, with
//! [`recv_archived`](crate::Receiver::recv_archived), the very memory.

#![expect(unsafe_code, reason = "the promise that memory was written")]

use crate::end::End;
use crate::error::{SendError, SendFailure};
use crate::{Sender, received::Received, spsc};
use mp_shm::Message;
use mp_shm::block::Block;
use mp_shm::codec::{Element, Room};
use mp_shm::rkyv::Archive;
use mp_shm::rkyv::vec::ArchivedVec;
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// A slice in shared memory that will be sent as a `Vec<E>` without being copied. Dropping it gives the memory back.
#[derive(Debug)]
pub struct Loan<'a, E: Element> {
    room: Room<E>,
    lender: Lender<'a>,
}

/// The end that sends a loan.
#[derive(Debug)]
pub(crate) enum Lender<'a> {
    Ring(&'a End),
    Lane(&'a mut spsc::End),
}

impl Lender<'_> {
    /// Sends the message in `block`, which is there again if it fails.
    fn send_block(&mut self, block: &mut Option<Block>, patience: Patience) -> Result<(), SendFailure> {
        match self {
            Self::Ring(end) => end.send_block([0; 4], block, patience),
            Self::Lane(end) => end.send_block(block, patience),
        }
    }
}

/// As [`Loan`], not yet written.
#[derive(Debug)]
pub struct LoanUninit<'a, E: Element>(Loan<'a, E>);

impl<E: Element> Sender<Vec<E>> {
    /// Lends a slice of `len` elements to be filled in and sent. What is in it at first is undetermined: what earlier messages left there.
    ///
    /// The length may be an upper bound: see [`Loan::truncate`].
    ///
    /// # Errors
    /// [`SendFailure::Session`]: no memory in the session; the elements have more than 2 GiB.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = mp_channel::channel::<Vec<f32>>(4)?;
    /// let mut loan = sender.loan_slice(1000)?;
    /// for (place, value) in loan.iter_mut().zip([0.5, 1.5]) {
    ///     *place = value;
    /// }
    /// loan.truncate(2);
    /// loan.send().map_err(|error| error.failure)?;
    /// assert_eq!(receiver.recv_archived()?.as_slice(), [0.5, 1.5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn loan_slice(&self, len: usize) -> Result<Loan<'_, E>, SendFailure> {
        let room = self.end.room(len).map_err(SendFailure::Session)?;
        Ok(Loan::new(room, Lender::Ring(&self.end)))
    }

    /// Lends memory for `len` elements to be written and sent, for code that writes through [`MaybeUninit`].
    ///
    /// # Errors
    /// As [`loan_slice`](Self::loan_slice).
    pub fn loan_uninit(&self, len: usize) -> Result<LoanUninit<'_, E>, SendFailure> {
        self.loan_slice(len).map(LoanUninit::new)
    }

    /// Sends a copy of a slice, which the receiver gets as a `Vec`.
    ///
    /// # Errors
    /// As [`Sender::send_ref`], and [`loan_slice`](Self::loan_slice).
    pub fn send_slice(&self, elements: &[E]) -> Result<(), SendFailure> {
        self.loan_slice(elements.len())?.send_copy(elements)
    }
}

impl<'a, E: Element> Loan<'a, E> {
    pub(crate) fn new(room: Room<E>, lender: Lender<'a>) -> Self {
        Self { room, lender }
    }

    /// Sends a copy of as many elements as were lent.
    pub(crate) fn send_copy(mut self, elements: &[E]) -> Result<(), SendFailure> {
        self.copy_from_slice(elements);
        self.send().map_err(|error| error.failure)
    }

    /// Keeps the first `len` elements.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.room.truncate(len);
    }

    /// Sends it, waiting for room in the channel as long as it takes.
    ///
    /// # Errors
    /// [`SendError`], which gives the loan back.
    pub fn send(self) -> Result<(), SendError<Self>> {
        self.send_patiently(Patience::Forever)
    }

    /// Sends it if there is room in the channel now.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the channel is full.
    pub fn try_send(self) -> Result<(), SendError<Self>> {
        self.send_patiently(Patience::None)
    }

    /// Sends it, waiting for room in the channel for at most `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the channel stayed full.
    pub fn send_timeout(self, timeout: Duration) -> Result<(), SendError<Self>> {
        self.send_patiently(Patience::Until(Deadline::after(timeout)))
    }

    /// Sends it, waiting for room in the channel until `deadline`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_deadline(self, deadline: Instant) -> Result<(), SendError<Self>> {
        self.send_patiently(deadline.into())
    }

    fn send_patiently(self, patience: Patience) -> Result<(), SendError<Self>> {
        let Self { room, mut lender } = self;
        let len = room.len();
        let mut block = Some(room.into_block());
        lender.send_block(&mut block, patience).map_err(|failure| {
            let Some(block) = block else { unreachable!("a block that was not sent is there again") };
            SendError { value: Self { room: Room::of_block(block, len), lender }, failure }
        })
    }
}

impl<E: Element> Deref for Loan<'_, E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        self.room.elements()
    }
}

impl<E: Element> DerefMut for Loan<'_, E> {
    fn deref_mut(&mut self) -> &mut [E] {
        self.room.elements_mut()
    }
}

impl<'a, E: Element> LoanUninit<'a, E> {
    pub(crate) fn new(loan: Loan<'a, E>) -> Self {
        Self(loan)
    }

    /// The loan, whose first `len` elements are kept.
    ///
    /// # Panics
    /// If there are fewer.
    ///
    /// # Safety
    /// The first `len` elements were written.
    #[must_use]
    pub unsafe fn assume_init(self, len: usize) -> Loan<'a, E> {
        let mut loan = self.0;
        loan.truncate(len);
        loan
    }

    /// Copies `elements` to the front and makes that the loan.
    ///
    /// # Panics
    /// If there are more than were lent.
    #[must_use]
    pub fn write(mut self, elements: &[E]) -> Loan<'a, E> {
        for (place, element) in self[..elements.len()].iter_mut().zip(elements) {
            place.write(*element);
        }
        // SAFETY: just written.
        unsafe { self.assume_init(elements.len()) }
    }
}

impl<E: Element> Deref for LoanUninit<'_, E> {
    type Target = [MaybeUninit<E>];

    fn deref(&self) -> &[MaybeUninit<E>] {
        let elements = self.0.room.elements();
        // SAFETY: `MaybeUninit<E>` has the layout of `E`, and what is initialised is also that.
        unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), elements.len()) }
    }
}

impl<E: Element> DerefMut for LoanUninit<'_, E> {
    fn deref_mut(&mut self) -> &mut [MaybeUninit<E>] {
        self.0.room.uninit_mut()
    }
}

impl<E: Element> Received<Vec<E>>
where
    Vec<E>: Message + Archive<Archived = ArchivedVec<E::Archived>>,
{
    /// The elements, where they were written.
    #[must_use]
    pub fn as_slice(&self) -> &[E] {
        const { E::IS_ITS_OWN_ARCHIVE };
        let elements: &[E::Archived] = ArchivedVec::as_slice(self);
        // SAFETY: `E` is its own archive: the same bytes, any of which are an `E`; the alignment is no larger than the message's, whose
        // elements begin at a multiple of their own alignment: see `IS_ITS_OWN_ARCHIVE`.
        unsafe { std::slice::from_raw_parts(elements.as_ptr().cast::<E>(), elements.len()) }
    }
}
