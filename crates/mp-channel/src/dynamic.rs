//! Channels whose messages are of several types, told apart by a tag of four words.
//!
//! For those who build on channels, a pool say: the receiver looks at the tag and then decodes what it stands for. The type named
//! at decoding must be the one that was sent; the archive is validated as that type, so a wrong one is an error or another
//! value, never undefined behaviour.

use crate::end::End;
use crate::error::{ChannelError, RecvError, SendFailure};
use crate::source::{Side, Source};
use crate::view::{Cut, TAG_BYTES};
use mp_shm::codec::{DecodeError, Payload};
use mp_shm::handle::Kind;
use mp_shm::{Message, Session, message_of_handle};
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Four words that say what a message is.
pub type Tag = [u64; 4];

/// Inline bytes beside the tag.
const EXPECTED_BYTES: usize = 208;
const TYPE_HASH: u32 = u32::from_le_bytes(*b"dyn\0");

/// The sending end.
#[derive(Clone, Debug)]
pub struct DynSender {
    end: Arc<End>,
}

/// The receiving end.
#[derive(Clone, Debug)]
pub struct DynReceiver {
    end: Arc<End>,
}

/// A received message, not yet decoded.
#[derive(Debug)]
pub struct DynMessage {
    tag: Tag,
    payload: Payload,
}

/// Makes a channel for up to `capacity` messages of any types.
///
/// # Errors
/// As [`channel`](crate::channel).
pub fn channel(capacity: usize) -> Result<(DynSender, DynReceiver), ChannelError> {
    let session = Session::current().map_err(ChannelError::Session)?;
    let cut = Cut::new(capacity, TAG_BYTES, EXPECTED_BYTES).ok_or(ChannelError::Capacity(capacity))?;
    let [sender, receiver] = End::create(session, cut, TYPE_HASH, 0)?;
    Ok((DynSender { end: Arc::new(sender) }, DynReceiver { end: Arc::new(receiver) }))
}

impl DynSender {
    /// Sends a copy of `value` under `tag`, waiting for room as long as it takes.
    ///
    /// # Errors
    /// All receivers are gone, or the value cannot be encoded.
    pub fn send<T: Message>(&self, tag: Tag, value: &T) -> Result<(), SendFailure> {
        self.end.send(tag, value, Patience::Forever)
    }

    /// Sends a copy of `value` if there is room now.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the channel is full.
    pub fn try_send<T: Message>(&self, tag: Tag, value: &T) -> Result<(), SendFailure> {
        self.end.send(tag, value, Patience::None)
    }

    pub(crate) fn send_patiently<T: Message>(
        &self,
        tag: Tag,
        value: &T,
        patience: Patience,
    ) -> Result<(), SendFailure> {
        self.end.send(tag, value, patience)
    }

    /// Sends a copy of `bytes`, which is a `Vec<u8>` at the other end.
    pub(crate) fn send_slice(&self, tag: Tag, bytes: &[u8], patience: Patience) -> Result<(), SendFailure> {
        let mut room = self.end.room(bytes.len()).map_err(SendFailure::Session)?;
        room.elements_mut().copy_from_slice(bytes);
        let mut block = Some(room.into_block());
        self.end.send_block(tag, &mut block, patience)
    }

    /// This end, to wait for.
    pub(crate) fn source(&self) -> Source {
        self.end.source(Side::Sender)
    }

    /// Whether all receivers are gone. A death counts once it has been recovered from.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.end.receivers() == 0
    }
}

impl DynReceiver {
    /// Receives the next message, waiting for it as long as it takes.
    ///
    /// # Errors
    /// All senders are gone and nothing is left.
    pub fn recv(&self) -> Result<DynMessage, RecvError> {
        self.receive(Patience::Forever, None)
    }

    /// Receives the next message if one is there now.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if the channel is empty.
    pub fn try_recv(&self) -> Result<DynMessage, RecvError> {
        self.receive(Patience::None, None)
    }

    /// How many messages wait here, at this moment; one that is just being sent may not be counted yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end.len()
    }

    /// Whether [none](Self::len) waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.is_empty()
    }

    /// Whether no other receiver is left, here or elsewhere. A death counts once it has been recovered from.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.end.receivers() == 1
    }

    /// This end, to wait for.
    pub(crate) fn source(&self) -> Source {
        self.end.source(Side::Receiver)
    }

    /// How many deaths the session has recovered from; for [`recv_or_death`](Self::recv_or_death).
    #[must_use]
    pub fn deaths(&self) -> u32 {
        self.end.session().death_epoch().load(Ordering::Acquire)
    }

    /// Receives the next message; ends with [`RecvError::Death`] when nothing is there and somebody of the session has died since
    /// `deaths` was read, and with [`RecvError::Empty`] after the timeout.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and these two.
    pub fn recv_or_death(&self, deaths: u32, timeout: Option<Duration>) -> Result<DynMessage, RecvError> {
        let patience = timeout.map_or(Patience::Forever, |timeout| Patience::Until(Deadline::after(timeout)));
        self.receive(patience, Some(deaths))
    }

    pub(crate) fn recv_patiently(&self, patience: Patience) -> Result<DynMessage, RecvError> {
        self.receive(patience, None)
    }

    fn receive(&self, patience: Patience, deaths: Option<u32>) -> Result<DynMessage, RecvError> {
        let (tag, payload) = self.end.receive(patience, deaths)?;
        Ok(DynMessage { tag, payload })
    }
}

impl DynMessage {
    /// The tag it was sent under.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// The message as bytes, where they lie, if it is a `Vec<u8>`.
    pub(crate) fn slice(&self) -> Result<&[u8], DecodeError> {
        self.payload.archived::<Vec<u8>>().map(|bytes| bytes.as_slice())
    }

    /// The message without its tag.
    #[must_use]
    pub fn into_payload(self) -> Payload {
        self.payload
    }

    /// Decodes the message, which must be of the type that the tag stands for.
    ///
    /// # Errors
    /// It is no valid archive of `T`.
    pub fn decode<T: Message>(self) -> Result<T, DecodeError> {
        self.payload.decode()
    }
}

message_of_handle!([] DynSender, Kind::SENDER, |sender| sender.end.reference(), |reference| {
    Ok(DynSender { end: Arc::new(End::open(reference, TYPE_HASH)?) })
});
message_of_handle!([] DynReceiver, Kind::RECEIVER, |receiver| receiver.end.reference(), |reference| {
    Ok(DynReceiver { end: Arc::new(End::open(reference, TYPE_HASH)?) })
});
