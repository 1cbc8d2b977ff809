//! An array with one owner, and its split into parts that have one owner each: [`ArrayMut`], [`Split`] and [`Part`].
//!
//! Owns: the object with the elements, and for each part a *token*, a small object that says which elements the part is. Whoever holds the
//! only reference to a token may use these elements as `&mut [T]`; when that is, says the table in [`sole`].
//!
//! ```text
//! elements            token                      may be used by
//! whole array         none                       the `ArrayMut`
//! range of a part     one reference              the holder of that `Part`
//! range of a part     more than one reference    nobody: the part is in a message, or has just been received
//! range of a part     gone                       nobody, until `Split::reclaim` makes a new token, or `Split::join` the whole
//! ```
//!
//! Invariants
//! 1. The elements are reachable through one `ArrayMut`, or through one `Split` and the parts it made; none of the two can be cloned or
//!    sent, and the ranges of tokens that exist do not overlap.
//! 2. A token is immutable; it names the object with the elements by place and generation.
//!
//! Death: a dead holder's reference is taken back, so a token that nobody else holds is gone, and `reclaim` finds that. What the dead one had
//! written so far is there. When the process with the `Split` dies, the parts stay usable, and the memory goes with the last of them.

#![expect(unsafe_code, reason = "slices of elements that have one owner")]

use crate::ShmSafe;
use crate::array::{Array, bytes_of, elements_in};
#[cfg(feature = "serde")]
use crate::codec::inside::{InMessage, OutOfMessage, refuse};
use crate::codec::{ArchivedHandle, Attach, Detach};
use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::object::Object;
use crate::references::{HandleError, Reference};
use crate::safe::{layout, mix};
use crate::session::Session;
use crate::sole::{self, NotSole};
use mp_sys::deadline::Deadline;
use rkyv::munge::munge;
use rkyv::{Archive, Deserialize, Place, Serialize};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An array in the session that has one owner, who may use it as a slice. It can be split into [parts](Part) for other processes, or made an
/// [`Array`] that many share.
///
/// # Examples
/// ```
/// let mut array = mp_shm::ArrayMut::<u64>::new(1000)?;
/// array[7] = 7;
/// let (split, mut parts) = array.split(4)?;
/// for part in &mut parts {
///     // Usually sent to another process first.
///     part.slice_mut()?.fill(1);
/// }
/// drop(parts);
/// let array = split.join().map_err(|_| "a part is still in use")?;
/// assert_eq!(array.iter().sum::<u64>(), 1000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ArrayMut<T: ShmSafe> {
    object: Object,
    elements: NonNull<[T]>,
}

/// An array that is split: what makes lost parts anew, and the whole again.
pub struct Split<T: ShmSafe> {
    whole: ArrayMut<T>,
    tokens: Vec<(Handle, Range)>,
}

/// Elements of an array that belong to the holder of this alone. It can be sent, once.
///
/// Sending takes it: while it is in a message nobody can use it, then the receiver can. There is no shared access, since an encoder is given a
/// shared reference.
pub struct Part<T: ShmSafe> {
    /// Keeps the elements.
    memory: Object,
    token: Object,
    elements: NonNull<[T]>,
    start: usize,
}

/// What becomes of an array that is split: the rest, and the parts in order.
pub type WithParts<T> = (Split<T>, Vec<Part<T>>);

/// An array could not be split.
pub struct SplitError<T: ShmSafe> {
    /// Why.
    pub error: SessionError,
    /// The array.
    pub array: ArrayMut<T>,
}

#[derive(Clone, Copy)]
struct Range {
    start: usize,
    len: usize,
}

/// What lies in a token.
#[derive(ShmSafe)]
#[repr(C)]
struct Token {
    offset: AtomicU64,
    generation: AtomicU64,
    start: AtomicU64,
    len: AtomicU64,
}

