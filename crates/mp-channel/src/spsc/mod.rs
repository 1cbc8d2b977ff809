//! Channels with one sender and one receiver, each at one place at a time: the fastest way between two processes.
//!
//! The ends are neither `Clone` nor `Sync`, and work through `&mut self`; so nothing has to be claimed. They can be sent to other processes,
//! in messages too: who sends an end on drops his own, and until he has, the new holder waits.
//!
//! Everything else is as with [`crate::channel`].
//!
//! # Examples
//! ```
//! let (mut sender, mut receiver) = mp_channel::spsc::channel::<u64>(8)?;
//! sender.send(7).map_err(|error| error.failure)?;
//! drop(sender);
//! assert_eq!(receiver.recv()?, 7);
//! assert!(receiver.recv().unwrap_err().is_disconnected());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![expect(unsafe_code, reason = "the pending words of the lane; values that are copied as they lie")]

use crate::channel::{expected_bytes, type_hash};
use crate::control::Refused;
use crate::end::{Taken, is_plain, refused_receive, refused_send};
use crate::error::{BatchError, ChannelError, RecvError, SendError, SendFailure};
use crate::kind::ChannelKind;
use crate::lane::Lane;
use crate::received::Received;
use crate::slot::{Cut, Here, View};
use crate::source::{Side, Source};
use mp_shm::codec::{Payload, encode};
use mp_shm::error::SessionError;
use mp_shm::handle::Kind;
use mp_shm::references::{HandleError, Reference};
use mp_shm::sole::{self, NotSole};
use mp_shm::{Message, Session, kinds, message_of_handle};
use mp_sync::patience::Patience;
use mp_sync::spin::Spin;
use mp_sys::deadline::Deadline;
use mp_sys::robust::{self, Current};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Not `Sync`: an end is used by one thread at a time.
type NotSync = PhantomData<Cell<()>>;

/// One end of a lane.
#[derive(Debug)]
struct End {
    view: View,
    reference: Arc<Reference>,
    /// 0 for the sender, 1 for the receiver.
    role: usize,
    position: u64,
    /// What the sender has seen of the receiver last.
    head: u64,
    spin: Spin,
    /// Size of the last large message, a guess for the next.
    expected: usize,
}

/// The sending end.
pub struct Sender<T> {
    end: End,
    carries: PhantomData<fn(T)>,
    not_sync: NotSync,
}

/// The receiving end.
pub struct Receiver<T> {
    end: End,
    carries: PhantomData<fn() -> T>,
    not_sync: NotSync,
}

/// Makes a channel for up to `capacity` messages, 1 to 2^24, in the session of this program tree.
///
/// # Errors
/// [`ChannelError`]: a capacity out of range (a rendezvous needs [`crate::channel`]), no memory.
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
    let cut = Cut::new(capacity, 0, expected_bytes::<T>()).filter(|cut| !cut.rendezvous);
    let cut = cut.ok_or(ChannelError::Capacity(capacity))?;
    register();
    let block = session.allocate(Kind::MESSAGE, cut.block_bytes()).map_err(ChannelError::Session)?;
    let view = View::lay_out(&block, cut, 0).ok_or(ChannelError::Session(SessionError::NotASession))?;
    let ends = [Kind::LANE_SENDER, Kind::LANE_RECEIVER];
    let [sender, receiver] =
        session.publish_object(block, ends, type_hash::<T>()).map_err(ChannelError::Session)?;
    Ok((Sender::new(End::new(view, sender, 0)), Receiver::new(End::new(view, receiver, 1))))
}

fn register() {
    kinds::register(Kind::LANE, &ChannelKind);
}

impl End {
    fn new(view: View, reference: Reference, role: usize) -> Self {
        let reference = Arc::new(reference);
        let mut end = Self { view, reference, role, position: 0, head: 0, spin: Spin::new(), expected: 0 };
        end.head = end.with(|lane| lane.head());
        end.position = if role == 0 { end.with(|lane| lane.find_tail()) } else { end.head };
        end
    }

    fn open(reference: Reference, role: usize, type_hash: u32) -> Result<Self, HandleError> {
        register();
        let view = View::open(reference.session(), reference.handle().offset).ok_or(HandleError::Stale)?;
        if reference.type_hash() != type_hash {
            return Err(HandleError::OtherType);
        }
        Ok(Self::new(view, reference, role))
    }

    fn source(&self) -> Source {
        let side = if self.role == 0 { Side::Sender } else { Side::Receiver };
        Source::lane(self.view, side, self.reference.clone())
    }

    /// For a look at the lane.
    fn with<R>(&self, with: impl FnOnce(&Lane<'_, View, Here<'_>>) -> R) -> R {
        robust::with(|current| {
            let here = Here { view: &self.view, thread: 0 };
            with(&lane(&self.view, &here, current))
        })
    }

