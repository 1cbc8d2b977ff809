//! Blocks: the memory of a session that objects and messages live in.
//!
//! The arena is cut into spans of 256 KiB. A span holds small blocks of one class, or is part of a run that is one large block.
//! A block is a 64-byte header and a payload; both are 64-byte aligned.
//!
//! ```text
//! stamp:  63..32 generation | 31..16 kind | 15..0 owner
//! owner:  0 nobody (free) | 1..4095 the process that holds it privately | 65535 an object, owned by its references
//!
//! from                 event                                   to              who
//! free                 allocate                                (me, kind, +1)  holder of the lock
//! (me, *)              into or out of the private cache        (me, kind, +1)  owner
//! (p, MESSAGE)         taken out of a slot                     (me, MESSAGE)   who claimed the slot, before the slot
//!                                                                              stops referring to it
//! (me, *)              free                                    free            holder of the lock
//! (dead, *)            no slot refers to it                    free            recovery
//! ```
//!
//! Invariants
//! 1. A block is either named by a slot of a channel, or stamped with the process that holds it privately. So recovery frees
//!    exactly the blocks that carry a dead process's stamp and that no slot names.
//! 2. Free lists and spans change only under the domain's lock; after a death under it they are rebuilt from stamps and span
//!    entries, whose order of writing makes every half-done change readable.
//! 3. Memory of a span is committed before its first block is handed out: no SIGBUS later.
//! 4. Memory of a free span is zero: a run is emptied before it is marked free, and after a death under the lock all free spans are emptied.

#![expect(unsafe_code, reason = "taking blocks out of slots is a promise of the caller's")]

use crate::domain::Locked;
use crate::error::SessionError;
use crate::handle::Kind;
use crate::layout::{ARENA, BLOCK_HEADER_BYTES, BlockHeader, CLASSES, PROCESS_MAX, SPAN_BYTES, SPANS};
use crate::session::Session;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Owner of blocks that are objects: their references own them.
pub(crate) const SHARED: u16 = u16::MAX;

/// A block's stamp, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) owner: u16,
    pub(crate) kind: Kind,
    pub(crate) generation: u32,
}

impl Stamp {
    #[expect(clippy::cast_possible_truncation, reason = "taking the fields of the word apart")]
    pub(crate) fn read(header: &BlockHeader) -> Self {
        // STAMP: Acquire, pairs with the Release in `write` and `restamp`.
        let word = header.stamp.load(Ordering::Acquire);
        Self { owner: word as u16, kind: Kind((word >> 16) as u16), generation: (word >> 32) as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.owner) | u64::from(self.kind.0) << 16 | u64::from(self.generation) << 32
    }

    pub(crate) fn write(self, header: &BlockHeader) {
        // STAMP: Release, pairs with the Acquire in `read`.
        header.stamp.store(self.word(), Ordering::Release);
    }
}

/// Payload bytes of a class.
pub(crate) fn class_bytes(class: usize) -> u64 {
    // A message of 2^n bytes usually has a few more: the root of its archive.
    (256 << class) + BLOCK_HEADER_BYTES
}

fn class_of(size: u64) -> Option<usize> {
    (0..CLASSES).find(|&class| class_bytes(class) >= size)
}

const SPAN_FREE: u64 = 0;
pub(crate) const SPAN_SMALL: u64 = 1;
pub(crate) const SPAN_LARGE: u64 = 2;
const SPAN_REST: u64 = 3;

fn span_offset(span: u32) -> u64 {
    ARENA + u64::from(span) * SPAN_BYTES
}

pub(crate) fn blocks_per_span(class: usize) -> u64 {
    SPAN_BYTES / (class_bytes(class) + BLOCK_HEADER_BYTES)
}

/// Blocks that this process keeps for its next allocations; all stamped with it.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    small: [Mutex<Vec<u64>>; CLASSES],
    large: Mutex<Vec<u64>>,
}

const LARGE_CACHED_MAX: usize = 4;
/// Most bytes of large blocks that a process keeps; larger blocks go back to the session at once.
const LARGE_CACHED_BYTES_MAX: u64 = 32 << 20;

fn small_cached_max(class: usize) -> usize {
    usize::try_from(((1 << 20) / class_bytes(class)).clamp(4, 64)).unwrap_or(4)
}

