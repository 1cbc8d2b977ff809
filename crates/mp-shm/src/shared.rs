//! A value in the session that all who hold a handle to it see: [`Shared`].
//!
//! Owns: the block that the value lies in, through a reference. The value is found with all bytes zero, or as its maker set it up
//! before anybody else could see it; from then on it is shared and changed only as its type allows: through atomics, or under locks.
//!
//! Death: the reference of a dead process is taken back by recovery; the block is freed with the last.
//! A thread that forgot a guard has a word of the value in its robust list, which the kernel walks when it ends. So a process that
//! drops its last handle while one of its threads holds such a word keeps the reference until it ends itself.

#![expect(unsafe_code, reason = "typed access to a block")]

use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::layout::BLOCK_HEADER_BYTES;
use crate::message_of_handle;
use crate::references::{HandleError, Reference};
use crate::safe::{ShmSafe, short};
use crate::session::Session;
use mp_sys::robust::{OWNER_DIED, TID_MASK};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A handle to a `T` in the session: clone it, send it to other processes, nest it in messages. All handles see the same value.
///
/// Locks and the other primitives of `mp-sync` are used this way, alone or as members of a struct of one's own.
///
/// # Examples
/// ```
/// use mp_shm::{Shared, ShmSafe};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// #[derive(ShmSafe)]
/// #[repr(C)]
/// struct Counters {
///     seen: AtomicU64,
///     limit: u64,
/// }
///
/// let counters = Shared::<Counters>::with(|counters| counters.limit = 10)?;
/// counters.seen.fetch_add(1, Ordering::Relaxed);
/// assert_eq!(counters.limit, 10);
/// # Ok::<(), mp_shm::error::SessionError>(())
/// ```
pub struct Shared<T: ShmSafe> {
    held: Arc<Held<T>>,
}

struct Held<T: ShmSafe> {
    value: &'static T,
    reference: ManuallyDrop<Reference>,
}

impl<T: ShmSafe> Shared<T> {
    /// A value with all bytes zero, in the session of this program tree.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn zeroed() -> Result<Self, SessionError> {
        Self::with(|_| ())
    }

    /// A value that `set_up` has changed from all bytes zero before anybody else can see it.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub fn with(set_up: impl FnOnce(&mut T)) -> Result<Self, SessionError> {
        Self::with_in(Session::current()?, set_up)
    }

    /// [`with`](Self::with) in a given session: only processes attached to it can hold handles.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub fn with_in(session: Session, set_up: impl FnOnce(&mut T)) -> Result<Self, SessionError> {
        const { assert!(align_of::<T>() <= 64, "blocks of a session are aligned to 64 bytes") };
        let block = session.allocate_zeroed(Kind::MESSAGE, size_of::<T>())?;
        // SAFETY: the block has room for it, aligned to 64 bytes, and this process holds it alone; all bits zero are a `T`, which has no drop.
        let value = unsafe { block.payload().cast::<T>().as_mut() };
        // Should it panic, a word of the value may be linked: the block then stays this process's until it ends.
        let block = ManuallyDrop::new(block);
        set_up(value);
        let block = ManuallyDrop::into_inner(block);
        let reference = session.publish_memory(block, Kind::VALUE, short(T::LAYOUT))?;
        Self::open(reference).map_err(|_| SessionError::NotASession)
    }

    fn open(reference: Reference) -> Result<Self, HandleError> {
        let (session, offset) = (reference.session(), reference.handle().offset);
        if reference.type_hash() != short(T::LAYOUT)
            || session.payload_bytes(offset).is_none_or(|bytes| bytes < size_of::<T>() as u64)
        {
            return Err(HandleError::OtherType);
        }
        // SAFETY: an object of this kind holds a value of the layout in its type hash, which was compared; the reference keeps it.
        let value = unsafe { session.shared(offset + BLOCK_HEADER_BYTES) }.ok_or(HandleError::Stale)?;
        Ok(Self { held: Arc::new(Held { value, reference: ManuallyDrop::new(reference) }) })
    }

    /// Names the value in every process of its session.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.held.reference.handle()
    }

    /// The session that the value lies in.
    #[must_use]
    pub fn session(&self) -> Session {
        self.held.reference.session()
    }

    fn reference(&self) -> &Reference {
        &self.held.reference
    }
}

message_of_handle!([T: ShmSafe] Shared<T>, Kind::VALUE, Shared::reference, Shared::open);

impl<T: ShmSafe> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.value
    }
}

impl<T: ShmSafe> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { held: self.held.clone() }
    }
}

impl<T: ShmSafe> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.handle())
    }
}

impl<T: ShmSafe> Drop for Held<T> {
    fn drop(&mut self) {
        if !is_linked_here(self.value) {
            // SAFETY: nobody uses the reference after this.
            unsafe { ManuallyDrop::drop(&mut self.reference) };
        }
    }
}

/// Whether a thread of this process holds a robust word of `value`.
pub(crate) fn is_linked_here<T: ShmSafe>(value: &T) -> bool {
    let mut linked = false;
    value.robust_words(&mut |word| {
        let word = word.word.load(Ordering::Acquire);
        linked |= word & TID_MASK != 0
            && word & OWNER_DIED == 0
            && mp_sys::process::is_thread(std::process::id(), word & TID_MASK);
    });
    linked
}
