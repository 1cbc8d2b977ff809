//! Objects of plain memory: what values, arrays, lists, frozen archives and latest-value cells are made of.
//!
//! Owns: a block of the session through a reference. Its first `len` bytes are in use, which never changes; they are found zero by the
//! maker, who holds the only reference until he hands out a handle.
//!
//! Death: the reference of a dead process is taken back by recovery; the block is freed with the last.

#![expect(unsafe_code, reason = "typed access to a block")]

use crate::ShmSafe;
use crate::error::SessionError;
use crate::handle::Kind;
use crate::layout::BLOCK_HEADER_BYTES;
use crate::references::{HandleError, Reference};
use crate::safe::short;
use crate::session::Session;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// An object that this process has opened.
#[derive(Debug)]
pub(crate) struct Object {
    reference: Reference,
    len: usize,
}

impl Object {
    /// Makes an object of `len` bytes, all zero. `layout` is what [`open`](Self::open) compares.
    pub(crate) fn create(
        session: Session,
        kind: Kind,
        layout: u64,
        len: usize,
    ) -> Result<Self, SessionError> {
        let block = Self::zeroed(session, len)?;
        let reference = session.publish_memory(block, kind, short(layout))?;
        Ok(Self { reference, len })
    }

    /// As [`create`](Self::create), of an object with a second role; the reference to that is the second result.
    pub(crate) fn create_with_ends(
        session: Session,
        ends: [Kind; 2],
        layout: u64,
        len: usize,
    ) -> Result<(Self, Reference), SessionError> {
        let block = Self::zeroed(session, len)?;
        let [reference, other] = session.publish_object(block, ends, short(layout))?;
        Ok((Self { reference, len }, other))
    }

    fn zeroed(session: Session, len: usize) -> Result<crate::block::Block, SessionError> {
        let block = session.allocate_zeroed(Kind::MESSAGE, len)?;
        block.header().len.store(len as u64, Ordering::Relaxed);
        Ok(block)
    }

    /// Opens what a reference refers to.
    pub(crate) fn open(reference: Reference, layout: u64) -> Result<Self, HandleError> {
        let (session, offset) = (reference.session(), reference.handle().offset);
        if reference.type_hash() != short(layout) {
            return Err(HandleError::OtherType);
        }
        let header = session.block_header(offset).ok_or(HandleError::Stale)?;
        let len = header.len.load(Ordering::Relaxed);
        let fits = len <= header.capacity.load(Ordering::Relaxed);
        let len = usize::try_from(len).ok().filter(|_| fits).ok_or(HandleError::OtherType)?;
        session.bytes(offset + BLOCK_HEADER_BYTES, len).ok_or(HandleError::OtherType)?;
        Ok(Self { reference, len })
    }

    /// Makes it an object of another layout; its maker does, who still holds the only reference.
    pub(crate) fn retype(&self, layout: u64) {
        if let Some(header) = self.reference.session().block_header(self.reference.handle().offset) {
            header.type_hash.store(short(layout), Ordering::Relaxed);
        }
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Bytes in use.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of `len` bytes at `at`, in bytes from the start of the payload, which is aligned to 64.
    pub(crate) fn bytes(&self, at: usize, len: usize) -> Option<NonNull<u8>> {
        let end = at.checked_add(len)?;
        if end > self.len {
            return None;
        }
        self.reference.session().bytes(self.reference.handle().offset + BLOCK_HEADER_BYTES + at as u64, len)
    }

    /// Puts pages under `len` bytes at `at` now, in this process.
    pub(crate) fn prefault(&self, at: usize, len: usize) -> Result<(), SessionError> {
        let offset = self.reference.handle().offset + BLOCK_HEADER_BYTES + at as u64;
        self.reference.session().prefault_bytes(offset, len)
    }

    /// The `T` at `at`, in bytes from the start of the payload. The reference keeps it: not for longer than the object.
    pub(crate) fn at<T: ShmSafe>(&self, at: usize) -> Option<&'static T> {
        self.bytes(at, size_of::<T>())?;
        self.reference.session().at(self.reference.handle().offset + BLOCK_HEADER_BYTES + at as u64)
    }

    /// `count` words at `at`, in bytes from the start of the payload, a multiple of 8. Not for longer than the object.
    pub(crate) fn words(&self, at: usize, count: usize) -> Option<&'static [AtomicU64]> {
        let bytes = self.bytes(at, count.checked_mul(8)?)?;
        if !at.is_multiple_of(8) {
            return None;
        }
        // SAFETY: inside of the mapping, which stays; aligned, since payloads are; atomics are valid for every bit pattern.
        Some(unsafe { NonNull::slice_from_raw_parts(bytes.cast::<AtomicU64>(), count).as_ref() })
    }
}