// SAFETY: the elements belong to the one holder, wherever it is; they have no pointers.
unsafe impl<T: ShmSafe> Send for ArrayMut<T> {}
// SAFETY: shared references give shared access to a `T: Sync`.
unsafe impl<T: ShmSafe> Sync for ArrayMut<T> {}
// SAFETY: as for `ArrayMut`.
unsafe impl<T: ShmSafe> Send for Part<T> {}
// SAFETY: a shared reference gives no access to the elements.
unsafe impl<T: ShmSafe> Sync for Part<T> {}

fn layout_of<T: ShmSafe>() -> u64 {
    mix(layout("ArrayMut", size_of::<T>(), align_of::<T>()), T::LAYOUT)
}

fn token_layout_of<T: ShmSafe>() -> u64 {
    mix(layout("Part", size_of::<T>(), align_of::<T>()), T::LAYOUT)
}

impl<T: ShmSafe + Copy> ArrayMut<T> {
    /// `len` elements with all bytes zero, in the session of this program tree.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn new(len: usize) -> Result<Self, SessionError> {
        Self::new_in(Session::current()?, len)
    }

    /// [`new`](Self::new) in a given session: only processes attached to it can hold parts.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in(session: Session, len: usize) -> Result<Self, SessionError> {
        let object = Object::create(session, Kind::ARRAY, layout_of::<T>(), bytes_of::<T, ()>(len)?)?;
        let elements = elements_in::<T, ()>(&object).ok_or(SessionError::NotASession)?;
        Ok(Self { object, elements })
    }

    /// A copy of `elements`, in the session of this program tree.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_slice(elements: &[T]) -> Result<Self, SessionError> {
        Self::from_slice_in(Session::current()?, elements)
    }

    /// [`from_slice`](Self::from_slice) in a given session.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_slice_in(session: Session, elements: &[T]) -> Result<Self, SessionError> {
        let mut array = Self::new_in(session, elements.len())?;
        array.copy_from_slice(elements);
        Ok(array)
    }

    /// Shares the array: from now on everybody with a handle changes elements one by one.
    ///
    /// # Errors
    /// [`SessionError::NotASession`] if the session is corrupt.
    pub fn into_shared(self) -> Result<Array<T>, SessionError> {
        // Nobody else has a handle to the object: invariant 1.
        Array::of_object(self.object).map_err(|_| SessionError::NotASession)
    }

    /// Splits the array into `count` parts of almost equal length, in order; the first ones have one element more if it does not come out
    /// even. The [`Split`] makes parts anew whose holders have died, and the whole again in the end.
    ///
    /// # Errors
    /// No memory for the tokens of the parts; the array comes back.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn split(self, count: usize) -> Result<WithParts<T>, SplitError<T>> {
        assert!(count > 0, "an array is split into one part at least");
        let (each, more) = (self.elements.len() / count, self.elements.len() % count);
        let range = |at: usize| Range { start: at * each + at.min(more), len: each + usize::from(at < more) };
        let made: Result<Vec<_>, _> = (0..count).map(|at| self.part(range(at))).collect();
        match made {
            Ok(parts) => {
                let tokens =
                    parts.iter().map(|part| (part.token.reference().handle(), part.range())).collect();
                Ok((Split { whole: self, tokens }, parts))
            }
            Err(error) => Err(SplitError { error, array: self }),
        }
    }
}

impl<T: ShmSafe> ArrayMut<T> {
    /// Makes a token for a range that has none.
    fn part(&self, range: Range) -> Result<Part<T>, SessionError> {
        let (session, memory) = (self.object.reference().session(), self.object.reference().handle());
        let broken = |_| SessionError::NotASession;
        let keep = session.refer(self.object.reference(), Kind::ARRAY, false)?.ok_or(SessionError::Forked)?;
        let keep = Object::open(keep, layout_of::<T>()).map_err(broken)?;
        let object = Object::create(session, Kind::PART, token_layout_of::<T>(), size_of::<Token>())?;
        let token: &Token = object.at(0).ok_or(SessionError::NotASession)?;
        token.offset.store(memory.offset, Ordering::Relaxed);
        token.generation.store(memory.generation.into(), Ordering::Relaxed);
        token.start.store(range.start as u64, Ordering::Relaxed);
        token.len.store(range.len as u64, Ordering::Relaxed);
        Part::of(keep, object).map_err(broken)
    }

