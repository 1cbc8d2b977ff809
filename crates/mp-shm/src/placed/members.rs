//! The domain in a placed file: its members, and taking out those that have died.
//!
//! ```text
//! entry     FREE → LIVE (under the lock, by the thread that has just linked the sentinel) → FREE (recovery, under the lock)
//! sentinel  0 → tid | WAITERS (linked) → OWNER_DIED | WAITERS (kernel)
//! dirty     0 → 1 (recovery begins) → 0 (after the death epoch was advanced)
//! ```
//!
//! A member has one sentinel, that of a thread which lives as long as the process; nothing else is kept for a member, so there is nothing
//! to take back but its entry. What it held in the payload are robust words, which the kernel marks.
//! Death: an entry that is linked but not LIVE is free, and is linked anew. A recovery that was not finished is done again by
//! the next, who finds `dirty`: the epoch is advanced at least once after every death.

#![expect(unsafe_code, reason = "linking sentinels, the domain's lock")]

use super::{FREE, Header, LIVE, MEMBERS_MAX, Member, Placed};
use crate::death::{self, Domain};
use crate::error::SegmentError;
use crate::lead;
use crate::lock::Acquired;
use crate::participants::is_alive;
use mp_sys::{fork, robust};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

/// The domain's lock, held.
struct Locked(&'static Header);

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.lock.0.unlock();
    }
}

impl Placed {
    fn lock(&self) -> Locked {
        let header = self.header;
        // SAFETY: the mapping stays until the process ends.
        if unsafe { header.lock.0.lock() } == Acquired::OwnerDied {
            header.dirty.store(1, Ordering::Relaxed);
        }
        Locked(header)
    }

    /// This process's entry; `None` before it has joined, and in a child of a fork.
    fn own_entry(&self) -> Option<usize> {
        let word = self.me.load(Ordering::Acquire);
        let entry = usize::try_from(word & 0xffff_ffff).unwrap_or(0);
        (word >> 32 == u64::from(fork::pid())).then_some(entry)
    }

    /// Takes part in the domain from now on; again does nothing.
    pub(super) fn join(&'static self) -> Result<(), SegmentError> {
        if self.own_entry().is_some() {
            return Ok(());
        }
        let _joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        if self.own_entry().is_some() {
            return Ok(());
        }
        let entry = lead::run(move || self.lock().claim()).map_err(|error| SegmentError::Io {
            doing: "starting the thread that stands for this process",
            error,
        })??;
        self.me.store(u64::from(fork::pid()) << 32 | entry as u64, Ordering::Release);
        // Who sleeps now does not watch this process yet.
        death::advance(&self.header.members.0);
        Ok(())
    }
}

impl Locked {
    /// Gives this process an entry, and links its sentinel into the list of the calling thread.
    fn claim(&mut self) -> Result<usize, SegmentError> {
        let at = match self.free_entry() {
            Some(at) => at,
            None => {
                self.recover();
                self.free_entry().ok_or(SegmentError::Full)?
            }
        };
        let entry = &self.0.entries[at];
        entry.pid.store(std::process::id(), Ordering::Relaxed);
        entry.start_time.store(mp_sys::process::own_start_time(), Ordering::Relaxed);
        let name = std::env::args_os().next().unwrap_or_default();
        let name = std::path::Path::new(&name).file_name().unwrap_or_default().as_encoded_bytes();
        for (at, byte) in entry.name.iter().enumerate() {
            byte.store(name.get(at).copied().unwrap_or(0), Ordering::Relaxed);
        }
        // SAFETY: the mapping stays until the process ends; the entry is free, so no living thread has the word linked; it is freed again
        // only once the kernel has marked it, which is when this thread ends.
        unsafe { robust::link(&entry.sentinel) }.map_err(|_| SegmentError::NoRobustList)?;
        mp_sys::crash::point("members.linked");
        self.0.member_high.fetch_max(u32::try_from(at + 1).unwrap_or(u32::MAX), Ordering::Relaxed);
        // LIVE: Release, pairs with the Acquire in `live`.
        entry.state.store(LIVE, Ordering::Release);
        mp_sys::crash::point("members.live");
        Ok(at)
    }

    fn free_entry(&self) -> Option<usize> {
        self.0.entries.iter().position(|entry| entry.state.load(Ordering::Relaxed) == FREE)
    }

    fn recover(&mut self) -> bool {
        let header = self.0;
        let mut half_dead = false;
        let mut dead: Vec<&Member> = Vec::new();
        for (_, entry) in live(header) {
            if is_alive(entry.sentinel.word.load(Ordering::Acquire)) {
                continue;
            }
            let (pid, start) = (entry.pid.load(Ordering::Relaxed), entry.start_time.load(Ordering::Relaxed));
            if mp_sys::process::runs_without_leader(pid, start) {
                half_dead = true;
            } else {
                dead.push(entry);
            }
        }
        if dead.is_empty() && header.dirty.load(Ordering::Relaxed) == 0 {
            return !half_dead;
        }
        header.dirty.store(1, Ordering::Relaxed);
        mp_sys::crash::point("members.recovering");
        for entry in dead {
            entry.state.store(FREE, Ordering::Release);
            mp_sys::crash::point("members.freed");
        }
        death::advance(&header.death_epoch.0);
        mp_sys::crash::point("members.advanced");
        header.dirty.store(0, Ordering::Relaxed);
        !half_dead
    }
}

fn live(header: &'static Header) -> impl Iterator<Item = (usize, &'static Member)> {
    let high = usize::try_from(header.member_high.load(Ordering::Acquire)).unwrap_or(MEMBERS_MAX);
    // LIVE: Acquire, pairs with the Release in `claim`.
    let is_live = |(_, entry): &(usize, &Member)| entry.state.load(Ordering::Acquire) == LIVE;
    header.entries[..high.min(MEMBERS_MAX)].iter().enumerate().filter(is_live)
}

impl Domain for &'static Placed {
    fn epoch(&self) -> &AtomicU32 {
        &self.header.death_epoch.0
    }

    fn members(&self) -> &AtomicU32 {
        &self.header.members.0
    }

    fn is_member(&self) -> bool {
        self.join().is_ok()
    }

    fn sentinels<'a>(&'a self, watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool {
        let me = self.own_entry();
        let mut dead = false;
        for (_, entry) in live(self.header).filter(|(at, _)| Some(*at) != me) {
            let word = entry.sentinel.word.load(Ordering::Acquire);
            if !is_alive(word) {
                dead = true;
            } else if !watch(&entry.sentinel.word, word) {
                break;
            }
        }
        dead
    }

    fn recover(&self) -> bool {
        self.lock().recover()
    }
}
