//! Names in a session: how a program that has just attached finds its first object.
//!
//! Owns: a table of 256 names in the session's file, each with a handle and the reference that keeps its object.
//!
//! ```text
//! entry    event                                         to       who
//! free     publish: name and handle are written, then    used     holder of the lock
//!          `used`; then the object's count goes up
//! used     unpublish: `used` is cleared; then the count  free     holder of the lock
//!          goes down
//! used     the object is gone (a corrupt table)          free     recovery
//! ```
//!
//! A name belongs to the session, not to who published it: it outlives that process.
//! Death: everything happens under the domain's lock, so a death between entry and count is followed by a recovery, which counts
//! again and counts the names that are `used`.

use crate::ShmSafe;
use crate::domain::Locked;
use crate::handle::{Handle, Kind};
use crate::layout::{PUBLISHED, PUBLISHED_MAX};
use crate::references::{HandleError, Reference};
use crate::session::Session;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Longest name in bytes.
pub const NAME_BYTES_MAX: usize = 48;

/// A name and what it stands for.
#[repr(C, align(128))]
#[derive(ShmSafe, Debug)]
pub struct PublishedEntry {
    pub(crate) used: AtomicU32,
    pub(crate) len: AtomicU32,
    pub(crate) handle: [AtomicU64; 2],
    pub(crate) name: [AtomicU8; NAME_BYTES_MAX],
}

/// A handle that can be published under a name: [`Shared`](crate::Shared), the ends of channels.
///
/// Not for implementing outside of this library.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be published under a name",
    note = "handles can: `Shared<T>`, the ends of channels; not those of two things at once"
)]
pub trait Publishable: Sized {
    /// What it is a handle of.
    #[doc(hidden)]
    const KIND: Kind;

    /// What it holds.
    #[doc(hidden)]
    fn published_reference(&self) -> &Reference;

    /// A further handle.
    #[doc(hidden)]
    fn of_published(reference: Reference) -> Result<Self, HandleError>;
}

/// A name could not be published, found or taken back.
#[derive(Debug)]
pub enum PublishError {
    /// A name has 1 to 48 bytes.
    BadName,
    /// Another object has the name.
    InUse,
    /// There is no such name.
    NotFound,
    /// The session has no room for another name.
    Full,
    /// The handle is of another session, or the object is of another kind or type.
    Handle(HandleError),
    /// The session cannot be used.
    Session(crate::error::SessionError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName => write!(f, "a published name has 1 to {NAME_BYTES_MAX} bytes"),
            Self::InUse => f.write_str("publishing a handle: another has that name"),
            Self::NotFound => f.write_str("looking for a published handle: there is none of that name"),
            Self::Full => write!(f, "publishing a handle: the session has {PUBLISHED_MAX} names already"),
            Self::Handle(error) => write!(f, "using a published handle: {error}"),
            Self::Session(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Handle(error) => Some(error),
            Self::Session(error) => Some(error),
            _ => None,
        }
    }
}

impl PublishedEntry {
    pub(crate) fn name(&self) -> Vec<u8> {
        let len = usize::try_from(self.len.load(Ordering::Relaxed)).unwrap_or(0).min(NAME_BYTES_MAX);
        self.name[..len].iter().map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle::from_words([self.handle[0].load(Ordering::Relaxed), self.handle[1].load(Ordering::Relaxed)])
    }
}