    /// The ids of this thread and process, once this end is the only one.
    #[inline]
    fn alone(&self, patience: Patience) -> Result<(u16, u16), NotAlone> {
        let me = self.view.session.me().map_err(NotAlone::Session)?;
        if !self.reference.is_held_by(me.process) {
            return Err(NotAlone::Session(SessionError::Forked));
        }
        if self.view.holders().of(self.role) != 1 {
            self.wait_until_alone(patience)?;
        }
        Ok((me.thread, me.process))
    }

    #[cold]
    fn wait_until_alone(&self, patience: Patience) -> Result<(), NotAlone> {
        let result = match patience {
            Patience::None => sole::check(&self.reference),
            other => sole::wait(&self.reference, other.deadline()),
        };
        result.map_err(|error| match error {
            NotSole::Shared => NotAlone::Shared,
            NotSole::Forked => NotAlone::Session(SessionError::Forked),
        })
    }
}

#[inline]
fn lane<'a>(view: &'a View, here: &'a Here<'a>, thread: Current<'a>) -> Lane<'a, View, Here<'a>> {
    Lane { control: view.control(), slots: view, shape: view.shape(), world: here, thread }
}

fn spin<'a>(view: &View, spin: &'a Spin) -> Option<&'a Spin> {
    view.session.has_other_processors().then_some(spin)
}

/// Why an end cannot be used.
enum NotAlone {
    Session(SessionError),
    Shared,
}

impl From<NotAlone> for SendFailure {
    fn from(error: NotAlone) -> Self {
        match error {
            NotAlone::Session(error) => Self::Session(error),
            NotAlone::Shared => Self::Shared,
        }
    }
}

impl From<NotAlone> for RecvError {
    fn from(error: NotAlone) -> Self {
        match error {
            NotAlone::Session(error) => Self::Session(error),
            NotAlone::Shared => Self::Shared,
        }
    }
}

impl<T: Message> Sender<T> {
    /// Sends `value`, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendError`], which gives the value back: the receiver is gone, or it cannot be encoded.
    #[inline]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::Forever)
    }

    /// Sends `value` if there is room now.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the channel is full.
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::None)
    }

    /// Sends `value`, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the channel stayed full.
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::Until(Deadline::after(timeout)))
    }

    /// Sends `value`, waiting for room until `deadline`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_deadline(&mut self, value: T, deadline: Instant) -> Result<(), SendError<T>> {
        self.send_patiently(value, Patience::Until(deadline.into()))
    }

    /// Sends a copy of `value`, which stays the caller's; handles in it are cloned.
    ///
    /// # Errors
    /// As [`send`](Self::send), without the value.
    #[inline]
    pub fn send_ref(&mut self, value: &T) -> Result<(), SendFailure> {
        self.send_value(value, Patience::Forever)
    }

    /// Sends all `values`, one after the other, waiting for room as long as it takes. Gives how many they were.
    ///
    /// # Errors
    /// [`BatchError`]: how many were sent, and the first one that was not.
    pub fn send_all(&mut self, values: impl IntoIterator<Item = T>) -> Result<usize, BatchError<T>> {
        let mut sent = 0;
        for value in values {
            self.send(value).map_err(|error| BatchError { sent, error })?;
            sent += 1;
        }
        Ok(sent)
    }

    #[inline]
    fn send_patiently(&mut self, value: T, patience: Patience) -> Result<(), SendError<T>> {
        self.send_value(&value, patience).map_err(|failure| SendError { value, failure })
    }

    #[inline]
    fn send_value(&mut self, value: &T, patience: Patience) -> Result<(), SendFailure> {
        if const { is_plain::<T>() } && size_of::<T>() <= self.end.view.inline_max() {
            let (thread, _) = self.end.alone(patience)?;
            let write = |view: &View, index| view.write_plain(index, &[0; 4], value);
            return self.send_with(thread, patience, write).map_err(refused_send);
        }
        self.send_encoded(value, patience)
    }

    fn send_encoded(&mut self, value: &T, patience: Patience) -> Result<(), SendFailure> {
        let me = self.end.view.session.me().map_err(SendFailure::Session)?;
        self.end.view.fetch_returned(self.end.expected, me);
        // User code runs here, before the slot is touched.
        let encoded = encode(self.end.view.session, value, self.end.expected).map_err(SendFailure::Encode)?;
        let (thread, process) = self.end.alone(patience)?;
        if let Some(bytes) = encoded.inline()
            && bytes.len() <= self.end.view.inline_max()
        {
            let write = |view: &View, index| view.write_bytes(index, &[0; 4], bytes);
            return self.send_with(thread, patience, write).map_err(refused_send);
        }
        self.end.expected = encoded.len();
        let mut block = Some(encoded.into_block().map_err(SendFailure::Encode)?);
        let spare = self.send_with(thread, patience, |view, index| {
            block.take().and_then(|block| view.write_block(index, &[0; 4], process, block))
        });
        // Takes the attachments off again.
        drop(block.map(Payload::in_block));
        spare.map(drop).map_err(refused_send)
    }

    /// Sends what `write` puts into the slot of an index.
    #[inline]
    fn send_with<R>(
        &mut self,
        thread: u16,
        patience: Patience,
        write: impl FnOnce(&View, u32) -> R,
    ) -> Result<R, Refused> {
        let End { view, spin: budget, position, head, .. } = &mut self.end;
        robust::with(|current| {
            let here = Here { view, thread };
            let lane = lane(view, &here, current);
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            let index = unsafe { lane.begin_send(*position, head, patience, || spin(view, budget)) }?;
            view.fetch_ahead(index);
            let written = write(view, index);
            *position = lane.finish_send(*position);
            Ok(written)
        })
    }
}

