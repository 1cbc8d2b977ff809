//! Typed values: plain rkyv archives, validated when they arrive.
//!
//! Both ends must be built with the same type and the same rkyv format; what arrives is checked to be *a* valid value of the type,
//! not to have been meant as one.
//!
//! Limits: values nested deeper than 256 pointers are refused, so that no message can exhaust the stack. A sequence of
//! values without bytes (`Vec<()>`) may claim 2^32 of them, which takes time to count: do not receive such types from strangers.

use super::error::{RecvError, SendError};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{self, Strategy};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;
use rkyv::{Archive, Deserialize, Serialize};
use std::num::NonZeroUsize;

/// The deepest nesting of pointers in a value.
const DEPTH_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// A type whose values travel between programs that share nothing: all that rkyv can archive by itself. Implemented for every such type.
///
/// Handles of a session (senders, locks, shared arrays) are none: they mean nothing outside their session.
///
/// ```compile_fail
/// fn plain<T: mp_channel::connection::Plain>() {}
/// plain::<mp_channel::Sender<u32>>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel through a connection between programs",
    label = "not an archive of its own",
    note = "derive rkyv's `Archive`, `Serialize` and `Deserialize`; handles of a session travel through its channels only"
)]
pub trait Plain:
    Archive<
        Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
                      + Deserialize<Self, HighDeserializer<rancor::Error>>,
    > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>
    + Sized
{
}

impl<T> Plain for T where
    T: Archive<
            Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
                          + Deserialize<Self, HighDeserializer<rancor::Error>>,
        > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>
        + Sized
{
}

/// The bytes in which a value travels, for other ways than a connection, or as a part of a message.
///
/// # Errors
/// [`SendError::Encode`].
///
/// # Examples
/// ```
/// use mp_channel::connection::{from_bytes, to_bytes};
///
/// let bytes = to_bytes(&("Ada".to_owned(), 5_u64))?;
/// assert_eq!(from_bytes::<(String, u64)>(&bytes)?, ("Ada".to_owned(), 5));
/// assert!(from_bytes::<(String, u64)>(&bytes[1..]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn to_bytes<T: Plain>(value: &T) -> Result<Vec<u8>, SendError> {
    encode(value).map(AlignedVec::into_vec)
}

/// The value that such bytes are, which are validated and may lie anywhere.
///
/// # Errors
/// [`RecvError::Invalid`].
pub fn from_bytes<T: Plain>(bytes: &[u8]) -> Result<T, RecvError> {
    decode(bytes)
}

pub(super) fn encode<T: Plain>(value: &T) -> Result<AlignedVec, SendError> {
    rkyv::to_bytes::<rancor::Error>(value).map_err(|error| SendError::Encode(error.to_string()))
}

/// Validates a message and makes the value from it. It is copied to where archives may lie.
pub(super) fn decode<T: Plain>(message: &[u8]) -> Result<T, RecvError> {
    let invalid = |error: rancor::Error| RecvError::Invalid(error.to_string());
    let mut aligned = AlignedVec::<16>::with_capacity(message.len());
    aligned.extend_from_slice(message);
    let archive = ArchiveValidator::with_max_depth(&aligned, Some(DEPTH_MAX));
    let mut validator = Validator::new(archive, SharedValidator::new());
    let archived = rkyv::api::access_with_context::<T::Archived, _, rancor::Error>(&aligned, &mut validator)
        .map_err(invalid)?;
    let mut pool = rkyv::de::Pool::new();
    archived.deserialize(Strategy::wrap(&mut pool)).map_err(invalid)
}
