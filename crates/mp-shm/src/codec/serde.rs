//! Any type that serde knows as a message.
//!
//! The value travels as the bytes of postcard, a compact format of serde's data model, in an ordinary archive: encoded once more, and not read
//! in place; so derive rkyv's traits where you can. Handles in it are attached to the message like all others: see [`inside`](super::inside).

use super::{Attach, Detach, inside};
use rkyv::rancor::Source;
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Deserialize, Place, Serialize};
use serde::de::DeserializeOwned;
use std::ops::{Deref, DerefMut};

/// Makes a message of a type that implements serde's traits and not rkyv's.
///
/// Handles can be in it, at any depth: ends of channels, shared memory, descriptors. They implement serde's traits for that alone; serialised by
/// anything else they give an error.
///
/// # Examples
/// ```
/// use mp_shm::Shared;
/// use mp_shm::codec::Serde;
/// use std::sync::atomic::AtomicU64;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Foreign {
///     name: String,
///     count: Option<Shared<AtomicU64>>,
/// }
///
/// fn is_message<T: mp_shm::Message>(_: &T) {}
///
/// is_message(&Serde(Foreign { name: "Ada".to_owned(), count: Some(Shared::zeroed()?) }));
/// # Ok::<(), mp_shm::error::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serde<T>(pub T);

impl<T> Serde<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Serde<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Serde<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Where the bytes are in the archive.
pub struct SerdeResolver {
    bytes: VecResolver,
    len: usize,
}

impl std::fmt::Debug for SerdeResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerdeResolver").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T> Archive for Serde<T> {
    type Archived = ArchivedVec<u8>;
    type Resolver = SerdeResolver;

    fn resolve(&self, resolver: SerdeResolver, out: Place<ArchivedVec<u8>>) {
        ArchivedVec::resolve_from_len(resolver.len, resolver.bytes, out);
    }
}

impl<T, S> Serialize<S> for Serde<T>
where
    T: serde::Serialize,
    S: Attach<Error: Source> + Allocator + Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<SerdeResolver, S::Error> {
        let (bytes, handles) = inside::encoding(serializer.next_index(), || postcard::to_allocvec(&self.0));
        let bytes = bytes.map_err(S::Error::new)?;
        for handle in handles {
            serializer.attach_handle(handle)?;
        }
        let resolver = ArchivedVec::<u8>::serialize_from_slice(&bytes, serializer)?;
        Ok(SerdeResolver { bytes: resolver, len: bytes.len() })
    }
}

impl<T, D> Deserialize<Serde<T>, D> for ArchivedVec<u8>
where
    T: DeserializeOwned,
    D: Detach<Error: Source> + ?Sized,
{
    fn deserialize(&self, deserializer: &mut D) -> Result<Serde<T>, D::Error> {
        let (value, taking) = inside::decoding(deserializer.lend(), || postcard::from_bytes(self.as_slice()));
        deserializer.give_back(taking);
        value.map(Serde).map_err(D::Error::new)
    }
}
