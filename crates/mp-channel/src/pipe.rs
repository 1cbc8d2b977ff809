//! Pipes between two processes of a program tree: values of any types and raw bytes, one way or both, like Python's `Pipe`.
//!
//! A pipe is one channel a direction, whose messages say whether they are a value or bytes. The ends can be sent in messages. For programs
//! that are no relatives see [`crate::connection`].
//!
//! # Examples
//! ```
//! let (left, right) = mp_channel::pipe::duplex(8)?;
//! left.send(&(7_u64, "seven".to_owned()))?;
//! right.send_bytes(b"raw")?;
//! assert_eq!(right.recv::<(u64, String)>()?, (7, "seven".to_owned()));
//! let mut buffer = [0; 16];
//! assert_eq!(left.recv_bytes_into(&mut buffer)?, 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::channel::type_hash;
use crate::dynamic::{self, DynMessage, DynReceiver, DynSender, Tag};
use crate::error::{ChannelError, RecvError, SendFailure};
use crate::select::{Selectable, Source};
use mp_shm::{Message, message_of_parts};
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use std::fmt;
use std::time::{Duration, Instant};

/// The first word of the tag of a message of bytes; the others are 0.
const BYTES: u64 = u64::from_le_bytes(*b"bytes\0\0\0");
/// The first word of the tag of a value; the second is the hash of its type.
const VALUE: u64 = u64::from_le_bytes(*b"value\0\0\0");

/// An end that sends.
#[derive(Clone, Debug)]
pub struct Writer(DynSender);

/// An end that receives. One process at a time should: what does not fit into a buffer is kept by the end it was received with.
#[derive(Debug)]
pub struct Reader(DynReceiver);

/// An end that does both.
#[derive(Debug)]
pub struct Duplex {
    ends: (Writer, Reader),
}

/// Why nothing was received from a pipe.
#[derive(Debug)]
pub enum PipeError {
    /// As with any channel.
    Recv(RecvError),
    /// The message is of another type, or bytes where a value was asked for, or the other way round. It is consumed.
    OtherType,
    /// The buffer is too small for the message, which is here.
    TooSmall(Vec<u8>),
}

impl PipeError {
    /// Whether nothing was there in the time given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Recv(RecvError::Empty))
    }

    /// Whether the other end is gone and nothing is left.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Recv(RecvError::Disconnected))
    }
}

impl fmt::Display for PipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recv(error) => error.fmt(f),
            Self::OtherType => f.write_str("receiving from a pipe: the message is of another type"),
            Self::TooSmall(bytes) => {
                write!(
                    f,
                    "receiving from a pipe: the buffer is too small for a message of {} bytes",
                    bytes.len()
                )
            }
        }
    }
}

impl std::error::Error for PipeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Recv(error) => Some(error),
            Self::OtherType | Self::TooSmall(_) => None,
        }
    }
}

/// Makes a pipe of one direction for up to `capacity` messages, 0 to 2^24, in the session of this program tree.
///
/// # Errors
/// [`ChannelError`]
pub fn one_way(capacity: usize) -> Result<(Writer, Reader), ChannelError> {
    let (sender, receiver) = dynamic::channel(capacity)?;
    Ok((Writer(sender), Reader(receiver)))
}

/// Makes a pipe of both directions for up to `capacity` messages each, 0 to 2^24, in the session of this program tree.
///
/// # Errors
/// [`ChannelError`]
pub fn duplex(capacity: usize) -> Result<(Duplex, Duplex), ChannelError> {
    let (there, there_out) = one_way(capacity)?;
    let (back, back_out) = one_way(capacity)?;
    Ok((Duplex { ends: (there, back_out) }, Duplex { ends: (back, there_out) }))
}

fn tag_of<T: Message>() -> Tag {
    [VALUE, type_hash::<T>().into(), 0, 0]
}

impl Writer {
    /// Sends a copy of `value`, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendFailure`]
    pub fn send<T: Message>(&self, value: &T) -> Result<(), SendFailure> {
        self.0.send(tag_of::<T>(), value)
    }

