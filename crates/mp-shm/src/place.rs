//! Finding the domain that an address in shared memory belongs to, and who waits for what there.
//!
//! Owns: this process's list of mappings, which only grows, since mappings stay until the process ends; and the protocol of the
//! *wait table* that each domain has. A lock needs neither on its fast path: it asks when it is about to sleep.
//!
//! ```text
//! entry's tid   event                              to       who
//! 0             is about to sleep on a lock        tid      waiter; then fills the entry in
//! tid           has woken                          0        the same
//! tid           died asleep                        stays    readers see that there is no such thread; a waiter that finds the
//!                                                           table full takes it over
//! ```
//!
//! The table is only for reports: when it is full, a wait is not noted, and nothing else depends on it.

#![expect(unsafe_code, reason = "typed access to a mapping")]

use crate::ShmSafe;
use crate::death::Domain;
use mp_sys::robust;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// A wait that is going on.
#[derive(ShmSafe, Debug, Default)]
#[repr(C, align(32))]
pub struct WaitEntry {
    tid: AtomicU32,
    pid: AtomicU32,
    kind: AtomicU32,
    unused: AtomicU32,
    offset: AtomicU64,
}

impl WaitEntry {
    /// Nobody waits; only while nobody can.
    pub(crate) fn clear(&self) {
        self.kind.store(0, Ordering::Relaxed);
        self.tid.store(0, Ordering::Relaxed);
    }

    /// The wait that is noted here, whether its thread is still there or not.
    pub(crate) fn read(&self) -> Option<Wait> {
        // WAIT: Acquire, pairs with the Release in `note_wait`.
        let kind = WaitKind::of(self.kind.load(Ordering::Acquire))?;
        let (tid, pid) = (self.tid.load(Ordering::Relaxed), self.pid.load(Ordering::Relaxed));
        let offset = self.offset.load(Ordering::Relaxed);
        (tid != 0).then_some(Wait { tid, pid, kind, offset })
    }
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names say it")]
pub enum WaitKind {
    Mutex = 1,
    RecursiveMutex = 2,
    Read = 3,
    Write = 4,
    Condvar = 5,
    Semaphore = 6,
    Event = 7,
    Barrier = 8,
    Once = 9,
    Latch = 10,
}

impl WaitKind {
    fn of(number: u32) -> Option<Self> {
        use WaitKind::{Barrier, Condvar, Event, Latch, Mutex, Once, Read, RecursiveMutex, Semaphore, Write};
        [Mutex, RecursiveMutex, Read, Write, Condvar, Semaphore, Event, Barrier, Once, Latch]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// A wait, as a report tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The thread that waits.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// What it waits for.
    pub kind: WaitKind,
    /// Where that is, in bytes from the start of the file.
    pub offset: u64,
}

/// The domain that an address belongs to.
#[derive(Clone, Copy)]
pub struct Place {
    start: usize,
    len: usize,
    domain: &'static (dyn Domain + Sync),
    waits: &'static [WaitEntry],
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("start", &self.start).field("len", &self.len).finish_non_exhaustive()
    }
}

static PLACES: RwLock<Vec<Place>> = RwLock::new(Vec::new());

/// The word for as long as the process lives, if it lies in memory that processes share: such mappings stay. What the word means may be over
/// any time; to watch it is no harm.
#[must_use]
pub fn lasting(word: &mp_sys::atomic::AtomicU32) -> Option<&'static mp_sys::atomic::AtomicU32> {
    of(std::ptr::from_ref(word) as usize)?;
    // SAFETY: the word lies in a mapping that stays until the process ends, and any bytes are a word.
    Some(unsafe { &*std::ptr::from_ref(word) })
}

/// Makes a mapping known, which stays until the process ends.
pub(crate) fn register(
    start: usize,
    len: usize,
    domain: &'static (dyn Domain + Sync),
    waits: &'static [WaitEntry],
) {
    let mut places = PLACES.write().unwrap_or_else(PoisonError::into_inner);
    places.push(Place { start, len, domain, waits });
}

/// The domain of the memory at `address`; `None` if it is in no session, segment or file of this library.
#[must_use]
pub fn of(address: usize) -> Option<Place> {
    let places = PLACES.read().unwrap_or_else(PoisonError::into_inner);
    places.iter().copied().find(|place| address.wrapping_sub(place.start) < place.len)
}

impl Place {
    /// The domain.
    #[must_use]
    pub fn domain(&self) -> &'static (dyn Domain + Sync) {
        self.domain
    }

    /// Where the mapping begins in this process.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// The value of type `T` at `offset` of the mapping; `None` if that is outside of it, or misaligned.
    ///
    /// # Safety
    /// As of [`Session::shared`](crate::Session::shared).
    #[must_use]
    pub unsafe fn at<T: ShmSafe>(&self, offset: u64) -> Option<&'static T> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(size_of::<T>())?;
        let address = self.start + offset;
        if end > self.len || !address.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: inside of the mapping, which stays, and aligned; what lies there is as the caller promises.
        Some(unsafe { &*std::ptr::with_exposed_provenance::<T>(address) })
    }

    /// Notes that the calling thread is about to sleep on what is at `address`, until the result is dropped.
    #[must_use]
    pub fn note_wait(&self, address: usize, kind: WaitKind) -> Option<NotedWait> {
        let tid = robust::tid();
        let claim = |entry: &&'static WaitEntry, from: u32| {
            entry.tid.compare_exchange(from, tid, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let free = self.waits.iter().find(|entry| claim(entry, 0));
        let entry = free.or_else(|| {
            self.waits.iter().find(|entry| {
                let dead = entry.tid.load(Ordering::Relaxed);
                !mp_sys::process::is_thread(entry.pid.load(Ordering::Relaxed), dead) && claim(entry, dead)
            })
        })?;
        entry.pid.store(std::process::id(), Ordering::Relaxed);
        entry.offset.store((address.wrapping_sub(self.start)) as u64, Ordering::Relaxed);
        // WAIT: Release, pairs with the Acquire in `waits`.
        entry.kind.store(kind as u32, Ordering::Release);
        Some(NotedWait(entry))
    }

    /// The waits that are going on, of living threads.
    #[must_use]
    pub fn waits(&self) -> Vec<Wait> {
        let is_alive = |wait: &Wait| mp_sys::process::is_thread(wait.pid, wait.tid);
        self.waits.iter().filter_map(WaitEntry::read).filter(is_alive).collect()
    }
}

/// A noted wait; dropping it says that it is over.
#[derive(Debug)]
pub struct NotedWait(&'static WaitEntry);

impl Drop for NotedWait {
    fn drop(&mut self) {
        self.0.kind.store(0, Ordering::Relaxed);
        self.0.tid.store(0, Ordering::Release);
    }
}
