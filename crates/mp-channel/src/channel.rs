//! Typed channels: what users see.

use crate::end::End;
use crate::error::{BatchError, ChannelError, RecvError, SendError, SendFailure};
use crate::received::Received;
use crate::source::{Side, Source};
use crate::view::Cut;
use mp_shm::handle::Kind;
use mp_shm::{Message, Session, message_of_handle};
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// The sending end of a channel. Clone it, send it to other processes, share it between threads.
pub struct Sender<T> {
    pub(crate) end: Arc<End>,
    carries: PhantomData<fn(T)>,
}

/// The receiving end of a channel. Clone it, send it to other processes, share it between threads; each message goes to one
/// receiver.
pub struct Receiver<T> {
    end: Arc<End>,
    carries: PhantomData<fn() -> T>,
}

/// Makes a channel for up to `capacity` messages, 0 to 2^24, in the session of this program tree.
///
/// With a capacity of 0 a send ends when a receiver has taken its message (a *rendezvous*).
///
/// A send waits while the channel is full, a receive while it is empty. When all holders of one end have dropped it or died, the
/// other end is told: receivers once they have drained what is left, senders at once.
///
/// Messages of up to 240 bytes travel in the slots, larger ones in blocks of the session that are used again.
///
/// # Errors
/// [`ChannelError`]: a capacity out of range, no memory.
///
/// # Examples
/// ```
/// let (sender, receiver) = mp_channel::channel::<(u32, String)>(8)?;
/// sender.send((7, "seven".to_owned())).map_err(|error| error.failure)?;
/// drop(sender);
/// assert_eq!(receiver.recv()?, (7, "seven".to_owned()));
/// assert!(receiver.recv().unwrap_err().is_disconnected());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel<T: Message>(capacity: usize) -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    channel_in(Session::current().map_err(ChannelError::Session)?, capacity)
}

/// Makes a channel in a given session: only processes attached to that session can hold its ends.
///
/// # Errors
/// As [`channel`].
pub fn channel_in<T: Message>(
    session: Session,
    capacity: usize,
) -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    let cut = Cut::new(capacity, 0, expected_bytes::<T>()).ok_or(ChannelError::Capacity(capacity))?;
    let [sender, receiver] = End::create(session, cut, type_hash::<T>(), 0)?;
    Ok((
        Sender { end: Arc::new(sender), carries: PhantomData },
        Receiver { end: Arc::new(receiver), carries: PhantomData },
    ))
}

/// Makes a channel that grows when it is full: for up to `capacity` messages at first, 1 to 2^24, and more while its slots take no more
/// than `bytes_max` bytes. Then it is full as any channel is.
///
/// It grows by doubling, never shrinks, and gives its memory back with its last end. [`Sender::capacity`] tells what it has grown to; while what was
/// sent before is received more may wait. Order, disconnection and what a death leaves are as ever.
/// A `try_send` can still be told that the channel is full: at the very moment when somebody else is taking or writing the oldest message, or when
/// there is no memory to grow by; from then on it does not grow any more.
///
/// Messages that are too large for a slot (above some 240 bytes) lie in blocks of their own, which `bytes_max` does not count.
///
/// # Errors
/// As [`channel`].
///
/// # Examples
/// ```
/// let (sender, receiver) = mp_channel::growing_channel::<u64>(4, 1 << 20)?;
/// for number in 0..1000 {
///     sender.try_send(number).map_err(|error| error.failure)?;
/// }
/// assert_eq!(receiver.len(), 1000);
/// assert!((0..1000).all(|number| receiver.try_recv().is_ok_and(|one| one == number)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn growing_channel<T: Message>(
    capacity: usize,
    bytes_max: usize,
) -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    growing_channel_in(Session::current().map_err(ChannelError::Session)?, capacity, bytes_max)
}

/// [`growing_channel`] in a given session.
///
/// # Errors
/// As [`channel`].
pub fn growing_channel_in<T: Message>(
    session: Session,
    capacity: usize,
    bytes_max: usize,
) -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    let cut = Cut::new(capacity, 0, expected_bytes::<T>()).filter(|cut| !cut.rendezvous);
    let cut = cut.ok_or(ChannelError::Capacity(capacity))?;
    let [sender, receiver] = End::create_growing(session, cut, type_hash::<T>(), 0, bytes_max as u64)?;
    Ok((
        Sender { end: Arc::new(sender), carries: PhantomData },
        Receiver { end: Arc::new(receiver), carries: PhantomData },
    ))
}

