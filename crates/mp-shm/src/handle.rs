//! Handles: what names an object of a session, in any process that is attached to it.

use std::fmt;

/// What an object or an endpoint of one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u16);

/// The kinds, each with its number and what people call it.
macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident = $number:literal, $name:literal;)*) => {
        impl Kind {
            $($(#[$meta])* pub const $kind: Self = Self($number);)*

            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$kind),*];

            /// What people call it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                    _ => "unknown",
                }
            }
        }
    };
}

kinds! {
    // Blocks that are no objects.
    /// A free block.
    FREE = 0, "free";
    /// A block in some process's private cache.
    CACHED = 1, "cached";
    /// A message: an archive and the handles attached to it.
    MESSAGE = 2, "message";
    /// Part of a process's ledger of references.
    LEDGER = 3, "ledger";
    /// The record of a started process: its job and what came of it.
    JOB = 4, "job";

    // Channels and their ends.
    /// A channel.
    CHANNEL = 16, "channel";
    /// The sending end of a channel; role 0.
    SENDER = 17, "sender";
    /// The receiving end of a channel; role 1.
    RECEIVER = 18, "receiver";
    /// A channel with one sender and one receiver.
    LANE = 19, "lane";
    /// The only sending end of a channel; role 0.
    LANE_SENDER = 20, "lane sender";
    /// The only receiving end of a channel; role 1.
    LANE_RECEIVER = 21, "lane receiver";

    // Plain memory, as `is_memory` tells it by the numbers.
    /// A value in shared memory: see [`Shared`](crate::Shared).
    VALUE = 32, "value";
    /// An array in shared memory.
    ARRAY = 33, "array";
    /// A list in shared memory.
    LIST = 34, "list";
    /// A frozen archive.
    FROZEN = 35, "frozen";
    /// A cell with the latest value of one writer.
    LATEST = 36, "latest";
    /// What makes a part of an array somebody's own: see [`Part`](crate::parts::Part).
    PART = 37, "part";
    /// A file descriptor, held by the session's broker: see [`Fd`](crate::Fd).
    FD = 38, "descriptor";

    // Further objects and their ends.
    /// A count of tickets; role 0.
    TICKETS = 40, "tickets";
    /// A ticket; role 1.
    TICKET = 41, "ticket";
    /// A channel whose receivers all see every message.
    BUS = 42, "broadcast";
    /// The sending end of a bus; role 0.
    BUS_SENDER = 43, "broadcast sender";
    /// The receiving end of a bus; role 1.
    BUS_RECEIVER = 44, "broadcast receiver";
    /// A channel whose memory is not trusted.
    UNTRUSTED = 45, "untrusted channel";
    /// The sending end of a channel whose memory is not trusted; role 0.
    UNTRUSTED_SENDER = 46, "untrusted sender";
    /// The receiving end of a channel whose memory is not trusted; role 1.
    UNTRUSTED_RECEIVER = 47, "untrusted receiver";
    /// The writing end of a cell with the latest value; role 1.
    LATEST_WRITER = 48, "latest writer";
}

impl Kind {
    /// For an endpoint: the kind of its object, and which of the object's two counts it belongs to.
    #[must_use]
    pub fn endpoint(self) -> Option<(Self, usize)> {
        match self {
            Self::SENDER => Some((Self::CHANNEL, 0)),
            Self::RECEIVER => Some((Self::CHANNEL, 1)),
            Self::LANE_SENDER => Some((Self::LANE, 0)),
            Self::LANE_RECEIVER => Some((Self::LANE, 1)),
            Self::LATEST_WRITER => Some((Self::LATEST, 1)),
            Self::BUS_SENDER => Some((Self::BUS, 0)),
            Self::BUS_RECEIVER => Some((Self::BUS, 1)),
            Self::UNTRUSTED_SENDER => Some((Self::UNTRUSTED, 0)),
            Self::UNTRUSTED_RECEIVER => Some((Self::UNTRUSTED, 1)),
            Self::TICKETS => Some((Self::TICKETS, 0)),
            Self::TICKET => Some((Self::TICKETS, 1)),
            plain if plain.is_memory() => Some((plain, 0)),
            _ => None,
        }
    }

    /// Whether an object of this kind has an end that only one may hold, in this role. Who waits to be the only one sleeps on its count.
    pub(crate) fn is_sole(self, role: usize) -> bool {
        matches!((self, role), (Self::PART, 0) | (Self::LATEST, 1) | (Self::LANE, 0 | 1))
    }

    /// Whether the object is plain memory: no slots, nothing in it that recovery must know of.
    #[must_use]
    pub fn is_memory(self) -> bool {
        (Self::VALUE.0..=Self::FD.0).contains(&self.0)
    }
}

/// Names an endpoint of an object: 16 bytes, meaningful in every process attached to the session, no file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Handle {
    /// The session's number.
    pub session: u16,
    /// What it is an end of.
    pub kind: u16,
    /// Distinguishes the object from others that lived at the same place.
    pub generation: u32,
    /// Where the object's block is, in bytes from the start of the session.
    pub offset: u64,
}

impl Handle {
    pub(crate) fn to_words(self) -> [u64; 2] {
        let high = u64::from(self.session) | u64::from(self.kind) << 16 | u64::from(self.generation) << 32;
        [high, self.offset]
    }

    pub(crate) fn from_words([high, offset]: [u64; 2]) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "taking the fields of the word apart")]
        let (session, kind, generation) = (high as u16, (high >> 16) as u16, (high >> 32) as u32);
        Self { session, kind, generation, offset }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{:#x}", self.session, self.kind, self.generation, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_a_number_and_a_name_of_its_own() {
        assert!(Kind::ALL.is_sorted_by(|one, next| one.0 < next.0), "in the order of their numbers");
        let names: HashSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(!names.contains(Kind(u16::MAX).name()), "none is called unknown");
    }

    #[test]
    fn a_handle_is_16_bytes_and_survives_its_words() {
        assert_eq!(size_of::<Handle>(), 16);
        let handle = Handle { session: 65535, kind: 17, generation: u32::MAX, offset: u64::MAX };
        assert_eq!(Handle::from_words(handle.to_words()), handle);
    }
}
