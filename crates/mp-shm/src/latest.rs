//! A cell with the latest value of one writer: [`Latest`] and [`LatestWriter`].
//!
//! Owns: an object with two roles, readers and the writer, and in it a [ring of stamped buffers](crate::stamped), whose table of
//! steps is in that file. The writer stores and never waits for anybody; readers copy and look whether the copy is whole.
//!
//! ```text
//! payload   0 newest | 128 buffers, each a stamp and the words of a T, in whole cache lines; 4 to 32 of them
//! ```
//!
//! Who may write: the holder of the one reference of the writer's role, see [`sole`]. It can be sent. When its holder has died, or
//! dropped it, any reader can become the writer.
//! Readers: a reader looks again only if the writer has gone once round while it was copying, so some party always makes headway;
//! with 4 KiB of buffers that takes a reader that was interrupted.
//!
//! Death: a writer that dies between any two steps leaves the value before, or the new one, readable; see `stamped`. A dead reader leaves
//! nothing.

use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::message_of_handle;
use crate::object::Object;
use crate::references::{HandleError, Reference};
use crate::safe::{ShmSafe, layout, mix};
use crate::session::Session;
use crate::sole::{self, NotSole};
use crate::stamped::Ring;
use crate::words;
use mp_sys::atomic::spin;
use mp_sys::deadline::Deadline;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The reading end of a cell: clone it, send it, nest it in messages.
///
/// # Examples
/// ```
/// let (mut writer, latest) = mp_shm::latest::latest([0.0_f64; 3])?;
/// writer.set([1.0, 2.0, 3.0])?;
/// assert_eq!(latest.get(), [1.0, 2.0, 3.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Latest<T: ShmSafe> {
    cell: Cell,
    object: Arc<Object>,
    of: PhantomData<fn() -> T>,
}

/// The writing end of a cell. There is one at a time; it can be sent, which gives it up here.
pub struct LatestWriter<T: ShmSafe> {
    cell: Cell,
    object: Object,
    of: PhantomData<fn(T)>,
}

type Cell = Ring<'static>;

/// Where the buffers begin, in bytes.
const BUFFERS: usize = 128;
/// Bytes of buffers, unless that is less than four or more than 32 of them.
const RING_BYTES: usize = 4096;

/// Words of a buffer: the stamp and the value, in whole cache lines.
const fn stride<T>() -> usize {
    (words::words_of::<T>() + 1).next_multiple_of(8)
}

/// Number of buffers, a power of two.
const fn buffers<T>() -> usize {
    match RING_BYTES / (stride::<T>() * 8) {
        0..=7 => 4,
        8..=15 => 8,
        16..=31 => 16,
        _ => 32,
    }
}

fn layout_of<T: ShmSafe>() -> u64 {
    mix(mix(layout("Latest", size_of::<T>(), align_of::<T>()), T::LAYOUT), buffers::<T>() as u64)
}

fn ring_in<T>(object: &Object) -> Result<Cell, HandleError> {
    let newest = object.at(0).ok_or(HandleError::OtherType)?;
    let words = object.words(BUFFERS, buffers::<T>() * stride::<T>()).ok_or(HandleError::OtherType)?;
    Ring::new(newest, words, stride::<T>()).ok_or(HandleError::OtherType)
}

/// A cell that holds `value`, in the session of this program tree. `T` has at least one byte and no padding.
///
/// # Errors
/// No memory, or no part in the session.
pub fn latest<T: ShmSafe + Copy>(value: T) -> Result<(LatestWriter<T>, Latest<T>), SessionError> {
    latest_in(Session::current()?, value)
}