/// What to make room for in a slot: the archive of a plain type, and for others room for short strings and the like.
pub(crate) fn expected_bytes<T: Message>() -> usize {
    let archived = size_of::<T::Archived>();
    if T::COPY_OPTIMIZATION.is_enabled() { archived } else { archived + 64 }
}

/// Tells channels of different types apart within one build.
pub(crate) fn type_hash<T: Message>() -> u32 {
    let text = std::any::type_name::<T>().bytes();
    let size = (size_of::<T::Archived>() as u64).to_le_bytes();
    text.chain(size).fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl<T: Message> Sender<T> {
    /// Sends `value`, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendError`], which gives the value back: all receivers are gone, or it cannot be encoded.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::Forever)
    }

    /// Sends `value` if there is room now.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the channel is full.
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::None)
    }

    /// Sends `value`, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the channel stayed full.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::Until(Deadline::after(timeout)))
    }

    /// Sends `value`, waiting for room until `deadline`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::Until(deadline.into()))
    }

    /// Sends a copy of `value`, which stays the caller's; handles in it are cloned. Waits for room as long as it takes.
    ///
    /// # Errors
    /// As [`send`](Self::send), without the value.
    pub fn send_ref(&self, value: &T) -> Result<(), SendFailure> {
        self.end.send([0; 4], value, Patience::Forever)
    }

    /// Sends a copy of `value` if there is room now.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send), without the value.
    pub fn try_send_ref(&self, value: &T) -> Result<(), SendFailure> {
        self.end.send([0; 4], value, Patience::None)
    }

    /// Sends a copy of `value`, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout), without the value.
    pub fn send_ref_timeout(&self, value: &T, timeout: Duration) -> Result<(), SendFailure> {
        self.end.send([0; 4], value, Patience::Until(Deadline::after(timeout)))
    }

    /// Sends a copy of `value`, waiting for room until `deadline`.
    ///
    /// # Errors
    /// As [`send_deadline`](Self::send_deadline), without the value.
    pub fn send_ref_deadline(&self, value: &T, deadline: Instant) -> Result<(), SendFailure> {
        self.end.send([0; 4], value, Patience::Until(deadline.into()))
    }

    /// Sends all `values`, one after the other, waiting for room as long as it takes. Gives how many they were.
    ///
    /// What has been sent can be received at once, also while the iterator makes the next one.
    ///
    /// # Errors
    /// [`BatchError`]: how many were sent, and the first one that was not. Those behind it are still in the iterator, if that was lent.
    pub fn send_all(&self, values: impl IntoIterator<Item = T>) -> Result<usize, BatchError<T>> {
        let mut sent = 0;
        for value in values {
            self.send(value).map_err(|error| BatchError { sent, error })?;
            sent += 1;
        }
        Ok(sent)
    }

    fn send_patiently(&self, value: T, patience: Patience) -> Result<(), SendError<T>> {
        self.end.send([0; 4], &value, patience).map_err(|failure| SendError { value, failure })
    }
}

impl<T> Sender<T> {
    /// The words that the ring is controlled by, for tests that play somebody who writes where he must not.
    #[doc(hidden)]
    #[must_use]
    pub fn control_words(&self) -> Vec<&AtomicU64> {
        self.end.control_words()
    }

    pub(crate) fn session(&self) -> Session {
        self.end.session()
    }

    /// This end, to wait for.
    pub(crate) fn source(&self) -> Source {
        self.end.source(Side::Sender)
    }

    /// The most messages the channel holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.end.capacity()
    }

    /// How many messages are waiting, a moment ago.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end.len()
    }

    /// Whether no message was waiting a moment ago.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.is_empty()
    }
}

