//! A value frozen in shared memory, read anywhere without a copy or a lock: [`Frozen`].
//!
//! Owns: an object of the session with a rkyv archive.
//!
//! ```text
//! encoded into a block of the maker's → published → read by every holder of a handle → freed with the last
//!   one writer                           nobody writes
//! ```
//!
//! Who may touch it: the archive is written before the object is published, and by nobody after that; archives have no interior mutability (a
//! rule of rkyv's `Portable`). A process validates it once, when it makes or receives a handle. That nobody writes is a promise among the processes
//! of a session; [`SealedFrozen`](crate::sealed::SealedFrozen) has it from the kernel.
//!
//! Death: a maker that dies half-way leaves a block of its own, which recovery frees. The archive goes with the last handle.

#![expect(unsafe_code, reason = "reading archives where they lie")]

use crate::codec::{EncodeError, Message, encode};
use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::message_of_handle;
use crate::object::Object;
use crate::references::{HandleError, Reference};
use crate::safe::{layout, short};
use crate::session::Session;
use rkyv::rancor;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// A value that was frozen: dereferences to its archive. Clone it, send it, nest it in messages.
///
/// # Examples
/// ```
/// use mp_shm::Frozen;
///
/// let words = Frozen::new(&vec!["read".to_owned(), "by many".to_owned()])?;
/// let same = words.clone();
/// assert_eq!(same.len(), 2);
/// assert_eq!(same[1], "by many");
/// # Ok::<(), mp_shm::frozen::FreezeError>(())
/// ```
pub struct Frozen<T: Message> {
    archived: NonNull<T::Archived>,
    object: Arc<Object>,
}

// SAFETY: all that is reached through it is an archive that nobody changes.
unsafe impl<T: Message> Send for Frozen<T> where T::Archived: Sync {}
// SAFETY: as above.
unsafe impl<T: Message> Sync for Frozen<T> where T::Archived: Sync {}

/// A value could not be frozen.
#[derive(Debug)]
pub enum FreezeError {
    /// There are handles in it: a frozen archive cannot keep what they name.
    Handles,
    /// It could not be encoded.
    Encode(EncodeError),
    /// No memory, or no part in the session.
    Session(SessionError),
    /// What was encoded is not a valid archive: the type's own serialisation is wrong. The text says how.
    Invalid(String),
    /// The file for it could not be made, sealed or mapped.
    File(std::io::Error),
}

impl fmt::Display for FreezeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handles => f.write_str("freezing a value: there are handles in it, which cannot be frozen"),
            Self::Encode(error) => write!(f, "freezing a value: {error}"),
            Self::Session(error) => write!(f, "freezing a value: {error}"),
            Self::Invalid(error) => write!(f, "freezing a value: not a valid archive: {error}"),
            Self::File(error) => write!(f, "freezing a value in a file of its own: {error}"),
        }
    }
}

impl std::error::Error for FreezeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Encode(error) => Some(error),
            Self::Session(error) => Some(error),
            Self::File(error) => Some(error),
            Self::Handles | Self::Invalid(_) => None,
        }
    }
}

/// What tells archives of different types apart.
pub(crate) fn layout_of<T: Message>() -> u64 {
    layout(std::any::type_name::<T>(), size_of::<T::Archived>(), align_of::<T::Archived>())
}

/// The root of the archive in `bytes`, if they are valid.
pub(crate) fn root<T: Message>(bytes: &[u8]) -> Result<NonNull<T::Archived>, String> {
    rkyv::access::<T::Archived, rancor::Error>(bytes).map(NonNull::from).map_err(|error| error.to_string())
}

impl<T: Message> Frozen<T> {
    /// Freezes a copy of `value` in the session of this program tree.
    ///
    /// # Errors
    /// [`FreezeError`]: there are handles in it, or no memory.
    pub fn new(value: &T) -> Result<Self, FreezeError> {
        Self::new_in(Session::current().map_err(FreezeError::Session)?, value)
    }

    /// [`new`](Self::new) in a given session: only processes attached to it can hold handles.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in(session: Session, value: &T) -> Result<Self, FreezeError> {
        let encoded = encode(session, value, 0).map_err(FreezeError::Encode)?;
        if encoded.has_handles() {
            return Err(FreezeError::Handles);
        }
        let block = encoded.into_block().map_err(FreezeError::Encode)?;
        let reference = session.publish_memory(block, Kind::FROZEN, short(layout_of::<T>()));
        let object = Object::open(reference.map_err(FreezeError::Session)?, layout_of::<T>());
        let object = object.map_err(|_| FreezeError::Session(SessionError::NotASession))?;
        Self::opened(object).map_err(FreezeError::Invalid)
    }

    fn open(reference: Reference) -> Result<Self, HandleError> {
        let object = Object::open(reference, layout_of::<T>())?;
        Self::opened(object).map_err(|_| HandleError::OtherType)
    }

    fn opened(object: Object) -> Result<Self, String> {
        let bytes = object.bytes(0, object.len()).ok_or("it is not inside of its block")?;
        let bytes = NonNull::slice_from_raw_parts(bytes, object.len());
        // SAFETY: within the payload, which was written before it was published to us, and is not written while there are references.
        let archived = root::<T>(unsafe { bytes.as_ref() })?;
        Ok(Self { archived, object: Arc::new(object) })
    }

    /// Bytes of the archive.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.object.len()
    }

    /// Names the archive in every process of its session.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.reference().handle()
    }

    fn reference(&self) -> &Reference {
        self.object.reference()
    }
}

message_of_handle!([T: Message] Frozen<T>, Kind::FROZEN, Frozen::reference, Frozen::open);

impl<T: Message> Deref for Frozen<T> {
    type Target = T::Archived;

    fn deref(&self) -> &T::Archived {
        // SAFETY: validated when it was opened, not written since, and kept by the reference.
        unsafe { self.archived.as_ref() }
    }
}

impl<T: Message> Clone for Frozen<T> {
    fn clone(&self) -> Self {
        Self { archived: self.archived, object: self.object.clone() }
    }
}

impl<T: Message> fmt::Debug for Frozen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frozen({}, {} bytes)", self.handle(), self.len_bytes())
    }
}
