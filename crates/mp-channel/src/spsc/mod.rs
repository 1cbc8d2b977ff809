//! Channels with one sender and one receiver, each at one place at a time: the fastest way between two processes.
//!
//! The ends are neither `Clone` nor `Sync`, and work through `&mut self`; so nothing has to be claimed. They can be sent to other processes,
//! in messages too: who sends an end on drops his own, and until he has, the new holder waits.
//!
//! Everything else is as with [`crate::channel`]: messages, each form of sending and receiving, what disconnection and death leave. Only, there
//! is no capacity of 0 (a rendezvous), and it does not grow.
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

mod receiver;
mod sender;

pub use receiver::IntoIter;

use crate::channel::{expected_bytes, type_hash};
use crate::error::{ChannelError, RecvError, SendFailure};
use crate::kind::ChannelKind;
use crate::lane::Lane;
use crate::source::{Side, Source};
use crate::view::{Cut, Here, View};
use mp_shm::error::SessionError;
use mp_shm::handle::Kind;
use mp_shm::participants::Me;
use mp_shm::references::{HandleError, Reference};
use mp_shm::sole::{self, NotSole};
use mp_shm::{Message, Session, kinds, message_of_handle};
use mp_sync::patience::Patience;
use mp_sync::spin::Spin;
use mp_sys::robust::{self, Current};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Not `Sync`: an end is used by one thread at a time.
type NotSync = PhantomData<Cell<()>>;

/// One end of a lane.
#[derive(Debug)]
pub(crate) struct End {
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
    /// Whether the last call that received many found more than one.
    streams: bool,
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
        let mut end = Self {
            view,
            reference,
            role,
            position: 0,
            head: 0,
            spin: Spin::new(),
            expected: 0,
            streams: false,
        };
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

    /// Who we are, if this end is still ours: a process forked behind our back has no part in it.
    #[inline]
    fn me(&self) -> Result<Me, SessionError> {
        let me = self.view.session.me()?;
        if self.reference.is_held_by(me.process) { Ok(me) } else { Err(SessionError::Forked) }
    }

    /// Who we are, once this end is the only one.
    #[inline]
    fn alone(&self, patience: Patience) -> Result<Me, NotAlone> {
        let me = self.me().map_err(NotAlone::Session)?;
        if self.view.holders().of(self.role) != 1 {
            self.wait_until_alone(patience)?;
        }
        Ok(me)
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
