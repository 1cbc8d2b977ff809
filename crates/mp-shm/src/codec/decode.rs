//! From bytes to a value.

#![expect(unsafe_code, reason = "reading messages where they lie")]

use super::{DecodeError, Message};
use crate::block::Block;
use crate::handle::Kind;
use crate::references::{HandleError, Held, Reference};
use crate::session::Session;
use rkyv::Deserialize;
use rkyv::de::pooling::{ErasedPtr, Pool, Pooling, PoolingState};
use rkyv::rancor::{self, Fallible, Source};
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Most bytes of a message that travels in its slot.
pub const INLINE_MAX: usize = 240;

/// A received message: its own copy of a small one, or the block of a large one, which it holds. Dropping it releases the
/// handles that were not taken, and the block.
pub struct Payload(Place);

enum Place {
    /// In a box of its own size: a payload is moved about more often than it is made, and may be kept.
    Inline {
        session: Session,
        len: usize,
        bytes: Box<[Piece]>,
    },
    Block(Block),
}

/// Bytes with an alignment that is enough for every archive.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Piece([MaybeUninit<u8>; 16]);

/// Room for a message that travels in its slot.
#[repr(C, align(16))]
pub struct Inline([MaybeUninit<u8>; INLINE_MAX]);

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline").finish_non_exhaustive()
    }
}

impl Inline {
    /// Without a message.
    #[inline]
    #[must_use]
    pub const fn empty() -> Self {
        Self([const { MaybeUninit::uninit() }; INLINE_MAX])
    }

    /// Copies `len` bytes that lie at `from`.
    ///
    /// # Panics
    /// If `len` is above [`INLINE_MAX`].
    ///
    /// # Safety
    /// `len` bytes at `from` can be read, and nobody writes them meanwhile.
    #[inline]
    pub unsafe fn fill(&mut self, from: *const u8, len: usize) {
        assert!(len <= INLINE_MAX, "an inline message has at most {INLINE_MAX} bytes");
        // SAFETY: the caller vouches for the source; the target has INLINE_MAX >= len bytes and is ours.
        unsafe { from.copy_to_nonoverlapping(self.0.as_mut_ptr().cast(), len) };
    }

    /// The first `len` bytes.
    ///
    /// # Safety
    /// [`fill`](Self::fill) has copied as many.
    #[inline]
    #[must_use]
    pub unsafe fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), len) }
    }
}

/// Validates an archive without handles, which came through `session`, and rebuilds the value.
///
/// # Errors
/// [`DecodeError`]
#[inline]
pub fn decode_inline<T: Message, E: From<DecodeError>>(session: Session, bytes: &[u8]) -> Result<T, E> {
    let archived = access::<T>(bytes)?;
    if is_own_archive::<T>() && bytes.len() == size_of::<T>() {
        // SAFETY: `T` and `T::Archived` are one type, so `access` has shown that a valid `T` lies here, and it has nothing to drop; nobody
        // else owns what came in an archive.
        return Ok(unsafe { std::ptr::from_ref(archived).cast::<T>().read() });
    }
    Ok(rebuild(archived, session, None)?)
}

/// Whether `bytes` are a valid archive of a `T`.
///
/// # Errors
/// [`DecodeError`]
#[inline]
pub fn validate<T: Message>(bytes: &[u8]) -> Result<(), DecodeError> {
    access::<T>(bytes).map(drop)
}

#[inline]
fn access<T: Message>(bytes: &[u8]) -> Result<&T::Archived, DecodeError> {
    rkyv::access::<T::Archived, rancor::Error>(bytes).map_err(invalid)
}

/// Whether `T` is the archive of itself, as arrays of bytes are, and has nothing to drop. (Built from parts it would be read from the copy in pieces other than those
/// that were written just before, for which a processor waits until the writes have left it.)
#[inline]
#[must_use]
pub fn is_own_archive<T: Message>() -> bool {
    typeid::of::<T>() == typeid::of::<T::Archived>() && !std::mem::needs_drop::<T>()
}

#[cold]
fn invalid(error: rancor::Error) -> DecodeError {
    DecodeError::Invalid(error.to_string())
}

#[inline]
fn rebuild<T: Message>(
    archived: &T::Archived,
    session: Session,
    block: Option<u64>,
) -> Result<T, DecodeError> {
    let mut decoder = Decoder { taking: Taking::new(session, block), pool: None };
    // Where this ends with an error or a panic, the decoder's end releases what was handed out.
    let value = archived.deserialize(&mut decoder).map_err(|error: rancor::Error| {
        let failure = decoder.taking.failure.take();
        failure.map_or_else(|| DecodeError::Value(error.to_string()), DecodeError::Handle)
    })?;
    decoder.taking.handed_out.clear();
    Ok(value)
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("len", &self.bytes().len()).finish_non_exhaustive()
    }
}