    /// # Panics
    /// In a process that was forked from the owner behind the library's back.
    fn check_owner(&self) {
        let reference = self.object.reference();
        let ours = reference.session().me().is_ok_and(|me| reference.is_held_by(me.process));
        assert!(ours, "the array belongs to the process that this one was forked from");
    }
}

impl<T: ShmSafe> Deref for ArrayMut<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.check_owner();
        // SAFETY: inside of the object, which `self` keeps; nobody else reaches the elements (invariant 1), so they change only by `deref_mut`,
        // which borrows `self`.
        unsafe { self.elements.as_ref() }
    }
}

impl<T: ShmSafe> DerefMut for ArrayMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.check_owner();
        // SAFETY: as in `deref`, and `self` is borrowed for as long.
        unsafe { self.elements.as_mut() }
    }
}

impl<T: ShmSafe> Split<T> {
    /// The number of parts.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always a part")]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Makes part `index` anew if it is gone: its holder has dropped it, or has died. `None` while somebody holds it, or a message does.
    ///
    /// # Errors
    /// No memory for its token.
    ///
    /// # Panics
    /// If there is no part of this index.
    pub fn reclaim(&mut self, index: usize) -> Result<Option<Part<T>>, SessionError> {
        let session = self.whole.object.reference().session();
        session.me()?;
        session.recover_dead();
        let (handle, range) = self.tokens[index];
        if session.object_of(handle).is_some() {
            return Ok(None);
        }
        let part = self.whole.part(range)?;
        self.tokens[index].0 = part.token.reference().handle();
        Ok(Some(part))
    }

    /// The whole array again, if all parts are gone: dropped, or lost with their holders.
    ///
    /// # Errors
    /// `self`, if somebody still holds a part, or a message does.
    pub fn join(self) -> Result<ArrayMut<T>, Self> {
        let session = self.whole.object.reference().session();
        if session.me().is_err() {
            return Err(self);
        }
        session.recover_dead();
        if self.tokens.iter().any(|(handle, _)| session.object_of(*handle).is_some()) {
            return Err(self);
        }
        Ok(self.whole)
    }
}

impl<T: ShmSafe> Part<T> {
    fn of(memory: Object, token: Object) -> Result<Self, HandleError> {
        let body: &Token = token.at(0).ok_or(HandleError::OtherType)?;
        let handle = memory.reference().handle();
        let is_meant = body.offset.load(Ordering::Relaxed) == handle.offset
            && body.generation.load(Ordering::Relaxed) == u64::from(handle.generation);
        let number = |word: &AtomicU64| usize::try_from(word.load(Ordering::Relaxed)).ok();
        let (start, len) = number(&body.start).zip(number(&body.len)).ok_or(HandleError::OtherType)?;
        let all = elements_in::<T, ()>(&memory).filter(|_| is_meant).ok_or(HandleError::OtherType)?;
        if start.checked_add(len).is_none_or(|end| end > all.len()) {
            return Err(HandleError::OtherType);
        }
        // SAFETY: start <= start + len <= the number of elements.
        let first = unsafe { all.cast::<T>().add(start) };
        Ok(Self { memory, token, elements: NonNull::slice_from_raw_parts(first, len), start })
    }

    fn range(&self) -> Range {
        Range { start: self.start, len: self.elements.len() }
    }

    /// Where it begins in the array.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// The number of its elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements. Waits a moment if it has just been received, until its sender has dropped what it sent.
    ///
    /// # Errors
    /// [`NotSole`] if it was put into a message that still exists after a second; then try again when that is dropped.
    pub fn slice_mut(&mut self) -> Result<&mut [T], NotSole> {
        self.slice_mut_timeout(SENDER_DROPS)
    }

