//! One message, once: the answer to a question, the result of a piece of work.
//!
//! # Examples
//! ```
//! let (sender, receiver) = mp_channel::oneshot::channel::<u64>()?;
//! sender.send(7).map_err(|error| error.failure)?;
//! assert_eq!(receiver.recv()?, 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::error::{ChannelError, RecvError, SendError};
use crate::futures::RecvFuture;
use crate::select::{Selectable, Source};
use crate::spsc;
use mp_shm::{Message, Session, message_of_parts};
use std::fmt;
use std::time::{Duration, Instant};

/// Sends the one message. Dropping it, or the death of its process, tells the receiver that none will come.
pub struct Sender<T>(spsc::Sender<T>);

/// Receives the one message.
pub struct Receiver<T>(spsc::Receiver<T>);

/// Makes a channel for one message in the session of this program tree.
///
/// # Errors
/// [`ChannelError`]: no memory.
pub fn channel<T: Message>() -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    channel_in(Session::current().map_err(ChannelError::Session)?)
}

/// Makes a channel for one message in a given session.
///
/// # Errors
/// As [`channel`].
pub fn channel_in<T: Message>(session: Session) -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    let (sender, receiver) = spsc::channel_in(session, 1)?;
    Ok((Sender(sender), Receiver(receiver)))
}

impl<T: Message> Sender<T> {
    /// Sends the message. There is always room for it.
    ///
    /// # Errors
    /// [`SendError`], which gives the value back: the receiver is gone, or it cannot be encoded.
    pub fn send(mut self, value: T) -> Result<(), SendError<T>> {
        self.0.send(value)
    }
}

impl<T: Message> Receiver<T> {
    /// Waits for the message as long as it takes.
    ///
    /// # Errors
    /// [`RecvError`]: the sender is gone without a message; or a message that is not a valid `T`.
    pub fn recv(mut self) -> Result<T, RecvError> {
        self.0.recv()
    }

    /// The message, if it is there now.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if it is not there yet.
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        self.0.try_recv()
    }

    /// Waits for the message for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if it did not come in time.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        self.0.recv_timeout(timeout)
    }

    /// Waits for the message until `deadline`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<T, RecvError> {
        self.0.recv_deadline(deadline)
    }

    /// Waits for the message as a future. Dropping it loses nothing.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_async(&mut self) -> RecvFuture<'_, T> {
        self.0.recv_async()
    }
}

impl<T> Selectable for Receiver<T> {
    fn selected(&self) -> Source {
        self.0.selected()
    }
}

message_of_parts!([T: Message] Sender<T>, Sender, 0: spsc::Sender<T>);
message_of_parts!([T: Message] Receiver<T>, Receiver, 0: spsc::Receiver<T>);

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("oneshot::Sender").field(&self.0).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("oneshot::Receiver").field(&self.0).finish()
    }
}
