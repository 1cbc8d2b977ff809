//! From a value to bytes in private scratch or in a block of the session.

#![expect(unsafe_code, reason = "writing into scratch and session memory; rkyv's allocator contract")]

use super::{EncodeError, INLINE_MAX, Message};
use crate::block::Block;
use crate::handle::{Handle, Kind};
use crate::references::{HandleError, Reference};
use crate::session::Session;
use rkyv::SerializeUnsized;
use rkyv::rancor::{self, Fallible, Source};
use rkyv::ser::allocator::Allocator;
use rkyv::ser::sharing::{Share, Sharing, SharingState};
use rkyv::ser::{Positional, Writer};
use std::alloc::Layout;
use std::cell::Cell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// Bytes of private scratch; larger messages go on in a block.
pub(crate) const SCRATCH_BYTES: usize = 4096;
/// Bytes of the arena that rkyv's own intermediate values live in; more comes from the heap.
const ARENA_BYTES: usize = 4096;

#[repr(C, align(64))]
struct Scratch {
    bytes: [MaybeUninit<u8>; SCRATCH_BYTES],
    arena: [MaybeUninit<u8>; ARENA_BYTES],
}

thread_local! {
    /// The thread's scratch while nobody encodes; an encoding inside another one makes its own.
    static SPARE: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// A serializer that can carry handles beside the bytes. Only [`Encoder`] is one.
#[diagnostic::on_unimplemented(
    message = "handles cannot be serialised here",
    label = "holds a handle: an end of a channel, a lock, shared memory, a function",
    note = "they mean something to processes of one session only, and travel in messages of its channels"
)]
pub trait Attach: Fallible {
    /// Attaches a handle; returns its index in the message.
    ///
    /// # Errors
    /// If the handle is of another session than the message.
    fn attach(&mut self, reference: &Reference) -> Result<u32, Self::Error>;

    /// Attaches another end of the object that `reference` refers to; returns its index in the message.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    fn attach_end(&mut self, reference: &Reference, end: Kind) -> Result<u32, Self::Error>;

    /// The session that the message is for.
    fn session(&self) -> Session;

    /// The index that the next handle gets.
    #[doc(hidden)]
    fn next_index(&self) -> u32;

    /// Attaches what a handle names, if it is still there when all is encoded.
    #[doc(hidden)]
    fn attach_handle(&mut self, handle: Handle) -> Result<u32, Self::Error>;
}

/// The serializer of messages. Made by [`encode`] alone.
pub struct Encoder {
    session: Session,
    /// Where bytes go: scratch, or the payload of `block`.
    place: NonNull<u8>,
    /// The scratch's arena.
    arena: NonNull<u8>,
    capacity: usize,
    position: usize,
    block: Option<Block>,
    /// `None` only while the encoder is dropped.
    scratch: Option<Box<Scratch>>,
    arena_used: usize,
    share: Option<Box<Share>>,
    handles: Vec<Handle>,
    failure: Option<EncodeError>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("position", &self.position).finish_non_exhaustive()
    }
}

/// Stands in rkyv's error for the cause that the encoder keeps itself.
#[derive(Debug)]
struct Kept;

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the encoder failed")
    }
}

impl std::error::Error for Kept {}

/// An encoded message, not yet published. Dropping it gives back all that it holds.
#[derive(Debug)]
pub struct Encoded {
    encoder: Option<Encoder>,
    len: usize,
}

