//! An array in shared memory whose length is known at run time: [`Array`].
//!
//! Owns: an object of the session.
//!
//! ```text
//! payload   H, a header of the user's | filled up to 64 bytes, none if H is () | the elements, one after the other
//! ```
//!
//! Who may touch what: every holder of a handle reads and writes elements, by atomic accesses of 1, 2, 4 or 8 bytes, the largest that divides the
//! element, or many at once as if it was so. So an element of such a size is never torn. One of 24 bytes, say, is three accesses: a reader may see the first of a new one and the rest
//! of an old one. Order between elements is not kept; where that matters, use a lock (`LockedArray` of `mp-sync`, by
//! [`elements`](Array::elements)), or hand over [parts](crate::parts).
//!
//! Death: a process that dies while it writes leaves each access done or not done. The block goes with the last handle; one that forgot a
//! guard of a lock in the header keeps its reference until it ends, as [`Shared`](crate::Shared) does.

#![expect(unsafe_code, reason = "typed access to a block")]

use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::message_of_handle;
use crate::object::Object;
use crate::references::{HandleError, Reference};
use crate::safe::{ShmSafe, layout, mix};
use crate::session::Session;
use crate::shared::is_linked_here;
use crate::words;
use std::fmt;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Bound, Range, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

/// An array of `T` that all holders of a handle see. Clone it, send it, nest it in messages. It never gives out references to its elements,
/// since any holder may change them.
///
/// `T` has at least one byte and no padding. `H` lies in front of the elements, for a lock, say.
///
/// # Examples
/// ```
/// let array = mp_shm::Array::<u32>::new(4)?;
/// array.write_from(1, &[10, 20]);
/// array.set(3, 30);
/// assert_eq!(array.to_vec(), [0, 10, 20, 30]);
/// assert_eq!((array.get(3), array.get(4)), (Some(30), None));
/// # Ok::<(), mp_shm::error::SessionError>(())
/// ```
pub struct Array<T: ShmSafe, H: ShmSafe = ()> {
    held: Arc<Held<H>>,
    elements: NonNull<[T]>,
}

struct Held<H: ShmSafe> {
    header: &'static H,
    object: ManuallyDrop<Object>,
}

// SAFETY: elements are touched by atomic accesses alone, or by the rules of `elements`; they have no pointers and no owner.
unsafe impl<T: ShmSafe, H: ShmSafe> Send for Array<T, H> {}
// SAFETY: as above.
unsafe impl<T: ShmSafe, H: ShmSafe> Sync for Array<T, H> {}

fn layout_of<T: ShmSafe, H: ShmSafe>() -> u64 {
    mix(mix(layout("Array", size_of::<T>(), align_of::<T>()), T::LAYOUT), H::LAYOUT)
}

/// Where the elements begin, in bytes.
const fn elements_at<H>() -> usize {
    size_of::<H>().next_multiple_of(64)
}

/// Bytes of an array of `len` elements.
pub(crate) fn bytes_of<T, H>(len: usize) -> Result<usize, SessionError> {
    const { assert!(size_of::<T>() > 0, "elements have at least one byte") };
    const {
        assert!(align_of::<T>() <= 64 && align_of::<H>() <= 64, "blocks of a session are aligned to 64 bytes")
    };
    let bytes = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(elements_at::<H>()));
    bytes.ok_or_else(|| SessionError::OutOfMemory(std::io::ErrorKind::OutOfMemory.into()))
}

/// The elements of an object laid out as an array.
pub(crate) fn elements_in<T: ShmSafe, H: ShmSafe>(object: &Object) -> Option<NonNull<[T]>> {
    let bytes = object.len().checked_sub(elements_at::<H>())?;
    let start = object.bytes(elements_at::<H>(), bytes)?;
    (bytes % size_of::<T>() == 0)
        .then(|| NonNull::slice_from_raw_parts(start.cast::<T>(), bytes / size_of::<T>()))
}

