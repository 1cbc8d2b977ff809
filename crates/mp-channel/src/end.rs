//! One end of a channel, of whatever type its messages are.

#![expect(unsafe_code, reason = "the pending words of the ring; messages that are copied as they lie")]

use crate::control::Refused;
use crate::error::{ChannelError, RecvError, SendFailure};
use crate::kind::ChannelKind;
use crate::ring::{Claim, Ring};
use crate::source::{Side, Source};
use crate::stamp::Slots;
use crate::view::{Cut, Here, View};
use mp_shm::block::Block;
use mp_shm::codec::{Element, Inline, Payload, ROOT_BYTES, Room, decode_inline, encode};
use mp_shm::error::SessionError;
use mp_shm::handle::Kind;
use mp_shm::participants::Me;
use mp_shm::references::{HandleError, Reference};
use mp_shm::{Message, Session, kinds};
use mp_sync::patience::Patience;
use mp_sync::spin::Spin;
use mp_sys::robust;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Four words beside a message; see [`crate::dynamic`].
pub(crate) type Tag = [u64; 4];

/// One end: the channel, and this process's reference to the end.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) view: View,
    reference: Arc<Reference>,
    spin: Spin,
    /// The block of the ring that this end is at, in a channel that has grown; 0 for the first.
    pub(crate) ring: AtomicU64,
    /// Size of the last large message, a guess for the next.
    expected: AtomicUsize,
}

/// Whether a value of this type is its own archive, byte for byte.
pub(crate) const fn is_plain<T: Message>() -> bool {
    T::COPY_OPTIMIZATION.is_enabled() && size_of::<T>() == size_of::<T::Archived>()
}

