//! Handles: what names an object of a session, in any process that is attached to it.

use std::fmt;

/// What an object or an endpoint of one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u16);

impl Kind {
    /// A free block.
    pub const FREE: Self = Self(0);
    /// A block in some process's private cache.
    pub const CACHED: Self = Self(1);
    /// A message: an archive and the handles attached to it.
    pub const MESSAGE: Self = Self(2);
    /// Part of a process's ledger of references.
    pub const LEDGER: Self = Self(3);
    /// The record of a started process: its job and what came of it.
    pub const JOB: Self = Self(4);
    /// A channel.
    pub const CHANNEL: Self = Self(16);
    /// A value in shared memory: see [`Shared`](crate::Shared).
    pub const VALUE: Self = Self(32);
    /// An array in shared memory.
    pub const ARRAY: Self = Self(33);
    /// A list in shared memory.
    pub const LIST: Self = Self(34);
    /// A frozen archive.
    pub const FROZEN: Self = Self(35);
    /// A cell with the latest value of one writer.
    pub const LATEST: Self = Self(36);
    /// What makes a part of an array somebody's own: see [`Part`](crate::parts::Part).
    pub const PART: Self = Self(37);
    /// A channel whose memory is not trusted.
    pub const UNTRUSTED: Self = Self(45);
    /// The sending end of a channel whose memory is not trusted; role 0.
    pub const UNTRUSTED_SENDER: Self = Self(46);
    /// The receiving end of a channel whose memory is not trusted; role 1.
    pub const UNTRUSTED_RECEIVER: Self = Self(47);
    /// A channel whose receivers all see every message.
    pub const BUS: Self = Self(42);
    /// The sending end of a bus; role 0.
    pub const BUS_SENDER: Self = Self(43);
    /// The receiving end of a bus; role 1.
    pub const BUS_RECEIVER: Self = Self(44);
    /// A count of tickets; role 0.
    pub const TICKETS: Self = Self(40);
    /// A ticket; role 1.
    pub const TICKET: Self = Self(41);
    /// A file descriptor, held by the session's broker: see [`Fd`](crate::Fd).
    pub const FD: Self = Self(38);
    /// The writing end of a cell with the latest value; role 1.
    pub const LATEST_WRITER: Self = Self(48);
    /// A channel with one sender and one receiver.
    pub const LANE: Self = Self(19);
    /// The only sending end of a channel; role 0.
    pub const LANE_SENDER: Self = Self(20);
    /// The only receiving end of a channel; role 1.
    pub const LANE_RECEIVER: Self = Self(21);
    /// The sending end of a channel; role 0.
    pub const SENDER: Self = Self(17);
    /// The receiving end of a channel; role 1.
    pub const RECEIVER: Self = Self(18);

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

    #[test]
    fn a_handle_is_16_bytes_and_survives_its_words() {
        assert_eq!(size_of::<Handle>(), 16);
        let handle = Handle { session: 65535, kind: 17, generation: u32::MAX, offset: u64::MAX };
        assert_eq!(Handle::from_words(handle.to_words()), handle);
    }
}