impl<T: ShmSafe + Copy> Array<T> {
    /// `len` elements with all bytes zero, in the session of this program tree.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn new(len: usize) -> Result<Self, SessionError> {
        Self::new_in(Session::current()?, len)
    }

    /// [`new`](Self::new) in a given session: only processes attached to it can hold handles.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in(session: Session, len: usize) -> Result<Self, SessionError> {
        Self::with_header_in(session, len, |()| ())
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
        let array = Self::new_in(session, elements.len())?;
        array.prefault(..)?;
        array.write_from(0, elements);
        Ok(array)
    }
}

impl<T: ShmSafe + Copy, H: ShmSafe> Array<T, H> {
    /// `len` elements with all bytes zero, behind a header that `set_up` has changed from all bytes zero before anybody else can see it.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn with_header_in(
        session: Session,
        len: usize,
        set_up: impl FnOnce(&mut H),
    ) -> Result<Self, SessionError> {
        let object = Object::create(session, Kind::ARRAY, layout_of::<T, H>(), bytes_of::<T, H>(len)?)?;
        if let Some(header) = object.bytes(0, size_of::<H>()) {
            // SAFETY: inside of the object, aligned to 64 bytes, all bytes zero, which is an `H`; nobody else has a handle yet.
            set_up(unsafe { header.cast::<H>().as_mut() });
        }
        Self::opened(object).map_err(|_| SessionError::NotASession)
    }

    /// The element at `index`; `None` if there is none.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        let place = self.place(index)?;
        // SAFETY: `place` is an element, aligned to 64 bytes and whole elements; others change it by such accesses, too.
        Some(unsafe { words::load_element(place) })
    }

    /// Replaces the element at `index`.
    ///
    /// # Panics
    /// If there is none, as indexing a slice does.
    #[inline]
    pub fn set(&self, index: usize, value: T) {
        let Some(place) = self.place(index) else {
            panic!("index {index} is beyond the end of an array of {}", self.len())
        };
        // SAFETY: as in `get`.
        unsafe { words::store_element(place, &value) };
    }

    #[inline]
    fn place(&self, index: usize) -> Option<NonNull<T>> {
        // SAFETY: below the length, so inside of the elements.
        (index < self.len()).then(|| unsafe { self.elements.cast::<T>().add(index) })
    }

    /// Copies the elements in `range` to `to`, which must be as long.
    ///
    /// # Panics
    /// If `range` is not inside of the array, or `to` has another length.
    pub fn read_into(&self, range: impl RangeBounds<usize>, to: &mut [T]) {
        let range = self.range(range);
        assert_eq!(range.len(), to.len(), "source and target have different lengths");
        // SAFETY: as long, and all that this does with it is to write values.
        let to = unsafe { &mut *(std::ptr::from_mut(to) as *mut [MaybeUninit<T>]) };
        // SAFETY: the range is inside of the array, and as long.
        unsafe { self.load(range.start, to) };
    }

    /// Puts pages under the elements in `range`, in this process, instead of at the first access to each page. That takes a fraction of the time where
    /// most will be touched.
    ///
    /// # Errors
    /// No memory.
    ///
    /// # Panics
    /// If `range` is not inside of the array.
    pub fn prefault(&self, range: impl RangeBounds<usize>) -> Result<(), SessionError> {
        let range = self.range(range);
        let at = elements_at::<H>() + range.start * size_of::<T>();
        self.held.object.prefault(at, range.len() * size_of::<T>())
    }

    fn range(&self, range: impl RangeBounds<usize>) -> Range<usize> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len(),
        };
        assert!(
            start <= end && end <= self.len(),
            "{start}..{end} is not inside of an array of {}",
            self.len()
        );
        start..end
    }

    /// Copies the elements from `start` on to all of `to`.
    ///
    /// # Safety
    /// The array has so many.
    unsafe fn load(&self, start: usize, to: &mut [MaybeUninit<T>]) {
        // SAFETY: the caller vouches for the elements, one of which this is, or their end.
        let from = unsafe { self.elements.cast::<T>().add(start) };
        // SAFETY: as above; they are aligned to 64 bytes and whole elements, and others change them by such accesses, too.
        unsafe { words::load_elements(from, to) };
    }

    /// Replaces the elements from `start` on by `values`.
    ///
    /// # Panics
    /// If the array ends before they do.
    pub fn write_from(&self, start: usize, values: &[T]) {
        let fits = start.checked_add(values.len()).is_some_and(|end| end <= self.len());
        assert!(fits, "{} elements from {start} do not fit into an array of {}", values.len(), self.len());
        // SAFETY: not above the length, so inside of the elements, or their end.
        let place = unsafe { self.elements.cast::<T>().add(start) };
        // SAFETY: as in `set`; so many elements are there.
        unsafe { words::store_elements(place, values) };
    }

    /// A copy of all elements.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        let mut copy = Vec::with_capacity(self.len());
        // SAFETY: the array has so many elements.
        unsafe { self.load(0, &mut copy.spare_capacity_mut()[..self.len()]) };
        // SAFETY: all of them were written.
        unsafe { copy.set_len(self.len()) };
        copy
    }
}

