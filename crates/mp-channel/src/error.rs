//! What can go wrong with a channel.

use mp_shm::codec::{DecodeError, EncodeError};
use mp_shm::error::SessionError;
use std::fmt;

/// A channel could not be made.
#[derive(Debug)]
pub enum ChannelError {
    /// The capacity is above [`CAPACITY_MAX`](crate::stamp::CAPACITY_MAX).
    Capacity(usize),
    /// The size of messages is 0 or above [`MESSAGE_BYTES_MAX`](crate::untrusted::MESSAGE_BYTES_MAX).
    MessageBytes(usize),
    /// No memory in the session, or no part in it.
    Session(SessionError),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity(capacity) => {
                write!(
                    f,
                    "making a channel: a capacity of {capacity} is above {}",
                    crate::stamp::CAPACITY_MAX
                )
            }
            Self::MessageBytes(bytes) => write!(
                f,
                "making a channel: messages of {bytes} bytes are not between 1 and {}",
                crate::untrusted::MESSAGE_BYTES_MAX
            ),
            Self::Session(error) => write!(f, "making a channel: {error}"),
        }
    }
}

impl std::error::Error for ChannelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Capacity(_) | Self::MessageBytes(_) => None,
            Self::Session(error) => Some(error),
        }
    }
}

/// Why a message was not sent.
#[derive(Debug)]
pub enum SendFailure {
    /// The channel is full (`try_send`), or stayed so until the time was over.
    Full,
    /// Nobody can receive any more: all receivers are dropped or dead.
    Disconnected,
    /// The value could not be encoded.
    Encode(EncodeError),
    /// There are handles in the value, which this kind of channel cannot carry.
    Handles,
    /// The value has more bytes than a message of this channel may have.
    TooLarge {
        /// Bytes of the value's archive.
        bytes: usize,
        /// The most that the channel takes.
        most: usize,
    },
    /// The channel's memory has values that no operation gives it: some process wrote where it must not.
    Corrupt,
    /// Only one may use this end, and another handle to it is in a message or was taken out of one.
    Shared,
    /// This process has no part in the channel.
    Session(SessionError),
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("sending: the channel is full"),
            Self::Handles => {
                f.write_str("sending: there are handles in the value, which this channel cannot carry")
            }
            Self::TooLarge { bytes, most } => {
                write!(
                    f,
                    "sending: the value takes {bytes} bytes, and a message of this channel has at most {most}"
                )
            }
            Self::Corrupt => f.write_str("sending: the channel's memory is corrupt"),
            Self::Shared => write!(f, "sending: {}", mp_shm::sole::NotSole::Shared),
            Self::Disconnected => f.write_str("sending: all receivers are gone"),
            Self::Encode(error) => write!(f, "sending: {error}"),
            Self::Session(error) => write!(f, "sending: {error}"),
        }
    }
}

impl std::error::Error for SendFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full
            | Self::Disconnected
            | Self::Handles
            | Self::TooLarge { .. }
            | Self::Corrupt
            | Self::Shared => None,
            Self::Encode(error) => Some(error),
            Self::Session(error) => Some(error),
        }
    }
}

/// A message was not sent; here it is back.
pub struct SendError<T> {
    /// The value that was to be sent.
    pub value: T,
    /// Why it was not.
    pub failure: SendFailure,
}

impl<T> SendError<T> {
    /// The value that was to be sent.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Whether the channel was full.
    pub fn is_full(&self) -> bool {
        matches!(self.failure, SendFailure::Full)
    }

    /// Whether all receivers are gone.
    pub fn is_disconnected(&self) -> bool {
        matches!(self.failure, SendFailure::Disconnected)
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("failure", &self.failure).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl<T> std::error::Error for SendError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.failure)
    }
}

/// Not all messages of a batch were sent.
pub struct BatchError<T> {
    /// How many were.
    pub sent: usize,
    /// The first one that was not, and why.
    pub error: SendError<T>,
}

impl<T> fmt::Debug for BatchError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchError").field("sent", &self.sent).field("error", &self.error).finish()
    }
}

impl<T> fmt::Display for BatchError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} messages of the batch: {}", self.sent, self.error)
    }
}

impl<T> std::error::Error for BatchError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

/// Why no message was received.
#[derive(Debug)]
pub enum RecvError {
    /// The channel is empty (`try_recv`), or stayed so until the time was over.
    Empty,
    /// Nobody can send any more, and every message was received: all senders are dropped or dead.
    Disconnected,
    /// A message was received, but it is not a valid one of this type. It is consumed.
    Decode(DecodeError),
    /// The channel's memory has values that no operation gives it: some process wrote where it must not. The message is lost.
    Corrupt,
    /// So many messages of a broadcast were overwritten before this receiver came to them; it goes on with the oldest that is left. Those that a
    /// sender had not finished when it died count, too.
    Missed(u64),
    /// Somebody of the session died while [`recv_or_death`](crate::dynamic::DynReceiver::recv_or_death) waited.
    Death,
    /// Only one may use this end, and another handle to it is in a message or was taken out of one.
    Shared,
    /// This process has no part in the channel.
    Session(SessionError),
}

impl RecvError {
    /// Whether the channel was empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Whether all senders are gone and nothing is left.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected)
    }
}

impl From<DecodeError> for RecvError {
    #[inline]
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("receiving: the channel is empty"),
            Self::Disconnected => f.write_str("receiving: all senders are gone and no message is left"),
            Self::Decode(error) => write!(f, "receiving: {error}"),
            Self::Corrupt => f.write_str("receiving: the channel's memory is corrupt, a message is lost"),
            Self::Missed(count) => {
                write!(f, "receiving: {count} messages were overwritten before they were read")
            }
            Self::Death => f.write_str("receiving: a process died meanwhile"),
            Self::Shared => write!(f, "receiving: {}", mp_shm::sole::NotSole::Shared),
            Self::Session(error) => write!(f, "receiving: {error}"),
        }
    }
}

impl std::error::Error for RecvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Decode(error) => Some(error),
            Self::Session(error) => Some(error),
            Self::Empty
            | Self::Disconnected
            | Self::Corrupt
            | Self::Missed(_)
            | Self::Death
            | Self::Shared => None,
        }
    }
}
