//! Named segments: memory that a second program finds by a name.
//!
//! Owns: nothing of its own; the memory is a sealed file (`placed`) without a name in any file system, and the
//! [name](crate::names) is a small file that leads to its owner's descriptor.
//!
//! | who | does | and the memory | and the name |
//! |---|---|---|---|
//! | owner | creates it | is there | is there |
//! | opener | opens it, goes away, dies | stays | stays |
//! | owner | drops it, exits, dies | stays while a process has it open | is gone |
//!
//! Nobody can change the file's size, so no peer can make an access fault. Death: of the owner leaves a file that is swept by the next
//! who creates, opens or lists; of a member is what its [domain](crate::death) is for.

#![expect(unsafe_code, reason = "copies of a value that may change meanwhile, taking mappings away")]

use crate::error::SegmentError;
use crate::fds::FdError;
use crate::handed::{ByDescriptor, MemoryHandle};
use crate::names::{self, Form, Locator, Owned};
use crate::placed::{self, Members, PAYLOAD, Placed};
use crate::safe::ShmSafe;
use mp_sys::file;
use mp_sys::memory::{Mapping, SharedFile};
use std::fs::File;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

pub use crate::names::{NAME_BYTES_MAX, Named, list};

/// The name of the memory file, as `/proc/<pid>/fd` shows it.
pub(crate) const FILE_NAME: &str = "multiproc-segment";

/// A value in memory that programs of this user find by its name.
///
/// Who creates it owns the name: it goes away when this is dropped, when the program ends, or when it dies. Who opens it keeps the
/// memory alive, but never removes anything. The memory stays mapped until the process ends, since one of its threads may
/// hold a lock in it; a program should not create segments without end.
///
/// Names are of this user alone; all programs that use one must share a pid namespace and `/proc`.
///
/// # Examples
/// ```
/// use mp_shm::Segment;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// let name = format!("doc-{}", std::process::id());
/// let mine = Segment::<AtomicU64>::create(&name)?;
/// let theirs = Segment::<AtomicU64>::open(&name)?;
/// theirs.fetch_add(1, Ordering::Relaxed);
/// assert_eq!(mine.load(Ordering::Relaxed), 1);
/// drop(mine);
/// assert!(!mp_shm::segment::exists(&name)?);
/// # Ok::<(), mp_shm::error::SegmentError>(())
/// ```
#[derive(Debug)]
pub struct Segment<T: ShmSafe> {
    value: &'static T,
    placed: &'static Placed,
    owned: Option<Owned>,
    /// For handles; the mapping needs none.
    file: Arc<SharedFile>,
}

impl<T: ShmSafe> Segment<T> {
    /// Creates a segment with all bytes of the value zero.
    ///
    /// # Errors
    /// [`SegmentError::InUse`], [`SegmentError::BadName`], no memory.
    pub fn create(name: &str) -> Result<Self, SegmentError> {
        Self::create_with(name, |_| ())
    }