impl<T: Message> Receiver<T> {
    /// Receives the next message, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`RecvError`]: the sender is gone and nothing is left; or a message that is not a valid `T`, which is consumed.
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.recv_patiently(Patience::Forever)
    }

    /// Receives the next message if one is there now.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if the channel is empty.
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        self.recv_patiently(Patience::None)
    }

    /// Receives the next message, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and if the channel stayed empty.
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

    /// Receives the next message to be read where it lies, waiting for it as long as it takes.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_archived(&mut self) -> Result<Received<T>, RecvError> {
        let mut payload = None;
        self.receive_with(Patience::Forever, |view, index, process| {
            payload = view.read(index, process);
        })?;
        Received::new(payload.ok_or(RecvError::Corrupt)?).map_err(RecvError::Decode)
    }

    /// Receives up to `count` messages behind `values`: waits for the first as long as it takes, and takes what is there besides. Gives how
    /// many they were, which is 0 only for a `count` of 0.
    ///
    /// # Errors
    /// As [`recv`](Self::recv). A message that is not a valid `T` is consumed; those before it are in `values`.
    pub fn recv_many(&mut self, values: &mut Vec<T>, count: usize) -> Result<usize, RecvError> {
        if count == 0 {
            return Ok(0);
        }
        values.push(self.recv()?);
        let before = values.len() - 1;
        while values.len() - before < count {
            match self.recv_patiently(Patience::None) {
                Ok(value) => values.push(value),
                Err(RecvError::Empty | RecvError::Disconnected) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(values.len() - before)
    }

    /// Receives messages until the sender is gone. A message that is not valid ends it, too.
    pub fn iter(&mut self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }

    #[inline]
    fn recv_patiently(&mut self, patience: Patience) -> Result<T, RecvError> {
        let mut taken = Taken::nothing();
        self.receive_with(patience, |view, index, process| taken.take::<T>(view, index, process))?;
        taken.decode(self.end.view.session)
    }

    #[inline]
    fn receive_with(
        &mut self,
        patience: Patience,
        take: impl FnOnce(&View, u32, u16),
    ) -> Result<(), RecvError> {
        let (thread, process) = self.end.alone(patience)?;
        let End { view, spin: budget, position, .. } = &mut self.end;
        let refused = robust::with(|current| {
            let here = Here { view, thread };
            let lane = lane(view, &here, current);
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            match unsafe { lane.begin_receive(*position, patience, || spin(view, budget)) } {
                Ok(index) => {
                    take(view, index, process);
                    *position = lane.finish_receive(*position);
                    None
                }
                Err(refused) => Some(refused),
            }
        });
        refused.map_or(Ok(()), |refused| Err(refused_receive(refused)))
    }
}

macro_rules! both_ends {
    ($end:ident, $name:literal, $kind:expr, $role:literal) => {
        impl<T> $end<T> {
            fn new(end: End) -> Self {
                Self { end, carries: PhantomData, not_sync: PhantomData }
            }

            /// This end, to wait for.
            pub(crate) fn source(&self) -> Source {
                self.end.source()
            }

            /// The most messages the channel holds.
            #[must_use]
            pub fn capacity(&self) -> usize {
                self.end.view.shape().capacity() as usize
            }

            /// How many messages are waiting, a moment ago.
            #[must_use]
            pub fn len(&self) -> usize {
                self.end.with(|lane| lane.len()) as usize
            }

            /// Whether no message was waiting a moment ago.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        impl<T> fmt::Debug for $end<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("spsc::", $name, "({})"), self.end.reference.handle())
            }
        }

        message_of_handle!([T: Message] $end<T>, $kind, |end| &end.end.reference, |reference| {
            Ok($end::new(End::open(reference, $role, type_hash::<T>())?))
        });
    };
}

both_ends!(Sender, "Sender", Kind::LANE_SENDER, 0);
both_ends!(Receiver, "Receiver", Kind::LANE_RECEIVER, 1);