    /// [`send`](Self::send) if there is room now.
    ///
    /// # Errors
    /// [`SendFailure`]
    pub fn try_send<T: Message>(&self, value: &T) -> Result<(), SendFailure> {
        self.0.try_send(tag_of::<T>(), value)
    }

    /// [`send`](Self::send), waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// [`SendFailure`]
    pub fn send_timeout<T: Message>(&self, value: &T, timeout: Duration) -> Result<(), SendFailure> {
        self.0.send_patiently(tag_of::<T>(), value, Patience::Until(Deadline::after(timeout)))
    }

    /// [`send`](Self::send), waiting for room until `deadline`.
    ///
    /// # Errors
    /// [`SendFailure`]
    pub fn send_deadline<T: Message>(&self, value: &T, deadline: Instant) -> Result<(), SendFailure> {
        self.0.send_patiently(tag_of::<T>(), value, deadline.into())
    }

    /// Sends a copy of `bytes` as one message, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendFailure`]
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), SendFailure> {
        self.0.send_slice([BYTES, 0, 0, 0], bytes, Patience::Forever)
    }

    /// [`send_bytes`](Self::send_bytes), waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// [`SendFailure`]
    pub fn send_bytes_timeout(&self, bytes: &[u8], timeout: Duration) -> Result<(), SendFailure> {
        self.0.send_slice([BYTES, 0, 0, 0], bytes, Patience::Until(Deadline::after(timeout)))
    }
}

impl Reader {
    fn receive(&self, patience: Patience) -> Result<DynMessage, PipeError> {
        self.0.recv_patiently(patience).map_err(PipeError::Recv)
    }

    fn value<T: Message>(message: DynMessage) -> Result<T, PipeError> {
        if message.tag() != tag_of::<T>() {
            return Err(PipeError::OtherType);
        }
        message.decode().map_err(|error| PipeError::Recv(RecvError::Decode(error)))
    }

    fn bytes(message: &DynMessage) -> Result<&[u8], PipeError> {
        if message.tag() != [BYTES, 0, 0, 0] {
            return Err(PipeError::OtherType);
        }
        message.slice().map_err(|error| PipeError::Recv(RecvError::Decode(error)))
    }

    /// Receives a value, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`PipeError`]
    pub fn recv<T: Message>(&self) -> Result<T, PipeError> {
        Self::value(self.receive(Patience::Forever)?)
    }

    /// Receives a value if there is one now.
    ///
    /// # Errors
    /// [`PipeError`]
    pub fn try_recv<T: Message>(&self) -> Result<T, PipeError> {
        Self::value(self.receive(Patience::None)?)
    }

    /// Receives a value, waiting for it for at most `timeout`.
    ///
    /// # Errors
    /// [`PipeError`]
    pub fn recv_timeout<T: Message>(&self, timeout: Duration) -> Result<T, PipeError> {
        Self::value(self.receive(Patience::Until(Deadline::after(timeout)))?)
    }

    /// Receives a value, waiting for it until `deadline`.
    ///
    /// # Errors
    /// [`PipeError`]
    pub fn recv_deadline<T: Message>(&self, deadline: Instant) -> Result<T, PipeError> {
        Self::value(self.receive(deadline.into())?)
    }

    /// Receives a message of bytes, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`PipeError`]
    pub fn recv_bytes(&self) -> Result<Vec<u8>, PipeError> {
        Self::bytes(&self.receive(Patience::Forever)?).map(<[u8]>::to_vec)
    }

    /// [`recv_bytes`](Self::recv_bytes) for at most `timeout`.
    ///
    /// # Errors
    /// [`PipeError`]
    pub fn recv_bytes_timeout(&self, timeout: Duration) -> Result<Vec<u8>, PipeError> {
        Self::bytes(&self.receive(Patience::Until(Deadline::after(timeout)))?).map(<[u8]>::to_vec)
    }

