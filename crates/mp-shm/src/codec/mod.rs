//! The message codec: any type that rkyv can archive becomes bytes in the session, with handles attached.
//!
//! ```text
//! encode                                          decode
//! value ─ Encoder ─ scratch (≤ 4 KiB, private)    Payload::Inline (copied out) ─┐ validate, then
//!              └─── block (when it grows)         Payload::Block (in place) ────┴ Decoder ─ value
//! ```
//!
//! A message is one rkyv archive with its root at the end. Handles inside it are archived as indexes into the attachment list
//! that follows the archive in its block, so a message with handles always has a block. Encoding runs user code and
//! therefore happens before any slot is claimed.
//!
//! Two ways lead around rkyv's serializer. `loan` has an archive that the caller writes himself: a `Vec` of plain elements, built in the block
//! that will be sent. `serde` makes a message of any type that serde knows: its bytes in another format are the archive, and `inside` tells the
//! handles in it which message they are in.
//!
//! Encoder and decoder are this crate's own types without lifetimes, so a bound on a message is one plain trait. Handles can be
//! serialised by nothing else: rkyv's `Serialize` of an endpoint asks for [`Attach`], which only [`Encoder`] has; serde's looks for
//! an encoder that is at work.

mod decode;
mod encode;
mod error;
mod handles;
#[cfg(feature = "serde")]
#[doc(hidden)]
pub mod inside;
mod loan;
#[cfg(feature = "serde")]
mod serde;

#[doc(hidden)]
pub use decode::Taking;
pub use decode::{Decoder, Detach, INLINE_MAX, Inline, Payload, decode_inline, is_own_archive, validate};
pub use encode::{Attach, Encoded, Encoder, encode};
pub use error::{DecodeError, EncodeError};
pub use handles::{ArchivedHandle, ArchivedPair};
pub use loan::{Element, ROOT_BYTES, Room};
#[cfg(feature = "serde")]
pub use serde::{Serde, SerdeResolver};

use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};

/// What can be sent: every type that rkyv can archive, validate and rebuild. Nothing is implemented by hand:
/// derive `rkyv::{Archive, Serialize, Deserialize}`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to another process",
    label = "not a message",
    note = "derive `rkyv::Archive`, `rkyv::Serialize` and `rkyv::Deserialize` for it; references cannot be sent"
)]
pub trait Message:
    Archive<Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<Self, Decoder>>
    + Serialize<Encoder>
    + Sized
{
}

impl<T> Message for T
where
    T: Archive + Serialize<Encoder>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, Decoder>,
{
}
