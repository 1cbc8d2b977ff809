//! Channels whose receivers all see every message.
//!
//! Senders never wait for receivers: a new message takes the place of the oldest. So a receiver that is slow, stopped or dead holds nobody
//! up; one that comes too late is told how many it has missed, and goes on with the oldest that is left. The last `capacity` messages are left
//! while nobody sends; a message that is being written has the place of the oldest already, and one who is slower still is told again.
//!
//! Every message is received or counted as missed, once. A message that a sender did not finish before it died is never received; it is
//! counted if it is overwritten with others that are missed, and passed over in silence if it is not.
//!
//! Messages carry no handles. Small ones (up to 240 bytes) lie in the slots, larger ones in blocks; every receiver copies them out.
//!
//! # Examples
//! ```
//! let (sender, mut first) = mp_channel::broadcast::channel::<u64>(8)?;
//! let mut second = first.clone();
//! sender.send(&7)?;
//! assert_eq!((first.recv()?, second.recv()?), (7, 7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![expect(unsafe_code, reason = "the pending words of the bus; messages copied as words")]

use crate::bus::{Bus, Found};
use crate::channel::{expected_bytes, type_hash};
use crate::end::{refused_receive, refused_send};
use crate::error::{ChannelError, RecvError, SendFailure};
use crate::kind::ChannelKind;
use crate::select::{Selectable, Source};
use crate::view::{Cut, Here, View};
use mp_shm::codec::{ArchivedHandle, Attach, Detach, decode_inline, encode};
use mp_shm::error::SessionError;
use mp_shm::handle::Kind;
use mp_shm::references::{HandleError, Reference};
use mp_shm::rkyv::munge::munge;
use mp_shm::rkyv::rend::u64_le;
use mp_shm::rkyv::{self, Place};
use mp_shm::{Message, Session, kinds, message_of_handle};
use mp_sync::patience::Patience;
use mp_sync::spin::Spin;
use mp_sys::deadline::Deadline;
use mp_sys::robust;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One end: the channel, and this process's reference to the end.
#[derive(Clone, Debug)]
struct End {
    view: View,
    reference: Arc<Reference>,
}

/// Sends to all receivers. Clone it, send it to other processes, share it between threads.
pub struct Sender<T> {
    end: End,
    carries: PhantomData<fn(T)>,
}

/// Sees every message that was sent after it was made. A clone begins where the original is; so does one that is sent to another process.
pub struct Receiver<T> {
    end: End,
    /// Changed by this receiver alone; a select that it was added to looks at it.
    position: Arc<AtomicU64>,
    spin: Spin,
    /// Room for the copy of a message.
    words: Vec<u64>,
    carries: PhantomData<fn() -> T>,
}

/// Makes a broadcast in the session of this program tree that keeps the last `capacity` messages, 1 to 2^24, those included that are being
/// written.
///
/// # Errors
/// [`ChannelError`]: a capacity out of range, no memory.
pub fn channel<T: Message>(capacity: usize) -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    channel_in(Session::current().map_err(ChannelError::Session)?, capacity)
}

/// Makes a broadcast in a given session: only processes attached to that session can hold its ends.
///
/// # Errors
/// As [`channel`].
pub fn channel_in<T: Message>(
    session: Session,
    capacity: usize,
) -> Result<(Sender<T>, Receiver<T>), ChannelError> {
    let cut = Cut::new(capacity, 0, expected_bytes::<T>()).filter(|cut| !cut.rendezvous);
    let cut = cut.ok_or(ChannelError::Capacity(capacity))?;
    kinds::register(Kind::BUS, &ChannelKind);
    let block = session.allocate(Kind::MESSAGE, cut.block_bytes()).map_err(ChannelError::Session)?;
    let view = View::lay_out(&block, cut, 0).ok_or(ChannelError::Session(SessionError::NotASession))?;
    let ends = [Kind::BUS_SENDER, Kind::BUS_RECEIVER];
    let [sender, receiver] =
        session.publish_object(block, ends, type_hash::<T>()).map_err(ChannelError::Session)?;
    let sender = Sender { end: End { view, reference: Arc::new(sender) }, carries: PhantomData };
    Ok((sender, Receiver::new(End { view, reference: Arc::new(receiver) }, 0)))
}

impl End {
    fn open(reference: Reference, type_hash: u32) -> Result<Self, HandleError> {
        kinds::register(Kind::BUS, &ChannelKind);
        let view = View::open(reference.session(), reference.handle().offset).ok_or(HandleError::Stale)?;
        if reference.type_hash() != type_hash {
            return Err(HandleError::OtherType);
        }
        Ok(Self { view, reference: Arc::new(reference) })
    }

