//! A value in a file that the user names: it outlives programs and, on a disk, the machine's restarts.
//!
//! Owns: the protocol by which one process initialises the file, and by which the first of many forgets those who are long dead.
//!
//! ```text
//! lock (flock)   held by                                   what may be done
//! none           nobody is attached
//! exclusive      who found nobody attached                 initialise; or forget all members: they are dead
//! shared         each process that has it mapped, for ever join the domain
//!
//! from           event                                                                to
//! none           open: nobody is attached; initialise, or forget the dead             exclusive
//! exclusive      done; the change to shared may let another in, who finds the file    shared, or none
//!                ready and nobody attached, and forgets nobody
//! none           open: others are attached; if it is not ready, let go, begin again   shared
//! ```
//!
//! Only who holds the lock shared joins the domain, so whoever holds it exclusively knows that nobody is in it: after a restart of the
//! machine and in a copy of the file, too, where thread ids mean other threads. A lock in the payload whose owner is noted then was left by its owner's death,
//! and is marked as the kernel would have.
//! Death: of who initialises leaves a file that is not ready, and the next who opens it begins anew. The file has no owner.

#![expect(unsafe_code, reason = "taking away a mapping that does not fit")]

use crate::error::SegmentError;
use crate::fds::FdError;
use crate::handed::{ByDescriptor, MemoryHandle};
use crate::placed::{self, Header, INITIALISING, MAGIC, Members, PAYLOAD, Placed};
use crate::safe::ShmSafe;
use mp_sys::deadline::Deadline;
use mp_sys::file::{self, Access, Identity};
use mp_sys::memory::{Mapping, SharedFile};
use std::fs::{File, TryLockError};
use std::io;
use std::mem::offset_of;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// A value in a file of the user's own. All programs that open the file see the same value, now and later.
///
/// The file keeps what was written to it as any file does: it is not a database, and a power failure may leave it torn. A lock that its
/// owner died with is found as such also after a restart of the machine. Truncating a file that is in use makes accesses end with SIGBUS, as
/// with any mapping; with memory that others cannot truncate, see [`Segment`](crate::Segment).
///
/// A process keeps the file open and mapped until it ends, also when this is dropped.
///
/// # Examples
/// ```
/// use mp_shm::FileSegment;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// let path = std::env::temp_dir().join(format!("doc-{}", std::process::id()));
/// let runs = FileSegment::<AtomicU64>::open_or_create(&path, |runs| *runs.get_mut() = 7)?;
/// assert_eq!(runs.fetch_add(1, Ordering::Relaxed), 7);
/// # std::fs::remove_file(&path).map_err(|error| error.to_string())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileSegment<T: ShmSafe> {
    value: &'static T,
    placed: &'static Placed,
}

/// A file that may be locked. Unless it is kept, its end gives the lock back, also where a mapping of it stays: that alone
/// would keep the lock.
struct Attempt(Option<File>);

impl Attempt {
    fn keep(mut self) -> Option<File> {
        self.0.take()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Of a file that is not locked, too; there is nothing to be done about an error.
            let _ = file.unlock();
        }
    }
}

/// How long others may keep the file locked: initialising it, or on the way from one lock to the other.
const LOCKED_MAX: Duration = Duration::from_secs(30);

impl<T: ShmSafe> FileSegment<T> {
    /// Opens the file; if there is none, or one that was never made ready, exactly one process makes it, with a value that its `set_up` has
    /// changed from all bytes zero.
    ///
    /// # Errors
    /// No space; a file that does not fit: [`SegmentError::NotASegment`], [`SegmentError::OtherLayout`], [`SegmentError::OtherVersion`],
    /// [`SegmentError::Truncated`], [`SegmentError::OtherPidNamespace`]; [`SegmentError::Busy`] if another process stays initialising it.
    pub fn open_or_create(path: impl AsRef<Path>, set_up: impl FnOnce(&mut T)) -> Result<Self, SegmentError> {
        Self::attach(path.as_ref(), Access::WriteOrCreate, Some(set_up))
    }

    /// Opens the file.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create); [`SegmentError::NotFound`], and [`SegmentError::NotInitialised`] if it was never made
    /// ready.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SegmentError> {
        Self::attach(path.as_ref(), Access::Write, None::<fn(&mut T)>)
    }

    fn attach(
        path: &Path,
        access: Access,
        mut set_up: Option<impl FnOnce(&mut T)>,
    ) -> Result<Self, SegmentError> {
        let opening = SegmentError::io("opening a file with a value in it");
        let deadline = Deadline::after(LOCKED_MAX);
        // Each turn opens the path anew: it may have come to name another file.
        while !deadline.passed() {
            let file = match file::open(path, access, true) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SegmentError::NotFound),
                other => other.map_err(&opening)?,
            };
            let identity = file::identity(&file).map_err(&opening)?;
            if let Some(placed) = Placed::find(identity)? {
                let mapping = placed.mapping();
                placed::check::<T>(placed.header(), mapping.len() as u64)?;
                return Ok(Self { value: placed::value(mapping)?, placed });
            }
            let attempt = Attempt(Some(file));
            let Some(file) = &attempt.0 else { return Err(SegmentError::Busy) };
            let mut prepared = None;
            if try_lock(file, false)? {
                // Nobody is attached.
                if !is_at(path, identity)? {
                    continue;
                }
                prepared = Some(prepare::<T>(file, &mut set_up)?);
                mp_sys::crash::point("file.prepared");
            }
            // Where that fails, the exclusive lock is gone, too.
            if try_lock(file, true)? && is_at(path, identity)? {
                mp_sys::crash::point("file.shared");
                let mapped = match prepared {
                    Some(mapping) => placed::check_in::<T>(mapping, Members::Known).map(|()| mapping),
                    None => map_ready::<T>(file, Members::Known),
                };
                match mapped {
                    // Its maker died, or has not begun: the exclusive lock is needed.
                    Err(SegmentError::NotInitialised) => {}
                    other => {
                        let placed = Placed::enter(other?, identity, attempt.keep())?;
                        return Ok(Self { value: placed::value(placed.mapping())?, placed });
                    }
                }
            }
            drop(attempt);
            // Others are at it; nothing depends on how long.
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(SegmentError::Busy)
    }

    /// A handle of the file, for other processes: it can be sent, nested anywhere in a message, and leads to this very file, whatever
    /// becomes of its path. Who opens it must be allowed to open the file.
    ///
    /// # Errors
    /// [`FdError`]: the session's broker cannot hold the file's descriptor.
    pub fn handle(&self) -> Result<MemoryHandle<Self>, FdError> {
        let opening = |error| FdError::io("opening a file with a value in it once more", error);
        let file = self.placed.file().ok_or_else(|| opening(io::ErrorKind::NotFound.into()))?;
        // Opened anew, since the lock belongs to the open file: the broker would keep that.
        MemoryHandle::of(SharedFile::opened_anew(file).map_err(opening)?)
    }

    /// Puts the pages of the value under this process now, instead of at the first access to each.
    ///
    /// # Errors
    /// No memory.
    pub fn prefault(&self) -> Result<(), SegmentError> {
        let end = PAYLOAD + size_of::<T>() as u64;
        self.placed.mapping().prefault(PAYLOAD..end).map_err(SegmentError::io("prefaulting a file"))
    }
}