    /// Creates a segment whose value `set_up` has changed from all bytes zero before anybody else can see it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_with(name: &str, set_up: impl FnOnce(&mut T)) -> Result<Self, SegmentError> {
        let creating = SegmentError::io("creating a segment");
        names::check(name)?;
        if names::find(name, Form::Typed)?.is_some() {
            return Err(SegmentError::InUse);
        }
        let file = SharedFile::create(FILE_NAME, placed::size_for::<T>()).map_err(&creating)?;
        file.commit(0, file.size()).map_err(&creating)?;
        let mapping = file.map().map_err(&creating)?;
        let nonce = mp_sys::process::random().map_err(&creating)?;
        let owner = (std::process::id(), mp_sys::process::own_start_time());
        placed::initialise(mapping, owner, nonce, name.as_bytes(), set_up)?;
        let identity = file::identity(file.fd()).map_err(&creating)?;
        let placed = Placed::enter(mapping, identity, None)?;
        let fd = file.fd().as_raw_fd().unsigned_abs();
        let file = Arc::new(file);
        let keep = Box::new(file.clone());
        let owned = names::publish(name, Form::Typed, Locator::mine(fd, nonce), keep, || Ok(()))?;
        Ok(Self { value: placed::value(mapping)?, placed, owned: Some(owned), file })
    }

    /// Opens the segment of this name.
    ///
    /// # Errors
    /// [`SegmentError::NotFound`]; what does not fit: [`SegmentError::OtherLayout`], [`SegmentError::OtherVersion`],
    /// [`SegmentError::OtherPidNamespace`]; no room for one more process.
    pub fn open(name: &str) -> Result<Self, SegmentError> {
        let (locator, file) = find(name, file::Access::Write)?;
        Self::attach(file.into(), Some(&locator))
    }

    /// Opens the segment in this file; the `locator` is of its name, if it was found by that.
    fn attach(file: OwnedFd, locator: Option<&Locator>) -> Result<Self, SegmentError> {
        let opening = SegmentError::io("opening a segment");
        let file = SharedFile::adopt(file).map_err(|_| SegmentError::NotASegment)?;
        let identity = file::identity(file.fd()).map_err(&opening)?;
        let placed = match Placed::find(identity)? {
            Some(placed) => placed,
            None => {
                let mapping = file.map().map_err(&opening)?;
                validate::<T>(mapping, locator).inspect_err(|_| {
                    // SAFETY: it was just made, and nothing of it was lent out.
                    unsafe { mapping.unmap() };
                })?;
                Placed::enter(mapping, identity, None)?
            }
        };
        validate::<T>(placed.mapping(), locator)?;
        Ok(Self { value: placed::value(placed.mapping())?, placed, owned: None, file: Arc::new(file) })
    }

    /// A handle of the segment, for other processes: it can be sent, nested anywhere in a message, and leads to this very segment, whatever
    /// becomes of its name.
    ///
    /// # Errors
    /// [`FdError`]: the session's broker cannot hold the segment's descriptor.
    pub fn handle(&self) -> Result<MemoryHandle<Self>, FdError> {
        MemoryHandle::of(self.file.fd())
    }

    /// Whether this is the owner: with it the name goes away.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.owned.is_some()
    }

    /// Puts the pages of the value under this process now, instead of at the first access to each.
    ///
    /// # Errors
    /// No memory for page tables.
    pub fn prefault(&self) -> Result<(), SegmentError> {
        let end = PAYLOAD + size_of::<T>() as u64;
        self.placed.mapping().prefault(PAYLOAD..end).map_err(SegmentError::io("prefaulting a segment"))
    }
}

impl<T: ShmSafe> ByDescriptor for Segment<T> {
    type Error = SegmentError;

    fn of_descriptor(fd: OwnedFd) -> Result<Self, SegmentError> {
        Self::attach(fd, None)
    }
}

impl<T: ShmSafe> Deref for Segment<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

/// Whether there is a segment of this name.
///
/// # Errors
/// [`SegmentError::BadName`]; the directory of names cannot be read.
pub fn exists(name: &str) -> Result<bool, SegmentError> {
    Ok(names::find(name, Form::Typed)?.is_some())
}

/// Removes the name of a segment, whoever owns it. Who has the segment open keeps it.
///
/// # Errors
/// [`SegmentError::NotFound`], [`SegmentError::BadName`].
pub fn unlink(name: &str) -> Result<(), SegmentError> {
    if names::unlink(name, Form::Typed)? { Ok(()) } else { Err(SegmentError::NotFound) }
}

/// The file that a name leads to.
fn find(name: &str, access: file::Access) -> Result<(Locator, File), SegmentError> {
    let locator = names::find(name, Form::Typed)?.ok_or(SegmentError::NotFound)?;
    if locator.pid_namespace != mp_sys::process::pid_namespace() {
        return Err(SegmentError::OtherPidNamespace);
    }
    let path = PathBuf::from(format!("/proc/{}/fd/{}", locator.pid, locator.fd));
    // The descriptor may be another's by now, if the owner has just gone; nothing else is opened.
    let meant = format!("/memfd:{FILE_NAME}");
    let target = std::fs::read_link(&path).map_err(missing)?;
    if !target.as_os_str().as_encoded_bytes().starts_with(meant.as_bytes()) {
        return Err(SegmentError::NotFound);
    }
    let file = file::open(&path, access, true).map_err(missing)?;
    Ok((locator, file))
}

fn missing(error: std::io::Error) -> SegmentError {
    if error.kind() == std::io::ErrorKind::NotFound {
        SegmentError::NotFound
    } else {
        SegmentError::Io { doing: "opening a segment by its owner's descriptor", error }
    }
}