/// Encodes `value` for a channel of `session`. `expected` is a guess of the size in bytes: above what fits into a slot, encoding
/// starts in a block at once.
///
/// # Errors
/// [`EncodeError`]; nothing of the value is left behind.
pub fn encode<T: Message>(session: Session, value: &T, expected: usize) -> Result<Encoded, EncodeError> {
    // A destructor of the thread may send when the spare is gone already.
    let mut scratch = SPARE.try_with(Cell::take).ok().flatten().unwrap_or_else(new_scratch);
    let mut encoder = Encoder {
        session,
        place: NonNull::from(&mut scratch.bytes).cast(),
        arena: NonNull::from(&mut scratch.arena).cast(),
        capacity: SCRATCH_BYTES,
        position: 0,
        block: None,
        scratch: Some(scratch),
        arena_used: 0,
        share: None,
        handles: Vec::new(),
        failure: None,
    };
    if expected > INLINE_MAX {
        encoder.grow(expected).map_err(EncodeError::Session)?;
    }
    if let Err(error) = value.serialize_unsized(&mut encoder) {
        let failure = encoder.failure.take();
        return Err(failure.unwrap_or_else(|| EncodeError::Value(error.to_string())));
    }
    let len = encoder.position;
    let mut encoded = Encoded { encoder: Some(encoder), len };
    encoded.attach()?;
    Ok(encoded)
}

fn new_scratch() -> Box<Scratch> {
    // SAFETY: `Scratch` is made of `MaybeUninit` bytes alone, so uninitialised memory is a valid value.
    unsafe { Box::new_uninit().assume_init() }
}

impl Encoder {
    /// Goes on in a block with room for at least `needed` bytes.
    fn grow(&mut self, needed: usize) -> Result<(), crate::error::SessionError> {
        let block = self.session.allocate(Kind::MESSAGE, needed)?;
        let place = block.payload();
        // SAFETY: `position <= capacity` bytes of the old place were written, the block holds at least `needed >= position`
        // bytes, and it is another piece of memory: a block just allocated, held by nobody else.
        unsafe { place.copy_from_nonoverlapping(self.place, self.position) };
        self.capacity = block.capacity();
        self.place = place;
        self.block = Some(block);
        Ok(())
    }

    fn fail(&mut self, failure: EncodeError) -> rancor::Error {
        self.failure = Some(failure);
        rancor::Error::new(Kept)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let scratch = self.scratch.take();
        // Without a place for it, it is freed.
        let _ = SPARE.try_with(|spare| spare.set(scratch));
    }
}

impl Fallible for Encoder {
    type Error = rancor::Error;
}

impl Positional for Encoder {
    #[inline]
    fn pos(&self) -> usize {
        self.position
    }
}

impl Writer for Encoder {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), rancor::Error> {
        let end = self.position.saturating_add(bytes.len());
        if end > self.capacity {
            // Twice what there was, so that the copying stays proportional to the message.
            self.grow(end.max(self.capacity.saturating_mul(2)))
                .map_err(|error| self.fail(EncodeError::Session(error)))?;
        }
        // SAFETY: position + len <= capacity, so the address is inside of the place.
        let to = unsafe { self.place.add(self.position) };
        // SAFETY: as above for the whole length; `bytes` is a slice of the caller's, the place is ours alone.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        self.position = end;
        Ok(())
    }
}

// SAFETY: allocations are disjoint pieces of the arena, taken and given back in stack order, or come from the heap.
unsafe impl Allocator for Encoder {
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, rancor::Error> {
        let start = self.arena_used.next_multiple_of(layout.align());
        if layout.align() <= 64 && start.saturating_add(layout.size()) <= ARENA_BYTES {
            self.arena_used = start + layout.size();
            // SAFETY: start <= ARENA_BYTES.
            let place = unsafe { self.arena.add(start) };
            return Ok(NonNull::slice_from_raw_parts(place, layout.size()));
        }
        // SAFETY: the caller promises a layout of non-zero size.
        let place = unsafe { std::alloc::alloc(layout) };
        let place = NonNull::new(place).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        Ok(NonNull::slice_from_raw_parts(place, layout.size()))
    }

    unsafe fn pop_alloc(&mut self, place: NonNull<u8>, layout: Layout) -> Result<(), rancor::Error> {
        let arena = self.arena.as_ptr() as usize;
        match (place.as_ptr() as usize).checked_sub(arena) {
            Some(start) if start < ARENA_BYTES => self.arena_used = start,
            // SAFETY: not from the arena, so `push_alloc` got it from the heap with this layout.
            _ => unsafe { std::alloc::dealloc(place.as_ptr(), layout) },
        }
        Ok(())
    }
}

