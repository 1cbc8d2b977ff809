//! The thread that waits for sources on behalf of futures, and of selects in which file descriptors take part.
//!
//! Owns: one thread a process, started when it is first needed, and a list of registrations. It sleeps on the bells of their sessions;
//! when something may be ready it wakes the wakers of what is, and takes their registrations off. A registration is for one wake.
//!
//! ```text
//! who registers                                reactor
//! adds the registration                        notes the bells
//! arms its sources, heavy barrier, looks       arms all sources, heavy barrier, looks, wakes what is ready
//! awaits its waker, or takes it off            sleeps until a bell or the kick
//! ```
//!
//! Whoever registers looks after arming, so nothing is missed while the reactor does not know of it yet; it is kicked when it does not watch
//! that session's bell. After a fork the thread is the parent's, and so are the sessions.

use crate::bells::{self, Round};
use crate::source::Source;
use mp_shm::Session;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::backstop::Backstop;
use mp_sys::futex::{self, Watch};
use mp_sys::poller::wake;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Advanced when the reactor must look at the list again.
static KICK: AtomicU32 = AtomicU32::new(0);

static LIST: Mutex<List> =
    Mutex::new(List { entries: BTreeMap::new(), next: 0, watched: Vec::new(), is_running: false });

struct List {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// The sessions whose bells the reactor sleeps on.
    watched: Vec<Session>,
    is_running: bool,
}

struct Entry {
    sources: Vec<Source>,
    words: Vec<(&'static AtomicU32, u32)>,
    waker: Waker,
}

impl Entry {
    fn is_ready(&self) -> bool {
        self.sources.iter().any(Source::is_ready)
            || self.words.iter().any(|(word, seen)| word.load(Ordering::Acquire) != *seen)
    }
}

/// A place in the reactor's list; dropping it takes it off.
#[derive(Debug)]
pub(crate) struct Registration(u64);

impl Drop for Registration {
    fn drop(&mut self) {
        // What is in it is dropped without the lock: a waker's destructor is not our code.
        let removed = lock().entries.remove(&self.0);
        drop(removed);
    }
}

fn lock() -> MutexGuard<'static, List> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `waker` woken once when one of `sources` may be ready, or one of `words` has another value.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn register(
    sources: Vec<Source>,
    words: Vec<(&'static AtomicU32, u32)>,
    waker: Waker,
) -> std::io::Result<Registration> {
    let mut list = lock();
    if !list.is_running {
        mp_sys::process::with_signals_blocked(|| {
            std::thread::Builder::new().name("mp-reactor".to_owned()).stack_size(128 << 10).spawn(run)
        })?;
        list.is_running = true;
    }
    let id = list.next;
    list.next += 1;
    let is_watched =
        words.is_empty() && sources.iter().all(|source| list.watched.contains(&source.session()));
    list.entries.insert(id, Entry { sources, words, waker });
    drop(list);
    if !is_watched {
        KICK.fetch_add(1, Ordering::Release);
        futex::wake_all(&KICK);
    }
    Ok(Registration(id))
}

fn run() {
    let mut backstop = Backstop::new();
    loop {
        let kick = Watch::Word(&KICK, KICK.load(Ordering::Acquire));
        let (round, words, ready) = {
            let mut list = lock();
            let sources = list.entries.values().flat_map(|entry| &entry.sources);
            // Fails only in a process that has no part in its sessions any more.
            let Ok(round) = Round::begin(sources.map(Source::place)) else {
                list.is_running = false;
                return;
            };
            list.watched = round.sessions().to_vec();
            bells::look();
            let ready: Vec<u64> =
                list.entries.iter().filter(|(_, entry)| entry.is_ready()).map(|(id, _)| *id).collect();
            let ready: Vec<Entry> = ready.into_iter().filter_map(|id| list.entries.remove(&id)).collect();
            let words: Vec<Watch<'static>> = list
                .entries
                .values()
                .flat_map(|entry| &entry.words)
                .map(|(word, seen)| Watch::Word(word, *seen))
                .collect();
            (round, words, ready)
        };
        let found = !ready.is_empty();
        // The entries' references are given back, and wakers run, without the list's lock.
        for Entry { waker, sources, .. } in ready {
            drop(sources);
            wake(waker);
        }
        if found {
            backstop = Backstop::new();
            continue;
        }
        let more = std::iter::once(kick).chain(words);
        if round.sleep(more, None, &mut backstop, Session::current).is_err() {
            lock().is_running = false;
            return;
        }
    }
}
