//! A message that is read where it lies.

#![expect(unsafe_code, reason = "reading an archive that was validated before")]

use mp_shm::Message;
use mp_shm::codec::{DecodeError, Payload};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// A received message that was validated, and is read without being rebuilt: it dereferences to the archived form of `T`.
///
/// A large message is read in the shared memory that the sender wrote it to; small ones (up to 240 bytes) were copied out once. It may be kept
/// for ever: it holds its own memory, not the channel's. It outlives the receiver it came from.
pub struct Received<T: Message> {
    /// Invariant: `archived::<T>` has found it valid.
    payload: Payload,
    /// As good as an archive: it can be sent to another thread if that can.
    of: PhantomData<T::Archived>,
}

impl<T: Message> Received<T> {
    /// Validates a payload that somebody has received as an archive of `T`.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none.
    pub fn new(payload: Payload) -> Result<Self, DecodeError> {
        payload.archived::<T>()?;
        Ok(Self { payload, of: PhantomData })
    }

    /// Rebuilds the value; handles in it become this process's.
    ///
    /// # Errors
    /// [`DecodeError`]: the type's own deserialisation failed, a handle in it is gone.
    pub fn into_value(self) -> Result<T, DecodeError> {
        self.payload.decode()
    }

    /// Bytes of the archive.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.payload.bytes().len()
    }
}

impl<T: Message> Deref for Received<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        // SAFETY: the invariant of `payload`.
        unsafe { self.payload.archived_again::<T>() }
    }
}

impl<T: Message> fmt::Debug for Received<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} bytes)", self.len_bytes())
    }
}
