//! What can be done while the domain's lock is held.

use crate::error::SessionError;
use crate::layout::{DIRTY_BLOCKS, Header};
use crate::session::Session;
use std::sync::atomic::Ordering;

/// The domain's lock, held. Dropping it gives the lock back.
///
/// Holders run no user code and take no other lock of the domain. A panic while it is held marks the tables as suspect.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) session: Session,
    pub(crate) header: &'static Header,
    /// Descriptors lost their last holder: the broker is told once the lock is given back.
    pub(crate) fds_freed: bool,
}

impl Locked {
    /// For [`Session::lock`], which has just taken the lock.
    pub(crate) fn new(session: Session) -> Self {
        Self { session, header: session.header(), fds_freed: false }
    }

    /// Commits the pages of a table entry.
    pub(crate) fn commit_table(&self, offset: u64, len: u64) -> Result<(), SessionError> {
        let start = offset & !4095;
        let end = (offset + len).next_multiple_of(4096);
        self.session.inner().file.commit(start, end - start).map_err(SessionError::OutOfMemory)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.header.dirty.store(DIRTY_BLOCKS, Ordering::Relaxed);
        }
        self.header.lock.0.unlock();
        if self.fds_freed {
            crate::fds::nudge(self.session);
        }
    }
}
