//! Memory of its own as a handle: [`MemoryHandle`] of a segment, a file with a value in it, or a sealed archive.
//!
//! What has a domain or a file of its own lies outside of the session, so it has no handle there, but it has a descriptor. The
//! session's broker holds that, and what travels is an [`Fd`].
//!
//! ```text
//! step                who               checked
//! 1. handle           any who has it    nothing: the descriptor is its own
//! 2. in a message     like an Fd
//! 3. open             receiver          what opening by name or path checks: seals, size, magic, version, layout, content
//! ```
//!
//! Owns: a MemoryHandle an [`Fd`], never a name.
//! Death: as of an [`Fd`]. The memory lives as long as somebody has it open or has a handle, also after the death of who made it.

use crate::fds::{Fd, FdError};
use crate::message_of_parts;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

/// Memory that can be opened by its descriptor alone.
///
/// Not for implementing outside of this library.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no descriptor by which others could open it",
    note = "`Segment`, `RawSegment`, `FileSegment` and `SealedFrozen` have"
)]
pub trait ByDescriptor: Sized {
    /// Why it could not be opened.
    type Error: From<FdError>;

    /// Opens it as if by its name; trusts nothing of it.
    #[doc(hidden)]
    fn of_descriptor(fd: OwnedFd) -> Result<Self, Self::Error>;
}

/// A handle of a [`Segment`](crate::Segment), [`RawSegment`](crate::RawSegment), [`FileSegment`](crate::FileSegment) or
/// [`SealedFrozen`](crate::SealedFrozen), made by its `handle`. Clone it, send it, nest it in messages; whoever has it
/// [opens](Self::open) it. No name is needed, and it never owns one.
///
/// It gives as much access as opening by name does. Limits: those of [`Fd`].
///
/// # Examples
/// ```
/// # // What starts processes brings the hook; here nobody does.
/// use mp_shm::{MemoryHandle, Segment};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if false {
/// let mine = Segment::<AtomicU64>::create("board")?;
/// let handle: MemoryHandle<Segment<AtomicU64>> = mine.handle()?;
/// // … send it; where it arrives:
/// let theirs = handle.open()?;
/// theirs.fetch_add(1, Ordering::Relaxed);
/// # }
/// # Ok(())
/// # }
/// ```
pub struct MemoryHandle<M> {
    fd: Fd,
    opens: PhantomData<fn() -> M>,
}

impl<M: ByDescriptor> MemoryHandle<M> {
    /// Of what this descriptor is of.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self, FdError> {
        Fd::of(fd).map(Self::of_fd)
    }

    fn of_fd(fd: Fd) -> Self {
        Self { fd, opens: PhantomData }
    }

    /// Opens it in this process.
    ///
    /// # Errors
    /// As [`Fd::open`], and as opening it by its name: it is of another kind, type or version.
    pub fn open(&self) -> Result<M, M::Error> {
        M::of_descriptor(self.fd.open()?)
    }

    /// The descriptor that travels, for who knows what to do with it besides.
    #[must_use]
    pub fn fd(&self) -> &Fd {
        &self.fd
    }
}

message_of_parts!([M: ByDescriptor] MemoryHandle<M>, MemoryHandle::of_fd, fd: Fd);

impl<M> Clone for MemoryHandle<M> {
    fn clone(&self) -> Self {
        Self { fd: self.fd.clone(), opens: PhantomData }
    }
}

impl<M> fmt::Debug for MemoryHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryHandle({})", self.fd.handle())
    }
}
