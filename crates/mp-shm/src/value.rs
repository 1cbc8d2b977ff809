//! A number, or something else of at most 8 bytes, that processes share: [`Value`].
//!
//! Owns: one word of the session. Every access is one atomic operation on it, so no reader sees half of a value.
//!
//! ```text
//! word   the value's bytes, zero behind them
//! ```
//!
//! Edges: `get` is Acquire and `set` Release, so what was written before a `set` is visible to who reads that value; the changes that
//! read and write are both.
//! Death: no step is divisible, so nothing is left behind. The word goes with the last handle.

use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::message_of_handle;
use crate::object::Object;
use crate::references::{HandleError, Reference};
use crate::safe::{ShmSafe, layout, mix};
use crate::session::Session;
use crate::words;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A `T` of 1 to 8 bytes that all holders of a handle see, with atomic access. Clone it, send it, nest it in messages.
///
/// `T` has no padding. For larger ones take [`Latest`](crate::latest::Latest) (one writer), or a mutex of `mp-sync` in a
/// [`Shared`](crate::Shared), which also is the counterpart of a value with a lock.
///
/// # Examples
/// ```
/// let hits = mp_shm::Value::new(0_u32)?;
/// let same = hits.clone();
/// same.update(|hits| hits + 1);
/// assert_eq!(hits.get(), 1);
/// # Ok::<(), mp_shm::error::SessionError>(())
/// ```
pub struct Value<T: ShmSafe> {
    word: &'static AtomicU64,
    object: Arc<Object>,
    of: PhantomData<fn() -> T>,
}

fn layout_of<T: ShmSafe>() -> u64 {
    mix(layout("Value", size_of::<T>(), align_of::<T>()), T::LAYOUT)
}

impl<T: ShmSafe + Copy> Value<T> {
    /// A new value in the session of this program tree.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn new(value: T) -> Result<Self, SessionError> {
        Self::new_in(Session::current()?, value)
    }

    /// [`new`](Self::new) in a given session: only processes attached to it can hold handles.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in(session: Session, value: T) -> Result<Self, SessionError> {
        const { assert!(size_of::<T>() >= 1 && size_of::<T>() <= 8, "a `Value` has 1 to 8 bytes") };
        let object = Object::create(session, Kind::VALUE, layout_of::<T>(), 8)?;
        let this = Self::opened(object).map_err(|_| SessionError::NotASession)?;
        this.set(value);
        Ok(this)
    }

    /// The value.
    #[inline]
    #[must_use]
    pub fn get(&self) -> T {
        // VALUE: Acquire, pairs with the Release of `set`.
        from_bits(self.word.load(Ordering::Acquire))
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: T) {
        // VALUE: Release, pairs with the Acquire of `get`.
        self.word.store(to_bits(&value), Ordering::Release);
    }

    /// Replaces the value and gives the one before.
    #[inline]
    pub fn swap(&self, value: T) -> T {
        from_bits(self.word.swap(to_bits(&value), Ordering::AcqRel))
    }

    /// Replaces the value by `new` if its bytes are those of `current`. Gives the value before.
    ///
    /// # Errors
    /// The value there is, if it is another.
    #[inline]
    pub fn compare_exchange(&self, current: T, new: T) -> Result<T, T> {
        let (current, new) = (to_bits(&current), to_bits(&new));
        let exchanged = self.word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire);
        exchanged.map(from_bits).map_err(from_bits)
    }

    /// Replaces the value by what `change` makes of it, and gives the one before. `change` is called again if another party was
    /// faster; it must not rely on being called once.
    #[inline]
    pub fn update(&self, mut change: impl FnMut(T) -> T) -> T {
        match self.fetch_update(|value| Some(change(value))) {
            Ok(before) | Err(before) => before,
        }
    }

    /// [`update`](Self::update), unless `change` gives nothing.
    ///
    /// # Errors
    /// The value, for which `change` gave nothing.
    #[inline]
    pub fn fetch_update(&self, mut change: impl FnMut(T) -> Option<T>) -> Result<T, T> {
        let changed = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| {
            change(from_bits(bits)).map(|value| to_bits(&value))
        });
        changed.map(from_bits).map_err(from_bits)
    }
}

fn to_bits<T: ShmSafe + Copy>(value: &T) -> u64 {
    let word = AtomicU64::new(0);
    words::store(std::slice::from_ref(&word), value);
    word.into_inner()
}

fn from_bits<T: ShmSafe + Copy>(bits: u64) -> T {
    words::load(std::slice::from_ref(&AtomicU64::new(bits)))
}

impl<T: ShmSafe> Value<T> {
    fn open(reference: Reference) -> Result<Self, HandleError> {
        Self::opened(Object::open(reference, layout_of::<T>())?)
    }

    fn opened(object: Object) -> Result<Self, HandleError> {
        let word = object.at(0).ok_or(HandleError::OtherType)?;
        Ok(Self { word, object: Arc::new(object), of: PhantomData })
    }

    /// Names the value in every process of its session.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.reference().handle()
    }

    fn reference(&self) -> &Reference {
        self.object.reference()
    }
}

message_of_handle!([T: ShmSafe] Value<T>, Kind::VALUE, Value::reference, Value::open);

impl<T: ShmSafe> Clone for Value<T> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), ..*self }
    }
}

impl<T: ShmSafe> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.handle())
    }
}
