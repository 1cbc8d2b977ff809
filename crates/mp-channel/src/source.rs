//! One side of a channel as something that becomes ready: what a select and a future wait for.
//!
//! A source is armed with the bit of the process's *bell*; the next publication on that side takes the bit and rings the bell
//! (`mp_sync::notify`). It keeps the channel's memory, but not the end: it holds the same reference as the end it was made of.

use crate::bus::Bus;
use crate::lane::Lane;
use crate::ring::{Outlook, Ring};
use crate::view::{Here, View};
use mp_shm::Session;
use mp_shm::references::Reference;
use mp_sync::notify::Notify;
use mp_sys::robust::{self, Current};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which side of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Ready when there is room.
    Sender,
    /// Ready when there is a message.
    Receiver,
}

/// What kind of channel it is a side of.
#[derive(Clone, Debug)]
enum Form {
    Ring,
    Lane,
    /// Of a broadcast, for a receiver at this position.
    Bus(Arc<AtomicU64>),
}

/// A side of a channel, as something that becomes ready. While there is one the side counts as held.
#[derive(Clone, Debug)]
pub struct Source {
    view: View,
    side: Side,
    form: Form,
    /// The channel stays as long as this.
    _reference: Arc<Reference>,
}

impl Source {
    /// A side of a ring.
    pub(crate) fn ring(view: View, side: Side, reference: Arc<Reference>) -> Self {
        Self { view, side, form: Form::Ring, _reference: reference }
    }

    /// A side of a lane.
    pub(crate) fn lane(view: View, side: Side, reference: Arc<Reference>) -> Self {
        Self { view, side, form: Form::Lane, _reference: reference }
    }

    /// The receiving side of a broadcast.
    pub(crate) fn bus(view: View, position: Arc<AtomicU64>, reference: Arc<Reference>) -> Self {
        Self { view, side: Side::Receiver, form: Form::Bus(position), _reference: reference }
    }

    pub(crate) fn session(&self) -> Session {
        self.view.session
    }

    /// Its session, and where those sleep that wait for this side alone: the next publication rings the bells that are armed there.
    pub(crate) fn place(&self) -> (Session, &'static Notify) {
        let control = self.view.control();
        let notify = match self.side {
            Side::Sender => &control.not_full.0,
            Side::Receiver => &control.not_empty.0,
        };
        (self.session(), notify)
    }

    /// Whether an operation on this side would end at once: with success, or because the other end is gone.
    pub(crate) fn is_ready(&self) -> bool {
        let here = Here { view: &self.view, thread: 0 };
        let (control, shape) = (self.view.control(), self.view.shape());
        robust::with(|thread| {
            let ring = || self.view.ring(&here, thread);
            let lane = Lane { control, slots: &self.view, shape, world: &here, thread };
            match (self.side, &self.form) {
                (Side::Sender, _) if self.view.holders().of(1) == 0 => true,
                (Side::Sender, Form::Lane) => lane.can_send(lane.find_tail()),
                // Without room to put a message into, there must be somebody who takes it.
                (Side::Sender, Form::Ring) if self.view.is_rendezvous() => {
                    control.not_empty.0.has_sleepers() && ring().can_send()
                }
                (Side::Sender, Form::Ring) => self.can_go_on(&here, thread, |ring| ring.outlook_send()),
                (Side::Sender, Form::Bus(_)) => true,
                (Side::Receiver, _) if self.view.holders().of(0) == 0 => true,
                (Side::Receiver, Form::Lane) => lane.can_receive(lane.head()),
                (Side::Receiver, Form::Ring) => self.can_go_on(&here, thread, |ring| ring.outlook_receive()),
                (Side::Receiver, Form::Bus(position)) => {
                    Bus { control, slots: &self.view, shape, world: &here, thread }
                        .can_receive(position.load(Ordering::Relaxed))
                }
            }
        })
    }

    /// Whether a side of a ring could go on: in the first one that is not sealed. A sender that can have one more ring can go on, too.
    fn can_go_on(
        &self,
        here: &Here<'_>,
        thread: Current<'_>,
        outlook: impl Fn(&Ring<'_, View, Here<'_>>) -> Outlook,
    ) -> bool {
        for view in self.view.rings() {
            match outlook(&view.ring(here, thread)) {
                Outlook::Ready => return true,
                Outlook::Waiting => return false,
                Outlook::Full => return view.next_block().is_some() || view.next_cut().is_some(),
                Outlook::Sealed => {}
            }
        }
        false
    }

    /// Before a sleep: frees what a dead thread may hold, so that waiting makes sense.
    pub(crate) fn recover_dead_owners(&self) {
        if matches!(self.form, Form::Ring) {
            let here = Here { view: &self.view, thread: 0 };
            robust::with(|thread| {
                self.view.rings().for_each(|ring| ring.ring(&here, thread).recover_dead_owners());
            });
        }
    }
}
