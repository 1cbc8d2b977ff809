//! Typed channels: what users see.

use crate::end::End;
use crate::error::{ChannelError, RecvError, SendError};
use crate::ring::Shape;
use crate::slot::Cut;
use mp_shm::handle::Kind;
use mp_shm::{Message, Session, message_of_handle};
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The sending end of a channel. Clone it, send it to other processes, share it between threads.
pub struct Sender<T> {
    end: Arc<End>,
    carries: PhantomData<fn(T)>,
}

/// The receiving end of a channel. Clone it, send it to other processes, share it between threads; each message goes to one
/// receiver.
pub struct Receiver<T> {
    end: Arc<End>,
    carries: PhantomData<fn() -> T>,
}

/// Makes a channel for up to `capacity` messages, 1 to 2^24, in the session of this program tree.
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
    let shape = u32::try_from(capacity).ok().and_then(Shape::new).ok_or(ChannelError::Capacity(capacity))?;
    let [sender, receiver] =
        End::create(session, Cut::new(shape, 0, expected_bytes::<T>()), type_hash::<T>(), 0)?;
    Ok((
        Sender { end: Arc::new(sender), carries: PhantomData },
        Receiver { end: Arc::new(receiver), carries: PhantomData },
    ))
}

/// What to make room for in a slot: the archive of a plain type, and for others room for short strings and the like.
fn expected_bytes<T: Message>() -> usize {
    let archived = size_of::<T::Archived>();
    if T::COPY_OPTIMIZATION.is_enabled() { archived } else { archived + 64 }
}

/// Tells channels of different types apart within one build.
fn type_hash<T: Message>() -> u32 {
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

    /// Sends a copy of `value`, which stays the caller's; handles in it are cloned.
    ///
    /// # Errors
    /// As [`send`](Self::send), without the value.
    pub fn send_ref(&self, value: &T) -> Result<(), crate::error::SendFailure> {
        self.end.send([0; 4], value, Patience::Forever)
    }

    fn send_patiently(&self, value: T, patience: Patience) -> Result<(), SendError<T>> {
        self.end.send([0; 4], &value, patience).map_err(|failure| SendError { value, failure })
    }
}

impl<T> Sender<T> {
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
        self.len() == 0
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
        let (_, payload) = self.end.receive(patience, None)?;
        payload.decode().map_err(RecvError::Decode)
    }

    /// Receives messages until all senders are gone. A message that is not valid ends it, too.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }
}

impl<T> Receiver<T> {
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
        self.len() == 0
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
