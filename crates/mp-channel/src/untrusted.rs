//! Channels to processes that are not trusted: whatever a peer writes to the channel's memory, at any time, is an error or another message
//! here, and nothing worse.
//!
//! It is the same ring as [`crate::channel`]'s, every word of which is checked when it is read. Messages lie in the slots alone, whose size is
//! given: a value is encoded into private memory and copied in, and copied out and then validated; no reference into shared memory is ever
//! handed out, no block of the session is named, no handle travels.
//!
//! What it does not do: keep a peer from filling the channel, emptying it, or from garbling messages that are not its own. The memory of
//! the channel is what is not trusted; a process that shares a [`Session`] can write all of it. For less trusted workers make a session of their
//! own ([`Session::create`]), with nothing in it but this.
//!
//! # Examples
//! ```
//! let (sender, receiver) = mp_channel::untrusted::channel::<(u32, String)>(8, 256)?;
//! sender.send((7, "seven".to_owned())).map_err(|error| error.failure)?;
//! assert_eq!(receiver.recv()?, (7, "seven".to_owned()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![expect(unsafe_code, reason = "the pending words of the ring")]

use crate::channel::type_hash;
use crate::end::{refused_receive, refused_send};
use crate::error::{ChannelError, RecvError, SendError, SendFailure};
use crate::kind::UntrustedKind;
use crate::select::{Selectable, Source};
use crate::source::Side;
use crate::view::{Cut, Here, View};
use mp_shm::codec::{decode_inline, encode};
use mp_shm::error::SessionError;
use mp_shm::handle::Kind;
use mp_shm::references::{HandleError, Reference};
use mp_shm::{Message, Session, kinds, message_of_handle};
use mp_sync::patience::Patience;
use mp_sync::spin::Spin;
use mp_sys::deadline::Deadline;
use mp_sys::robust;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// Most bytes that a message of such a channel can be given.
pub const MESSAGE_BYTES_MAX: usize = 60 << 10;

/// One end: the channel, and this process's reference to the end.
#[derive(Debug)]
struct End {
    view: View,
    reference: Arc<Reference>,
    spin: Spin,
}

/// The sending end. Clone it, send it to other processes, share it between threads.
pub struct Sender<T> {
    end: Arc<End>,
    carries: PhantomData<fn(T)>,
}

/// The receiving end. Clone it, send it to other processes, share it between threads; each message goes to one receiver.
pub struct Receiver<T> {
    end: Arc<End>,
    carries: PhantomData<fn() -> T>,
}

/// Makes a channel for up to `capacity` messages, 1 to 2^24, of up to `message_bytes` bytes each (as archives), 1 to
/// [`MESSAGE_BYTES_MAX`], in the session of this program tree.
///
/// # Errors
/// [`ChannelError`]: a capacity or size out of range, no memory.
pub fn channel<T: Message>(
    capacity: usize,
    message_bytes: usize,
) -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    channel_in(Session::current().map_err(ChannelError::Session)?, capacity, message_bytes)
}

/// Makes a channel in a given session: only processes attached to that session can hold its ends.
///
/// # Errors
/// As [`channel`].
pub fn channel_in<T: Message>(
    session: Session,
    capacity: usize,
    message_bytes: usize,
) -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    if !(1..=MESSAGE_BYTES_MAX).contains(&message_bytes) {
        return Err(ChannelError::MessageBytes(message_bytes));
    }
    let cut = Cut::with_room(capacity, message_bytes).filter(|cut| !cut.rendezvous);
    let cut = cut.ok_or(ChannelError::Capacity(capacity))?;
    kinds::register(Kind::UNTRUSTED, &UntrustedKind);
    let block = session.allocate(Kind::MESSAGE, cut.block_bytes()).map_err(ChannelError::Session)?;
    let view = View::lay_out(&block, cut, 0).ok_or(ChannelError::Session(SessionError::NotASession))?;
    let ends = [Kind::UNTRUSTED_SENDER, Kind::UNTRUSTED_RECEIVER];
    let [sender, receiver] =
        session.publish_object(block, ends, type_hash::<T>()).map_err(ChannelError::Session)?;
    let [sender, receiver] = [sender, receiver].map(|reference| Arc::new(End::new(view, reference)));
    Ok((Sender { end: sender, carries: PhantomData }, Receiver { end: receiver, carries: PhantomData }))
}

impl End {
    fn new(view: View, reference: Reference) -> Self {
        Self { view: view.alone(), reference: Arc::new(reference), spin: Spin::new() }
    }