impl<T: Message> Receiver<T> {
    /// Receives the next message, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`RecvError`]: all senders are gone and nothing is left; or a message that is not a valid `T`, which is consumed.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Forever)
    }

    /// Receives the next message if one is there now.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if the channel is empty.
    pub fn try_recv(&self) -> Result<T, RecvError> {
        self.recv_patiently(Patience::None)
    }

    /// Receives the next message, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if the channel stayed empty.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Until(Deadline::after(timeout)))
    }

    /// Receives the next message, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Until(deadline.into()))
    }

    fn recv_patiently(&self, patience: Patience) -> Result<T, RecvError> {
        self.end.receive_value(patience)
    }

    /// Receives up to `count` messages behind `values`: waits for the first as long as it takes, and takes what is there besides. Gives how
    /// many they were, which is 0 only for a `count` of 0.
    ///
    /// # Errors
    /// As [`recv`](Self::recv). A message that is not a valid `T` is consumed; those before it are in `values`.
    pub fn recv_many(&self, values: &mut Vec<T>, count: usize) -> Result<usize, RecvError> {
        self.end.receive_many(values, count, Patience::Forever)
    }

    /// [`recv_many`](Self::recv_many) of what is there now.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_many(&self, values: &mut Vec<T>, count: usize) -> Result<usize, RecvError> {
        self.end.receive_many(values, count, Patience::None)
    }

    /// [`recv_many`](Self::recv_many) that waits for the first one for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_many_timeout(
        &self,
        values: &mut Vec<T>,
        count: usize,
        timeout: Duration,
    ) -> Result<usize, RecvError> {
        self.end.receive_many(values, count, Patience::Until(Deadline::after(timeout)))
    }

    /// [`recv_many`](Self::recv_many) that waits for the first one until `deadline`.
    ///
    /// # Errors
    /// As [`recv_deadline`](Self::recv_deadline).
    pub fn recv_many_deadline(
        &self,
        values: &mut Vec<T>,
        count: usize,
        deadline: Instant,
    ) -> Result<usize, RecvError> {
        self.end.receive_many(values, count, Patience::Until(deadline.into()))
    }

    /// Receives the next message to be read where it lies, waiting for it as long as it takes.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = mp_channel::channel::<(u32, String)>(4)?;
    /// sender.send((7, "seven".to_owned())).map_err(|error| error.failure)?;
    /// let received = receiver.recv_archived()?;
    /// assert_eq!((received.0.to_native(), received.1.as_str()), (7, "seven"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_archived(&self) -> Result<Received<T>, RecvError> {
        self.recv_archived_patiently(Patience::Forever)
    }

    /// [`recv_archived`](Self::recv_archived) of a message that is there now.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_archived(&self) -> Result<Received<T>, RecvError> {
        self.recv_archived_patiently(Patience::None)
    }

    /// [`recv_archived`](Self::recv_archived) that waits for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_archived_timeout(&self, timeout: Duration) -> Result<Received<T>, RecvError> {
        self.recv_archived_patiently(Patience::Until(Deadline::after(timeout)))
    }

    /// [`recv_archived`](Self::recv_archived) that waits until `deadline`.
    ///
    /// # Errors
    /// As [`recv_deadline`](Self::recv_deadline).
    pub fn recv_archived_deadline(&self, deadline: Instant) -> Result<Received<T>, RecvError> {
        self.recv_archived_patiently(Patience::Until(deadline.into()))
    }

    fn recv_archived_patiently(&self, patience: Patience) -> Result<Received<T>, RecvError> {
        let (_, payload) = self.end.receive(patience, None)?;
        Received::new(payload).map_err(RecvError::Decode)
    }

    /// Receives messages until all senders are gone. A message that is not valid ends it, too.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Receives the messages that are there, until there is none.
    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

/// Receives messages until all senders are gone, as [`Receiver::iter`].
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

impl<T> Receiver<T> {
    /// This end, to wait for.
    pub(crate) fn source(&self) -> Source {
        self.end.source(Side::Receiver)
    }

    /// The most messages the channel holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.end.capacity()
    }

    /// How many messages are waiting, a moment ago.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end.len()
    }

    /// Whether no message was waiting a moment ago.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.is_empty()
    }
}

message_of_handle!([T: Message] Sender<T>, Kind::SENDER, |sender| sender.end.reference(), |reference| {
    Ok(Sender { end: Arc::new(End::open(reference, type_hash::<T>())?), carries: PhantomData })
});
message_of_handle!([T: Message] Receiver<T>, Kind::RECEIVER, |receiver| receiver.end.reference(), |reference| {
    Ok(Receiver { end: Arc::new(End::open(reference, type_hash::<T>())?), carries: PhantomData })
});

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { end: self.end.clone(), carries: PhantomData }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { end: self.end.clone(), carries: PhantomData }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({})", self.end.reference().handle())
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({})", self.end.reference().handle())
    }
}
