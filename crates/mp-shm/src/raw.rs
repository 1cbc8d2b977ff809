//! Raw segments: named bytes without a header, as POSIX shared memory has them; Python's `SharedMemory` opens ours, and we open its.
//!
//! Owns: this process's mapping, and for who created it the name in `/dev/shm`. Owner and opener are different, as with a
//! [`Segment`](crate::Segment): the tracker of the owner is a [name](crate::names) of its own, which others need not know.
//!
//! Who may touch it: any process of any program. So nothing is ever lent out of it, bytes are copied one atomic byte at a time.
//! Death: of the owner leaves file and tracker, and both are swept by the next who creates, opens or lists.

#![expect(unsafe_code, reason = "reading and writing bytes that others change")]

use crate::error::SegmentError;
use crate::fds::FdError;
use crate::handed::{ByDescriptor, MemoryHandle};
use crate::names::{self, Form, Locator, Owned, SHM};
use mp_sys::file::{self, Access};
use mp_sys::memory::{Mapping, SharedFile};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

/// Named bytes that programs of any language share.
///
/// In Python: `SharedMemory(name="…")`. (Before Python 3.13 that also registers the name for removal when the Python program ends; pass
/// `track=False` there, or `resource_tracker.unregister`.)
///
/// Nothing keeps others from truncating such a file, and an access to what is then missing ends the process with SIGBUS; nobody can
/// prevent that. A [`Segment`](crate::Segment) cannot be truncated.
///
/// # Examples
/// ```
/// use mp_shm::RawSegment;
///
/// let name = format!("doc-raw-{}", std::process::id());
/// let mine = RawSegment::create(&name, 100)?;
/// mine.write(10, b"hello")?;
/// let mut bytes = [0; 5];
/// RawSegment::open(&name)?.read(10, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// # Ok::<(), mp_shm::error::SegmentError>(())
/// ```
#[derive(Debug)]
pub struct RawSegment {
    mapping: Mapping,
    owned: Option<Owned>,
    /// For handles; the mapping needs none.
    file: File,
}

fn path_of(name: &str) -> PathBuf {
    Path::new(SHM).join(name)
}

impl RawSegment {
    /// Creates a segment of `bytes` bytes, all zero. Memory for all of them exists from the start.
    ///
    /// # Errors
    /// [`SegmentError::InUse`], [`SegmentError::BadName`], [`SegmentError::SizeZero`], no memory.
    pub fn create(name: &str, bytes: u64) -> Result<Self, SegmentError> {
        let creating = SegmentError::io("creating a raw segment");
        names::check(name)?;
        if bytes == 0 {
            return Err(SegmentError::SizeZero);
        }
        let file = file::create_unnamed(Path::new(SHM)).map_err(&creating)?;
        file::set_size(&file, bytes).map_err(&creating)?;
        let mapping = file::map(&file, bytes, true).map_err(&creating)?;
        let raw = Self { mapping, owned: None, file };
        let identity = file::identity(&raw.file).map_err(&creating)?;
        let locator = Locator::mine(0, [identity.device, identity.inode]);
        let link = || file::give_name(&raw.file, &path_of(name));
        let owned = names::publish(name, Form::Raw, locator, Box::new(()), link)?;
        Ok(raw.with_owner(owned))
    }

    fn with_owner(mut self, owned: Owned) -> Self {
        self.owned = Some(owned);
        self
    }