/// Whether the mapping is of a segment with such a value, and of the one that the name stands for, if there is a name.
fn validate<T: ShmSafe>(mapping: Mapping, locator: Option<&Locator>) -> Result<(), SegmentError> {
    let header = placed::header(mapping).ok_or(SegmentError::NotASegment)?;
    placed::check_in::<T>(mapping, Members::Known)?;
    let nonce = [header.nonce[0].load(Ordering::Relaxed), header.nonce[1].load(Ordering::Relaxed)];
    if locator.is_none_or(|locator| nonce == locator.mark) { Ok(()) } else { Err(SegmentError::NotFound) }
}

/// A segment that this process can read but not write: the kernel sees to it.
///
/// A store through a pointer into it ends the process with SIGSEGV. Locks cannot be used here, since locking is writing; so a value that
/// changes is [copied](Self::copy) out, and it is for the type to say whether a copy was made while it changed (a sequence number in it, say).
///
/// What the kernel does not enforce: who has this can open the segment for writing by its name, or by `/proc`. It guards against
/// mistakes, not against attackers.
#[derive(Debug)]
pub struct ReadOnly<T: ShmSafe> {
    mapping: Mapping,
    value: PhantomData<fn() -> T>,
}

impl<T: ShmSafe> ReadOnly<T> {
    /// Opens the segment of this name for reading. This process does not become one of its members.
    ///
    /// # Errors
    /// As [`Segment::open`].
    pub fn open(name: &str) -> Result<Self, SegmentError> {
        let (locator, file) = find(name, file::Access::Read)?;
        Self::map(file.into(), Some(&locator))
    }

    fn map(file: OwnedFd, locator: Option<&Locator>) -> Result<Self, SegmentError> {
        let file = SharedFile::adopt(file).map_err(|_| SegmentError::NotASegment)?;
        let mapping = file.map_read_only().map_err(SegmentError::io("opening a segment for reading"))?;
        let opened = Self { mapping, value: PhantomData };
        validate::<T>(mapping, locator)?;
        Ok(opened)
    }

    /// The value's address. Nothing can be written there; what is read may change at any time.
    #[must_use]
    pub fn as_ptr(&self) -> *const T {
        self.mapping.at(PAYLOAD, size_of::<T>(), 64).map_or(std::ptr::null(), |at| at.as_ptr().cast::<T>())
    }

    /// A copy of the value as it is now, word by word: each aligned 8 bytes of it are of one moment.
    #[must_use]
    pub fn copy(&self) -> T {
        let mut copy = MaybeUninit::<T>::zeroed();
        let to = copy.as_mut_ptr().cast::<u8>();
        let words = size_of::<T>() / 8;
        for at in 0..words {
            let word = self.word(at);
            // SAFETY: `at` is less than the number of whole words in `T`.
            let place = unsafe { to.add(at * 8) };
            // SAFETY: inside of `copy`; a `T` of a word or more may still be aligned to less than one.
            unsafe { place.cast::<u64>().write_unaligned(word) };
        }
        for at in words * 8..size_of::<T>() {
            // SAFETY: `at` is less than the size of `T`.
            let place = unsafe { to.add(at) };
            let byte = self.byte(at);
            // SAFETY: inside of `copy`.
            unsafe { place.write(byte) };
        }
        // SAFETY: every byte was written, and any bytes are a `T`, which has nothing to drop.
        unsafe { copy.assume_init() }
    }

    fn word(&self, at: usize) -> u64 {
        self.mapping.at(PAYLOAD + at as u64 * 8, 8, 8).map_or(0, |word| {
            // SAFETY: inside of the mapping and aligned; a relaxed load writes nothing.
            let word: &AtomicU64 = unsafe { word.cast().as_ref() };
            word.load(Ordering::Relaxed)
        })
    }

    fn byte(&self, at: usize) -> u8 {
        self.mapping.at(PAYLOAD + at as u64, 1, 1).map_or(0, |byte| {
            // SAFETY: as in `word`.
            let byte: &AtomicU8 = unsafe { byte.cast().as_ref() };
            byte.load(Ordering::Relaxed)
        })
    }
}

impl<T: ShmSafe> MemoryHandle<Segment<T>> {
    /// Opens the segment for reading, as [`ReadOnly::open`].
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_read_only(&self) -> Result<ReadOnly<T>, SegmentError> {
        ReadOnly::map(self.fd().open()?, None)
    }
}

impl<T: ShmSafe> Drop for ReadOnly<T> {
    fn drop(&mut self) {
        // SAFETY: nothing of it is lent out but by `as_ptr`, and no word in memory that cannot be written is linked.
        unsafe { self.mapping.unmap() };
    }
}
