//! Participants: the processes of a domain, and the sentinels of their threads.
//!
//! ```text
//! process entry   FREE → STARTING (lock) → LIVE with a lead sentinel (lock) → FREE (recovery)
//! sentinel        0 → tid | WAITERS (lock, linked) → OWNER_DIED | WAITERS (kernel) → 0 (recovery, after the sweep of slots)
//! ```
//!
//! A thread gets its sentinel at its first use of the session and keeps it until it ends. The *lead* sentinel stands for the
//! process: the main thread's, or that of a parked thread which never ends, where another thread came first. A process is
//! dead when all its sentinels are, unless it still runs without its first thread.
//!
//! Ids are cached a thread each, with the pid: after a fork nothing cached is ours.

#![expect(unsafe_code, reason = "linking sentinels")]

use crate::death::{self, Domain};
use crate::domain::Locked;
use crate::error::SessionError;
use crate::layout::{PROCESS_FREE, PROCESS_LIVE, PROCESS_STARTING, PROCESSES, ProcessEntry, THREADS};
use crate::lead;
use crate::session::{SESSIONS_MAX, Session};
use crate::starts;
use mp_sys::fork;
use mp_sys::robust::{self, OWNER_DIED, RobustWord};
use std::cell::Cell;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Who the calling thread is in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Me {
    /// The process's id in the session, 1 to 4095.
    pub process: u16,
    /// The thread's id in the session, 1 to 65535: the number of its sentinel.
    pub thread: u16,
}

thread_local! {
    /// `pid << 32 | process << 16 | thread` for each attached session.
    static MINE: [Cell<u64>; SESSIONS_MAX] = const { [const { Cell::new(0) }; SESSIONS_MAX] };
}