impl<T: ShmSafe> ByDescriptor for FileSegment<T> {
    type Error = SegmentError;

    fn of_descriptor(fd: OwnedFd) -> Result<Self, SegmentError> {
        // The members of a segment hold no lock: it would be taken for one that nobody is attached to.
        if SharedFile::is_sealed(&fd) {
            return Err(SegmentError::NotASegment);
        }
        Self::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
    }
}

impl<T: ShmSafe> Deref for FileSegment<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

fn try_lock(file: &File, shared: bool) -> Result<bool, SegmentError> {
    match if shared { file.try_lock_shared() } else { file.try_lock() } {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(SegmentError::Io { doing: "locking a file", error }),
    }
}

fn is_at(path: &Path, identity: Identity) -> Result<bool, SegmentError> {
    let there = file::identity_at(path).map_err(SegmentError::io("looking for a file"))?;
    Ok(there == Some(identity))
}

/// Whether the file is nothing yet: empty, or not made ready by one who died. Only who holds the lock exclusively can rely on it.
fn is_half_made(file: &File) -> Result<bool, SegmentError> {
    let reading = SegmentError::io("reading a file");
    if file.metadata().map_err(&reading)?.len() == 0 {
        return Ok(true);
    }
    if word(file, offset_of!(Header, magic))? != MAGIC {
        return Err(SegmentError::NotASegment);
    }
    Ok(word(file, offset_of!(Header, state))? & u64::from(u32::MAX) == u64::from(INITIALISING))
}

/// 8 bytes of the file, as a number; 0 for what is beyond its end. Read, since what is not there cannot be looked at in a mapping.
fn word(file: &File, offset: usize) -> Result<u64, SegmentError> {
    let mut bytes = [0; 8];
    // So short a read of a regular file is its end.
    let read = file.read_at(&mut bytes, offset as u64).map_err(SegmentError::io("reading a file"))?;
    bytes[read..].fill(0);
    Ok(u64::from_le_bytes(bytes))
}

/// Makes the file ready, or, if it is, forgets whoever is noted in it. The caller holds the lock exclusively.
fn prepare<T: ShmSafe>(
    file: &File,
    set_up: &mut Option<impl FnOnce(&mut T)>,
) -> Result<Mapping, SegmentError> {
    if !is_half_made(file)? {
        let mapping = map_ready::<T>(file, Members::Dead)?;
        placed::forget_members::<T>(mapping)?;
        return Ok(mapping);
    }
    let set_up = set_up.take().ok_or(SegmentError::NotInitialised)?;
    let making = SegmentError::io("making a file for a value");
    file.set_len(0).map_err(&making)?;
    mp_sys::crash::point("file.emptied");
    // From here on it is known as one of ours that was not made ready, however far its maker came.
    file.write_all_at(&MAGIC.to_le_bytes(), 0).map_err(&making)?;
    mp_sys::crash::point("file.begun");
    let size = placed::size_for::<T>();
    if let Err(error) = file::set_size(file, size) {
        // Without space it is as if it had not been begun.
        file.set_len(0).map_err(&making)?;
        return Err(making(error));
    }
    mp_sys::crash::point("file.sized");
    let mapping = file::map(file, size, true).map_err(&making)?;
    placed::initialise(mapping, (0, 0), [0, 0], b"", set_up)?;
    Ok(mapping)
}

/// Maps a file that is ready and fits.
fn map_ready<T: ShmSafe>(file: &File, members: Members) -> Result<Mapping, SegmentError> {
    let opening = SegmentError::io("opening a file with a value in it");
    if is_half_made(file)? {
        return Err(SegmentError::NotInitialised);
    }
    let size = file.metadata().map_err(&opening)?.len();
    if size < PAYLOAD {
        return Err(SegmentError::Truncated);
    }
    let mapping = file::map(file, size, true).map_err(&opening)?;
    placed::check_in::<T>(mapping, members).inspect_err(|_| {
        // SAFETY: it was just made, and nothing of it was lent out.
        unsafe { mapping.unmap() };
    })?;
    Ok(mapping)
}