impl Payload {
    /// Copies `len` bytes that lie at `from`.
    ///
    /// # Panics
    /// If `len` is above [`INLINE_MAX`].
    ///
    /// # Safety
    /// `len` bytes at `from` can be read, and nobody writes them meanwhile.
    #[inline]
    #[must_use]
    pub unsafe fn copy_inline(session: Session, from: *const u8, len: usize) -> Self {
        assert!(len <= INLINE_MAX, "an inline message has at most {INLINE_MAX} bytes");
        let mut bytes = vec![const { Piece([MaybeUninit::uninit(); 16]) }; len.div_ceil(size_of::<Piece>())];
        // SAFETY: the caller vouches for the source; the target has at least `len` bytes and is ours.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr().cast(), len) };
        let bytes = bytes.into_boxed_slice();
        Self(Place::Inline { session, len, bytes })
    }

    /// A message in a block this process holds.
    #[must_use]
    pub fn in_block(block: Block) -> Self {
        Self(Place::Block(block))
    }

    /// The archive.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: `copy_inline` made room for `len` bytes and filled them in.
            Place::Inline { len, bytes, .. } => unsafe {
                std::slice::from_raw_parts(bytes.as_ptr().cast(), *len)
            },
            Place::Block(block) => {
                let len = usize::try_from(block.header().len.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
                let len = len.min(block.capacity());
                // SAFETY: within the payload, which was written before it was published to us and which this process holds;
                // in a session, nobody writes a block that he does not hold.
                unsafe { std::slice::from_raw_parts(block.payload().as_ptr(), len) }
            }
        }
    }

    /// Validates the archive and rebuilds the value, handles included.
    ///
    /// # Errors
    /// [`DecodeError`]. Handles that were not taken are released with the payload.
    #[inline]
    pub fn decode<T: Message>(self) -> Result<T, DecodeError> {
        let (session, block) = match &self.0 {
            Place::Inline { session, .. } => (*session, None),
            Place::Block(block) => (block.session(), Some(block.offset())),
        };
        rebuild(self.archived::<T>()?, session, block)
    }

    /// Validates the archive and gives it, in place.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`]
    #[inline]
    pub fn archived<T: Message>(&self) -> Result<&T::Archived, DecodeError> {
        rkyv::access::<T::Archived, rancor::Error>(self.bytes()).map_err(invalid)
    }

    /// The archive, which [`archived`](Self::archived) has validated.
    ///
    /// # Safety
    /// `archived::<T>` was called on this payload, and gave no error.
    #[inline]
    #[must_use]
    pub unsafe fn archived_again<T: Message>(&self) -> &T::Archived {
        // SAFETY: validated before, as the caller promises; nobody has written to it since: the bytes are this process's own.
        unsafe { rkyv::access_unchecked::<T::Archived>(self.bytes()) }
    }
}

impl Drop for Payload {
    #[inline]
    fn drop(&mut self) {
        if let Place::Block(block) = &self.0 {
            block.session().drop_attachments(block);
        }
    }
}

/// A deserializer that can give out the handles of its message. Only [`Decoder`] is one.
#[diagnostic::on_unimplemented(
    message = "handles cannot be deserialised here",
    label = "holds a handle: an end of a channel, a lock, shared memory, a function",
    note = "they mean something to processes of one session only, and travel in messages of its channels"
)]
pub trait Detach: Fallible {
    /// Takes the `index`-th handle, which must be of this kind.
    ///
    /// # Errors
    /// If there is none, it is of another kind, or it was already taken.
    fn detach(&mut self, index: u32, kind: Kind) -> Result<Reference, Self::Error>;

    /// Takes the `index`-th handle, of whatever kind.
    ///
    /// # Errors
    /// If there is none, or it was already taken.
    fn detach_any(&mut self, index: u32) -> Result<Reference, Self::Error>;

    /// The session that the message came through.
    fn session(&self) -> Session;

    /// The error for a handle that turned out not to fit.
    fn refuse(&mut self, error: HandleError) -> Self::Error;

    /// Lends out what takes handles; until it is [given back](Self::give_back), there are none.
    #[doc(hidden)]
    fn lend(&mut self) -> Taking;

    /// Takes back what was lent.
    #[doc(hidden)]
    fn give_back(&mut self, taking: Taking);
}

