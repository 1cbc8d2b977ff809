//! Shared memory for multiproc: sessions, participants, handles, blocks and the message codec.
//!
//! One sealed, sparse memory file per program tree, the [`Session`], holds all that its processes share. What
//! a process holds in it is recorded so that its death, at any instruction, leaves nothing behind: see the heads of
//! `recover`, [`references`], [`block`] and [`participants`].
//!
//! What lies in it for users, each behind a handle that can be cloned and sent in messages:
//!
//! | to share | use | changed by |
//! |---|---|---|
//! | a struct of atomics and locks | [`Shared`] | its own means |
//! | at most 8 bytes | [`Value`] | everybody, atomically |
//! | a slice of plain elements | [`Array`] | everybody, one element at a time |
//! | parts of a slice as `&mut` | [`ArrayMut`], [`Part`] | the one holder of each part |
//! | a few strings, numbers, bytes | [`List`] | everybody, one item at a time |
//! | the newest of a row of values | [`Latest`], [`LatestWriter`] | one writer, who never waits |
//! | any message, read in place | [`Frozen`], [`SealedFrozen`] | nobody |
//! | a file descriptor | [`Fd`] | nobody; each who opens it gets a duplicate |
//! | any of these, and ends of channels | [`AnyHandle`] | nobody; who knows the type opens it |
//!
//! A handle that can be cloned gives no reference to what others may change.
//!
//! A [`Segment`] is found by its name, a [`RawSegment`] also by programs in other languages, a [`FileSegment`] is a file of the user's own;
//! each has a domain of its own, so that locks in it survive their owners. A [`MemoryHandle`] of one, or of a [`SealedFrozen`], travels
//! in messages.
//!
//! Limits: 4095 processes, 65535 threads, 64 program files and 64 GiB a session; 8 sessions a process.

// The derive macro names this crate by its own name.
#[cfg(not(loom))]
extern crate self as mp_shm;

pub mod death;
pub mod lock;
pub mod stamped;

#[cfg(not(loom))]
pub mod any;
#[cfg(not(loom))]
pub mod array;
#[cfg(not(loom))]
pub mod audit;
#[cfg(not(loom))]
pub mod block;
#[cfg(not(loom))]
pub mod codec;
#[cfg(not(loom))]
pub mod commit;
#[cfg(not(loom))]
pub mod deliver;
#[cfg(not(loom))]
mod domain;
#[cfg(not(loom))]
pub mod error;
#[cfg(not(loom))]
pub mod fds;
#[cfg(not(loom))]
pub mod file_segment;
#[cfg(not(loom))]
pub mod frozen;
#[cfg(not(loom))]
pub mod handed;
#[cfg(not(loom))]
pub mod handle;
#[cfg(not(loom))]
mod ids;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
mod item;
#[cfg(not(loom))]
pub mod kinds;
#[cfg(not(loom))]
pub mod latest;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
mod lead;
#[cfg(not(loom))]
pub mod list;
#[cfg(not(loom))]
pub mod listener;
#[cfg(not(loom))]
pub mod names;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
pub mod participants;
#[cfg(not(loom))]
pub mod parts;
#[cfg(not(loom))]
pub mod place;
#[cfg(not(loom))]
mod placed;
#[cfg(not(loom))]
pub mod program;
#[cfg(not(loom))]
pub mod published;
#[cfg(not(loom))]
pub mod raw;
#[cfg(not(loom))]
mod recover;
#[cfg(not(loom))]
pub mod references;
#[cfg(not(loom))]
pub mod safe;
#[cfg(not(loom))]
pub mod sealed;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod session;
#[cfg(not(loom))]
pub mod shared;
#[cfg(not(loom))]
pub mod sole;
#[cfg(not(loom))]
pub mod starts;
#[cfg(not(loom))]
pub mod tickets;
#[cfg(not(loom))]
pub mod value;
#[cfg(not(loom))]
mod words;

#[cfg(not(loom))]
pub use any::AnyHandle;
#[cfg(not(loom))]
pub use array::Array;
#[cfg(not(loom))]
pub use codec::Message;
#[cfg(not(loom))]
pub use fds::Fd;
#[cfg(not(loom))]
pub use file_segment::FileSegment;
#[cfg(not(loom))]
pub use frozen::Frozen;
#[cfg(not(loom))]
pub use handed::MemoryHandle;
#[cfg(not(loom))]
pub use item::Item;
#[cfg(not(loom))]
pub use latest::{Latest, LatestWriter};
#[cfg(not(loom))]
pub use list::List;
#[cfg(not(loom))]
pub use mp_derive::ShmSafe;
#[cfg(not(loom))]
pub use parts::{ArrayMut, Part, Split};
#[cfg(not(loom))]
pub use raw::RawSegment;
#[cfg(not(loom))]
pub use rkyv;
#[cfg(not(loom))]
pub use safe::ShmSafe;
#[cfg(not(loom))]
pub use sealed::SealedFrozen;
#[cfg(not(loom))]
pub use segment::Segment;
/// For this library's macros.
#[cfg(all(not(loom), feature = "serde"))]
#[doc(hidden)]
pub use serde;
#[cfg(not(loom))]
pub use session::Session;
#[cfg(not(loom))]
pub use shared::Shared;
#[cfg(not(loom))]
pub use value::Value;