impl Sharing for Encoder {
    fn start_sharing(&mut self, address: usize) -> SharingState {
        let share = self.share.get_or_insert_default();
        Sharing::<rancor::Error>::start_sharing(&mut **share, address)
    }

    fn finish_sharing(&mut self, address: usize, position: usize) -> Result<(), rancor::Error> {
        self.share.get_or_insert_default().finish_sharing(address, position)
    }
}

impl Attach for Encoder {
    fn attach(&mut self, reference: &Reference) -> Result<u32, rancor::Error> {
        self.attach_end(reference, Kind(reference.handle().kind))
    }

    fn attach_end(&mut self, reference: &Reference, end: Kind) -> Result<u32, rancor::Error> {
        self.attach_handle(Handle { kind: end.0, ..reference.handle() })
    }

    fn session(&self) -> Session {
        self.session
    }

    fn next_index(&self) -> u32 {
        u32::try_from(self.handles.len()).unwrap_or(u32::MAX)
    }

    fn attach_handle(&mut self, handle: Handle) -> Result<u32, rancor::Error> {
        if handle.session != self.session.number() {
            let error = HandleError::OtherSession { handle: handle.session, message: self.session.number() };
            return Err(self.fail(EncodeError::Handle(error)));
        }
        let index = self.next_index();
        self.handles.push(handle);
        Ok(index)
    }
}

impl Encoded {
    fn encoder(&self) -> &Encoder {
        self.encoder
            .as_ref()
            .unwrap_or_else(|| unreachable!("only `into_block` takes the encoder out, and it consumes"))
    }

    /// Moves the message into a block and takes a reference to every handle in it.
    fn attach(&mut self) -> Result<(), EncodeError> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        if encoder.handles.is_empty() {
            return Ok(());
        }
        let needed = self.len.next_multiple_of(16) + encoder.handles.len() * 16;
        if encoder.block.is_none() || encoder.capacity < needed {
            encoder.grow(needed).map_err(EncodeError::Session)?;
        }
        if let Some(block) = &encoder.block {
            block.header().len.store(self.len as u64, std::sync::atomic::Ordering::Relaxed);
            encoder.session.attach_all(block, &encoder.handles).map_err(EncodeError::Handle)?;
        }
        Ok(())
    }

    /// Bytes of the archive.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "an archive may be empty without anything following from it"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are handles in the message.
    #[must_use]
    pub fn has_handles(&self) -> bool {
        !self.encoder().handles.is_empty()
    }

    /// The bytes, wherever they are.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `write` wrote `len` bytes at the encoder's place, scratch or block, and nobody writes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.encoder().place.as_ptr(), self.len) }
    }

    /// The bytes, if the message has no handles and still is in scratch: fit to be copied into a slot.
    #[inline]
    #[must_use]
    pub fn inline(&self) -> Option<&[u8]> {
        let encoder = self.encoder();
        encoder.block.is_none().then(|| self.bytes())
    }

    /// The message in a block, which takes its place in the scratch if it was there. The caller publishes it, or drops it
    /// with [`Payload`](super::Payload).
    ///
    /// # Errors
    /// No memory; the message is dropped.
    pub fn into_block(mut self) -> Result<Block, EncodeError> {
        let Some(mut encoder) = self.encoder.take() else { unreachable!("consumed once") };
        if encoder.block.is_none() {
            encoder.grow(self.len).map_err(EncodeError::Session)?;
        }
        let Some(block) = encoder.block.take() else { unreachable!("`grow` leaves a block") };
        block.header().len.store(self.len as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(block)
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        if let Some(encoder) = &self.encoder
            && let Some(block) = &encoder.block
        {
            encoder.session.drop_attachments(block);
        }
    }
}