    /// [`slice_mut`](Self::slice_mut) that never waits.
    ///
    /// # Errors
    /// [`NotSole`] if there is another handle to it.
    pub fn try_slice_mut(&mut self) -> Result<&mut [T], NotSole> {
        sole::check(self.token.reference())?;
        // SAFETY: inside of the object, which `self` keeps; this is the only reference to the token, and stays so while `self` is borrowed mutably;
        // ranges of tokens do not overlap, and nobody reaches the elements without one (invariant 1).
        Ok(unsafe { self.elements.as_mut() })
    }

    /// [`slice_mut`](Self::slice_mut) that waits at most `timeout`.
    ///
    /// # Errors
    /// [`NotSole`] if there still is another handle to it.
    pub fn slice_mut_timeout(&mut self, timeout: Duration) -> Result<&mut [T], NotSole> {
        sole::wait(self.token.reference(), Some(Deadline::after(timeout)))?;
        self.try_slice_mut()
    }
}

/// How long a sender may take to drop what it has sent.
const SENDER_DROPS: Duration = Duration::from_secs(1);

/// A part in a message: two handles.
#[derive(Clone, Copy, Debug, rkyv::Portable, rkyv::bytecheck::CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct ArchivedPart {
    memory: ArchivedHandle,
    token: ArchivedHandle,
}

impl<T: ShmSafe> Archive for Part<T> {
    type Archived = ArchivedPart;
    type Resolver = [u32; 2];

    fn resolve(&self, [memory, token]: [u32; 2], out: Place<ArchivedPart>) {
        munge!(let ArchivedPart {
            memory: ArchivedHandle { index: memory_place },
            token: ArchivedHandle { index: token_place },
        } = out);
        memory.resolve((), memory_place);
        token.resolve((), token_place);
    }
}

impl<T: ShmSafe, S: Attach + ?Sized> Serialize<S> for Part<T> {
    fn serialize(&self, serializer: &mut S) -> Result<[u32; 2], S::Error> {
        Ok([serializer.attach(self.memory.reference())?, serializer.attach(self.token.reference())?])
    }
}

impl<T: ShmSafe, D: Detach + ?Sized> Deserialize<Part<T>, D> for ArchivedPart {
    fn deserialize(&self, deserializer: &mut D) -> Result<Part<T>, D::Error> {
        let memory = deserializer.detach(self.memory.index.to_native(), Kind::ARRAY)?;
        let token = deserializer.detach(self.token.index.to_native(), Kind::PART)?;
        open(memory, token).map_err(|error| deserializer.refuse(error))
    }
}

crate::if_serde! {
    impl<T: ShmSafe> serde::Serialize for Part<T> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let handles = (InMessage(self.memory.reference()), InMessage(self.token.reference()));
            serde::Serialize::serialize(&handles, serializer)
        }
    }

    impl<'de, T: ShmSafe> serde::Deserialize<'de> for Part<T> {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let handles: (OutOfMessage<{ Kind::ARRAY.0 }>, OutOfMessage<{ Kind::PART.0 }>) =
                serde::Deserialize::deserialize(deserializer)?;
            open(handles.0.0, handles.1.0).map_err(refuse)
        }
    }
}

fn open<T: ShmSafe>(memory: Reference, token: Reference) -> Result<Part<T>, HandleError> {
    Part::of(Object::open(memory, layout_of::<T>())?, Object::open(token, token_layout_of::<T>())?)
}

impl<T: ShmSafe> fmt::Debug for ArrayMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayMut({}, len {})", self.object.reference().handle(), self.elements.len())
    }
}

impl<T: ShmSafe> fmt::Debug for Split<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Split({:?}, {} parts)", self.whole, self.tokens.len())
    }
}

impl<T: ShmSafe> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (handle, range) = (self.memory.reference().handle(), self.range());
        write!(f, "Part({handle}, {}..{})", range.start, range.start + range.len)
    }
}

impl<T: ShmSafe> fmt::Debug for SplitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T: ShmSafe> fmt::Display for SplitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "splitting an array: {}", self.error)
    }
}

impl<T: ShmSafe> std::error::Error for SplitError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