    /// The ids of this thread and process, if this end is still ours.
    fn me(&self) -> Result<(u16, u16), SessionError> {
        let me = self.view.session.me()?;
        if self.reference.is_held_by(me.process) {
            Ok((me.thread, me.process))
        } else {
            Err(SessionError::Forked)
        }
    }

    fn with<R>(&self, thread: u16, with: impl FnOnce(&Bus<'_, View, Here<'_>>) -> R) -> R {
        let view = &self.view;
        robust::with(|current| {
            let here = Here { view, thread };
            let (control, shape) = (view.control(), view.shape());
            with(&Bus { control, slots: view, shape, world: &here, thread: current })
        })
    }
}

impl<T: Message> Sender<T> {
    /// Sends a copy of `value` to all receivers. It never waits for them; only for another sender that is in the middle of writing to the
    /// very slot, a whole lap behind.
    ///
    /// # Errors
    /// [`SendFailure`]: all receivers are gone, there are handles in the value, or it cannot be encoded.
    pub fn send(&self, value: &T) -> Result<(), SendFailure> {
        self.send_patiently(value, Patience::Forever)
    }

    /// [`send`](Self::send) that does not wait for another sender, either.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`SendFailure::Full`] if it had to wait.
    pub fn try_send(&self, value: &T) -> Result<(), SendFailure> {
        self.send_patiently(value, Patience::None)
    }

    /// [`send`](Self::send) that waits for another sender for at most `timeout`.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn send_timeout(&self, value: &T, timeout: Duration) -> Result<(), SendFailure> {
        self.send_patiently(value, Patience::Until(Deadline::after(timeout)))
    }

    /// [`send`](Self::send) that waits for another sender until `deadline`.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn send_deadline(&self, value: &T, deadline: Instant) -> Result<(), SendFailure> {
        self.send_patiently(value, Patience::Until(deadline.into()))
    }

    fn send_patiently(&self, value: &T, patience: Patience) -> Result<(), SendFailure> {
        let view = &self.end.view;
        let (thread, process) = self.end.me().map_err(SendFailure::Session)?;
        if view.holders().of(1) == 0 {
            return Err(SendFailure::Disconnected);
        }
        // User code runs here, before any slot is claimed.
        let encoded = encode(view.session, value, 0).map_err(SendFailure::Encode)?;
        if encoded.has_handles() {
            return Err(SendFailure::Handles);
        }
        let fits = encoded.inline().is_some_and(|bytes| bytes.len() <= view.inline_max());
        let (encoded, block) = if fits {
            (Some(encoded), None)
        } else {
            (None, Some(encoded.into_block().map_err(SendFailure::Encode)?))
        };
        let replaced = self.end.with(thread, |bus| {
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            let (position, index) = unsafe { bus.begin_send(patience) }.map_err(refused_send)?;
            let replaced = match block {
                Some(block) => view.write_block(index, &[0; 4], process, block),
                None => {
                    view.write_words(index, encoded.as_ref().and_then(|one| one.inline()).unwrap_or(&[]));
                    None
                }
            };
            // SAFETY: as above.
            unsafe { bus.finish_send(position) };
            Ok::<_, SendFailure>(replaced)
        })?;
        drop(replaced);
        Ok(())
    }

    /// A receiver that sees every message from now on.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn subscribe(&self) -> Result<Receiver<T>, SessionError> {
        let reference = self.end.view.session.refer_to(&self.end.reference, Kind::BUS_RECEIVER)?;
        let end = End { view: self.end.view, reference: Arc::new(reference) };
        let position = end.with(0, |bus| bus.end());
        Ok(Receiver::new(end, position))
    }
}

impl<T: Message> Receiver<T> {
    /// Receives the next message, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`RecvError`]: all senders are gone and nothing is left; [`RecvError::Missed`], after which the next call goes on with the oldest message
    /// that is left.
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Forever)
    }

    /// Receives the next message if it is there now.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if there is none.
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        self.recv_patiently(Patience::None)
    }

    /// Receives the next message, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if none came in time.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Until(Deadline::after(timeout)))
    }

    /// Receives the next message, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Until(deadline.into()))
    }

    fn recv_patiently(&mut self, patience: Patience) -> Result<T, RecvError> {
        let (thread, _) = self.end.me().map_err(RecvError::Session)?;
        let Self { end, position, spin, words, .. } = self;
        let view = end.view;
        let spin = || view.session.has_other_processors().then_some(&*spin);
        let mut len = None;
        let mut at = position.load(Ordering::Relaxed);
        let found = end.with(thread, |bus| {
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            unsafe { bus.receive(&mut at, patience, spin, |index| len = view.copy_words(index, words)) }
        });
        position.store(at, Ordering::Relaxed);
        match found.map_err(refused_receive)? {
            Found::Missed(count) => Err(RecvError::Missed(count)),
            Found::Message => {
                // An archive may ask for an alignment of 16.
                let bytes = bytes_of(words, len.ok_or(RecvError::Corrupt)?);
                decode_inline(view.session, &bytes)
            }
        }
    }
}

