//! Counting what a session holds; for leak checks and inspection.

use crate::block::SHARED;
use crate::handle::Kind;
use crate::layout::PROCESS_FREE;
use crate::session::Session;
use std::sync::atomic::Ordering;

/// What is in use in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Processes taking part.
    pub processes: usize,
    /// Objects: channels, say.
    pub objects: usize,
    /// Blocks in use, without objects, ledgers and what private caches keep.
    pub blocks: usize,
    /// Published names.
    pub names: usize,
    /// References to objects, in ledgers, messages and names.
    pub references: u64,
    /// Whether every object's counts equal the references that were found, and the ids in use are those of the living.
    pub counts_are_right: bool,
}

impl Session {
    /// Recovers what dead processes held, then counts what is in use.
    #[must_use]
    pub fn audit(self) -> Audit {
        let mut locked = self.lock();
        locked.recover();
        let mut audit = Audit::default();
        let mut counted = 0;
        locked.for_each_block(&mut |offset, header, stamp| {
            if stamp.owner == SHARED {
                audit.objects += 1;
                counted +=
                    header.counts.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).sum::<u64>();
            } else if stamp.kind != Kind::CACHED && stamp.kind != Kind::LEDGER {
                audit.blocks += 1;
            }
            if stamp.kind == Kind::MESSAGE {
                locked.for_each_attachment(offset, header, &mut |_, _| audit.references += 1);
            }
        });
        for id in self.process_ids().iter() {
            if self.process(id).is_some_and(|entry| entry.state.load(Ordering::Relaxed) != PROCESS_FREE) {
                audit.processes += 1;
                locked.for_each_entry(id, &mut |_, _| audit.references += 1);
            }
        }
        locked.for_each_name(&mut |_, _| audit.names += 1);
        audit.references += audit.names as u64;
        let has_sentinel =
            |&id: &u32| self.sentinel(id).is_some_and(|one| one.word.load(Ordering::Relaxed) != 0);
        let ids_are_right = self.process_ids().iter().count() == audit.processes
            && self.thread_ids().iter().all(|id| has_sentinel(&id));
        audit.counts_are_right = counted == audit.references && ids_are_right;
        audit
    }

    /// Whether memory that no block lies in is zero, as new arrays and values count on.
    ///
    /// # Errors
    /// What the system says.
    #[doc(hidden)]
    pub fn free_memory_is_zero(self) -> std::io::Result<bool> {
        self.lock().free_spans_are_zero()
    }

    /// Takes back what dead processes held. Nothing depends on calling it; it only makes it happen now.
    pub fn recover_dead(self) {
        self.lock().recover();
    }
}