    /// Opens the segment of this name, whoever made it.
    ///
    /// # Errors
    /// [`SegmentError::NotFound`], [`SegmentError::SizeZero`] if it has no bytes (yet), [`SegmentError::BadName`].
    pub fn open(name: &str) -> Result<Self, SegmentError> {
        let opening = SegmentError::io("opening a raw segment");
        // Sweeps it away if it is left over.
        names::find(name, Form::Raw)?;
        let file: File = match file::open(&path_of(name), Access::Write, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SegmentError::NotFound),
            other => other.map_err(&opening)?,
        };
        Self::map(file)
    }

    fn map(file: File) -> Result<Self, SegmentError> {
        let opening = SegmentError::io("opening a raw segment");
        let bytes = file.metadata().map_err(&opening)?.len();
        if bytes == 0 {
            return Err(SegmentError::SizeZero);
        }
        Ok(Self { mapping: file::map(&file, bytes, true).map_err(&opening)?, owned: None, file })
    }

    /// A handle of the segment, for other processes: it can be sent, nested anywhere in a message, and leads to this very segment, whatever
    /// becomes of its name.
    ///
    /// # Errors
    /// [`FdError`]: the session's broker cannot hold the segment's descriptor.
    pub fn handle(&self) -> Result<MemoryHandle<Self>, FdError> {
        MemoryHandle::of(&self.file)
    }

    /// Removes the name, whoever owns it. Who has the segment open keeps it.
    ///
    /// # Errors
    /// [`SegmentError::NotFound`], [`SegmentError::BadName`].
    pub fn unlink(name: &str) -> Result<(), SegmentError> {
        let was_ours = names::unlink(name, Form::Raw)?;
        match std::fs::remove_file(path_of(name)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && was_ours => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SegmentError::NotFound),
            Err(error) => Err(SegmentError::Io { doing: "removing a raw segment", error }),
        }
    }

    /// Gives the ownership up: from now on the name stays until somebody unlinks it, or the machine is restarted.
    ///
    /// # Errors
    /// The directory of names cannot be changed.
    pub fn persist(&mut self) -> Result<(), SegmentError> {
        self.owned.take().map_or(Ok(()), Owned::disown)
    }

    /// Whether this is the owner: with it the name goes away.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.owned.is_some()
    }

    /// Its size in bytes, as it was when it was created or opened; at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Copies bytes out. Others may write at the same time: each byte is one that was there.
    ///
    /// # Errors
    /// [`SegmentError::OutOfRange`]: nothing was read.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), SegmentError> {
        for (place, byte) in self.bytes(offset, bytes.len())?.iter().zip(bytes) {
            *byte = place.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copies bytes in. Others may read and write at the same time; who needs more order than that of single bytes brings a lock.
    ///
    /// # Errors
    /// [`SegmentError::OutOfRange`]: nothing was written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SegmentError> {
        for (place, byte) in self.bytes(offset, bytes.len())?.iter().zip(bytes) {
            place.store(*byte, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Puts pages under these bytes now, instead of at the first access to each.
    ///
    /// # Errors
    /// A range that is not inside; no memory for page tables.
    pub fn prefault(&self, range: Range<u64>) -> Result<(), SegmentError> {
        self.mapping.prefault(range).map_err(SegmentError::io("prefaulting a raw segment"))
    }

    fn bytes(&self, offset: u64, len: usize) -> Result<&[AtomicU8], SegmentError> {
        let first = self.mapping.at(offset, len, 1).ok_or(SegmentError::OutOfRange)?;
        // SAFETY: `len` bytes at `first` are inside of the mapping, which lives as long as `self`; any byte is a value, and within
        // this process they are changed through this alone.
        Ok(unsafe { std::slice::from_raw_parts(first.as_ptr().cast(), len) })
    }
}

impl ByDescriptor for RawSegment {
    type Error = SegmentError;

    fn of_descriptor(fd: OwnedFd) -> Result<Self, SegmentError> {
        let file = File::from(fd);
        let is_file = file.metadata().map_err(SegmentError::io("opening a raw segment"))?.is_file();
        // What is sealed has no name in a file system, and is a segment of another kind.
        if !is_file || SharedFile::is_sealed(&file) {
            return Err(SegmentError::NotASegment);
        }
        Self::map(file)
    }
}

impl Drop for RawSegment {
    fn drop(&mut self) {
        // SAFETY: what `bytes` lends ends with `self`; robust words are never linked here.
        unsafe { self.mapping.unmap() };
    }
}