impl Session {
    /// Publishes a handle under a name, for [`lookup`](Self::lookup) in any process of the session. The name holds on to the object, like a
    /// handle, until it is taken back by [`unpublish`](Self::unpublish): a published sender keeps its channel connected.
    ///
    /// # Errors
    /// [`PublishError::InUse`], [`PublishError::BadName`], [`PublishError::Full`]; a handle of another session; no memory.
    ///
    /// # Examples
    /// ```
    /// use mp_shm::{Session, Shared};
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// let session = Session::current()?;
    /// let board = Shared::<AtomicU64>::zeroed()?;
    /// session.publish("board", &board)?;
    /// session.lookup::<Shared<AtomicU64>>("board")?.store(7, Ordering::Relaxed);
    /// assert_eq!(board.load(Ordering::Relaxed), 7);
    /// session.unpublish("board")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish<H: Publishable>(self, name: &str, handle: &H) -> Result<(), PublishError> {
        check(name)?;
        self.me().map_err(PublishError::Session)?;
        let handle = handle.published_reference().handle();
        if handle.session != self.number() {
            let (handle, message) = (handle.session, self.number());
            return Err(PublishError::Handle(HandleError::OtherSession { handle, message }));
        }
        let locked = self.lock();
        if locked.published(name).is_some() {
            return Err(PublishError::InUse);
        }
        let (object, role) = self.object_of(handle).ok_or(PublishError::Handle(HandleError::Stale))?;
        let entry = locked.free_name()?;
        for (place, word) in entry.handle.iter().zip(handle.to_words()) {
            place.store(word, Ordering::Relaxed);
        }
        for (place, byte) in entry.name.iter().zip(name.bytes()) {
            place.store(byte, Ordering::Relaxed);
        }
        entry.len.store(u32::try_from(name.len()).unwrap_or(0), Ordering::Relaxed);
        mp_sys::crash::point("published.written");
        entry.used.store(1, Ordering::Relaxed);
        mp_sys::crash::point("published.used");
        object.counts[role].fetch_add(1, Ordering::Relaxed);
        mp_sys::crash::point("published.counted");
        Ok(())
    }

    /// A further handle of what is published under `name`.
    ///
    /// # Errors
    /// [`PublishError::NotFound`]; [`PublishError::Handle`] if the object is of another kind or type; no memory.
    pub fn lookup<H: Publishable>(self, name: &str) -> Result<H, PublishError> {
        check(name)?;
        let reference = self.take_reference(|locked| {
            let handle = locked.published(name).ok_or(PublishError::NotFound)?.handle();
            if handle.kind == H::KIND.0 {
                Ok(handle)
            } else {
                Err(PublishError::Handle(HandleError::OtherType))
            }
        })?;
        H::of_published(reference).map_err(PublishError::Handle)
    }

    /// Takes a name back, whoever published it. The object goes away with its last handle.
    ///
    /// # Errors
    /// [`PublishError::NotFound`].
    pub fn unpublish(self, name: &str) -> Result<(), PublishError> {
        check(name)?;
        self.me().map_err(PublishError::Session)?;
        let mut locked = self.lock();
        let entry = locked.published(name).ok_or(PublishError::NotFound)?;
        let handle = entry.handle();
        entry.used.store(0, Ordering::Relaxed);
        mp_sys::crash::point("published.cleared");
        if let Some((_, role)) = self.object_of(handle) {
            locked.release(vec![(handle.offset, role)]);
        }
        Ok(())
    }

    fn published_entry(self, number: u32) -> Option<&'static PublishedEntry> {
        self.at(PUBLISHED + u64::from(number) * size_of::<PublishedEntry>() as u64)
    }
}

impl Locked {
    /// The entries of the table that were ever used.
    fn names(&self) -> impl Iterator<Item = &'static PublishedEntry> {
        let high = self.header.published_high.load(Ordering::Relaxed).min(PUBLISHED_MAX);
        let session = self.session;
        (0..high).filter_map(move |number| session.published_entry(number))
    }

    fn published(&self, name: &str) -> Option<&'static PublishedEntry> {
        self.names().find(|entry| entry.used.load(Ordering::Relaxed) != 0 && entry.name() == name.as_bytes())
    }

    fn free_name(&self) -> Result<&'static PublishedEntry, PublishError> {
        if let Some(entry) = self.names().find(|entry| entry.used.load(Ordering::Relaxed) == 0) {
            return Ok(entry);
        }
        let number = self.header.published_high.load(Ordering::Relaxed);
        if number >= PUBLISHED_MAX {
            return Err(PublishError::Full);
        }
        let size = size_of::<PublishedEntry>() as u64;
        self.commit_table(PUBLISHED + u64::from(number) * size, size).map_err(PublishError::Session)?;
        let entry = self.session.published_entry(number).ok_or(PublishError::Full)?;
        self.header.published_high.store(number + 1, Ordering::Relaxed);
        Ok(entry)
    }

    /// Calls `visit` with the object and role of every name; a name whose object is gone is taken out.
    pub(crate) fn for_each_name(&self, visit: &mut dyn FnMut(u64, usize)) {
        for entry in self.names().filter(|entry| entry.used.load(Ordering::Relaxed) != 0) {
            match self.session.object_of(entry.handle()) {
                Some((_, role)) => visit(entry.handle().offset, role),
                None => entry.used.store(0, Ordering::Relaxed),
            }
        }
    }
}

fn check(name: &str) -> Result<(), PublishError> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) { Ok(()) } else { Err(PublishError::BadName) }
}