    fn open(reference: Reference, type_hash: u32) -> Result<Self, HandleError> {
        kinds::register(Kind::UNTRUSTED, &UntrustedKind);
        let view = View::open(reference.session(), reference.handle().offset).ok_or(HandleError::Stale)?;
        if reference.type_hash() != type_hash {
            return Err(HandleError::OtherType);
        }
        Ok(Self::new(view, reference))
    }

    /// The id of this thread, if this end is still ours.
    fn thread(&self) -> Result<u16, SessionError> {
        let me = self.view.session.me()?;
        if self.reference.is_held_by(me.process) { Ok(me.thread) } else { Err(SessionError::Forked) }
    }

    fn spin(&self) -> Option<&Spin> {
        self.view.session.has_other_processors().then_some(&self.spin)
    }

    fn send(&self, bytes: &[u8], patience: Patience) -> Result<(), SendFailure> {
        let thread = self.thread().map_err(SendFailure::Session)?;
        robust::with(|current| {
            let here = Here { view: &self.view, thread };
            let ring = self.view.ring(&here, current);
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            let claim = unsafe { ring.begin_send(patience, || self.spin()) }.map_err(refused_send)?;
            self.view.write_words(claim.index(), bytes);
            ring.finish_send(&claim);
            Ok(())
        })
    }

    fn receive(&self, patience: Patience) -> Result<mp_shm::rkyv::util::AlignedVec, RecvError> {
        let thread = self.thread().map_err(RecvError::Session)?;
        robust::with(|current| {
            let here = Here { view: &self.view, thread };
            let ring = self.view.ring(&here, current);
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            let claim = unsafe { ring.begin_receive(patience, || self.spin()) }.map_err(refused_receive)?;
            let bytes = self.view.copy_slot(claim.index());
            ring.finish_receive(&claim);
            bytes.ok_or(RecvError::Corrupt)
        })
    }
}

impl<T: Message> Sender<T> {
    /// Sends `value`, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendError`], which gives the value back: all receivers are gone, the value is too large or has handles in it, or the channel's memory
    /// was garbled.
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

    fn send_patiently(&self, value: T, patience: Patience) -> Result<(), SendError<T>> {
        self.send_ref(&value, patience).map_err(|failure| SendError { value, failure })
    }

    fn send_ref(&self, value: &T, patience: Patience) -> Result<(), SendFailure> {
        let view = &self.end.view;
        // User code runs here, before any slot is claimed.
        let encoded = encode(view.session, value, 0).map_err(SendFailure::Encode)?;
        if encoded.has_handles() {
            return Err(SendFailure::Handles);
        }
        let (bytes, most) = (encoded.len(), view.room());
        if bytes > most {
            return Err(SendFailure::TooLarge { bytes, most });
        }
        self.end.send(encoded.bytes(), patience)
    }
}

impl<T: Message> Receiver<T> {
    /// Receives the next message, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`RecvError`]: all senders are gone and nothing is left; a message that is not a valid `T`, which is consumed; or the channel's memory was
    /// garbled.
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
        let bytes = self.end.receive(patience)?;
        decode_inline(self.end.view.session, &bytes)
    }

    /// Receives messages until all senders are gone. A message that is not valid ends it, too.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }
}

macro_rules! both_ends {
    ($end:ident, $side:expr, $kind:expr) => {
        impl<T> $end<T> {
            /// The most messages the channel holds.
            #[must_use]
            pub fn capacity(&self) -> usize {
                self.end.view.shape().capacity() as usize
            }

            /// The most bytes a message may have.
            #[must_use]
            pub fn message_bytes(&self) -> usize {
                self.end.view.room()
            }

            /// All of the channel's memory, for tests that play the peer who is not to be trusted.
            #[doc(hidden)]
            #[must_use]
            pub fn memory(&self) -> &[AtomicU32] {
                self.end.view.memory()
            }
        }

        impl<T> Clone for $end<T> {
            fn clone(&self) -> Self {
                Self { end: self.end.clone(), carries: PhantomData }
            }
        }

        impl<T> Selectable for $end<T> {
            fn selected(&self) -> Source {
                Source::ring(self.end.view, $side, self.end.reference.clone())
            }
        }

        impl<T> fmt::Debug for $end<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("untrusted::", stringify!($end), "({})"), self.end.reference.handle())
            }
        }

        message_of_handle!([T: Message] $end<T>, $kind, |one| &one.end.reference, |reference| {
            Ok($end { end: Arc::new(End::open(reference, type_hash::<T>())?), carries: PhantomData })
        });
    };
}

both_ends!(Sender, Side::Sender, Kind::UNTRUSTED_SENDER);
both_ends!(Receiver, Side::Receiver, Kind::UNTRUSTED_RECEIVER);
