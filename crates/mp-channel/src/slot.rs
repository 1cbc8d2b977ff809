//! What is in a slot besides its word: the message, or the block that it lies in.
//!
//! ```text
//! slot:           0 word | 8 info | 12 block | 16 tag | 16 + tag: the message, if it is small
//! info:           bytes of an inline message, or IN_BLOCK
//! block:          offset / 64 of the message's block, or of a spare one that the next sender may take; 0 for none
//! ```
//!
//! `info`, `block`, tag and message belong to whoever has claimed the slot. A slot that is EMPTY may name a spare block: the
//! receiver of a large message leaves one it no longer needs, if it does not go to `returns`; so a steady stream touches no
//! allocator.
//!
//! Death: what a slot names is its own; recovery keeps it there and only takes the attachments off messages that are lost.

#![expect(unsafe_code, reason = "reading and writing messages in claimed slots")]

use crate::view::{SLOT_HEADER_BYTES, TAG_BYTES, View};
use mp_shm::block::Block;
use mp_shm::codec::Payload;
use mp_shm::layout::BLOCK_HEADER_BYTES;
use mp_shm::participants::Me;
use mp_shm::rkyv::util::AlignedVec;
use mp_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use mp_sys::prefetch::prefetch_for_writing;
use std::ptr::NonNull;

/// How many slots ahead a sender fetches them for writing.
const AHEAD: u32 = 2;
/// In shorter rings a slot ahead may be the other side's.
const SHORT: u32 = 16;
/// Bytes from which on spent blocks go back to the senders at once, in [`returns`](crate::returns), to be used while they lie in some cache. The
/// words for that go to and fro between processors: for a smaller block it costs more than to find it in its slot a lap later.
const RETURNED_MIN: usize = 8 << 10;
const IN_BLOCK: u32 = u32::MAX;

impl View {
    /// Fetches the slot some way on from `index` for writing. Writes leave a processor in order, each when its line is there: without this
    /// a sender waits for the lines of each message, one after the other. (For receivers it gains nothing, and takes lines from each other
    /// where they are several.)
    #[inline]
    pub(crate) fn fetch_ahead(&self, index: u32) {
        let capacity = self.cut.shape.capacity();
        if capacity >= SHORT {
            let ahead = index + AHEAD;
            let ahead = if ahead < capacity { ahead } else { ahead - capacity };
            prefetch_for_writing(self.place(ahead, 0).as_ptr());
            if self.cut.stride > 64 {
                prefetch_for_writing(self.place(ahead, 64).as_ptr());
            }
        }
    }

    /// Names nothing in a slot that nobody knows yet.
    pub(crate) fn clear(&self, index: u32) {
        self.info(index).store(0, Ordering::Relaxed);
        self.block(index).store(0, Ordering::Relaxed);
    }

