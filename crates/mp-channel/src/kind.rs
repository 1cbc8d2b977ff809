//! What recovery and the last drop do with a channel.
//!
//! A [`ChannelKind`] owns the blocks that its slots and `returns` name. An [`UntrustedKind`] owns none: a peer may have written any number
//! there, and what is freed for it would be somebody else's.

use crate::view::{Here, View};
use mp_shm::Session;
use mp_shm::kinds::ObjectKind;
use mp_shm::layout::BLOCK_HEADER_BYTES;
use mp_sys::robust;

/// A channel whose slots name blocks of the session.
pub(crate) struct ChannelKind;

/// A channel whose messages lie in its slots alone, and whose memory is not to be believed.
pub(crate) struct UntrustedKind;

impl ObjectKind for ChannelKind {
    fn closed(&self, session: Session, object: u64, _role: usize) {
        close(session, object);
    }

    fn blocks(&self, session: Session, object: u64, visit: &mut dyn FnMut(u64)) {
        for ring in View::open(session, object).iter().flat_map(View::rings) {
            (0..ring.shape().capacity()).filter_map(|index| ring.named(index)).for_each(&mut *visit);
            ring.returns().each(|number| visit(u64::from(number) * BLOCK_HEADER_BYTES));
            ring.next_block().into_iter().for_each(&mut *visit);
        }
    }

    fn may_hold_itself(&self, session: Session, object: u64) -> bool {
        View::open(session, object).is_some_and(|view| view.carries_handles())
    }

    fn sweep(
        &self,
        session: Session,
        object: u64,
        dead: &dyn Fn(u16) -> bool,
        abandoned: &mut dyn FnMut(u64),
    ) {
        let Some(view) = View::open(session, object) else { return };
        for ring in view.rings() {
            ring.returns().sweep(dead);
            sweep(&view, &ring, dead, &mut |index| ring.named(index).into_iter().for_each(&mut *abandoned));
        }
    }
}

impl ObjectKind for UntrustedKind {
    fn closed(&self, session: Session, object: u64, _role: usize) {
        close(session, object);
    }

    fn blocks(&self, _: Session, _: u64, _: &mut dyn FnMut(u64)) {}

    fn sweep(&self, session: Session, object: u64, dead: &dyn Fn(u16) -> bool, _: &mut dyn FnMut(u64)) {
        if let Some(view) = View::open(session, object) {
            let view = view.alone();
            sweep(&view, &view, dead, &mut |_| ());
        }
    }
}

/// Tells all who wait that the other side is gone.
fn close(session: Session, object: u64) {
    if let Some(control) = View::control_at(session, object) {
        control.close(&session);
    }
}

/// Frees the slots of a channel's ring that dead threads had claimed; `lost` is called with those whose message is lost.
fn sweep(channel: &View, ring: &View, dead: &dyn Fn(u16) -> bool, lost: &mut dyn FnMut(u32)) {
    let here = Here { view: channel, thread: 0 };
    robust::with(|thread| ring.ring(&here, thread).sweep(dead, lost));
}
