//! Memory with a domain of its own: what a named segment and a user's own file have in them.
//!
//! ```text
//! 0        header: what it is, the domain's lock, death epoch
//!          members  120 entries of 128 B: the processes attached to it, a sentinel each
//!          waits    128 entries of 32 B: who waits for which lock
//! 24 KiB   payload: one value
//!
//! state    INITIALISING (0) → READY (who made it, last of all)
//! ```
//!
//! Owns: this process's list of such mappings, one for each file however often it is opened. They stay until the process ends, since a
//! thread may have words linked in them.
//!
//! Who may touch it: the processes attached to it, the tables under the domain's lock, the payload as its type says.
//! Death: see `members`; a half-initialised one is never seen in a segment, and made anew in a file.
//!
//! The header of a segment is another program's: it is range-checked and compared on attaching.

#![expect(unsafe_code, reason = "typed access to the mapping")]

mod members;

use crate::ShmSafe;
use crate::error::SegmentError;
use crate::layout::Line;
use crate::lock::DomainLock;
use crate::place::{self, WaitEntry};
use crate::safe::{layout, mix};
use mp_sys::file::Identity;
use mp_sys::memory::Mapping;
use mp_sys::robust::{OWNER_DIED, RobustWord, TID_MASK, WAITERS};
use std::fs::File;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What the file begins with.
#[repr(C)]
#[derive(ShmSafe, Debug)]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    /// Of the library's layout: see [`abi_hash`].
    pub(crate) abi: AtomicU64,
    /// The file's size in bytes.
    pub(crate) size: AtomicU64,
    /// Of the payload's type.
    pub(crate) layout: AtomicU64,
    /// [`INITIALISING`] or [`READY`].
    pub(crate) state: AtomicU32,
    /// Inode of the pid namespace that all members share, low half.
    pub(crate) pid_namespace: AtomicU32,
    pub(crate) user: AtomicU32,
    /// Who created it; 0 in a user's file, which has no owner.
    pub(crate) owner_pid: AtomicU32,
    pub(crate) owner_start_time: AtomicU64,
    /// Random: says that a file is the one that a name stands for.
    pub(crate) nonce: [AtomicU64; 2],
    /// The boot of the machine that the members belong to.
    pub(crate) boot: [AtomicU64; 2],
    /// The segment's name, for reports; zero-padded.
    pub(crate) name: [AtomicU8; NAME_MAX],
    /// Not 0 while a recovery is going on, or was when its process died.
    pub(crate) dirty: AtomicU32,
    /// One more than the highest member used.
    pub(crate) member_high: AtomicU32,
    pub(crate) lock: Line<DomainLock>,
    pub(crate) death_epoch: Line<AtomicU32>,
    pub(crate) members: Line<AtomicU32>,
    pub(crate) entries: [Member; MEMBERS_MAX],
    pub(crate) waits: [WaitEntry; WAITS_MAX],
}

/// A process that is attached.
#[repr(C, align(64))]
#[derive(ShmSafe, Debug)]
pub(crate) struct Member {
    /// Linked by a thread that lives as long as the process.
    pub(crate) sentinel: RobustWord,
    /// [`FREE`] or [`LIVE`].
    pub(crate) state: AtomicU32,
    pub(crate) pid: AtomicU32,
    pub(crate) start_time: AtomicU64,
    /// Zero-padded UTF-8.
    pub(crate) name: [AtomicU8; 48],
}

/// "mpplac", version 1.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"mpplac01");
/// Nobody may use it yet.
pub(crate) const INITIALISING: u32 = 0;
/// It is in use.
pub(crate) const READY: u32 = 1;
/// The member's entry is free.
pub(crate) const FREE: u32 = 0;
/// The member takes part.
pub(crate) const LIVE: u32 = 1;
/// Most processes at a time, so that a sleeper can watch them all.
pub(crate) const MEMBERS_MAX: usize = 120;
/// Most waits noted at a time.
pub(crate) const WAITS_MAX: usize = 128;
/// Longest name kept.
pub(crate) const NAME_MAX: usize = 200;
/// Where the payload begins.
pub(crate) const PAYLOAD: u64 = 24 << 10;

const _: () = assert!(size_of::<Member>() == 128);
const _: () = assert!(size_of::<Header>() as u64 <= PAYLOAD);

/// A hash of the layout and of the library's version: others are refused.
pub(crate) fn abi_hash() -> u64 {
    mix(layout(env!("CARGO_PKG_VERSION"), 0, 0), Header::LAYOUT)
}

