//! Messages that are built where they will be read.
//!
//! A loan is a block of the session with room for the elements of a `Vec<E>`; what stands behind them in the archive of such a vector, its
//! root, is written at the end. So the receiver finds an ordinary `Vec<E>`, and nobody has copied an element.
//!
//! ```text
//! block payload:  element 0 | element 1 | … | element len - 1 | padding to 4 bytes | root: where the elements are, how many
//! ```

#![expect(unsafe_code, reason = "typed access to a block that this process holds")]

use crate::ShmSafe;
use crate::block::Block;
use crate::error::SessionError;
use crate::handle::Kind;
use crate::session::Session;
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Place};
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

/// What a loan is made of: a plain type whose archive is the value itself, byte for byte. Numbers and arrays of them are.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be built in place in a message",
    label = "not an `Element`",
    note = "numbers and arrays of numbers can"
)]
pub trait Element: ShmSafe + Copy + Archive {
    /// Fails to compile if the archive is laid out in another way than the value.
    const IS_ITS_OWN_ARCHIVE: ();
}

impl<E: ShmSafe + Copy + Archive> Element for E {
    const IS_ITS_OWN_ARCHIVE: () = assert!(
        E::COPY_OPTIMIZATION.is_enabled()
            && size_of::<E>() == size_of::<E::Archived>()
            && align_of::<E>() == align_of::<E::Archived>()
            && align_of::<E>() <= 16
            && size_of::<E>() > 0,
        "only types whose archive is the value itself can be built in place"
    );
}

/// Room for `len` elements in the session, not yet sent. Dropping it gives the block back.
pub struct Room<E> {
    block: Block,
    len: usize,
    of: PhantomData<E>,
}

impl<E> fmt::Debug for Room<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Most bytes that the root of a loan takes behind its elements, padding included.
pub const ROOT_BYTES: usize = size_of::<ArchivedVec<()>>() + align_of::<ArchivedVec<()>>();

fn root_at<E>(len: usize) -> Option<usize> {
    let elements = len.checked_mul(size_of::<E>())?;
    elements.checked_next_multiple_of(align_of::<ArchivedVec<()>>())
}

impl<E: Element> Room<E> {
    /// Takes room for `len` elements. They are what earlier messages left there.
    ///
    /// # Errors
    /// No memory; or more than 2 GiB, which an archive cannot have.
    pub fn new(session: Session, len: usize) -> Result<Self, SessionError> {
        const { E::IS_ITS_OWN_ARCHIVE };
        let too_large = || SessionError::OutOfMemory(std::io::ErrorKind::FileTooLarge.into());
        let root = root_at::<E>(len).filter(|&root| i32::try_from(root).is_ok()).ok_or_else(too_large)?;
        let block = session.allocate(Kind::MESSAGE, root + size_of::<ArchivedVec<()>>())?;
        Ok(Self { block, len, of: PhantomData })
    }

    /// How many elements it has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "of use to those who build on it alone")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Keeps the first `len` elements.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "a loan of {} elements cannot grow to {len}", self.len);
        self.len = len;
    }

    /// The elements.
    #[must_use]
    pub fn elements(&self) -> &[E] {
        // SAFETY: `new` checked that they fit into the block, which this process holds alone, so nobody writes it; payloads are
        // 64-byte aligned and always initialised, and any bytes are an `E` (`ShmSafe`).
        unsafe { std::slice::from_raw_parts(self.block.payload().cast::<E>().as_ptr(), self.len) }
    }

    /// The elements, to be written.
    pub fn elements_mut(&mut self) -> &mut [E] {
        // SAFETY: as in `elements`; `&mut self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.block.payload().cast::<E>().as_ptr(), self.len) }
    }

    /// The elements as memory that is written once.
    pub fn uninit_mut(&mut self) -> &mut [MaybeUninit<E>] {
        // SAFETY: as in `elements_mut`; whatever is written through it, any bytes are an `E`. Uninitialised values that are copied into it
        // are bytes of shared memory again.
        unsafe {
            std::slice::from_raw_parts_mut(self.block.payload().cast::<MaybeUninit<E>>().as_ptr(), self.len)
        }
    }

    /// Writes the root behind the elements: the block is a message then.
    #[must_use]
    pub fn into_block(self) -> Block {
        let root = root_at::<E>(self.len).unwrap_or_else(|| unreachable!("checked in `new`"));
        // SAFETY: root + the root's size is at most what `new` asked for: inside of the payload.
        let place = unsafe { self.block.payload().add(root) }.cast::<ArchivedVec<E::Archived>>();
        // SAFETY: the place is aligned to 4 bytes and this process's alone; `root` is its position in the archive.
        let place = unsafe { Place::new_unchecked(root, place.as_ptr()) };
        ArchivedVec::resolve_from_len(self.len, VecResolver::from_pos(0), place);
        let len = (root + size_of::<ArchivedVec<()>>()) as u64;
        self.block.header().len.store(len, Ordering::Relaxed);
        self.block
    }

    /// Makes a message block into room again, after it could not be sent.
    #[must_use]
    pub fn of_block(block: Block, len: usize) -> Self {
        assert!(
            root_at::<E>(len).is_some_and(|root| root + size_of::<ArchivedVec<()>>() <= block.capacity()),
            "the block that comes back is the one that was to be sent"
        );
        Self { block, len, of: PhantomData }
    }
}