/// What goes into a slot.
enum Content<'a, T> {
    /// This value, which is its own archive.
    Plain(&'a T),
    /// These bytes.
    Inline(&'a [u8]),
    /// The block in this place, which is there again if the send fails.
    Block(&'a mut Option<Block>),
}

impl End {
    /// Makes a channel and both its ends. Positions start `laps` before the wrap of the sequence, 0 for at 0.
    pub(crate) fn create(
        session: Session,
        cut: Cut,
        type_hash: u32,
        laps: u64,
    ) -> Result<[Self; 2], ChannelError> {
        Self::create_growing(session, cut, type_hash, laps, 0)
    }

    /// [`create`](Self::create) of a channel that grows until its rings have `bytes_max` bytes.
    pub(crate) fn create_growing(
        session: Session,
        cut: Cut,
        type_hash: u32,
        laps: u64,
        bytes_max: u64,
    ) -> Result<[Self; 2], ChannelError> {
        kinds::register(Kind::CHANNEL, &ChannelKind);
        let block = session.allocate(Kind::MESSAGE, cut.block_bytes()).map_err(ChannelError::Session)?;
        let start = if laps == 0 { 0 } else { cut.shape.start_before_wrap(laps) };
        let view = View::lay_out_growing(&block, cut, start, 0, bytes_max)
            .ok_or(ChannelError::Session(SessionError::NotASession))?;
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
        let (ring, expected) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { view, reference: Arc::new(reference), spin: Spin::new(), ring, expected }
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// This side of the channel, to wait for.
    pub(crate) fn source(&self, side: Side) -> Source {
        Source::ring(self.view, side, self.reference.clone())
    }

    pub(crate) fn session(&self) -> Session {
        self.view.session
    }

    pub(crate) fn capacity(&self) -> usize {
        let last = self.view.rings().last().unwrap_or(self.view);
        if last.is_rendezvous() { 0 } else { last.shape().capacity() as usize }
    }

    fn spin(&self) -> Option<&Spin> {
        self.view.session.has_other_processors().then_some(&self.spin)
    }

    pub(crate) fn control_words(&self) -> Vec<&AtomicU64> {
        let control = self.view.control();
        let slots = (0..self.view.shape().capacity()).map(|index| self.view.word(index));
        control.words().into_iter().chain(slots).collect()
    }

    pub(crate) fn receivers(&self) -> u32 {
        self.view.holders().of(1)
    }

    pub(crate) fn len(&self) -> usize {
        if self.view.is_rendezvous() { 0 } else { self.view.waiting() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.view.is_rendezvous() || self.view.is_empty()
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
        tag: Tag,
        value: &T,
        patience: Patience,
    ) -> Result<(), SendFailure> {
        let me = self.me().map_err(SendFailure::Session)?;
        if const { is_plain::<T>() } && size_of::<T>() <= self.view.inline_max() {
            return self.send_content(me, &tag, Content::Plain(value), patience).map_err(refused_send);
        }
        self.send_encoded(me, &tag, value, patience)
    }

    fn send_encoded<T: Message>(
        &self,
        me: Me,
        tag: &Tag,
        value: &T,
        patience: Patience,
    ) -> Result<(), SendFailure> {
        let expected = self.expected.load(Ordering::Relaxed);
        self.at(|ring| ring.fetch_returned(expected, me));
        // User code runs here, before any slot is claimed.
        let encoded = encode(self.view.session, value, expected).map_err(SendFailure::Encode)?;
        if let Some(bytes) = encoded.inline()
            && bytes.len() <= self.view.inline_max()
        {
            let content = Content::<()>::Inline(bytes);
            return self.send_content(me, tag, content, patience).map_err(refused_send);
        }
        self.expected.store(encoded.len(), Ordering::Relaxed);
        let mut block = Some(encoded.into_block().map_err(SendFailure::Encode)?);
        let sent = self.send_content(me, tag, Content::<()>::Block(&mut block), patience);
        // Takes the attachments off again.
        drop(block.map(Payload::in_block));
        sent.map_err(refused_send)
    }

    /// Room for a message that the caller builds.
    pub(crate) fn room<E: Element>(&self, len: usize) -> Result<Room<E>, SessionError> {
        let me = self.me()?;
        let bytes = len.saturating_mul(size_of::<E>()).saturating_add(ROOT_BYTES);
        self.at(|ring| ring.fetch_returned(bytes, me));
        Room::new(self.view.session, len)
    }

    /// Sends what is ready to be put into a slot.
    #[inline]
    fn send_content<T>(
        &self,
        me: Me,
        tag: &Tag,
        mut content: Content<'_, T>,
        patience: Patience,
    ) -> Result<(), Refused> {
        if self.view.grows() {
            return self.send_growing(patience, |ring, patience| {
                self.send_in(ring, me, tag, &mut content, patience)
            });
        }
        self.send_in(&self.view, me, tag, &mut content, patience)
    }

    /// Sends in one of the channel's rings.
    #[inline]
    fn send_in<T>(
        &self,
        view: &View,
        me: Me,
        tag: &Tag,
        content: &mut Content<'_, T>,
        patience: Patience,
    ) -> Result<(), Refused> {
        robust::with(|current| {
            let here = Here { view: &self.view, thread: me.thread };
            let ring = view.ring(&here, current);
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            let claim = unsafe { ring.begin_send(patience, || self.spin()) }?;
            let spare = write(view, &claim, me, tag, content);
            ring.finish_send(&claim);
            // Off the way of the message.
            view.fetch_ahead(claim.index());
            drop(spare);
            if view.is_rendezvous() { self.hand_over(&ring, &claim, me, content, patience) } else { Ok(()) }
        })
    }

    /// For a channel of capacity 0: waits until the message in the slot is taken.
    #[cold]
    fn hand_over<T>(
        &self,
        ring: &Ring<'_, View, Here<'_>>,
        claim: &Claim,
        me: Me,
        content: &mut Content<'_, T>,
        patience: Patience,
    ) -> Result<(), Refused> {
        let patience = match patience {
            Patience::None => Patience::from(RENDEZVOUS_TRY),
            other => other,
        };
        // SAFETY: as in `send_content`.
        let taken = unsafe { ring.await_taken(claim, patience, self.spin()) };
        taken.inspect_err(|_| {
            if let Content::Block(block) = content {
                **block = self.view.take_block(claim.index(), me.process);
            }
            // SAFETY: as in `send_content`.
            unsafe { ring.abandon(claim) };
        })
    }

    /// Sends the message in `block`, which is there again if it fails.
    pub(crate) fn send_block(
        &self,
        tag: Tag,
        block: &mut Option<Block>,
        patience: Patience,
    ) -> Result<(), SendFailure> {
        let me = self.me().map_err(SendFailure::Session)?;
        self.send_content(me, &tag, Content::<()>::Block(block), patience).map_err(refused_send)
    }

    /// Receives a message, without looking into it. Ends with [`RecvError::Death`] if the number of recoveries is not `deaths`.
    #[inline]
    pub(crate) fn receive(
        &self,
        patience: Patience,
        deaths: Option<u32>,
    ) -> Result<(Tag, Payload), RecvError> {
        let mut message = None;
        self.receive_with(patience, deaths, |ring, index, me| {
            message = ring.read(index, me.process).map(|message| (ring.read_tag(index), message));
        })?;
        message.ok_or(RecvError::Corrupt)
    }

    /// Receives a value.
    #[inline]
    pub(crate) fn receive_value<T: Message>(&self, patience: Patience) -> Result<T, RecvError> {
        let mut taken = Taken::nothing();
        self.receive_with(patience, None, |ring, index, me| taken.take::<T>(ring, index, me.process))?;
        taken.decode(self.view.session)
    }

    /// Receives up to `count` values behind `values`, of which it waits for the first alone.
    pub(crate) fn receive_many<T: Message>(
        &self,
        values: &mut Vec<T>,
        count: usize,
        patience: Patience,
    ) -> Result<usize, RecvError> {
        let mut received = 0;
        while received < count {
            let patience = if received == 0 { patience } else { Patience::None };
            match self.receive_value(patience) {
                Ok(value) => values.push(value),
                Err(error) if received == 0 => return Err(error),
                // What is wrong with the channel is told by the next call; a message that is no `T` by its position.
                Err(RecvError::Empty | RecvError::Disconnected) => break,
                Err(error) => return Err(error),
            }
            received += 1;
        }
        Ok(received)
    }

    /// Claims a message, takes it, and gives the slot back.
    #[inline]
    fn receive_with(
        &self,
        patience: Patience,
        deaths: Option<u32>,
        mut take: impl FnMut(&View, u32, Me),
    ) -> Result<(), RecvError> {
        let me = self.me().map_err(RecvError::Session)?;
        let refused = if self.view.grows() {
            self.receive_growing(|ring| self.receive_in(ring, me, patience, deaths, &mut take))
        } else {
            self.receive_in(&self.view, me, patience, deaths, &mut take)
        };
        refused.map_or(Ok(()), |refused| Err(refused_receive(refused)))
    }

    /// Receives in one of the channel's rings. What this gives is small on purpose: it is moved through registers.
    #[inline]
    fn receive_in(
        &self,
        view: &View,
        me: Me,
        patience: Patience,
        deaths: Option<u32>,
        take: &mut impl FnMut(&View, u32, Me),
    ) -> Option<Refused> {
        robust::with(|current| {
            let here = Here { view: &self.view, thread: me.thread };
            let mut ring = view.ring(&here, current);
            ring.interrupt = deaths.map(|deaths| (self.view.session.death_epoch(), deaths));
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            match unsafe { ring.begin_receive(patience, || self.spin()) } {
                Ok(claim) => {
                    take(view, claim.index(), me);
                    ring.finish_receive(&claim);
                    None
                }
                Err(refused) => Some(refused),
            }
        })
    }
}

/// Writes into a claimed slot; gives the spare block that was in it.
#[inline]
fn write<T>(view: &View, claim: &Claim, me: Me, tag: &Tag, content: &mut Content<'_, T>) -> Option<Block> {
    match content {
        Content::Plain(value) => {
            view.write_plain(claim.index(), tag, *value);
            None
        }
        Content::Inline(bytes) => {
            view.write_bytes(claim.index(), tag, bytes);
            None
        }
        Content::Block(block) => view.write_block(claim.index(), tag, me.process, block.take()?),
    }
}

#[cold]
fn decode_block<T: Message>(block: Option<Block>) -> Result<T, RecvError> {
    let block = block.ok_or(RecvError::Corrupt)?;
    Payload::in_block(block).decode().map_err(RecvError::Decode)
}

/// How long a `try_send` on a channel of capacity 0 lets a receiver take the message: what waking one up takes, and more.
const RENDEZVOUS_TRY: std::time::Duration = std::time::Duration::from_millis(1);

/// A message that was taken out of its slot: of `len` bytes, or in a block; neither if the slot was corrupt.
pub(crate) struct Taken {
    inline: Inline,
    len: Option<usize>,
    block: Option<Block>,
}

impl Taken {
    #[inline]
    pub(crate) fn nothing() -> Self {
        Self { inline: Inline::empty(), len: None, block: None }
    }

    /// Takes a message out of a slot that this thread has claimed for reading.
    #[inline]
    pub(crate) fn take<T: Message>(&mut self, view: &View, index: u32, process: u16) {
        match view.inline(index) {
            Some((from, len)) if const { is_plain::<T>() } && len == size_of::<T>() => {
                // As below, with a length that is known here.
                // SAFETY: as below.
                unsafe { self.inline.fill(from, size_of::<T>()) };
                self.len = Some(size_of::<T>());
            }
            Some((from, len)) => {
                // SAFETY: the slot is claimed by this thread, so nobody writes it; the length was checked.
                unsafe { self.inline.fill(from, len) };
                self.len = Some(len);
            }
            None => self.block = view.take_block(index, process),
        }
    }

    /// The value that it is.
    #[inline(always)]
    pub(crate) fn decode<T: Message>(&mut self, session: Session) -> Result<T, RecvError> {
        match self.bytes() {
            Some(bytes) => decode_inline(session, bytes),
            None => decode_block(self.block.take()),
        }
    }

    #[inline]
    fn bytes(&self) -> Option<&[u8]> {
        // SAFETY: `take` has filled as many bytes.
        self.len.map(|len| unsafe { self.inline.bytes(len) })
    }
}

pub(crate) fn refused_send(refused: Refused) -> SendFailure {
    match refused {
        Refused::Waiting | Refused::Interrupted => SendFailure::Full,
        Refused::Disconnected => SendFailure::Disconnected,
        // A seal without a ring behind it.
        Refused::Corrupt | Refused::Sealed => SendFailure::Corrupt,
    }
}

pub(crate) fn refused_receive(refused: Refused) -> RecvError {
    match refused {
        Refused::Waiting => RecvError::Empty,
        Refused::Disconnected => RecvError::Disconnected,
        Refused::Interrupted => RecvError::Death,
        Refused::Corrupt | Refused::Sealed => RecvError::Corrupt,
    }
}