    #[inline]
    fn info(&self, index: u32) -> &'static AtomicU32 {
        // SAFETY: within the slot, 4-byte aligned (slots are 64-byte aligned), valid for any bit pattern, mapped for ever.
        unsafe { self.place(index, 8).cast::<AtomicU32>().as_ref() }
    }

    #[inline]
    fn block(&self, index: u32) -> &'static AtomicU32 {
        // SAFETY: as in `info`.
        unsafe { self.place(index, 12).cast::<AtomicU32>().as_ref() }
    }

    /// Writes tag and a value as it lies into a slot that this thread has claimed for writing.
    ///
    /// The length is known here, so the copy needs no call: a loop over wide registers would wait until all narrower writes of the value have left
    /// the processor's store buffer, in which they stand behind those of earlier messages. (It cost 40 ns a message.)
    ///
    /// # Panics
    /// If it does not fit.
    #[inline]
    pub(crate) fn write_plain<T>(&self, index: u32, tag: &[u64; 4], value: &T) {
        // SAFETY: a reference is valid for its size.
        unsafe { self.write_inline(index, tag, NonNull::from(value).cast(), size_of::<T>()) };
    }

    /// Writes tag and a small message into a slot that this thread has claimed for writing.
    ///
    /// # Panics
    /// If it does not fit.
    pub(crate) fn write_bytes(&self, index: u32, tag: &[u64; 4], message: &[u8]) {
        // SAFETY: a slice is valid for its length.
        unsafe { self.write_inline(index, tag, NonNull::from(message).cast(), message.len()) };
    }

    /// # Panics
    /// If they do not fit.
    ///
    /// # Safety
    /// `len` bytes at `from` can be read; they need not be initialised.
    #[inline(always)]
    unsafe fn write_inline(&self, index: u32, tag: &[u64; 4], from: NonNull<u8>, len: usize) {
        assert!(len <= self.inline_max(), "a message for the slot fits into it");
        self.write_tag(index, tag);
        let to = self.place(index, SLOT_HEADER_BYTES + self.tag_bytes());
        // SAFETY: the slot is claimed by this thread, so nobody else touches it; the length was checked above, and the caller vouches
        // for the source.
        unsafe { to.copy_from_nonoverlapping(from, len) };
        #[expect(clippy::cast_possible_truncation, reason = "at most INLINE_MAX")]
        self.info(index).store(len as u32, Ordering::Relaxed);
    }

    /// Writes a small message into a slot that this thread has claimed for writing, while others may read what was there: word by word.
    ///
    /// # Panics
    /// If it does not fit.
    pub(crate) fn write_words(&self, index: u32, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "a message for the slot fits into it");
        for (at, part) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.message_word(index, at).store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most INLINE_MAX")]
        self.info(index).store(bytes.len() as u32, Ordering::Relaxed);
    }

    /// Most bytes of a message that lies in its slot, for those who copy it word by word.
    pub(crate) fn room(&self) -> usize {
        self.cut.room()
    }

    /// Copies the message that lies in a slot, which others may be writing, word by word; `None` if none does.
    pub(crate) fn copy_slot(&self, index: u32) -> Option<AlignedVec> {
        let len = usize::try_from(self.info(index).load(Ordering::Relaxed)).ok()?;
        if len > self.room() {
            return None;
        }
        let mut bytes = AlignedVec::with_capacity(len.next_multiple_of(8));
        for at in 0..len.div_ceil(8) {
            bytes.extend_from_slice(&self.message_word(index, at).load(Ordering::Relaxed).to_ne_bytes());
        }
        bytes.resize(len, 0);
        Some(bytes)
    }

    /// Word `at` of the message in slot `index`; inside of the slot for messages of up to `room` bytes, since slots are multiples of 64.
    fn message_word(&self, index: u32, at: usize) -> &'static AtomicU64 {
        // SAFETY: within the slot (`place` checks that in tests), 8-byte aligned, valid for any bit pattern, mapped for ever.
        unsafe {
            self.place(index, SLOT_HEADER_BYTES + self.tag_bytes() + at * 8).cast::<AtomicU64>().as_ref()
        }
    }

    /// Copies the message in a slot that others may be writing: word by word; what comes of it may make no sense. `None` if it makes none for
    /// certain.
    pub(crate) fn copy_words(&self, index: u32, bytes: &mut Vec<u64>) -> Option<usize> {
        bytes.clear();
        let info = self.info(index).load(Ordering::Relaxed);
        if info != IN_BLOCK {
            let len = usize::try_from(info).ok().filter(|&len| len <= self.inline_max())?;
            let words = 0..len.div_ceil(8);
            bytes.extend(words.map(|at| self.message_word(index, at).load(Ordering::Relaxed)));
            return Some(len);
        }
        let offset = self.named(index)?;
        let len = self.session.message_bytes(offset)?;
        self.session.copy_words(offset + BLOCK_HEADER_BYTES, len, bytes)?;
        Some(len)
    }

    /// Writes tag and message block into a slot that this thread has claimed for writing; returns the spare block that was there.
    pub(crate) fn write_block(&self, index: u32, tag: &[u64; 4], me: u16, block: Block) -> Option<Block> {
        self.write_tag(index, tag);
        // SAFETY: the slot is claimed by this thread, and its spare belongs to it; another name is written below.
        let spare = self.named(index).and_then(|spare| unsafe { Block::take(self.session, me, spare) });
        mp_sys::crash::point("slot.spare_taken");
        if block.has_attachments() {
            self.note_handles();
        }
        self.info(index).store(IN_BLOCK, Ordering::Relaxed);
        self.name(index, Some(block));
        spare
    }

    #[inline]
    fn write_tag(&self, index: u32, tag: &[u64; 4]) {
        if self.tag_bytes() == TAG_BYTES {
            let to = self.place(index, SLOT_HEADER_BYTES).cast::<[u64; 4]>();
            // SAFETY: the slot is claimed by this thread and has room for the tag (`open` checked); 16-byte aligned.
            unsafe { to.write(*tag) };
        }
    }

    /// The tag in a slot that this thread has claimed for reading.
    #[inline]
    pub(crate) fn read_tag(&self, index: u32) -> [u64; 4] {
        if self.tag_bytes() == TAG_BYTES {
            // SAFETY: as in `write_tag`; any bit pattern is a tag.
            unsafe { self.place(index, SLOT_HEADER_BYTES).cast::<[u64; 4]>().read() }
        } else {
            [0; 4]
        }
    }

    /// Address and length of the small message in a slot that this thread has claimed for reading; `None` if there is none, or a corrupt one.
    #[inline]
    pub(crate) fn inline(&self, index: u32) -> Option<(*const u8, usize)> {
        let info = self.info(index).load(Ordering::Relaxed);
        let len = usize::try_from(info).ok().filter(|&len| len <= self.inline_max())?;
        Some((self.place(index, SLOT_HEADER_BYTES + self.tag_bytes()).as_ptr(), len))
    }

    /// Takes the message block out of a slot that this thread has claimed for reading; `None` if there is none, or a corrupt one.
    pub(crate) fn take_block(&self, index: u32, me: u16) -> Option<Block> {
        if self.info(index).load(Ordering::Relaxed) != IN_BLOCK {
            return None;
        }
        // SAFETY: the slot is claimed by this thread, and its message belongs to it; another name is written below.
        let block = unsafe { Block::take(self.session, me, self.named(index)?) }?;
        mp_sys::crash::point("slot.block_taken");
        // An earlier one, spent by now, goes back: to who sends next, or to who sends here next.
        let spent = if self.next_block().is_none() {
            let spent = self.session.spare(me, block.capacity());
            if block.capacity() < RETURNED_MIN {
                spent
            } else {
                spent.and_then(|spent| self.give_back(spent))
            }
        } else {
            // No sender comes here any more.
            None
        };
        self.name(index, spent);
        Some(block)
    }

    /// Leaves a spent block to the senders; gives it back if there is no room.
    fn give_back(&self, spent: Block) -> Option<Block> {
        let number = u32::try_from(spent.offset() / BLOCK_HEADER_BYTES).ok()?;
        if self.returns().leave(number) {
            let _ = spent.into_offset();
            return None;
        }
        Some(spent)
    }

    /// Fetches a block that a receiver has left, if a message of about `size` bytes will need such a one, to where the next is allocated from.
    pub(crate) fn fetch_returned(&self, size: usize, me: Me) {
        if size >= RETURNED_MIN {
            drop(self.take_returned(size, me));
        }
    }

    /// Takes a block with room for `size` bytes, and not much more, that a receiver has left.
    fn take_returned(&self, size: usize, me: Me) -> Option<Block> {
        let offset = |number: u32| u64::from(number) * BLOCK_HEADER_BYTES;
        let fits = |number| {
            let capacity = self.session.payload_bytes(offset(number)).unwrap_or(0);
            capacity >= size as u64 && capacity / 4 <= size as u64
        };
        // SAFETY: the block belongs to the word, and the word to this thread, until `take` clears it after this.
        let stamp = |number| unsafe { Block::take(self.session, me.process, offset(number)) };
        self.returns().take(me.thread, fits, stamp)
    }

    /// Takes the message out of a slot that this thread has claimed for reading.
    #[inline]
    pub(crate) fn read(&self, index: u32, me: u16) -> Option<Payload> {
        match self.inline(index) {
            // SAFETY: the slot is claimed by this thread, so nobody writes it; the length was checked.
            Some((from, len)) => Some(unsafe { Payload::copy_inline(self.session, from, len) }),
            None => self.take_block(index, me).map(Payload::in_block),
        }
    }

    /// The block that a slot names: a message's, or a spare one.
    pub(crate) fn named(&self, index: u32) -> Option<u64> {
        match self.block(index).load(Ordering::Acquire) {
            0 => None,
            number => Some(u64::from(number) * BLOCK_HEADER_BYTES),
        }
    }

    fn name(&self, index: u32, block: Option<Block>) {
        let number = block.map_or(0, |block| block.into_offset() / BLOCK_HEADER_BYTES);
        // A session has at most 2^30 places of 64 bytes.
        self.block(index).store(u32::try_from(number).unwrap_or(0), Ordering::Release);
    }
}
