//! A handle of whatever kind: [`AnyHandle`], for tables of things that are found by name, say.
//!
//! Owns: a reference of its own to the end that it was made of. So it counts as one more holder of that end, and the object lives as long
//! as it does, in a process or in a message.
//!
//! Who may touch it: it gives no access to the object. [`open`](AnyHandle::open) compares the kind, then the type's own check the hash of the
//! type that the object was made with; only then is there a handle that can be used.
//!
//! Death: the reference is counted and taken back like every other. A process that holds one may never have seen an object of the kind; if
//! its reference is the last, it tells all sleepers by the death epoch, and leaves what it cannot look into to one who can (`references`).

#[cfg(feature = "serde")]
use crate::codec::inside::{ANY_KIND, InMessage, OutOfMessage};
use crate::codec::{ArchivedHandle, Attach, Detach};
use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::published::Publishable;
use crate::references::{HandleError, Reference};
use crate::session::Session;
use rkyv::munge::munge;
use rkyv::{Archive, Deserialize, Place, Serialize};
use std::fmt;
use std::sync::Arc;

/// A handle without its type: an end of a channel, shared memory, a frozen archive, a descriptor. Clone it, send it, nest it in messages, and
/// [open](Self::open) it where its type is known.
///
/// It holds the end it was made of like another clone of it: one of a sender keeps its channel connected. An end that only one may use, of an
/// `spsc` channel or a [`LatestWriter`](crate::LatestWriter), cannot be used while there is an `AnyHandle` of it beside: to hand it on, make
/// one, drop the end, send the `AnyHandle`; who has opened it drops the `AnyHandle` first.
///
/// # Examples
/// ```
/// use mp_shm::{AnyHandle, List, Shared};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// let count = Shared::<AtomicU64>::zeroed()?;
/// let any = AnyHandle::of(&count)?;
/// any.open::<Shared<AtomicU64>>()?.store(7, Ordering::Relaxed);
/// assert_eq!(count.load(Ordering::Relaxed), 7);
/// assert!(any.open::<List>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AnyHandle(Arc<Reference>);

impl AnyHandle {
    /// A further holder of what `handle` is a handle of.
    ///
    /// # Errors
    /// No memory for the reference, or `handle` belongs to the process that this one was forked from.
    pub fn of(handle: &impl Publishable) -> Result<Self, SessionError> {
        let reference = handle.published_reference();
        let further = reference.session().refer_to(reference, Kind(reference.handle().kind))?;
        Ok(Self(Arc::new(further)))
    }

    /// A handle of this type, beside this one.
    ///
    /// # Errors
    /// [`HandleError::OtherType`] if it is of another kind or type; [`HandleError::Stale`] if there is no memory for the reference, or this
    /// is of the process that this one was forked from. Nothing is changed then.
    pub fn open<T: Publishable>(&self) -> Result<T, HandleError> {
        let kind = self.kind();
        if kind != T::KIND {
            return Err(HandleError::OtherType);
        }
        let further = self.session().refer_to(&self.0, kind).map_err(|_| HandleError::Stale)?;
        T::of_published(further)
    }

    /// What it is a handle of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind(self.handle().kind)
    }

    /// Names the end in every process of its session.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.0.handle()
    }

    /// The session of the object.
    #[must_use]
    pub fn session(&self) -> Session {
        self.0.session()
    }
}

impl Archive for AnyHandle {
    type Archived = ArchivedHandle;
    type Resolver = u32;

    fn resolve(&self, index: u32, out: Place<ArchivedHandle>) {
        munge!(let ArchivedHandle { index: place } = out);
        index.resolve((), place);
    }
}

impl<S: Attach + ?Sized> Serialize<S> for AnyHandle {
    fn serialize(&self, serializer: &mut S) -> Result<u32, S::Error> {
        serializer.attach(&self.0)
    }
}

impl<D: Detach + ?Sized> Deserialize<AnyHandle, D> for ArchivedHandle {
    fn deserialize(&self, deserializer: &mut D) -> Result<AnyHandle, D::Error> {
        let reference = deserializer.detach_any(self.index.to_native())?;
        Ok(AnyHandle(Arc::new(reference)))
    }
}

crate::if_serde! {
    impl serde::Serialize for AnyHandle {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serde::Serialize::serialize(&InMessage(&self.0), serializer)
        }
    }

    impl<'de> serde::Deserialize<'de> for AnyHandle {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let OutOfMessage::<ANY_KIND>(reference) = serde::Deserialize::deserialize(deserializer)?;
            Ok(Self(Arc::new(reference)))
        }
    }
}

impl fmt::Debug for AnyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyHandle({})", self.handle())
    }
}
