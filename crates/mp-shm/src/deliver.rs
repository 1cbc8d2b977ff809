//! Handing a block from one process to another by way of a record that one of them owns.
//!
//! The record (a started process's job, say) is a block of one side, with a [`Place`] in it that names the block that changes hands.
//!
//! ```text
//! place            block's stamp     means
//! 0                –                 nothing to take
//! offset, gen      giver, gen        the taker may take it
//! offset, gen      anything else     it was never given, was taken, or its giver's death took it back: nothing to take
//! ```
//!
//! Giver and taker change place and stamp under the domain's lock, in an order in which a death between the two leaves a row of the
//! table; a block is therefore always stamped with a process that will free it, or has died.

use crate::ShmSafe;
use crate::block::{Block, Stamp};
use crate::handle::Kind;
use crate::session::Session;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Names a record: a block of kind [`Kind::JOB`], as it was when the other process learnt of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The process that owns it.
    pub owner: u16,
    /// Where it is.
    pub offset: u64,
    /// Tells it from later uses of the same block.
    pub generation: u32,
}

/// Where a record names a block that changes hands.
#[repr(C)]
#[derive(ShmSafe, Debug, Default)]
pub struct Place {
    offset: AtomicU64,
    generation: AtomicU64,
}

impl Place {
    /// Nothing to take.
    pub fn clear(&self) {
        self.offset.store(0, Ordering::Relaxed);
    }

    fn name(&self, offset: u64, generation: u32) {
        self.generation.store(generation.into(), Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
    }
}

impl Session {
    /// Names the record in `block`, which this process holds.
    #[must_use]
    pub fn record(self, block: &Block) -> Record {
        let stamp = Stamp::read(block.header());
        Record { owner: stamp.owner, offset: block.offset(), generation: stamp.generation }
    }

    fn is_there(self, record: Record) -> bool {
        self.block_header(record.offset).is_some_and(|header| {
            let stamp = Stamp::read(header);
            stamp.owner == record.owner && stamp.kind == Kind::JOB && stamp.generation == record.generation
        })
    }

    /// Puts a block of this process into a place of a record of its own, to be taken by another process or by
    /// [`take_back`](Self::take_back).
    pub fn put(self, place: &Place, block: Block) {
        let generation = block.generation();
        place.name(block.into_offset(), generation);
    }

    /// Takes the block that the record's owner put into `place`, if the word `nonce.0` has the value `nonce.1` and `state.0` can be changed
    /// from `state.1` to `state.2`. `None` if not, if the record is gone, or if there is nothing.
    #[must_use]
    pub fn take(
        self,
        record: Record,
        place: &Place,
        nonce: (&AtomicU64, u64),
        state: (&AtomicU32, u32, u32),
    ) -> Option<Block> {
        let me = self.me().ok()?;
        let _locked = self.lock();
        if !self.is_there(record)
            || nonce.0.load(Ordering::Relaxed) != nonce.1
            || state.0.load(Ordering::Relaxed) != state.1
        {
            return None;
        }
        let block = self.take_from(place, record.owner, me.process)?;
        mp_sys::crash::point("deliver.taken");
        place.clear();
        state.0.store(state.2, Ordering::Relaxed);
        Some(block)
    }

    /// Sets a word of a record of this process while no other process changes the record.
    pub fn set(self, word: &AtomicU32, value: u32) {
        let _locked = self.lock();
        word.store(value, Ordering::Release);
    }

    /// Takes what is in a place of a record of this process: what another gave, or what nobody took.
    #[must_use]
    pub fn take_back(self, place: &Place) -> Option<Block> {
        let me = self.me().ok()?;
        let _locked = self.lock();
        let block = self.take_from(place, me.process, me.process);
        place.clear();
        block
    }

    /// The block named by `place`, if it carries the stamp of `owner` and the generation that was put there.
    fn take_from(self, place: &Place, owner: u16, me: u16) -> Option<Block> {
        let offset = place.offset.load(Ordering::Relaxed);
        let stamp = Stamp::read(self.block_header(offset)?);
        let is_meant =
            stamp.owner == owner && u64::from(stamp.generation) == place.generation.load(Ordering::Relaxed);
        if is_meant { Block::take_over(self, me, offset) } else { None }
    }

    /// Gives `block` to the record's owner and sets the word `state.0` to `state.1`, unless the word `unwanted` is set.
    ///
    /// # Errors
    /// The block, if the record is gone or the block is unwanted.
    pub fn give(
        self,
        record: Record,
        place: &Place,
        block: Block,
        unwanted: &AtomicU32,
        state: (&AtomicU32, u32),
    ) -> Result<(), Block> {
        let _locked = self.lock();
        if !self.is_there(record) || unwanted.load(Ordering::Relaxed) != 0 {
            return Err(block);
        }
        let header = block.header();
        let stamp = Stamp::read(header);
        place.name(block.into_offset(), stamp.generation);
        mp_sys::crash::point("deliver.named");
        Stamp { owner: record.owner, ..stamp }.write(header);
        mp_sys::crash::point("deliver.given");
        state.0.store(state.1, Ordering::Release);
        Ok(())
    }
}