/// [`latest`] in a given session: only processes attached to it can hold an end.
///
/// # Errors
/// As [`latest`].
pub fn latest_in<T: ShmSafe + Copy>(
    session: Session,
    value: T,
) -> Result<(LatestWriter<T>, Latest<T>), SessionError> {
    const { assert!(size_of::<T>() > 0, "there is nothing in it to share") };
    let len = BUFFERS + buffers::<T>() * stride::<T>() * 8;
    let ends = [Kind::LATEST, Kind::LATEST_WRITER];
    let (object, reference) = Object::create_with_ends(session, ends, layout_of::<T>(), len)?;
    let broken = |_| SessionError::NotASession;
    let cell = ring_in::<T>(&object).map_err(broken)?;
    cell.write(|words| words::store(words, &value));
    let writer = LatestWriter::open(reference).map_err(broken)?;
    Ok((writer, Latest { cell, object: Arc::new(object), of: PhantomData }))
}

impl<T: ShmSafe + Copy> Latest<T> {
    /// The latest value. Two reads never give values in the wrong order.
    #[inline]
    #[must_use]
    pub fn get(&self) -> T {
        loop {
            if let Some((_, value)) = self.cell.try_read(words::load) {
                return value;
            }
            spin();
        }
    }

    /// Becomes the writer, if there is none: it was dropped, or its holder has died.
    ///
    /// # Errors
    /// No memory for the reference.
    pub fn claim_writer(&self) -> Result<Option<LatestWriter<T>>, SessionError> {
        let session = self.reference().session();
        let claimed = session.refer(self.reference(), Kind::LATEST_WRITER, true)?;
        claimed
            .map(|reference| LatestWriter::open(reference).map_err(|_| SessionError::NotASession))
            .transpose()
    }
}

impl<T: ShmSafe> Latest<T> {
    fn open(reference: Reference) -> Result<Self, HandleError> {
        let object = Object::open(reference, layout_of::<T>())?;
        Ok(Self { cell: ring_in::<T>(&object)?, object: Arc::new(object), of: PhantomData })
    }

    /// Names the cell in every process of its session.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.reference().handle()
    }

    fn reference(&self) -> &Reference {
        self.object.reference()
    }
}

impl<T: ShmSafe + Copy> LatestWriter<T> {
    /// Makes `value` the latest. Never waits: neither for readers nor for a lock.
    ///
    /// # Errors
    /// [`NotSole`]: this end was put into a message that still exists, or came out of one whose sender has not dropped its own end yet. After
    /// receiving it, [`wait_sole`](Self::wait_sole) once.
    #[inline]
    pub fn set(&mut self, value: T) -> Result<(), NotSole> {
        sole::check(self.object.reference())?;
        self.cell.write(|words| words::store(words, &value));
        Ok(())
    }
}

impl<T: ShmSafe> LatestWriter<T> {
    fn open(reference: Reference) -> Result<Self, HandleError> {
        let object = Object::open(reference, layout_of::<T>())?;
        Ok(Self { cell: ring_in::<T>(&object)?, object, of: PhantomData })
    }

    /// Waits at most `timeout` until this is the only writing end: after receiving it, until its sender has dropped its own.
    ///
    /// # Errors
    /// [`NotSole`] if it still is not.
    pub fn wait_sole(&mut self, timeout: Duration) -> Result<(), NotSole> {
        sole::wait(self.object.reference(), Some(Deadline::after(timeout)))
    }

    /// A reading end.
    ///
    /// # Errors
    /// No memory for the reference.
    pub fn reader(&self) -> Result<Latest<T>, SessionError> {
        let reference = self.object.reference();
        let reader = reference.session().refer(reference, Kind::LATEST, false)?;
        let reader = reader.ok_or(SessionError::Forked)?;
        Latest::open(reader).map_err(|_| SessionError::NotASession)
    }

    fn reference(&self) -> &Reference {
        self.object.reference()
    }
}

message_of_handle!([T: ShmSafe] Latest<T>, Kind::LATEST, Latest::reference, Latest::open);
message_of_handle!([T: ShmSafe] LatestWriter<T>, Kind::LATEST_WRITER, LatestWriter::reference, LatestWriter::open);

impl<T: ShmSafe> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), ..*self }
    }
}

impl<T: ShmSafe> fmt::Debug for Latest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Latest({})", self.handle())
    }
}

impl<T: ShmSafe> fmt::Debug for LatestWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LatestWriter({})", self.reference().handle())
    }
}