impl<T: ShmSafe, H: ShmSafe> Array<T, H> {
    /// The array that a reference is to; for crates that put types of their own around it.
    ///
    /// # Errors
    /// [`HandleError::OtherType`] if it was made with other element or header types.
    pub fn open(reference: Reference) -> Result<Self, HandleError> {
        Self::opened(Object::open(reference, layout_of::<T, H>())?)
    }

    fn opened(object: Object) -> Result<Self, HandleError> {
        let header = object.at(0).ok_or(HandleError::OtherType)?;
        let elements = elements_in::<T, H>(&object).ok_or(HandleError::OtherType)?;
        Ok(Self { held: Arc::new(Held { header, object: ManuallyDrop::new(object) }), elements })
    }

    /// Makes an array of an object that was made by [`bytes_of`], and is held by one handle alone.
    pub(crate) fn of_object(object: Object) -> Result<Self, HandleError> {
        object.retype(layout_of::<T, H>());
        Self::opened(object)
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What lies in front of the elements.
    #[must_use]
    pub fn header(&self) -> &H {
        self.held.header
    }

    /// Where the elements are, for those that give access under a lock. The address stays while this handle, or a clone of it, is there.
    ///
    /// To make a `&mut [T]` of it, be sure that until its end nobody else in any process makes a reference to these elements, or calls
    /// [`get`](Self::get), [`set`](Self::set) and the like; a lock in [`header`](Self::header) that is taken first, and an `Array` that nobody else is
    /// given, do that. For a `&[T]`, that nobody changes them.
    #[must_use]
    pub fn elements(&self) -> NonNull<[T]> {
        self.elements
    }

    /// Names the array in every process of its session.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.reference().handle()
    }

    /// The session that the array lies in.
    #[must_use]
    pub fn session(&self) -> Session {
        self.reference().session()
    }

    /// This process's reference to the array; as [`open`](Self::open).
    #[must_use]
    pub fn reference(&self) -> &Reference {
        self.held.object.reference()
    }
}

message_of_handle!([T: ShmSafe, H: ShmSafe] Array<T, H>, Kind::ARRAY, Array::reference, Array::open);

impl<T: ShmSafe, H: ShmSafe> Clone for Array<T, H> {
    fn clone(&self) -> Self {
        Self { held: self.held.clone(), elements: self.elements }
    }
}

impl<T: ShmSafe, H: ShmSafe> fmt::Debug for Array<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({}, len {})", self.handle(), self.len())
    }
}

impl<H: ShmSafe> Drop for Held<H> {
    fn drop(&mut self) {
        if !is_linked_here(self.header) {
            // SAFETY: nobody uses the object after this.
            unsafe { ManuallyDrop::drop(&mut self.object) };
        }
    }
}