/// A block that this process holds privately. Dropping it puts it into the private cache.
#[derive(Debug)]
pub struct Block {
    session: Session,
    offset: u64,
    header: &'static BlockHeader,
}

impl Block {
    /// Where the block is, in bytes from the start of the session.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The session it is in.
    #[must_use]
    pub fn session(&self) -> Session {
        self.session
    }

    /// Its header.
    pub(crate) fn header(&self) -> &'static BlockHeader {
        self.header
    }

    /// Tells this use of the block from earlier ones.
    #[must_use]
    pub fn generation(&self) -> u32 {
        Stamp::read(self.header).generation
    }

    /// Whether handles are attached to the message in it.
    #[must_use]
    pub fn has_attachments(&self) -> bool {
        self.header.attachments.load(Ordering::Relaxed) != 0
    }

    /// Bytes of its payload.
    #[must_use]
    pub fn capacity(&self) -> usize {
        // Range-checked by `payload`, whoever wrote it.
        usize::try_from(self.header.capacity.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The payload's address; valid for [`capacity`](Self::capacity) bytes, 64-byte aligned.
    #[must_use]
    pub fn payload(&self) -> NonNull<u8> {
        self.session.bytes(self.offset + BLOCK_HEADER_BYTES, self.capacity()).unwrap_or_else(|| {
            panic!("block {:#x} does not fit into its session: the session is corrupt", self.offset)
        })
    }

    /// Gives the block out of this value's hands: a slot names it from now on.
    #[must_use]
    pub fn into_offset(self) -> u64 {
        let offset = self.offset;
        std::mem::forget(self);
        offset
    }

    /// Takes the block at `offset` out of a slot that this thread has claimed: stamps it with this process.
    ///
    /// Call this before the slot stops referring to the block. `None` if no block can be there.
    ///
    /// # Safety
    /// The block belongs to the slot, and the slot to this thread; `me` is this process. From the return on the slot no longer owns it.
    #[must_use]
    pub unsafe fn take(session: Session, me: u16, offset: u64) -> Option<Self> {
        Self::take_over(session, me, offset)
    }

    /// [`take`](Self::take) for this crate: of a block that nobody else takes at the same time.
    pub(crate) fn take_over(session: Session, me: u16, offset: u64) -> Option<Self> {
        let header = session.block_header(offset)?;
        let capacity = usize::try_from(header.capacity.load(Ordering::Relaxed)).ok()?;
        session.bytes(offset + BLOCK_HEADER_BYTES, capacity)?;
        let stamp = Stamp::read(header);
        Stamp { owner: me, kind: Kind::MESSAGE, ..stamp }.write(header);
        Some(Self { session, offset, header })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.session.cache(self.offset, self.header);
    }
}

impl Session {
    /// Allocates a block with a payload of at least `size` bytes, held by this process.
    ///
    /// # Errors
    /// No memory, or this process has no part in the session.
    pub fn allocate(self, kind: Kind, size: usize) -> Result<Block, SessionError> {
        let (block, is_fresh) = self.allocate_any(kind, size)?;
        if is_fresh && class_of(size as u64).is_none() {
            // Who allocates much fills it: pages one by one take several times as long. Whatever fails here fails at the first access.
            let _ = self.prefault_bytes(block.offset, size);
        }
        Ok(block)
    }

    /// [`allocate`](Self::allocate) with the first `size` bytes of the payload zero.
    pub(crate) fn allocate_zeroed(self, kind: Kind, size: usize) -> Result<Block, SessionError> {
        let (block, is_fresh) = self.allocate_any(kind, size)?;
        if !is_fresh || class_of(size as u64).is_some() {
            // SAFETY: the block has room for `size` bytes, and this process holds it alone.
            unsafe { block.payload().write_bytes(0, size) };
        }
        Ok(block)
    }

    /// A block, and whether it is none that this process kept.
    fn allocate_any(self, kind: Kind, size: usize) -> Result<(Block, bool), SessionError> {
        let me = self.me()?;
        let size = size as u64;
        let cached = self.cached(size);
        let offset = match cached {
            Some(offset) => offset,
            None => self.lock().allocate(me.process, kind, size)?,
        };
        let header = self
            .block_header(offset)
            .unwrap_or_else(|| panic!("block {offset:#x} is outside of its session: the session is corrupt"));
        let generation = Stamp::read(header).generation.wrapping_add(1);
        Stamp { owner: me.process, kind, generation }.write(header);
        header.attachments.store(0, Ordering::Relaxed);
        header.len.store(0, Ordering::Relaxed);
        Ok((Block { session: self, offset, header }, cached.is_none()))
    }

    /// A block with room for `size` bytes from the private cache, if one is at hand; never waits. For leaving in a slot that a
    /// message was taken out of.
    #[must_use]
    pub fn spare(self, me: u16, size: usize) -> Option<Block> {
        self.cached(size as u64).and_then(|offset| Block::take_over(self, me, offset))
    }

    fn cached(self, size: u64) -> Option<u64> {
        let caches = &self.inner().caches;
        if let Some(class) = class_of(size) {
            return caches.small[class].try_lock().ok()?.pop();
        }
        let mut large = caches.large.try_lock().ok()?;
        let fits = |offset: &u64| {
            self.block_header(*offset).is_some_and(|header| {
                let capacity = header.capacity.load(Ordering::Relaxed);
                capacity >= size && capacity <= size.saturating_mul(2)
            })
        };
        let at = large.iter().position(fits)?;
        Some(large.swap_remove(at))
    }

    fn cache(self, offset: u64, header: &'static BlockHeader) {
        // After a fork the block is the parent's, and so is the cache.
        let Ok(me) = self.me() else { return };
        header.attachments.store(0, Ordering::Relaxed);
        let stamp = Stamp::read(header);
        Stamp { owner: me.process, kind: Kind::CACHED, ..stamp }.write(header);
        let caches = &self.inner().caches;
        let capacity = header.capacity.load(Ordering::Relaxed);
        let (list, most) = match class_of(capacity) {
            Some(class) => (&caches.small[class], small_cached_max(class)),
            None => (&caches.large, LARGE_CACHED_MAX),
        };
        let surplus: Vec<u64> = {
            let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
            list.push(offset);
            let bytes = |offset: &u64| {
                self.block_header(*offset).map_or(0, |header| header.capacity.load(Ordering::Relaxed))
            };
            if list.len() > most {
                list.drain(..most.div_ceil(2)).collect()
            } else if capacity > LARGE_CACHED_BYTES_MAX / 4
                && list.iter().map(bytes).sum::<u64>() > LARGE_CACHED_BYTES_MAX
            {
                list.drain(..).collect()
            } else {
                Vec::new()
            }
        };
        if !surplus.is_empty() {
            let mut locked = self.lock();
            for offset in surplus {
                locked.free(offset);
            }
        }
    }
}

impl Locked {
    fn span(&self, span: u32) -> &'static AtomicU64 {
        self.session
            .at(SPANS + u64::from(span) * 8)
            .unwrap_or_else(|| unreachable!("span numbers are checked against the session's size"))
    }

    fn span_max(&self) -> u32 {
        let spans = (self.header.size.load(Ordering::Relaxed).saturating_sub(ARENA)) / SPAN_BYTES;
        u32::try_from(spans).unwrap_or(u32::MAX)
    }

    fn span_high(&self) -> u32 {
        self.header.span_high.load(Ordering::Relaxed).min(self.span_max())
    }

    /// Allocates a block for `owner`.
    pub(crate) fn allocate(&mut self, owner: u16, kind: Kind, size: u64) -> Result<u64, SessionError> {
        let Some(class) = class_of(size) else { return self.allocate_large(owner, kind, size) };
        let head = &self.header.free_blocks[class];
        if head.load(Ordering::Relaxed) == 0 {
            self.cut_span(class)?;
        }
        let offset = head.load(Ordering::Relaxed);
        let block = self.session.block_header(offset).ok_or(SessionError::NotASession)?;
        let generation = Stamp::read(block).generation.wrapping_add(1);
        Stamp { owner, kind, generation }.write(block);
        mp_sys::crash::point("block.stamped");
        head.store(block.next.load(Ordering::Relaxed), Ordering::Relaxed);
        block.next.store(0, Ordering::Relaxed);
        block.attachments.store(0, Ordering::Relaxed);
        Ok(offset)
    }

    /// Cuts a new span into blocks of `class`, all free.
    fn cut_span(&mut self, class: usize) -> Result<(), SessionError> {
        let span = self.find_spans(1)?;
        let mut next = self.header.free_blocks[class].load(Ordering::Relaxed);
        let bytes = class_bytes(class) + BLOCK_HEADER_BYTES;
        for at in (0..blocks_per_span(class)).rev() {
            let offset = span_offset(span) + at * bytes;
            let block = self.session.block_header(offset).ok_or(SessionError::NotASession)?;
            let generation = Stamp::read(block).generation;
            Stamp { owner: 0, kind: Kind::FREE, generation }.write(block);
            block.capacity.store(class_bytes(class), Ordering::Relaxed);
            block.next.store(next, Ordering::Relaxed);
            next = offset;
        }
        self.span(span).store(SPAN_SMALL | (class as u64) << 8, Ordering::Relaxed);
        mp_sys::crash::point("block.span_cut");
        self.header.free_blocks[class].store(next, Ordering::Relaxed);
        Ok(())
    }

    fn allocate_large(&mut self, owner: u16, kind: Kind, size: u64) -> Result<u64, SessionError> {
        let no_room = || SessionError::OutOfMemory(std::io::ErrorKind::OutOfMemory.into());
        let bytes = size.checked_add(BLOCK_HEADER_BYTES).ok_or_else(no_room)?;
        let run = u32::try_from(bytes.div_ceil(SPAN_BYTES)).map_err(|_| no_room())?;
        let first = self.find_spans(run)?;
        for rest in first + 1..first + run {
            self.span(rest).store(SPAN_REST, Ordering::Relaxed);
        }
        let offset = span_offset(first);
        let block = self.session.block_header(offset).ok_or(SessionError::NotASession)?;
        let generation = Stamp::read(block).generation.wrapping_add(1);
        block.capacity.store(u64::from(run) * SPAN_BYTES - BLOCK_HEADER_BYTES, Ordering::Relaxed);
        block.attachments.store(0, Ordering::Relaxed);
        Stamp { owner, kind, generation }.write(block);
        mp_sys::crash::point("block.run_stamped");
        self.span(first).store(SPAN_LARGE | u64::from(run) << 8, Ordering::Relaxed);
        Ok(offset)
    }

    /// Finds `run` free spans in a row and commits their memory; the caller marks them.
    fn find_spans(&mut self, run: u32) -> Result<u32, SessionError> {
        let high = self.span_high();
        let mut found = None;
        if self.header.spans_free.load(Ordering::Relaxed) >= run {
            let mut start = 0;
            for span in 0..high {
                if self.span(span).load(Ordering::Relaxed) != SPAN_FREE {
                    start = span + 1;
                } else if span + 1 - start == run {
                    found = Some(start);
                    break;
                }
            }
        }
        let from_free = found.is_some();
        let first = found.unwrap_or(high);
        let end = first.checked_add(run).filter(|&end| end <= self.span_max());
        let Some(end) = end else {
            return Err(SessionError::OutOfMemory(std::io::Error::other(
                "the session's address space is used up",
            )));
        };
        self.session
            .inner()
            .file
            .commit(span_offset(first), u64::from(run) * SPAN_BYTES)
            .map_err(SessionError::OutOfMemory)?;
        self.commit_table(SPANS + u64::from(first) * 8, u64::from(run) * 8)?;
        if from_free {
            self.header.spans_free.fetch_sub(run, Ordering::Relaxed);
        } else {
            self.header.span_high.store(end, Ordering::Relaxed);
        }
        Ok(first)
    }

    /// Frees a block; one that is free already stays so.
    pub(crate) fn free(&mut self, offset: u64) {
        let Some(block) = self.session.block_header(offset) else { return };
        let stamp = Stamp::read(block);
        if stamp.owner == 0 {
            return;
        }
        block.attachments.store(0, Ordering::Relaxed);
        Stamp { owner: 0, kind: Kind::FREE, ..stamp }.write(block);
        mp_sys::crash::point("block.freed");
        if let Some(class) = class_of(block.capacity.load(Ordering::Relaxed)) {
            let head = &self.header.free_blocks[class];
            block.next.store(head.load(Ordering::Relaxed), Ordering::Relaxed);
            head.store(offset, Ordering::Relaxed);
        } else if let Some(first) = span_of(offset) {
            self.free_run(first);
        }
    }

    fn free_run(&mut self, first: u32) {
        let run = u32::try_from(self.span(first).load(Ordering::Relaxed) >> 8).unwrap_or(1);
        let end = first.saturating_add(run).min(self.span_high());
        self.empty(first, end);
        mp_sys::crash::point("block.run_emptied");
        for span in first..end {
            self.span(span).store(SPAN_FREE, Ordering::Relaxed);
        }
        self.header.spans_free.fetch_add(end - first, Ordering::Relaxed);
    }

    /// Gives the memory of these spans back; they read as zero afterwards.
    fn empty(&self, first: u32, end: u32) {
        let (start, len) = (span_offset(first), u64::from(end.saturating_sub(first)) * SPAN_BYTES);
        if self.session.inner().file.release(start, len).is_ok() {
            return;
        }
        // Memory that cannot be given back now is only kept longer.
        let bytes =
            usize::try_from(len).ok().and_then(|len| self.session.bytes(start, len).map(|at| (at, len)));
        if let Some((start, len)) = bytes {
            // SAFETY: inside of the mapping; the spans hold no block, so nobody else touches them.
            unsafe { start.write_bytes(0, len) };
        }
    }

    /// Whether the memory of all free spans is zero.
    pub(crate) fn free_spans_are_zero(&self) -> std::io::Result<bool> {
        for span in (0..self.span_high()).filter(|&span| self.span(span).load(Ordering::Relaxed) == SPAN_FREE)
        {
            if !self.session.inner().file.is_zero(span_offset(span), SPAN_BYTES)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Calls `visit` with every block that is not free.
    pub(crate) fn for_each_block(&self, visit: &mut dyn FnMut(u64, &'static BlockHeader, Stamp)) {
        let mut at = |offset: u64| {
            if let Some(block) = self.session.block_header(offset) {
                let stamp = Stamp::read(block);
                if stamp.owner != 0 {
                    visit(offset, block, stamp);
                }
            }
        };
        for span in 0..self.span_high() {
            let entry = self.span(span).load(Ordering::Relaxed);
            match entry & 0xff {
                SPAN_SMALL => {
                    let class = usize::try_from(entry >> 8).unwrap_or(0).min(CLASSES - 1);
                    for number in 0..blocks_per_span(class) {
                        at(span_offset(span) + number * (class_bytes(class) + BLOCK_HEADER_BYTES));
                    }
                }
                SPAN_LARGE => at(span_offset(span)),
                _ => {}
            }
        }
    }

    /// Rebuilds free lists and the use of spans from stamps, after a death under the lock.
    pub(crate) fn rebuild_blocks(&mut self) {
        let mut heads = [0_u64; CLASSES];
        let mut spans_free = 0;
        let mut rest = 0_u64;
        for span in 0..self.span_high() {
            let entry = self.span(span).load(Ordering::Relaxed);
            if rest > 0 {
                rest -= 1;
                continue;
            }
            match entry & 0xff {
                SPAN_SMALL => {
                    let class = usize::try_from(entry >> 8).unwrap_or(0).min(CLASSES - 1);
                    for number in 0..blocks_per_span(class) {
                        let offset = span_offset(span) + number * (class_bytes(class) + BLOCK_HEADER_BYTES);
                        if let Some(block) = self.session.block_header(offset)
                            && Stamp::read(block).owner == 0
                        {
                            block.next.store(heads[class], Ordering::Relaxed);
                            heads[class] = offset;
                        }
                    }
                }
                SPAN_LARGE
                    if self
                        .session
                        .block_header(span_offset(span))
                        .is_some_and(|block| Stamp::read(block).owner != 0) =>
                {
                    rest = (entry >> 8).saturating_sub(1);
                }
                _ => {
                    // Whoever died may have begun to use it.
                    self.empty(span, span + 1);
                    self.span(span).store(SPAN_FREE, Ordering::Relaxed);
                    spans_free += 1;
                }
            }
        }
        for (head, list) in self.header.free_blocks.iter().zip(heads) {
            head.store(list, Ordering::Relaxed);
        }
        self.header.spans_free.store(spans_free, Ordering::Relaxed);
    }
}

fn span_of(offset: u64) -> Option<u32> {
    u32::try_from(offset.checked_sub(ARENA)? / SPAN_BYTES).ok()
}

const _: () = assert!(PROCESS_MAX < SHARED as u32);