/// The size of a file with a payload of type `T`, whole pages.
pub(crate) fn size_for<T>() -> u64 {
    (PAYLOAD + size_of::<T>() as u64).next_multiple_of(4096)
}

/// A mapped file with a domain, and this process's part in it.
pub(crate) struct Placed {
    mapping: Mapping,
    header: &'static Header,
    identity: Identity,
    /// `pid << 32 | entry`, 0 before it has joined.
    me: AtomicU64,
    joining: Mutex<()>,
    /// Locked, and therefore kept open, as long as it is mapped.
    file: Option<File>,
}

impl std::fmt::Debug for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Placed").field("identity", &self.identity).finish_non_exhaustive()
    }
}

static PLACED: Mutex<Vec<&'static Placed>> = Mutex::new(Vec::new());

/// The header in a mapping.
pub(crate) fn header(mapping: Mapping) -> Option<&'static Header> {
    let address = mapping.at(0, size_of::<Header>(), align_of::<Header>())?;
    // SAFETY: inside the mapping, which stays; `Header` is `ShmSafe`: any bytes are one.
    Some(unsafe { address.cast::<Header>().as_ref() })
}

/// Puts a value of type `T` with all bytes zero into a mapping that nobody else uses yet, has `set_up` change it, and makes it ready.
///
/// # Errors
/// [`SegmentError::Truncated`] if the mapping is too small.
pub(crate) fn initialise<T: ShmSafe>(
    mapping: Mapping,
    owner: (u32, u64),
    nonce: [u64; 2],
    name: &[u8],
    set_up: impl FnOnce(&mut T),
) -> Result<(), SegmentError> {
    let header = header(mapping).ok_or(SegmentError::Truncated)?;
    header.abi.store(abi_hash(), Ordering::Relaxed);
    header.size.store(mapping.len() as u64, Ordering::Relaxed);
    header.layout.store(T::LAYOUT, Ordering::Relaxed);
    header.pid_namespace.store(mp_sys::process::pid_namespace(), Ordering::Relaxed);
    header.user.store(mp_sys::process::user(), Ordering::Relaxed);
    header.owner_pid.store(owner.0, Ordering::Relaxed);
    header.owner_start_time.store(owner.1, Ordering::Relaxed);
    for (place, word) in header.nonce.iter().zip(nonce).chain(header.boot.iter().zip(mp_sys::process::boot()))
    {
        place.store(word, Ordering::Relaxed);
    }
    for (place, byte) in header.name.iter().zip(name) {
        place.store(*byte, Ordering::Relaxed);
    }
    header.magic.store(MAGIC, Ordering::Relaxed);
    mp_sys::crash::point("placed.header");
    let value = mapping.at(PAYLOAD, size_of::<T>(), 64).ok_or(SegmentError::Truncated)?.cast::<T>();
    {
        // SAFETY: in the mapping, aligned to 64 bytes, which `T` asks for at most; nobody else uses it yet.
        let value = unsafe { &mut *value.as_ptr() };
        set_up(value);
    }
    mp_sys::crash::point("placed.set_up");
    // READY: Release, pairs with the Acquire in `check`.
    header.state.store(READY, Ordering::Release);
    mp_sys::crash::point("placed.ready");
    Ok(())
}

/// Whether a file of `size` bytes that begins with this header is one that this program can use.
///
/// # Errors
/// What does not fit.
pub(crate) fn check<T: ShmSafe>(header: &Header, size: u64) -> Result<(), SegmentError> {
    if header.magic.load(Ordering::Relaxed) != MAGIC {
        return Err(SegmentError::NotASegment);
    }
    if header.abi.load(Ordering::Relaxed) != abi_hash() {
        return Err(SegmentError::OtherVersion);
    }
    // READY: Acquire, pairs with the Release in `initialise`.
    if header.state.load(Ordering::Acquire) != READY {
        return Err(SegmentError::NotInitialised);
    }
    if header.layout.load(Ordering::Relaxed) != T::LAYOUT {
        return Err(SegmentError::OtherLayout);
    }
    if header.size.load(Ordering::Relaxed) != size || size < size_for::<T>() {
        return Err(SegmentError::Truncated);
    }
    Ok(())
}

/// What is to become of the members that are noted in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Members {
    /// They must be processes that can be seen from here.
    Known,
    /// There are none; what is noted is to be forgotten.
    Dead,
}

