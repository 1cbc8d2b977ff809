//! A channel in shared memory, as a process sees it: the descriptor that its block begins with, how its slots are cut, and the rings behind it if it
//! has grown.
//!
//! ```text
//! block payload:  Descriptor (control words, shape) | slot 0 | slot 1 | …
//! ```
//!
//! Descriptor and slots are those of a [`ring`](crate::ring), a [`lane`](crate::lane) or a [`bus`](crate::bus), also of an untrusted channel; lane
//! and bus use its words in their own ways. What is in a slot besides its word is the business of [`slot`](crate::slot).
//!
//! Who may touch it: all of it is atomics, but messages in claimed slots. Shape and cut are written before the block is published, and checked when it is
//! opened. Death: nothing here is ever half-done, but a ring that is laid out and not linked, which has its owner's stamp.

#![expect(unsafe_code, reason = "a channel's words at their places in the session")]

use crate::control::{Control, World};
use crate::grow::RINGS_MAX;
use crate::returns::Returns;
use crate::ring::Ring;
use crate::stamp::{CAPACITY_MAX, Shape, Slots, first_word};
use mp_shm::Session;
use mp_shm::ShmSafe;
use mp_shm::block::Block;
use mp_shm::codec::INLINE_MAX;
use mp_shm::death::Domain;
use mp_shm::error::SessionError;
use mp_shm::handle::Kind;
use mp_shm::layout::BLOCK_HEADER_BYTES;
use mp_shm::session::Holders;
use mp_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use mp_sys::futex::Watch;
use mp_sys::prefetch::prefetch_for_reading;
use mp_sys::robust::{self, Current};
use std::ptr::NonNull;
use std::time::Duration;

/// What a channel's block begins with.
#[repr(C)]
#[derive(ShmSafe, Debug)]
pub(crate) struct Descriptor {
    control: Control,
    capacity: AtomicU32,
    /// Bytes of a slot, a multiple of 64.
    stride: AtomicU32,
    /// Bytes of the tag in front of every message.
    tag_bytes: AtomicU32,
    /// 1 if a send ends when its message is taken: a channel of capacity 0, whose ring has one slot.
    rendezvous: AtomicU32,
    /// 1 once a message with handles was sent; see `ObjectKind::may_hold_itself`.
    carries_handles: AtomicU32,
    returns: Returns,
    /// Most bytes of all rings of the channel together; 0 if it does not grow.
    bytes_max: AtomicU64,
    /// Bytes of this ring and those before it.
    bytes: AtomicU64,
    /// The block of the next ring, its offset / 64; 0 for none. Once it is there it stays.
    next: AtomicU32,
    _unused: AtomicU32,
}

pub(crate) const SLOT_HEADER_BYTES: usize = 16;
const DESCRIPTOR_BYTES: usize = size_of::<Descriptor>().next_multiple_of(64);
/// Processors fetch cache lines in pairs.
const PAIR_BYTES: usize = 128;
/// Where slots begin, at the latest: at a pair of lines.
const SLOTS_FROM: usize = DESCRIPTOR_BYTES + PAIR_BYTES - 64;
/// Most bytes of a slot.
const STRIDE_MAX: usize = 64 << 10;

/// Bytes of a tag: four words.
pub(crate) const TAG_BYTES: usize = 32;

/// How the slots of a channel are cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) shape: Shape,
    pub(crate) stride: usize,
    pub(crate) tag_bytes: usize,
    pub(crate) rendezvous: bool,
}

impl Cut {
    /// For messages that usually have up to `expected` bytes; `None` if a channel cannot have that capacity.
    pub(crate) fn new(capacity: usize, tag_bytes: usize, expected: usize) -> Option<Self> {
        let stride = (SLOT_HEADER_BYTES + tag_bytes + expected.min(INLINE_MAX)).next_multiple_of(64);
        let shape = Shape::new(u32::try_from(capacity).ok()?.max(1))?;
        Some(Self { shape, stride, tag_bytes, rendezvous: capacity == 0 })
    }

    /// For messages of up to `bytes` bytes, all of which lie in their slots.
    pub(crate) fn with_room(capacity: usize, bytes: usize) -> Option<Self> {
        let stride = (SLOT_HEADER_BYTES + bytes).next_multiple_of(64);
        Some(Self { stride, ..Self::new(capacity, 0, 0)? })
    }

