//! A session: the shared memory of one program tree, and this process's place in it.
//!
//! Owns: the mapping (kept until the process ends), the identity of this process and its threads in the domain, and the
//! private caches in front of the shared tables. The tables themselves are worked on under `Session::lock`, in
//! `participants`, `block`, `references` and `recover`.
//!
//! Death: the file has no name; the kernel frees it when the last process that maps it is gone. What one process held is taken
//! back by `recover`.

#![expect(unsafe_code, reason = "typed access to the mapping")]

use crate::ShmSafe;
use crate::block::Caches;
use crate::domain::Locked;
use crate::error::SessionError;
use crate::ids::{Ids, words};
use crate::layout::{
    ARENA, BELL_COUNT, BELLS, BLOCK_HEADER_BYTES, Bell, BlockHeader, DIRTY_BLOCKS, DIRTY_COUNTS, DIRTY_NOT,
    Header, IDS_END, MAGIC, PROCESS_IDS, PROCESS_MAX, PROCESSES, ProcessEntry, SIZE_BYTES, SIZE_BYTES_MIN,
    THREAD_IDS, THREAD_MAX, THREADS, WAIT_MAX, WAITS, abi_hash,
};
use crate::lock::Acquired;
use crate::participants::is_alive;
use crate::place::{self, WaitEntry};
use crate::references::FreeEntries;
use mp_sys::file::Identity;
use mp_sys::futex::Watch;
use mp_sys::memory::{Mapping, SharedFile};
use mp_sys::robust::RobustWord;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// A session this process is attached to. A small copyable reference; the mapping stays until the process ends.
#[derive(Clone, Copy)]
pub struct Session(&'static Inner);

pub(crate) struct Inner {
    pub(crate) file: SharedFile,
    pub(crate) mapping: Mapping,
    pub(crate) number: u16,
    /// Place in this process's list of sessions.
    pub(crate) index: usize,
    /// `pid << 32 | process id`, 0 before registration.
    pub(crate) me: AtomicU64,
    pub(crate) registering: Mutex<()>,
    pub(crate) caches: Caches,
    pub(crate) free_entries: FreeEntries,
    /// When this process last could not finish a recovery for want of a kind; see [`Locked::is_stuck`].
    pub(crate) stuck_at: AtomicU64,
}

/// How many hold the ends of an object.
#[derive(Clone, Copy, Debug)]
pub struct Holders(&'static [AtomicU32; 2]);

impl Holders {
    /// The count of one role, 0 or 1.
    #[inline]
    #[must_use]
    pub fn of(self, role: usize) -> u32 {
        self.0[role].load(Ordering::Acquire)
    }
}

/// Most sessions one process can be attached to.
pub const SESSIONS_MAX: usize = 8;

static ATTACHED: Mutex<Vec<Session>> = Mutex::new(Vec::new());
static CURRENT: RwLock<Option<Session>> = RwLock::new(None);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("number", &self.0.number).finish_non_exhaustive()
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Session {}

impl Session {
    /// The session of this program tree: the one this process was started with, or one that is created now.
    ///
    /// # Errors
    /// No memory, no file descriptor, no address space for even a small session.
    pub fn current() -> Result<Self, SessionError> {
        if let Some(session) = *CURRENT.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(session);
        }
        let mut current = CURRENT.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = *current {
            return Ok(session);
        }
        let session = Self::create()?;
        *current = Some(session);
        Ok(session)
    }

    /// Makes `session` the current one of this process; for the code that runs in a child before its job.
    ///
    /// # Errors
    /// [`SessionError::AlreadyCurrent`] if there is one.
    pub fn make_current(self) -> Result<(), SessionError> {
        let mut current = CURRENT.write().unwrap_or_else(PoisonError::into_inner);
        if current.is_some() {
            return Err(SessionError::AlreadyCurrent);
        }
        *current = Some(self);
        Ok(())
    }

    /// In a copy of a process, made by `fork` while it had one thread: attaches to this session anew, as a process of its own. What this process has
    /// copied stays what it was, the property of another process, and tells so when it is used; there is no current session any more.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_forked(self) -> Result<Self, SessionError> {
        *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = None;
        // They stay mapped, at the same places.
        ATTACHED.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let file = self.fd().try_clone_to_owned().map_err(SessionError::Attach)?;
        Self::attach(file)
    }

    /// Creates a further session: objects in it are out of reach of processes that were not given it.
    ///
    /// # Errors
    /// As [`current`](Self::current); also [`SessionError::TooMany`].
    pub fn create() -> Result<Self, SessionError> {
        let mut size = SIZE_BYTES;
        let (file, mapping) = loop {
            let file = SharedFile::create("multiproc", size).map_err(SessionError::Create)?;
            match file.map() {
                Ok(mapping) => break (file, mapping),
                // A limit on address space (RLIMIT_AS): a smaller session may still do.
                Err(_) if size / 4 >= SIZE_BYTES_MIN => size /= 4,
                Err(error) => return Err(SessionError::Create(error)),
            }
        };
        file.note_use().map_err(SessionError::Create)?;
        file.commit(0, IDS_END).map_err(SessionError::Create)?;
        let waits_bytes = (WAIT_MAX * size_of::<WaitEntry>()) as u64;
        file.commit(WAITS, waits_bytes).map_err(SessionError::Create)?;
        let mut attached = ATTACHED.lock().unwrap_or_else(PoisonError::into_inner);
        let number = free_number(&attached);
        let session = Self::enter(file, mapping, number, &mut attached)?;
        let header = session.header();
        header.abi.store(abi_hash(), Ordering::Relaxed);
        header.size.store(size, Ordering::Relaxed);
        header.number.store(number.into(), Ordering::Relaxed);
        header.pid_namespace.store(mp_sys::process::pid_namespace(), Ordering::Relaxed);
        header.user.store(mp_sys::process::user(), Ordering::Relaxed);
        let asymmetric = mp_sys::barrier::is_asymmetric();
        header.asymmetric_barriers.store(asymmetric.into(), Ordering::Relaxed);
        for words in [&header.secret, &header.broker_name, &header.broker_secret] {
            let random = mp_sys::process::random().map_err(SessionError::Create)?;
            words[0].store(random[0], Ordering::Relaxed);
            words[1].store(random[1], Ordering::Relaxed);
        }
        header.process_next.store(1, Ordering::Relaxed);
        header.thread_next.store(1, Ordering::Relaxed);
        // HEADER: Release, pairs with the Acquire in `attach`.
        header.magic.store(MAGIC, Ordering::Release);
        Ok(session)
    }

    /// Attaches to the session whose file `fd` is; a second attach to the same one gives the first.
    ///
    /// # Errors
    /// If it is no session, of another library version, another user or another pid namespace.
    pub fn attach(fd: OwnedFd) -> Result<Self, SessionError> {
        let file = SharedFile::adopt(fd).map_err(SessionError::Attach)?;
        // A descriptor that was handed over shares the note of who had it before; one that was opened anew does not. Should the note
        // be refused, the broker ends early, and descriptors in messages are lost with a clear error.
        let _ = file.note_use();
        Self::attach_file(file)
    }

    /// Attaches without being counted among those who use the session: for who ends when nobody does any more.
    pub(crate) fn observe(fd: OwnedFd) -> Result<Self, SessionError> {
        let own = SharedFile::opened_anew(&fd).map_err(SessionError::Attach)?;
        drop(fd);
        Self::attach_file(SharedFile::adopt(own).map_err(SessionError::Attach)?)
    }

    fn attach_file(file: SharedFile) -> Result<Self, SessionError> {
        let identity = mp_sys::file::identity(file.fd()).map_err(SessionError::Attach)?;
        if let Some(session) = Self::attached_to(identity) {
            return Ok(session);
        }
        if file.size() < SIZE_BYTES_MIN {
            return Err(SessionError::NotASession);
        }
        let mapping = file.map().map_err(SessionError::Attach)?;
        let header = mapping
            .at(0, size_of::<Header>(), align_of::<Header>())
            .ok_or(SessionError::NotASession)?
            .cast::<Header>();
        // SAFETY: inside the mapping, which stays; `Header` is `ShmSafe`.
        let header: &'static Header = unsafe { header.as_ref() };
        // HEADER: Acquire, pairs with the Release in `create`.
        if header.magic.load(Ordering::Acquire) != MAGIC || header.size.load(Ordering::Relaxed) != file.size()
        {
            return Err(SessionError::NotASession);
        }
        if header.abi.load(Ordering::Relaxed) != abi_hash() {
            return Err(SessionError::OtherVersion);
        }
        if header.user.load(Ordering::Relaxed) != mp_sys::process::user() {
            return Err(SessionError::OtherUser);
        }
        if header.pid_namespace.load(Ordering::Relaxed) != mp_sys::process::pid_namespace() {
            return Err(SessionError::OtherPidNamespace);
        }
        if header.asymmetric_barriers.load(Ordering::Relaxed) != u32::from(mp_sys::barrier::is_asymmetric()) {
            return Err(SessionError::OtherBarriers);
        }
        let number =
            u16::try_from(header.number.load(Ordering::Relaxed)).map_err(|_| SessionError::NotASession)?;
        let mut attached = ATTACHED.lock().unwrap_or_else(PoisonError::into_inner);
        if attached.iter().any(|session| session.0.number == number) {
            return Err(SessionError::AlreadyAttached(number));
        }
        Self::enter(file, mapping, number, &mut attached)
    }

    fn attached_to(identity: Identity) -> Option<Self> {
        let attached = ATTACHED.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |session: &&Self| mp_sys::file::identity(session.fd()).is_ok_and(|one| one == identity);
        attached.iter().find(is_it).copied()
    }

    fn enter(
        file: SharedFile,
        mapping: Mapping,
        number: u16,
        attached: &mut Vec<Self>,
    ) -> Result<Self, SessionError> {
        if attached.len() == SESSIONS_MAX {
            return Err(SessionError::TooMany);
        }
        let session = Self(Box::leak(Box::new(Inner {
            file,
            mapping,
            number,
            index: attached.len(),
            me: AtomicU64::new(0),
            registering: Mutex::new(()),
            caches: Caches::default(),
            free_entries: FreeEntries::default(),
            stuck_at: AtomicU64::new(0),
        })));
        attached.push(session);
        let start = mapping.at(0, 1, 1).map_or(0, |address| address.as_ptr() as usize);
        place::register(start, mapping.len(), Box::leak(Box::new(session)), session.waits());
        Ok(session)
    }

    /// The session's number, 1 to 65535, the same in every process.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0.number
    }

    /// The session's file; hand it on to let another process [`attach`](Self::attach).
    #[must_use]
    pub fn fd(self) -> BorrowedFd<'static> {
        self.0.file.fd()
    }

    /// Bytes of memory that the session occupies now.
    ///
    /// # Errors
    /// What the kernel says of the file.
    pub fn committed_bytes(self) -> std::io::Result<u64> {
        self.0.file.committed_bytes()
    }

    /// Bytes of address space that the session takes in every process that is part of it.
    #[must_use]
    pub fn mapped_bytes(self) -> u64 {
        self.0.mapping.len() as u64
    }

    pub(crate) fn inner(self) -> &'static Inner {
        self.0
    }

    /// The value of type `T` at `offset`, or `None` if that is outside of the session or misaligned.
    ///
    /// # Safety
    /// By the protocol of the block that it lies in, there is a `T` at this place, or the result is not written to; and nobody holds a
    /// reference to these bytes as something that does not change.
    #[inline]
    #[must_use]
    pub unsafe fn shared<T: ShmSafe>(self, offset: u64) -> Option<&'static T> {
        self.at(offset)
    }

    /// [`shared`](Self::shared) for this crate, which knows its own layout.
    #[inline]
    pub(crate) fn at<T: ShmSafe>(self, offset: u64) -> Option<&'static T> {
        let address = self.0.mapping.at(offset, size_of::<T>(), align_of::<T>())?;
        // SAFETY: `at` checked range and alignment, the mapping stays until the process ends, and `T: ShmSafe` is valid for
        // every bit pattern and changed through atomics only.
        Some(unsafe { address.cast::<T>().as_ref() })
    }

    /// The address of `len` bytes at `offset`, or `None` if they are outside of the session. What may be done with them is up to
    /// the protocol of the block they are in.
    #[inline]
    #[must_use]
    pub fn bytes(self, offset: u64, len: usize) -> Option<std::ptr::NonNull<u8>> {
        self.0.mapping.at(offset, len, 1)
    }

    fn waits(self) -> &'static [WaitEntry] {
        let table: Option<&'static [WaitEntry; WAIT_MAX]> = self.at(WAITS);
        table.unwrap_or_else(|| unreachable!("every session is larger than its tables"))
    }

    pub(crate) fn header(self) -> &'static Header {
        self.at(0).unwrap_or_else(|| unreachable!("every session is larger than its header"))
    }

    pub(crate) fn process(self, id: u32) -> Option<&'static ProcessEntry> {
        (id != 0 && id < PROCESS_MAX)
            .then(|| self.at(PROCESSES + u64::from(id) * size_of::<ProcessEntry>() as u64))
            .flatten()
    }

    /// Ids of processes that take part.
    pub(crate) fn process_ids(self) -> Ids<'static> {
        self.ids::<{ words(PROCESS_MAX) }>(PROCESS_IDS)
    }

    /// Ids of threads with a sentinel.
    pub(crate) fn thread_ids(self) -> Ids<'static> {
        self.ids::<{ words(THREAD_MAX) }>(THREAD_IDS)
    }

    fn ids<const WORDS: usize>(self, offset: u64) -> Ids<'static> {
        let table: Option<&'static [AtomicU64; WORDS]> = self.at(offset);
        Ids(table.unwrap_or_else(|| unreachable!("every session is larger than its tables")))
    }

    pub(crate) fn sentinel(self, id: u32) -> Option<&'static RobustWord> {
        (id != 0 && id < THREAD_MAX)
            .then(|| self.at(THREADS + u64::from(id) * size_of::<RobustWord>() as u64))
            .flatten()
    }

    /// The header of the block at `offset`, or `None` if no block can be there.
    #[inline]
    pub(crate) fn block_header(self, offset: u64) -> Option<&'static BlockHeader> {
        if offset < ARENA || !offset.is_multiple_of(BLOCK_HEADER_BYTES) {
            return None;
        }
        self.at(offset)
    }

    /// Bytes of the payload of the block at `offset`, or `None` if no block can be there.
    #[must_use]
    pub fn payload_bytes(self, offset: u64) -> Option<u64> {
        Some(self.block_header(offset)?.capacity.load(Ordering::Relaxed))
    }

    /// Bytes of the message in the block at `offset`, or `None` if no block can be there. Without holding it, it may change at any moment.
    #[must_use]
    pub fn message_bytes(self, offset: u64) -> Option<usize> {
        let header = self.block_header(offset)?;
        let len = header.len.load(Ordering::Relaxed);
        usize::try_from(len).ok().filter(|_| len <= header.capacity.load(Ordering::Relaxed))
    }

    /// Copies `len` bytes at `offset`, which others may be writing, to the end of `words`: each word is read at once. `None` if they are outside
    /// of the session or misaligned.
    #[must_use]
    pub fn copy_words(self, offset: u64, len: usize, words: &mut Vec<u64>) -> Option<()> {
        let count = len.div_ceil(8);
        let place = self.0.mapping.at(offset, count.checked_mul(8)?, 8)?.cast::<AtomicU64>();
        for at in 0..count {
            // SAFETY: at < count, and `count` words from `place` were checked.
            let place = unsafe { place.add(at) };
            // SAFETY: inside of the mapping, which stays, and aligned; any bytes are a word.
            let word = unsafe { place.as_ref() };
            words.push(word.load(Ordering::Relaxed));
        }
        Some(())
    }

    /// How many hold the ends of the object at `offset`, or `None` if no block can be there.
    #[must_use]
    pub fn holders(self, offset: u64) -> Option<Holders> {
        self.block_header(offset).map(|header| Holders(&header.counts))
    }

    /// The sentinel of the thread of this session id and its present value; `None` if the thread is dead, or was never there.
    #[inline]
    #[must_use]
    pub fn living_sentinel(self, thread: u16) -> Option<Watch<'static>> {
        let sentinel = self.sentinel(thread.into())?;
        // SENTINEL: Acquire, pairs with the kernel's mark: what the thread wrote before it died is visible.
        let word = sentinel.word.load(Ordering::Acquire);
        is_alive(word).then_some(Watch::Word(&sentinel.word, word))
    }

    /// What seals this session's code references: random, the same in all its processes, for trusted crates only.
    ///
    /// # Safety
    /// It goes nowhere but into the check of a code reference. Who knows it can make one to any address.
    #[must_use]
    pub unsafe fn secret(self) -> [u64; 2] {
        let [first, second] = &self.header().secret;
        [first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)]
    }

    /// Takes the domain's lock, and rebuilds the tables first if its last holder died.
    pub(crate) fn lock(self) -> Locked {
        let header = self.header();
        // SAFETY: the session stays mapped until the process ends.
        if unsafe { header.lock.0.lock() } == Acquired::OwnerDied {
            header.dirty.store(DIRTY_BLOCKS, Ordering::Relaxed);
        }
        let mut locked = Locked::new(self);
        match header.dirty.load(Ordering::Relaxed) {
            DIRTY_NOT => {}
            DIRTY_COUNTS if locked.is_stuck() => {}
            _ => {
                locked.recover();
            }
        }
        locked
    }

    fn bells(self) -> &'static [Bell; BELL_COUNT] {
        self.at(BELLS).unwrap_or_else(|| unreachable!("every session is larger than its tables"))
    }

    /// The bell that this process sleeps on when it waits for several things at once, and its bit.
    ///
    /// # Errors
    /// This process has no part in the session.
    pub fn bell(self) -> Result<(&'static AtomicU32, u64), SessionError> {
        let number = usize::from(self.me()?.process) % BELL_COUNT;
        Ok((&self.bells()[number].0, 1 << number))
    }

    /// Advances the bells of these bits and wakes all who sleep on them.
    pub(crate) fn ring_bells(self, bits: u64) {
        for (number, Bell(bell)) in self.bells().iter().enumerate() {
            if bits & 1 << number != 0 {
                // BELL: Release, pairs with the Acquire load of who goes to sleep on it.
                crate::death::advance(bell);
            }
        }
    }

    /// The number of recoveries so far; a sleeper that watches it is woken by the next.
    #[must_use]
    pub fn death_epoch(self) -> &'static AtomicU32 {
        &self.header().death_epoch.0
    }
}

/// A number no attached session has. Its randomness only keeps numbers of different trees apart in messages to people.
fn free_number(attached: &[Session]) -> u16 {
    let time = mp_sys::deadline::Deadline::now().timespec().tv_nsec.unsigned_abs();
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are the random ones")]
    let mut number = (u64::from(std::process::id()) ^ time) as u16;
    while number == 0 || attached.iter().any(|session| session.0.number == number) {
        number = number.wrapping_add(1);
    }
    number
}