/// [`check`] of what is mapped, and of who is noted in it.
///
/// # Errors
/// What does not fit.
pub(crate) fn check_in<T: ShmSafe>(mapping: Mapping, members: Members) -> Result<(), SegmentError> {
    let header = header(mapping).ok_or(SegmentError::NotASegment)?;
    check::<T>(header, mapping.len() as u64)?;
    if members == Members::Dead {
        return Ok(());
    }
    if header.pid_namespace.load(Ordering::Relaxed) != mp_sys::process::pid_namespace() {
        return Err(SegmentError::OtherPidNamespace);
    }
    let boot = [header.boot[0].load(Ordering::Relaxed), header.boot[1].load(Ordering::Relaxed)];
    if boot == mp_sys::process::boot() { Ok(()) } else { Err(SegmentError::OtherMachine) }
}

/// Takes out whoever is noted in it, while nobody is attached: after a reboot, say, or in a copy of a file. Who holds a lock is dead.
pub(crate) fn forget_members<T: ShmSafe>(mapping: Mapping) -> Result<(), SegmentError> {
    let header = header(mapping).ok_or(SegmentError::Truncated)?;
    header.lock.0.reset();
    for entry in &header.entries {
        entry.state.store(FREE, Ordering::Relaxed);
        entry.sentinel.word.store(0, Ordering::Relaxed);
        mp_sys::crash::point("placed.forgetting");
    }
    header.waits.iter().for_each(WaitEntry::clear);
    header.dirty.store(0, Ordering::Relaxed);
    header.pid_namespace.store(mp_sys::process::pid_namespace(), Ordering::Relaxed);
    for (place, word) in header.boot.iter().zip(mp_sys::process::boot()) {
        place.store(word, Ordering::Relaxed);
    }
    value::<T>(mapping)?.robust_words(&mut |robust| {
        let word = robust.word.load(Ordering::Relaxed);
        if word & TID_MASK != 0 {
            robust.word.store(OWNER_DIED | (word & WAITERS), Ordering::Relaxed);
        }
    });
    Ok(())
}

/// The payload of a mapping whose header was [checked](check) for `T`.
pub(crate) fn value<T: ShmSafe>(mapping: Mapping) -> Result<&'static T, SegmentError> {
    const { assert!(align_of::<T>() <= 64, "the payload is aligned to 64 bytes") };
    let address = mapping.at(PAYLOAD, size_of::<T>(), 64).ok_or(SegmentError::Truncated)?;
    // SAFETY: inside the mapping, which stays, aligned; `T` is `ShmSafe`: any bytes are one, changed as its type allows.
    Ok(unsafe { address.cast::<T>().as_ref() })
}

impl Placed {
    /// The mapping of this file, if this process has one; it takes part in its domain again if it was forked since.
    pub(crate) fn find(identity: Identity) -> Result<Option<&'static Self>, SegmentError> {
        let found = {
            let placed = PLACED.lock().unwrap_or_else(PoisonError::into_inner);
            placed.iter().copied().find(|placed| placed.identity == identity)
        };
        if let Some(placed) = found {
            placed.join()?;
        }
        Ok(found)
    }

    /// Joins the domain in a mapping and makes it known; `file` is kept open with it. If another thread was quicker, its mapping is the one.
    pub(crate) fn enter(
        mapping: Mapping,
        identity: Identity,
        file: Option<File>,
    ) -> Result<&'static Self, SegmentError> {
        let header = header(mapping).ok_or(SegmentError::Truncated)?;
        let mut list = PLACED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(placed) = list.iter().copied().find(|placed| placed.identity == identity) {
            // Ours stays mapped without being used: whoever set the value up may have locked something in it.
            drop(list);
            placed.join()?;
            return Ok(placed);
        }
        let placed: &'static Self = Box::leak(Box::new(Self {
            mapping,
            header,
            identity,
            me: AtomicU64::new(0),
            joining: Mutex::new(()),
            file,
        }));
        placed.join()?;
        list.push(placed);
        drop(list);
        let start = mapping.at(0, 1, 1).map_or(0, |address| address.as_ptr() as usize);
        place::register(start, mapping.len(), Box::leak(Box::new(placed)), &header.waits);
        Ok(placed)
    }

    pub(crate) fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// The file, if it is kept open.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    pub(crate) fn header(&self) -> &'static Header {
        self.header
    }
}