fn pack(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[expect(clippy::cast_possible_truncation, reason = "taking the halves of the word apart")]
fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

impl Session {
    /// Who the calling thread is, after registering it at its first use.
    ///
    /// # Errors
    /// [`SessionError::Forked`] in a process that was forked behind the library's back; no room, no memory, no robust list.
    #[inline]
    pub fn me(self) -> Result<Me, SessionError> {
        let (pid, ids) = halves(MINE.with(|mine| mine[self.inner().index].get()));
        if pid == fork::pid() {
            #[expect(clippy::cast_possible_truncation, reason = "taking the halves of the word apart")]
            return Ok(Me { process: (ids >> 16) as u16, thread: ids as u16 });
        }
        self.register()
    }

    /// Ends all sleeps in the session once, so that sleepers look at what has changed.
    pub fn wake_sleepers(self) {
        death::advance(&self.header().members.0);
    }

    /// Adds the processors that the calling thread may run on to those of the session.
    fn note_processors(self) {
        for (word, bits) in self.header().processors.iter().zip(mp_sys::cpu::affinity()) {
            if bits & !word.load(Ordering::Relaxed) != 0 {
                word.fetch_or(bits, Ordering::Relaxed);
            }
        }
    }

    /// Whether the session's threads have more than one processor between them, so that another can work for one that spins.
    #[must_use]
    pub fn has_other_processors(self) -> bool {
        self.header().processors.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum::<u32>() > 1
    }

    #[cold]
    fn register(self) -> Result<Me, SessionError> {
        let inner = self.inner();
        let pid = fork::pid();
        let (of_pid, known) = halves(inner.me.load(Ordering::Acquire));
        if of_pid != 0 && of_pid != pid {
            return Err(SessionError::Forked);
        }
        let process = if of_pid == pid {
            known
        } else {
            let _registering = inner.registering.lock().unwrap_or_else(PoisonError::into_inner);
            match halves(inner.me.load(Ordering::Acquire)) {
                (0, _) => {
                    let process = self.register_process()?;
                    inner.me.store(pack(pid, process), Ordering::Release);
                    process
                }
                (_, process) => process,
            }
        };
        // The main thread may have got its sentinel as the lead.
        let (cached_pid, ids) = halves(MINE.with(|mine| mine[inner.index].get()));
        let thread = if cached_pid == pid { ids & 0xffff } else { self.lock().register_thread(process)? };
        self.remember(process, thread);
        self.note_processors();
        let narrow = |id: u32| u16::try_from(id).map_err(|_| SessionError::NotASession);
        Ok(Me { process: narrow(process)?, thread: narrow(thread)? })
    }

    fn remember(self, process: u32, thread: u32) {
        MINE.with(|mine| mine[self.inner().index].set(pack(fork::pid(), process << 16 | thread)));
    }

    fn register_process(self) -> Result<u32, SessionError> {
        let process = self.lock().claim_process()?;
        let entry = self.process(process).ok_or(SessionError::NotASession)?;
        let lead = if robust::tid() == fork::pid() {
            let registered = self.lock().register_thread(process);
            registered.inspect(|&lead| self.remember(process, lead))
        } else {
            lead::run(move || self.lock().register_thread(process)).map_err(SessionError::Thread).flatten()
        };
        let lead = lead.inspect_err(|_| {
            let _locked = self.lock();
            entry.state.store(PROCESS_FREE, Ordering::Release);
            self.process_ids().remove(process);
        })?;
        let locked = self.lock();
        entry.lead.store(lead, Ordering::Relaxed);
        mp_sys::crash::point("participants.before_live");
        entry.state.store(PROCESS_LIVE, Ordering::Release);
        drop(locked);
        // Who sleeps now does not watch this process yet.
        self.wake_sleepers();
        Ok(process)
    }
}

impl Locked {
    fn claim_process(&mut self) -> Result<u32, SessionError> {
        let header = self.header;
        let ids = self.session.process_ids();
        let next = header.process_next.load(Ordering::Relaxed);
        let id = ids.free_from(next).ok_or(SessionError::Full("process"))?;
        let size = size_of::<ProcessEntry>() as u64;
        self.commit_table(PROCESSES + u64::from(id) * size, size)?;
        ids.insert(id);
        mp_sys::crash::point("participants.process_id");
        let entry = self.session.process(id).ok_or(SessionError::NotASession)?;
        entry.pid.store(std::process::id(), Ordering::Relaxed);
        entry.start_time.store(mp_sys::process::own_start_time(), Ordering::Relaxed);
        entry.lead.store(0, Ordering::Relaxed);
        entry.ledger.store(0, Ordering::Relaxed);
        entry.generation.fetch_add(1, Ordering::Relaxed);
        let name = std::env::args_os().next().unwrap_or_default();
        let name = std::path::Path::new(&name).file_name().unwrap_or_default().as_encoded_bytes();
        for (at, byte) in entry.name.iter().enumerate() {
            byte.store(name.get(at).copied().unwrap_or(0), Ordering::Relaxed);
        }
        header.process_next.store(id + 1, Ordering::Relaxed);
        entry.state.store(PROCESS_STARTING, Ordering::Release);
        mp_sys::crash::point("participants.starting");
        Ok(id)
    }

    /// Gives the calling thread a sentinel.
    fn register_thread(&mut self, process: u32) -> Result<u32, SessionError> {
        let ours = self.session.process(process).is_some_and(|entry| {
            entry.pid.load(Ordering::Relaxed) == std::process::id()
                && entry.state.load(Ordering::Relaxed) != PROCESS_FREE
        });
        if !ours {
            return Err(SessionError::Forked);
        }
        let id = match self.free_thread() {
            Some(id) => id,
            None => {
                self.recover();
                self.free_thread().ok_or(SessionError::Full("thread"))?
            }
        };
        let size = size_of::<RobustWord>() as u64;
        self.commit_table(THREADS + u64::from(id) * size, size)?;
        let sentinel = self.session.sentinel(id).ok_or(SessionError::NotASession)?;
        sentinel.tag.store(process, Ordering::Relaxed);
        self.session.thread_ids().insert(id);
        mp_sys::crash::point("participants.thread_id");
        self.header.thread_next.store(id + 1, Ordering::Relaxed);
        // SAFETY: the mapping stays until the process ends, the word was free (0), and recovery frees it only after the kernel
        // has marked it, which is after this thread has ended.
        unsafe { robust::link(sentinel) }.map_err(|_| SessionError::NoRobustList)?;
        Ok(id)
    }

    fn free_thread(&self) -> Option<u32> {
        self.session.thread_ids().free_from(self.header.thread_next.load(Ordering::Relaxed))
    }
}

/// Whether a sentinel's word says that its thread is alive.
pub(crate) fn is_alive(word: u32) -> bool {
    word != 0 && word & OWNER_DIED == 0
}

impl Domain for Session {
    fn epoch(&self) -> &AtomicU32 {
        self.death_epoch()
    }

    fn members(&self) -> &AtomicU32 {
        &self.header().members.0
    }

    fn is_member(&self) -> bool {
        self.me().is_ok()
    }

    fn ring(&self, bells: u64) {
        self.ring_bells(bells);
    }

    fn before_sleep(&self) -> Option<Duration> {
        // A thread may have been moved since it registered.
        self.note_processors();
        starts::look()
    }

    fn sentinels<'a>(&'a self, watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool {
        let (_, me) = halves(self.inner().me.load(Ordering::Relaxed));
        let mut dead = false;
        for id in self.process_ids().iter() {
            let Some(entry) = self.process(id) else { break };
            if id == me || entry.state.load(Ordering::Acquire) != PROCESS_LIVE {
                continue;
            }
            let live = |one: &&'static RobustWord| {
                one.tag.load(Ordering::Relaxed) == id && is_alive(one.word.load(Ordering::Acquire))
            };
            let lead = self.sentinel(entry.lead.load(Ordering::Relaxed)).filter(live);
            // Without its lead a process is dying, or has replaced its program: what its other sentinels say is to be checked.
            dead |= lead.is_none();
            if let Some(sentinel) = lead.or_else(|| self.sentinels_of(id).find(live)) {
                let value = sentinel.word.load(Ordering::Acquire);
                if is_alive(value) && !watch(&sentinel.word, value) {
                    return dead;
                }
            }
        }
        dead
    }

    fn recover(&self) -> bool {
        self.lock().recover()
    }
}

impl Session {
    /// The sentinels of a process's threads, dead ones included.
    pub(crate) fn sentinels_of(self, process: u32) -> impl Iterator<Item = &'static RobustWord> {
        let ids = self.thread_ids().iter();
        ids.filter_map(move |id| self.sentinel(id)).filter(move |one| {
            one.tag.load(Ordering::Relaxed) == process && one.word.load(Ordering::Relaxed) != 0
        })
    }
}