    /// Receives a message of bytes into `buffer`; gives how many they are.
    ///
    /// # Errors
    /// [`PipeError`]; if the buffer is too small, the error has the message.
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize, PipeError> {
        let message = self.receive(Patience::Forever)?;
        let bytes = Self::bytes(&message)?;
        let place = buffer.get_mut(..bytes.len()).ok_or_else(|| PipeError::TooSmall(bytes.to_vec()))?;
        place.copy_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Whether a message can be received without waiting, or the other end is gone; waits for that for at most `timeout`.
    ///
    /// # Errors
    /// [`SelectError`](crate::select::SelectError), but not that the time was over.
    pub fn poll(&self, timeout: Duration) -> Result<bool, crate::select::SelectError> {
        let mut select = crate::Select::new();
        select.end(self);
        match select.ready_timeout(timeout) {
            Ok(_) => Ok(true),
            Err(error) if error.is_timeout() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Duplex {
    /// The two directions by themselves.
    #[must_use]
    pub fn split(self) -> (Writer, Reader) {
        self.ends
    }

    /// The direction away from here.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.ends.0
    }

    /// The direction to here.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.ends.1
    }
}

macro_rules! forward {
    ($($(#[$doc:meta])* $name:ident $(<$t:ident>)? ($($arg:ident: $type:ty),*) -> $out:ty, $half:ident;)*) => {
        impl Duplex {$(
            $(#[$doc])*
            pub fn $name $(<$t: Message>)? (&self, $($arg: $type),*) -> $out {
                self.$half().$name($($arg),*)
            }
        )*}
    };
}

forward! {
    /// As [`Writer::send`].
    ///
    /// # Errors
    /// As there.
    send<T>(value: &T) -> Result<(), SendFailure>, writer;
    /// As [`Writer::try_send`].
    ///
    /// # Errors
    /// As there.
    try_send<T>(value: &T) -> Result<(), SendFailure>, writer;
    /// As [`Writer::send_timeout`].
    ///
    /// # Errors
    /// As there.
    send_timeout<T>(value: &T, timeout: Duration) -> Result<(), SendFailure>, writer;
    /// As [`Writer::send_bytes`].
    ///
    /// # Errors
    /// As there.
    send_bytes(bytes: &[u8]) -> Result<(), SendFailure>, writer;
    /// As [`Reader::recv`].
    ///
    /// # Errors
    /// As there.
    recv<T>() -> Result<T, PipeError>, reader;
    /// As [`Reader::try_recv`].
    ///
    /// # Errors
    /// As there.
    try_recv<T>() -> Result<T, PipeError>, reader;
    /// As [`Reader::recv_timeout`].
    ///
    /// # Errors
    /// As there.
    recv_timeout<T>(timeout: Duration) -> Result<T, PipeError>, reader;
    /// As [`Reader::recv_bytes`].
    ///
    /// # Errors
    /// As there.
    recv_bytes() -> Result<Vec<u8>, PipeError>, reader;
    /// As [`Reader::recv_bytes_into`].
    ///
    /// # Errors
    /// As there.
    recv_bytes_into(buffer: &mut [u8]) -> Result<usize, PipeError>, reader;
    /// As [`Reader::poll`].
    ///
    /// # Errors
    /// As there.
    poll(timeout: Duration) -> Result<bool, crate::select::SelectError>, reader;
}

impl Selectable for Writer {
    fn selected(&self) -> Source {
        self.0.selected()
    }
}

impl Selectable for Reader {
    fn selected(&self) -> Source {
        self.0.selected()
    }
}

/// Ready when there is something to receive.
impl Selectable for Duplex {
    fn selected(&self) -> Source {
        self.reader().selected()
    }
}

fn duplex_of(ends: (Writer, Reader)) -> Duplex {
    Duplex { ends }
}

message_of_parts!([] Writer, Writer, 0: DynSender);
message_of_parts!([] Reader, Reader, 0: DynReceiver);
message_of_parts!([] Duplex, duplex_of, ends: (Writer, Reader));