    pub(crate) fn room(self) -> usize {
        self.stride - SLOT_HEADER_BYTES - self.tag_bytes
    }

    #[inline]
    pub(crate) fn inline_max(self) -> usize {
        (self.stride - SLOT_HEADER_BYTES - self.tag_bytes).min(INLINE_MAX)
    }

    pub(crate) fn block_bytes(self) -> usize {
        SLOTS_FROM + self.stride * self.shape.capacity() as usize
    }
}

/// A channel as this process sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) session: Session,
    holders: Holders,
    descriptor: &'static Descriptor,
    slots: NonNull<u8>,
    pub(crate) cut: Cut,
    grows: bool,
}

// SAFETY: a view is addresses of shared memory that stays mapped; all access goes through atomics and claims.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// Lays a new channel out in `block`, with positions that start at `start`.
    pub(crate) fn lay_out(block: &Block, cut: Cut, start: u64) -> Option<Self> {
        Self::lay_out_growing(block, cut, start, 0, 0)
    }

    /// [`lay_out`](Self::lay_out) of a ring behind others that have `before` bytes, none of whose successors may make it more than `bytes_max`.
    pub(crate) fn lay_out_growing(
        block: &Block,
        cut: Cut,
        start: u64,
        before: u64,
        bytes_max: u64,
    ) -> Option<Self> {
        let payload = block.offset() + BLOCK_HEADER_BYTES;
        let place = block.session().bytes(payload, cut.block_bytes())?;
        // SAFETY: `bytes` checked the range, and nobody else knows this block yet.
        unsafe {
            place.cast::<Descriptor>().write(Descriptor {
                control: Control::new(start),
                capacity: AtomicU32::new(cut.shape.capacity()),
                stride: AtomicU32::new(u32::try_from(cut.stride).ok()?),
                tag_bytes: AtomicU32::new(u32::try_from(cut.tag_bytes).ok()?),
                rendezvous: AtomicU32::new(cut.rendezvous.into()),
                carries_handles: AtomicU32::new(0),
                returns: Returns::new(),
                bytes_max: AtomicU64::new(bytes_max),
                bytes: AtomicU64::new(before + cut.block_bytes() as u64),
                next: AtomicU32::new(0),
                _unused: AtomicU32::new(0),
            })
        };
        let view = Self::open(block.session(), block.offset())?;
        for index in 0..cut.shape.capacity() {
            view.clear(index);
            view.word(index).store(first_word(start, index), Ordering::Relaxed);
        }
        Some(view)
    }

    /// The channel whose block is at `offset`, or `None` if what is there does not fit together.
    pub(crate) fn open(session: Session, offset: u64) -> Option<Self> {
        // SAFETY: the callers name blocks of channels, which begin with a descriptor; all of it is atomics.
        let descriptor: &'static Descriptor =
            unsafe { session.shared(offset.checked_add(BLOCK_HEADER_BYTES)?) }?;
        let shape = Shape::new(descriptor.capacity.load(Ordering::Relaxed))?;
        let stride = usize::try_from(descriptor.stride.load(Ordering::Relaxed)).ok()?;
        let tag_bytes = usize::try_from(descriptor.tag_bytes.load(Ordering::Relaxed)).ok()?;
        if tag_bytes > TAG_BYTES
            || stride < SLOT_HEADER_BYTES + tag_bytes
            || stride > STRIDE_MAX
            || !stride.is_multiple_of(64)
        {
            return None;
        }
        let rendezvous = descriptor.rendezvous.load(Ordering::Relaxed) != 0;
        let cut = Cut { shape, stride, tag_bytes, rendezvous };
        if session.payload_bytes(offset)? < cut.block_bytes() as u64 {
            return None;
        }
        let place = session.bytes(offset + BLOCK_HEADER_BYTES, cut.block_bytes())?;
        let at =
            DESCRIPTOR_BYTES + place.addr().get().wrapping_add(DESCRIPTOR_BYTES).wrapping_neg() % PAIR_BYTES;
        // SAFETY: at <= SLOTS_FROM <= block_bytes, which were checked to be inside of the session.
        let slots = unsafe { place.add(at) };
        let holders = session.holders(offset)?;
        let grows = descriptor.bytes_max.load(Ordering::Relaxed) != 0;
        Some(Self { session, holders, descriptor, slots, cut, grows })
    }

    #[inline]
    pub(crate) fn control(&self) -> &'static Control {
        &self.descriptor.control
    }

    #[inline]
    pub(crate) fn holders(&self) -> Holders {
        self.holders
    }

    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        self.cut.shape
    }

    #[inline]
    pub(crate) fn is_rendezvous(&self) -> bool {
        self.cut.rendezvous
    }

    #[inline]
    pub(crate) fn tag_bytes(&self) -> usize {
        self.cut.tag_bytes
    }

    #[inline]
    pub(crate) fn inline_max(&self) -> usize {
        self.cut.inline_max()
    }

    /// The address `at` bytes into slot `index`. An index from a corrupt hint is turned into one that exists.
    #[inline]
    pub(crate) fn place(&self, index: u32, at: usize) -> NonNull<u8> {
        debug_assert!(at < self.cut.stride, "inside of the slot");
        let index = index.min(self.cut.shape.capacity() - 1) as usize;
        // SAFETY: index < capacity and at < stride, so the address is within the `block_bytes` that `open` checked.
        unsafe { self.slots.add(index * self.cut.stride + at) }
    }

    /// All of the channel's memory.
    pub(crate) fn memory(&self) -> &'static [AtomicU32] {
        let start = NonNull::from(self.descriptor).cast::<AtomicU32>();
        let words = NonNull::slice_from_raw_parts(start, self.cut.block_bytes() / 4);
        // SAFETY: `open` checked that `block_bytes` bytes from the descriptor on are inside of the session; any bytes are words.
        unsafe { words.as_ref() }
    }

    /// The control words of the channel whose block is at `offset`, whatever its shape says.
    pub(crate) fn control_at(session: Session, offset: u64) -> Option<&'static Control> {
        // SAFETY: as in `open`.
        let descriptor: &'static Descriptor =
            unsafe { session.shared(offset.checked_add(BLOCK_HEADER_BYTES)?) }?;
        Some(&descriptor.control)
    }

    /// Notes that a message with handles is sent.
    pub(crate) fn note_handles(&self) {
        self.descriptor.carries_handles.store(1, Ordering::Relaxed);
    }

    /// Whether a message with handles was ever sent.
    pub(crate) fn carries_handles(&self) -> bool {
        self.rings().any(|ring| ring.descriptor.carries_handles.load(Ordering::Relaxed) != 0)
    }

    /// Blocks that receivers have left.
    pub(crate) fn returns(&self) -> &'static Returns {
        &self.descriptor.returns
    }

    /// The same ring of a channel whose memory is not to be believed: no other one is looked for, whatever it names.
    pub(crate) fn alone(self) -> Self {
        Self { grows: false, ..self }
    }

    /// Whether the channel grows when it is full.
    #[inline]
    pub(crate) fn grows(&self) -> bool {
        self.grows
    }

    /// This ring and those that came after it.
    pub(crate) fn rings(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(*self), Self::next).take(RINGS_MAX)
    }

    /// The ring that comes after this one.
    pub(crate) fn next(&self) -> Option<Self> {
        Self::open(self.session, self.next_block()?)
    }

    /// The block of the ring that comes after this one.
    pub(crate) fn next_block(&self) -> Option<u64> {
        // NEXT: Acquire, pairs with the Release in `add_next`.
        let number = if self.grows { self.descriptor.next.load(Ordering::Acquire) } else { 0 };
        (number != 0).then(|| u64::from(number) * BLOCK_HEADER_BYTES)
    }

    /// How the next ring is cut, if the channel may grow by one more.
    pub(crate) fn next_cut(&self) -> Option<Cut> {
        let bytes_max = self.descriptor.bytes_max.load(Ordering::Relaxed);
        let left = bytes_max.checked_sub(self.descriptor.bytes.load(Ordering::Relaxed))?;
        let left = usize::try_from(left).ok()?.checked_sub(SLOTS_FROM)?;
        let capacity = (left / self.cut.stride).min(self.cut.shape.capacity() as usize * 2);
        let shape = Shape::new(u32::try_from(capacity).ok()?.min(CAPACITY_MAX))?;
        // A channel never shrinks; so there are never many rings, either.
        (capacity > self.cut.shape.capacity() as usize && shape != self.cut.shape)
            .then_some(Cut { shape, ..self.cut })
    }

    /// Puts a ring after this one, unless there is one.
    ///
    /// Death: a block that is not linked has its owner's stamp.
    pub(crate) fn add_next(&self, cut: Cut) -> Result<(), SessionError> {
        if self.next_block().is_some() {
            return Ok(());
        }
        let block = match self.session.allocate(Kind::MESSAGE, cut.block_bytes()) {
            Ok(block) => block,
            Err(_) if self.next_block().is_some() => return Ok(()),
            Err(error) => {
                // From now on it is an ordinary channel: senders who wait for room are not told again and again that it could grow.
                // (Not 0: another sender may be about to add a ring, and who opens an end later must know that there are several.)
                let bytes = self.descriptor.bytes.load(Ordering::Relaxed);
                self.descriptor.bytes_max.store(bytes, Ordering::Relaxed);
                return Err(error);
            }
        };
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let (before, bytes_max) = (load(&self.descriptor.bytes), load(&self.descriptor.bytes_max));
        let laid_out = Self::lay_out_growing(&block, cut, 0, before, bytes_max);
        let number = u32::try_from(block.offset() / BLOCK_HEADER_BYTES).ok().filter(|_| laid_out.is_some());
        let number = number.ok_or(SessionError::NotASession)?;
        mp_sys::crash::point("grow.laid_out");
        // NEXT: Release, pairs with the Acquire in `next`.
        if self.descriptor.next.compare_exchange(0, number, Ordering::Release, Ordering::Relaxed).is_ok() {
            mp_sys::crash::point("grow.linked");
            let _ = block.into_offset();
        }
        Ok(())
    }

    /// How many messages are waiting.
    pub(crate) fn waiting(&self) -> usize {
        let here = Here { view: self, thread: 0 };
        robust::with(|thread| self.rings().map(|ring| ring.ring(&here, thread).waiting() as usize).sum())
    }

    /// Whether none is.
    pub(crate) fn is_empty(&self) -> bool {
        let here = Here { view: self, thread: 0 };
        robust::with(|thread| self.rings().all(|ring| ring.ring(&here, thread).is_empty()))
    }

    /// This ring, one of the channel that `here` is at.
    #[inline]
    pub(crate) fn ring<'a>(&'a self, here: &'a Here<'a>, thread: Current<'a>) -> Ring<'a, Self, Here<'a>> {
        let senders_woken = if self.cut.rendezvous { u32::MAX } else { 1 };
        Ring {
            control: here.view.control(),
            hints: self.control(),
            grows: self.grows,
            slots: self,
            shape: self.shape(),
            world: here,
            thread,
            interrupt: None,
            senders_woken,
        }
    }
}

