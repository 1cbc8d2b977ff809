//! Handing a block from one process to another by way of a record that one of them owns.
//!
//! The record (a started process's job, say) is a block of the giver or of the taker. Whether it still is what the other side
//! thinks is checked, and the block's stamp changed, under the domain's lock: in between neither side can die and have its
//! blocks taken back. So a block is always stamped with a process that will free it or has died.

use crate::block::{Block, Stamp};
use crate::handle::Kind;
use crate::session::Session;

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

impl Session {
    /// Names the record in `block`, which this process holds.
    #[must_use]
    pub fn record(self, block: &Block) -> Record {
        let stamp = Stamp::read(block.header());
        Record { owner: stamp.owner, offset: block.offset(), generation: stamp.generation }
    }

    /// Runs `exchange` under the domain's lock if the record is still there; `None` if its owner has died or freed it.
    ///
    /// `exchange` only reads and writes words of the record.
    pub fn with_record<T>(self, record: Record, exchange: impl FnOnce() -> T) -> Option<T> {
        let _locked = self.lock();
        self.is_there(record).then(exchange)
    }

    fn is_there(self, record: Record) -> bool {
        self.block_header(record.offset).is_some_and(|header| {
            let stamp = Stamp::read(header);
            stamp.owner == record.owner && stamp.kind == Kind::JOB && stamp.generation == record.generation
        })
    }

    /// Gives `block` to the record's owner and lets `deliver` write its offset into the record. Gives it back if the record is
    /// gone.
    ///
    /// # Errors
    /// The block, if the record is gone.
    pub fn give(self, record: Record, block: Block, deliver: impl FnOnce(u64)) -> Result<(), Block> {
        let _locked = self.lock();
        if !self.is_there(record) {
            return Err(block);
        }
        let header = block.header();
        let offset = block.into_offset();
        Stamp { owner: record.owner, ..Stamp::read(header) }.write(header);
        mp_sys::crash::point("deliver.stamped");
        deliver(offset);
        Ok(())
    }
}