/// What takes handles out of a message while it is decoded. Its end releases those that it has handed out: deserialisation that failed or
/// panicked may have lost what it had made so far (rkyv's does for the elements of slices).
#[doc(hidden)]
pub struct Taking {
    session: Session,
    /// Where the block of the message is, which the payload holds while it is decoded.
    block: Option<u64>,
    /// Emptied once there is a value.
    handed_out: Vec<Arc<Held>>,
    /// The first that could not be taken.
    failure: Option<HandleError>,
}

impl Taking {
    #[inline]
    fn new(session: Session, block: Option<u64>) -> Self {
        Self { session, block, handed_out: Vec::new(), failure: None }
    }

    /// Takes the `index`-th handle, which must be of this kind if one is given.
    pub(super) fn take(&mut self, index: u32, kind: Option<Kind>) -> Result<Reference, HandleError> {
        let taken = match self.block {
            Some(offset) => self.session.take_attachment(offset, index, kind),
            None => Err(HandleError::Stale),
        };
        let reference = taken.inspect_err(|error| self.note(*error))?;
        self.handed_out.push(reference.held());
        Ok(reference)
    }

    /// How many handles it has handed out.
    #[cfg(feature = "serde")]
    pub(super) fn handed_out(&self) -> usize {
        self.handed_out.len()
    }

    /// Leaves all handles but the first `count` to those who have them.
    #[cfg(feature = "serde")]
    pub(super) fn let_go_after(&mut self, count: usize) {
        self.handed_out.truncate(count);
    }

    /// Keeps why decoding fails.
    pub(super) fn note(&mut self, error: HandleError) {
        self.failure.get_or_insert(error);
    }
}

impl fmt::Debug for Taking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taking").finish_non_exhaustive()
    }
}

impl Drop for Taking {
    #[inline]
    fn drop(&mut self) {
        for held in &self.handed_out {
            held.release();
        }
    }
}

/// The deserializer of messages. Made by [`Payload::decode`] alone.
pub struct Decoder {
    taking: Taking,
    pool: Option<Box<Pool>>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// Stands in rkyv's error for the cause that the decoder keeps itself.
#[derive(Debug)]
struct Kept;

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a handle of the message could not be taken")
    }
}

impl std::error::Error for Kept {}

impl Fallible for Decoder {
    type Error = rancor::Error;
}

impl Pooling for Decoder {
    fn start_pooling(&mut self, address: usize) -> PoolingState {
        let pool = self.pool.get_or_insert_default();
        Pooling::<rancor::Error>::start_pooling(&mut **pool, address)
    }

    unsafe fn finish_pooling(
        &mut self,
        address: usize,
        pointer: ErasedPtr,
        drop: unsafe fn(ErasedPtr),
    ) -> Result<(), rancor::Error> {
        // SAFETY: the caller's promises are passed on as they are.
        unsafe { self.pool.get_or_insert_default().finish_pooling(address, pointer, drop) }
    }
}

impl Decoder {
    fn take(&mut self, index: u32, kind: Option<Kind>) -> Result<Reference, rancor::Error> {
        self.taking.take(index, kind).map_err(|_| rancor::Error::new(Kept))
    }
}

impl Detach for Decoder {
    fn detach(&mut self, index: u32, kind: Kind) -> Result<Reference, rancor::Error> {
        self.take(index, Some(kind))
    }

    fn detach_any(&mut self, index: u32) -> Result<Reference, rancor::Error> {
        self.take(index, None)
    }

    fn session(&self) -> Session {
        self.taking.session
    }

    fn refuse(&mut self, error: HandleError) -> rancor::Error {
        self.taking.note(error);
        rancor::Error::new(Kept)
    }

    fn lend(&mut self) -> Taking {
        let nothing = Taking::new(self.taking.session, None);
        std::mem::replace(&mut self.taking, nothing)
    }

    fn give_back(&mut self, taking: Taking) {
        self.taking = taking;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_its_own_archive_is_checked_before_it_is_taken() {
        assert!(is_own_archive::<[bool; 4]>() && is_own_archive::<[u8; 3]>());
        assert!(!is_own_archive::<u64>() && !is_own_archive::<String>());
        let session = Session::current().unwrap();
        let take = |bytes: &[u8]| decode_inline::<[bool; 4], DecodeError>(session, bytes);
        assert_eq!(take(&[0, 1, 1, 0]).unwrap(), [false, true, true, false]);
        assert!(matches!(take(&[0, 1, 2, 0]), Err(DecodeError::Invalid(_))), "2 is no bool");
        assert!(matches!(take(&[0, 1, 1]), Err(DecodeError::Invalid(_))), "too short");
        let longer = decode_inline::<[u8; 3], DecodeError>(session, &[9, 1, 2, 3]).unwrap();
        assert_eq!(longer, [1, 2, 3], "an archive's root is at its end");
    }
}
