//! What can go wrong with connections.

use super::address::AddressError;
use super::auth::Refusal;
use super::frame::FrameError;
use std::fmt;
use std::io;

/// A listener could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenError {
    /// The system cannot take this address.
    Address(AddressError),
    /// Somebody listens there already, or something else is there.
    InUse,
    /// The system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => write!(f, "listening: {error}"),
            Self::InUse => f.write_str("listening: the address is in use"),
            Self::Io { doing, error } => write!(f, "listening: {doing}: {error}"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(error) => Some(error),
            Self::InUse => None,
            Self::Io { error, .. } => Some(error),
        }
    }
}

/// The two ends did not come to trust each other.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// One end does not accept the other.
    Refused(Refusal),
    /// The other end announced a message that is no part of a handshake.
    Frame(FrameError),
    /// It was not done in the time that [`Options`](super::Options) give it.
    TimedOut,
    /// The other end went away in the middle of it.
    Disconnected,
    /// The system refused.
    Io(io::Error),
}

impl HandshakeError {
    /// Whether the ends have different keys, whoever of the two noticed first.
    #[must_use]
    pub fn is_wrong_key(&self) -> bool {
        matches!(self, Self::Refused(Refusal::WrongKey | Refusal::Rejected))
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "authenticating: {refusal}"),
            Self::Frame(error) => write!(f, "authenticating: {error}"),
            Self::TimedOut => f.write_str("authenticating: the other end took too long"),
            Self::Disconnected => f.write_str("authenticating: the other end went away"),
            Self::Io(error) => write!(f, "authenticating: {error}"),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Frame(error) => Some(error),
            Self::TimedOut | Self::Disconnected => None,
            Self::Io(error) => Some(error),
        }
    }
}

/// No connection was accepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptError {
    /// Nobody came in the time given, or who came was not done with the handshake when it was over.
    TimedOut,
    /// Somebody came and was turned away. The listener is as good as before.
    Handshake(HandshakeError),
    /// The system refused: too many descriptors are open, say.
    Io(io::Error),
}

impl AcceptError {
    /// Whether the time given was over.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut)
    }

    /// Whether only the one who came is at fault: no reason to stop listening.
    #[must_use]
    pub fn is_of_the_peer(&self) -> bool {
        matches!(self, Self::Handshake(_))
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("accepting a connection: the time is over"),
            Self::Handshake(error) => write!(f, "accepting a connection: {error}"),
            Self::Io(error) => write!(f, "accepting a connection: {error}"),
        }
    }
}

impl std::error::Error for AcceptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TimedOut => None,
            Self::Handshake(error) => Some(error),
            Self::Io(error) => Some(error),
        }
    }
}

/// No connection was made.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The system cannot take this address.
    Address(AddressError),
    /// Nobody listens there.
    Nobody(io::Error),
    /// The time given was over.
    TimedOut,
    /// The listener turned us away, or we it.
    Handshake(HandshakeError),
    /// The system refused.
    Io(io::Error),
}

impl ConnectError {
    /// Whether the time given was over.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut)
    }

    /// Whether nobody listens there: who waits for a listener to begin may try again later.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody(_))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => write!(f, "connecting: {error}"),
            Self::Nobody(error) => write!(f, "connecting: nobody listens there: {error}"),
            Self::TimedOut => f.write_str("connecting: the time is over"),
            Self::Handshake(error) => write!(f, "connecting: {error}"),
            Self::Io(error) => write!(f, "connecting: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(error) => Some(error),
            Self::TimedOut => None,
            Self::Handshake(error) => Some(error),
            Self::Nobody(error) | Self::Io(error) => Some(error),
        }
    }
}

/// A message was not sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The time was over before any of it was sent; it can be tried again.
    TimedOut,
    /// The time was over when a part of it had been sent. Nothing can follow, so this end sends no more, and the other end is told.
    HalfSent,
    /// The other end is gone.
    Disconnected,
    /// An earlier send was [half done](Self::HalfSent) or failed: this end sends no more.
    Closed,
    /// It is longer than the [most](super::Options::max_message_bytes) for this connection. Nothing was sent.
    TooLong {
        /// Its length in bytes.
        length: u64,
        /// The most, in bytes.
        max: u64,
    },
    /// The value could not be encoded. Nothing was sent.
    Encode(String),
    /// Descriptors travel over local sockets only.
    NotLocal,
    /// The system refused.
    Io(io::Error),
}

impl SendError {
    /// Whether the time was over, before or after some of the message was sent.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut | Self::HalfSent)
    }

    /// Whether the other end is gone.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("sending: the time is over, nothing was sent"),
            Self::HalfSent => f.write_str("sending: the time is over in the middle of the message"),
            Self::Disconnected => f.write_str("sending: the other end is gone"),
            Self::Closed => f.write_str("sending: an earlier message was sent by half"),
            Self::TooLong { length, max } => {
                write!(f, "sending: the message has {length} bytes, {max} are allowed")
            }
            Self::Encode(error) => write!(f, "sending: encoding the value: {error}"),
            Self::NotLocal => f.write_str("sending a descriptor: the connection is not local"),
            Self::Io(error) => write!(f, "sending: {error}"),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// No message was received.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// The time was over. What has arrived of a message is kept for the next call.
    TimedOut,
    /// The other end is gone, or sends no more, and every message was received.
    Disconnected,
    /// The other end went away in the middle of a message.
    Truncated,
    /// The other end announced a message that is refused. The connection is closed.
    Frame(FrameError),
    /// The caller's buffer is too small; here is the message, which is consumed.
    TooSmall(Vec<u8>),
    /// The message is not a valid archive of this type. It is consumed.
    Invalid(String),
    /// A descriptor comes next, which only [`recv_fd`](super::Reader::recv_fd) takes. Nothing is lost.
    Descriptor,
    /// No descriptor comes next, but a message. Nothing is lost.
    NoDescriptor,
    /// Descriptors travel over local sockets only.
    NotLocal,
    /// The system refused.
    Io(io::Error),
}

impl RecvError {
    /// Whether the time was over.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut)
    }

    /// Whether the other end is gone and nothing is left.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected)
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("receiving: the time is over"),
            Self::Disconnected => f.write_str("receiving: the other end is gone and no message is left"),
            Self::Truncated => f.write_str("receiving: the other end went away in the middle of a message"),
            Self::Frame(error) => write!(f, "receiving: {error}"),
            Self::TooSmall(message) => {
                write!(f, "receiving: the message has {} bytes, more than the buffer", message.len())
            }
            Self::Invalid(error) => write!(f, "receiving: decoding the value: {error}"),
            Self::Descriptor => f.write_str("receiving: a descriptor comes next, not a message"),
            Self::NoDescriptor => f.write_str("receiving a descriptor: a message comes next"),
            Self::NotLocal => f.write_str("receiving a descriptor: the connection is not local"),
            Self::Io(error) => write!(f, "receiving: {error}"),
        }
    }
}

impl std::error::Error for RecvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Frame(error) => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}
