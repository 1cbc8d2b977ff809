//! One end of a channel, of whatever type its messages are.

#![expect(unsafe_code, reason = "the pending words of the ring")]

use crate::error::{ChannelError, RecvError, SendFailure};
use crate::ring::Refused;
use crate::slot::{ChannelKind, Cut, Here, View};
use mp_shm::codec::{Payload, encode};
use mp_shm::error::SessionError;
use mp_shm::handle::Kind;
use mp_shm::participants::Me;
use mp_shm::references::{HandleError, Reference};
use mp_shm::{Message, Session, kinds};
use mp_sync::patience::Patience;
use mp_sync::spin::Spin;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One end: the channel, and this process's reference to the end.
#[derive(Debug)]
pub(crate) struct End {
    view: View,
    reference: Reference,
    spin: Spin,
    /// Size of the last large message, a guess for the next.
    expected: AtomicUsize,
}

impl End {
    /// Makes a channel and both its ends. Positions start `laps` before the wrap of the sequence, 0 for at 0.
    pub(crate) fn create(
        session: Session,
        cut: Cut,
        type_hash: u32,
        laps: u64,
    ) -> Result<[Self; 2], ChannelError> {
        kinds::register(Kind::CHANNEL, &ChannelKind);
        let block = session.allocate(Kind::MESSAGE, cut.block_bytes()).map_err(ChannelError::Session)?;
        let start = if laps == 0 { 0 } else { cut.shape.start_before_wrap(laps) };
        let view =
            View::lay_out(&block, cut, start).ok_or(ChannelError::Session(SessionError::NotASession))?;
        let references = session
            .publish_object(block, [Kind::SENDER, Kind::RECEIVER], type_hash)
            .map_err(ChannelError::Session)?;
        Ok(references.map(|reference| Self::new(view, reference)))
    }

    /// The end that a received reference names.
    pub(crate) fn open(reference: Reference, type_hash: u32) -> Result<Self, HandleError> {
        kinds::register(Kind::CHANNEL, &ChannelKind);
        let view = View::open(reference.session(), reference.handle().offset).ok_or(HandleError::Stale)?;
        if reference.type_hash() != type_hash {
            return Err(HandleError::OtherType);
        }
        Ok(Self::new(view, reference))
    }

    fn new(view: View, reference: Reference) -> Self {
        Self { view, reference, spin: Spin::new(), expected: AtomicUsize::new(0) }
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(crate) fn session(&self) -> Session {
        self.view.session
    }

    pub(crate) fn capacity(&self) -> usize {
        self.view.shape().capacity() as usize
    }

    fn spin(&self) -> Option<&Spin> {
        self.view.session.has_other_processors().then_some(&self.spin)
    }

    pub(crate) fn receivers(&self) -> u32 {
        self.view.holders().of(1)
    }

    pub(crate) fn len(&self) -> usize {
        let here = Here { view: &self.view, thread: 0 };
        self.view.ring(&here).waiting() as usize
    }

    /// Who we are, if this end is still ours: a process forked behind our back has no part in it.
    #[inline]
    fn me(&self) -> Result<Me, SessionError> {
        let me = self.view.session.me()?;
        if self.reference.is_held_by(me.process) { Ok(me) } else { Err(SessionError::Forked) }
    }

    #[inline]
    pub(crate) fn send<T: Message>(
        &self,
        tag: [u64; 4],
        value: &T,
        patience: Patience,
    ) -> Result<(), SendFailure> {
        let me = self.me().map_err(SendFailure::Session)?;
        let here = Here { view: &self.view, thread: me.thread };
        let ring = self.view.ring(&here);
        // User code runs here, before any slot is claimed.
        let encoded = encode(self.view.session, value, self.expected.load(Ordering::Relaxed))
            .map_err(SendFailure::Encode)?;
        if let Some(bytes) = encoded.inline()
            && bytes.len() <= self.view.inline_max()
        {
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            let claim = unsafe { ring.begin_send(patience, self.spin()) }.map_err(refused_send)?;
            self.view.write_inline(claim.index(), &tag, bytes);
            ring.finish_send(&claim);
            return Ok(());
        }
        self.expected.store(encoded.len(), Ordering::Relaxed);
        let block = encoded.into_block().map_err(SendFailure::Encode)?;
        // SAFETY: as above.
        let claim = match unsafe { ring.begin_send(patience, self.spin()) } {
            Ok(claim) => claim,
            Err(refused) => {
                // Takes the attachments off again.
                drop(Payload::in_block(block));
                return Err(refused_send(refused));
            }
        };
        let spare = self.view.write_block(claim.index(), &tag, me.process, block);
        ring.finish_send(&claim);
        drop(spare);
        Ok(())
    }

    /// Receives a message, without looking into it. Ends with [`RecvError::Death`] if the number of recoveries is not `deaths`.
    #[inline]
    pub(crate) fn receive(
        &self,
        patience: Patience,
        deaths: Option<u32>,
    ) -> Result<([u64; 4], Payload), RecvError> {
        let me = self.me().map_err(RecvError::Session)?;
        let here = Here { view: &self.view, thread: me.thread };
        let mut ring = self.view.ring(&here);
        ring.interrupt = deaths.map(|deaths| (self.view.session.death_epoch(), deaths));
        // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
        let claim =
            unsafe { ring.begin_receive(patience, self.spin()) }.map_err(|refused| match refused {
                Refused::Waiting => RecvError::Empty,
                Refused::Disconnected => RecvError::Disconnected,
                Refused::Interrupted => RecvError::Death,
            })?;
        let message = self.view.read(claim.index(), me.process);
        ring.finish_receive(&claim);
        message.ok_or(RecvError::Corrupt)
    }
}

fn refused_send(refused: Refused) -> SendFailure {
    match refused {
        Refused::Waiting | Refused::Interrupted => SendFailure::Full,
        Refused::Disconnected => SendFailure::Disconnected,
    }
}