/// The first `len` bytes of `words`, as aligned as an archive may ask for.
fn bytes_of(words: &[u64], len: usize) -> rkyv::util::AlignedVec {
    let mut bytes = rkyv::util::AlignedVec::with_capacity(words.len() * 8);
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_ne_bytes()));
    bytes.resize(len.min(bytes.len()), 0);
    bytes
}

impl<T> Receiver<T> {
    fn new(end: End, position: u64) -> Self {
        let position = Arc::new(AtomicU64::new(position));
        Self { end, position, spin: Spin::new(), words: Vec::new(), carries: PhantomData }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { end: self.end.clone(), carries: PhantomData }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self::new(self.end.clone(), self.position.load(Ordering::Relaxed))
    }
}

message_of_handle!([T: Message] Sender<T>, Kind::BUS_SENDER, |sender| &sender.end.reference, |reference| {
    Ok(Sender { end: End::open(reference, type_hash::<T>())?, carries: PhantomData })
});

/// A receiver in a message: its handle, and where it is.
#[derive(Clone, Copy, Debug, rkyv::Portable, rkyv::bytecheck::CheckBytes)]
#[bytecheck(crate = mp_shm::rkyv::bytecheck)]
#[rkyv(crate = mp_shm::rkyv)]
#[repr(C)]
pub struct ArchivedReceiver {
    position: u64_le,
    handle: ArchivedHandle,
    padding: [u8; 4],
}

impl<T: Message> rkyv::Archive for Receiver<T> {
    type Archived = ArchivedReceiver;
    type Resolver = u32;

    fn resolve(&self, index: u32, out: Place<ArchivedReceiver>) {
        munge!(let ArchivedReceiver { position, handle: ArchivedHandle { index: place }, padding } = out);
        rkyv::Archive::resolve(&self.position.load(Ordering::Relaxed), (), position);
        rkyv::Archive::resolve(&index, (), place);
        padding.write([0; 4]);
    }
}

impl<T: Message, S: Attach + ?Sized> rkyv::Serialize<S> for Receiver<T> {
    fn serialize(&self, serializer: &mut S) -> Result<u32, S::Error> {
        serializer.attach(&self.end.reference)
    }
}

impl<T: Message, D: Detach + ?Sized> rkyv::Deserialize<Receiver<T>, D> for ArchivedReceiver {
    fn deserialize(&self, deserializer: &mut D) -> Result<Receiver<T>, D::Error> {
        let reference = deserializer.detach(self.handle.index.to_native(), Kind::BUS_RECEIVER)?;
        let end = End::open(reference, type_hash::<T>()).map_err(|error| deserializer.refuse(error))?;
        Ok(Receiver::new(end, self.position.to_native()))
    }
}

mp_shm::if_serde! {
    impl<T: Message> mp_shm::serde::Serialize for Receiver<T> {
        fn serialize<S: mp_shm::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let position = self.position.load(Ordering::Relaxed);
            let handle = mp_shm::codec::inside::InMessage(&self.end.reference);
            mp_shm::serde::Serialize::serialize(&(position, handle), serializer)
        }
    }

    impl<'de, T: Message> mp_shm::serde::Deserialize<'de> for Receiver<T> {
        fn deserialize<D: mp_shm::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let parts: (u64, mp_shm::codec::inside::OutOfMessage<{ Kind::BUS_RECEIVER.0 }>) =
                mp_shm::serde::Deserialize::deserialize(deserializer)?;
            let end = End::open(parts.1.0, type_hash::<T>()).map_err(mp_shm::codec::inside::refuse)?;
            Ok(Self::new(end, parts.0))
        }
    }
}

/// Ready when there is something new.
impl<T> Selectable for Receiver<T> {
    fn selected(&self) -> Source {
        Source::bus(self.end.view, self.position.clone(), self.end.reference.clone())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broadcast::Sender({})", self.end.reference.handle())
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broadcast::Receiver({})", self.end.reference.handle())
    }
}