impl Slots for View {
    #[inline]
    fn word(&self, index: u32) -> &AtomicU64 {
        // SAFETY: within the slot, 8-byte aligned, valid for any bit pattern, mapped for ever.
        unsafe { self.place(index, 0).cast::<AtomicU64>().as_ref() }
    }

    #[inline]
    fn fetch(&self, index: u32) {
        if self.cut.stride > 64 {
            prefetch_for_reading(self.place(index, 64).as_ptr());
        }
    }
}

/// A channel and the thread that works on it.
#[derive(Debug)]
pub(crate) struct Here<'a> {
    pub(crate) view: &'a View,
    pub(crate) thread: u16,
}

impl Domain for Here<'_> {
    fn epoch(&self) -> &AtomicU32 {
        self.view.session.death_epoch()
    }

    fn members(&self) -> &AtomicU32 {
        self.view.session.members()
    }

    fn ring(&self, bells: u64) {
        self.view.session.ring(bells);
    }

    fn before_sleep(&self) -> Option<Duration> {
        self.view.session.before_sleep()
    }

    fn sentinels<'a>(&'a self, watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool {
        self.view.session.sentinels(watch)
    }

    fn recover(&self) -> bool {
        self.view.session.recover()
    }
}

impl World for Here<'_> {
    #[inline]
    fn me(&self) -> u16 {
        self.thread
    }

    fn sentinel(&self, thread: u16) -> Option<Watch<'_>> {
        self.view.session.living_sentinel(thread)
    }

    #[inline]
    fn senders(&self) -> u32 {
        self.view.holders.of(0)
    }

    #[inline]
    fn receivers(&self) -> u32 {
        self.view.holders.of(1)
    }
}
