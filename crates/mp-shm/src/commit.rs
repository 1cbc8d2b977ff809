//! Getting memory of a session ready before it is needed.
//!
//! Memory is committed as blocks are handed out, so a lack of it is an error there; its pages come at the first access of each process.
//! Who cannot wait then, or wants the error early, asks here. Owns nothing, changes nothing that others see.

use crate::block::{SPAN_LARGE, SPAN_SMALL};
use crate::error::SessionError;
use crate::layout::{ARENA, SPAN_BYTES, SPANS};
use crate::session::Session;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether memory will be in huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// This machine gives them where it can.
    Granted,
    /// This machine gives none to shared memory (`/sys/kernel/mm/transparent_hugepage/shmem_enabled`).
    NotHere,
}

impl Session {
    /// Commits memory for `bytes` more bytes of blocks than have been in use, so that allocating them cannot fail for lack of
    /// memory. It stays committed until blocks there were used and freed.
    ///
    /// # Errors
    /// No memory; the session has no room.
    pub fn commit(self, bytes: u64) -> Result<(), SessionError> {
        let locked = self.lock();
        let start = self.arena_end();
        let len = bytes.checked_next_multiple_of(SPAN_BYTES);
        let room = self.header().size.load(Ordering::Relaxed).checked_sub(start);
        let len = len.filter(|len| room.is_some_and(|room| *len <= room)).ok_or_else(|| {
            SessionError::OutOfMemory(io::Error::other("the session's address space is used up"))
        })?;
        if len == 0 {
            return Ok(());
        }
        self.inner().file.commit(start, len).map_err(SessionError::OutOfMemory)?;
        locked.commit_table(SPANS + (start - ARENA) / SPAN_BYTES * 8, len / SPAN_BYTES * 8)
    }

    /// Puts pages under all blocks in use, in this process, instead of at the first access to each.
    ///
    /// # Errors
    /// No memory.
    pub fn prefault(self) -> Result<(), SessionError> {
        let _locked = self.lock();
        let mapping = self.inner().mapping;
        self.spans_in_use()
            .into_iter()
            .try_for_each(|range| mapping.prefault(range))
            .map_err(SessionError::OutOfMemory)
    }

    /// Puts pages under `len` bytes at `offset`, in this process. Their memory must be committed.
    pub(crate) fn prefault_bytes(self, offset: u64, len: usize) -> Result<(), SessionError> {
        let range = offset..offset.saturating_add(len as u64);
        self.inner().mapping.prefault(range).map_err(SessionError::OutOfMemory)
    }

    /// Asks for huge pages under the session in this process; says whether the machine gives any. Best before there is much in it.
    ///
    /// # Errors
    /// A kernel without them.
    pub fn advise_huge_pages(self) -> Result<HugePages, SessionError> {
        self.inner().mapping.advise_huge_pages().map_err(SessionError::OutOfMemory)?;
        let granted = mp_sys::memory::grants_huge_pages();
        Ok(if granted { HugePages::Granted } else { HugePages::NotHere })
    }

    fn arena_end(self) -> u64 {
        ARENA + u64::from(self.header().span_high.load(Ordering::Relaxed)) * SPAN_BYTES
    }

    /// Ranges of the session that hold blocks; only they are committed for certain.
    fn spans_in_use(self) -> Vec<Range<u64>> {
        let spans = u64::from(self.header().span_high.load(Ordering::Relaxed));
        let use_of = |span: u64| {
            self.at::<AtomicU64>(SPANS + span * 8).map_or(0, |entry| entry.load(Ordering::Relaxed))
        };
        let mut ranges = Vec::new();
        let mut span = 0;
        while span < spans {
            let entry = use_of(span);
            let len = match entry & 0xff {
                SPAN_SMALL => 1,
                SPAN_LARGE => (entry >> 8).clamp(1, spans - span),
                _ => {
                    span += 1;
                    continue;
                }
            };
            ranges.push(ARENA + span * SPAN_BYTES..ARENA + (span + len) * SPAN_BYTES);
            span += len;
        }
        ranges
    }
}
