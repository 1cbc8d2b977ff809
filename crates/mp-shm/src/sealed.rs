//! A value frozen in a file of its own that the kernel lets nobody change: [`SealedFrozen`].
//!
//! Owns: a memory file and a private read-only mapping of it.
//!
//! ```text
//! step               writable by         seals
//! 1. create          who has the fd      none
//! 2. write the head  the same            none
//!    and archive
//! 3. seal            nobody, for ever    WRITE | SHRINK | GROW | SEAL
//! 4. map, validate   nobody              the same
//!
//! file   magic | layout hash | length of the archive | … 64: the archive
//! ```
//!
//! Who may touch it: anybody with the file descriptor reads. Receivers trust nobody: they look whether the file is sealed, then whether what is in it is
//! an archive of their type; after that it cannot change.
//!
//! Death: the kernel frees the file with its last descriptor and mapping. It has no name.

#![expect(unsafe_code, reason = "reading archives where they lie")]

use crate::codec::{Message, encode};
use crate::fds::FdError;
use crate::frozen::{FreezeError, layout_of, root};
use crate::handed::{ByDescriptor, MemoryHandle};
use crate::session::Session;
use mp_sys::memory::SealedFile;
use std::fmt;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// A value frozen in a sealed file: dereferences to its archive. It takes one file descriptor. Others open it by its [`handle`](Self::handle),
/// which travels in messages; or hand [`fd`](Self::fd) on, by inheritance or over a socket, and open it with [`from_fd`](Self::from_fd).
///
/// # Examples
/// ```
/// use mp_shm::SealedFrozen;
///
/// let table = SealedFrozen::new(&vec![1_u64, 2, 3])?;
/// let elsewhere = SealedFrozen::<Vec<u64>>::from_fd(table.fd().try_clone_to_owned()?)?;
/// assert_eq!(elsewhere.iter().map(|one| one.to_native()).sum::<u64>(), 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SealedFrozen<T: Message> {
    archived: NonNull<T::Archived>,
    file: Arc<SealedFile>,
}

// SAFETY: all that is reached through it is an archive that nobody can change.
unsafe impl<T: Message> Send for SealedFrozen<T> where T::Archived: Sync {}
// SAFETY: as above.
unsafe impl<T: Message> Sync for SealedFrozen<T> where T::Archived: Sync {}

/// A file descriptor does not hold a frozen value of the type.
#[derive(Debug)]
pub enum SealedError {
    /// The file could not be looked at or mapped; or it is not sealed, so that it could still be changed.
    File(std::io::Error),
    /// It is no frozen value.
    NotFrozen,
    /// It is a frozen value of another type.
    OtherType,
    /// It is not a valid archive; the text says how.
    Invalid(String),
    /// The descriptor of a [handle](MemoryHandle) could not be had.
    Fd(FdError),
}

impl From<FdError> for SealedError {
    fn from(error: FdError) -> Self {
        Self::Fd(error)
    }
}

impl fmt::Display for SealedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "opening a frozen value: {error}"),
            Self::NotFrozen => f.write_str("opening a frozen value: the file holds none"),
            Self::OtherType => f.write_str("opening a frozen value: it is of another type"),
            Self::Invalid(error) => write!(f, "opening a frozen value: not a valid archive: {error}"),
            Self::Fd(error) => write!(f, "opening a frozen value: {error}"),
        }
    }
}

impl std::error::Error for SealedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            Self::Fd(error) => Some(error),
            Self::NotFrozen | Self::OtherType | Self::Invalid(_) => None,
        }
    }
}

/// "mpfrozen".
const MAGIC: u64 = u64::from_le_bytes(*b"mpfrozen");
/// Where the archive begins, in bytes.
const ARCHIVE: usize = 64;

/// The number at word `at` of the file's head.
fn head_word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at * 8..)?.first_chunk().map(|word| u64::from_ne_bytes(*word))
}

/// The archive in a file's bytes.
fn archive_in<T: Message>(bytes: &[u8]) -> Result<NonNull<T::Archived>, SealedError> {
    let [magic, layout, len] = [0, 1, 2].map(|at| head_word(bytes, at));
    let layout = layout.filter(|_| magic == Some(MAGIC)).ok_or(SealedError::NotFrozen)?;
    if layout != layout_of::<T>() {
        return Err(SealedError::OtherType);
    }
    let len = len.and_then(|len| usize::try_from(len).ok());
    let archive = bytes.get(ARCHIVE..).and_then(|rest| rest.get(..len?)).ok_or(SealedError::NotFrozen)?;
    root::<T>(archive).map_err(SealedError::Invalid)
}

impl<T: Message> SealedFrozen<T> {
    /// Freezes a copy of `value` in a file of its own. The session of this program tree is used while it is encoded.
    ///
    /// # Errors
    /// [`FreezeError`]: there are handles in it; no memory, or no free file descriptor.
    pub fn new(value: &T) -> Result<Self, FreezeError> {
        let session = Session::current().map_err(FreezeError::Session)?;
        let encoded = encode(session, value, 0).map_err(FreezeError::Encode)?;
        if encoded.has_handles() {
            return Err(FreezeError::Handles);
        }
        let mut head = [0_u8; ARCHIVE];
        let words = [MAGIC, layout_of::<T>(), encoded.len() as u64];
        for (place, word) in head.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        let file =
            SealedFile::create("multiproc-frozen", &[&head, encoded.bytes()]).map_err(FreezeError::File)?;
        let archived =
            archive_in::<T>(file.bytes()).map_err(|error| FreezeError::Invalid(error.to_string()))?;
        Ok(Self { archived, file: Arc::new(file) })
    }

    /// Opens a frozen value that was handed on.
    ///
    /// # Errors
    /// [`SealedError`]: the file could still be changed, is of another type, or is not valid.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, SealedError> {
        let file = SealedFile::adopt(fd).map_err(SealedError::File)?;
        let archived = archive_in::<T>(file.bytes())?;
        Ok(Self { archived, file: Arc::new(file) })
    }

    /// A handle of the value, for other processes: it can be sent, nested anywhere in a message.
    ///
    /// # Errors
    /// [`FdError`]: the session's broker cannot hold the file's descriptor.
    pub fn handle(&self) -> Result<MemoryHandle<Self>, FdError> {
        MemoryHandle::of(self.fd())
    }

    /// The file; close-on-exec.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.fd()
    }

    /// Bytes of the archive.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        head_word(self.file.bytes(), 2).and_then(|len| usize::try_from(len).ok()).unwrap_or(0)
    }
}

impl<T: Message> ByDescriptor for SealedFrozen<T> {
    type Error = SealedError;

    fn of_descriptor(fd: OwnedFd) -> Result<Self, SealedError> {
        Self::from_fd(fd)
    }
}

impl<T: Message> Deref for SealedFrozen<T> {
    type Target = T::Archived;

    fn deref(&self) -> &T::Archived {
        // SAFETY: validated when it was opened, sealed before that, and kept by the mapping.
        unsafe { self.archived.as_ref() }
    }
}

impl<T: Message> Clone for SealedFrozen<T> {
    fn clone(&self) -> Self {
        Self { archived: self.archived, file: self.file.clone() }
    }
}

impl<T: Message> fmt::Debug for SealedFrozen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedFrozen({} bytes)", self.len_bytes())
    }
}
