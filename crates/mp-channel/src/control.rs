//! What the ends of a channel share besides its slots, and what they know of the world.

use mp_shm::death::Domain;
use mp_sync::notify::Notify;
use mp_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use mp_sys::barrier;
use mp_sys::futex::{self, Watch};

/// A value alone on its cache line, and a line away from the next: processors fetch them in pairs.
#[repr(C, align(64))]
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
pub struct Line<T>(pub T, Gap);

#[repr(C, align(64))]
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
struct Gap([u8; 64]);

impl<T> Line<T> {
    fn new(value: T) -> Self {
        Self(value, Gap([0; 64]))
    }
}

/// The shared words of a ring, besides its slots.
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
pub struct Control {
    /// Where the next message goes; a hint.
    pub(crate) tail: Line<AtomicU64>,
    /// Where the next message is taken; a hint.
    pub(crate) head: Line<AtomicU64>,
    /// Receivers sleep here.
    pub not_empty: Line<Notify>,
    /// Senders sleep here.
    pub not_full: Line<Notify>,
    /// Counts how often an end lost its last holder.
    pub closed: Line<AtomicU32>,
}

impl Control {
    /// A ring that starts at `start`, a position of index 0. Its slots must be [`first_word`](crate::stamp::first_word)s.
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self {
            tail: Line::new(AtomicU64::new(start)),
            head: Line::new(AtomicU64::new(start)),
            not_empty: Line::new(Notify::new()),
            not_full: Line::new(Notify::new()),
            closed: Line::new(AtomicU32::new(0)),
        }
    }

    /// Tells all who wait that one side is gone, after its count of holders was seen to be 0.
    pub fn close<D: Domain + ?Sized>(&self, domain: &D) {
        self.closed.0.fetch_add(1, Ordering::AcqRel);
        futex::wake_all(&self.closed.0);
        // CLOSED: pairs with the heavy half of who armed a bell and then looked at the counts.
        barrier::light();
        self.not_empty.0.ring(domain);
        self.not_full.0.ring(domain);
    }

    /// Hints and bells; what sleepers sleep on are halves of words, and only ever make them look.
    #[cfg(not(loom))]
    pub(crate) fn words(&self) -> [&AtomicU64; 4] {
        [&self.tail.0, &self.head.0, self.not_empty.0.bells(), self.not_full.0.bells()]
    }
}

/// What a ring needs to know of the world around it.
pub trait World: Domain {
    /// The calling thread's id in the session, not 0.
    fn me(&self) -> u16;
    /// The sentinel of a thread and its value while it lives; `None` if the thread is dead.
    fn sentinel(&self, thread: u16) -> Option<Watch<'_>>;
    /// How many hold the sending end.
    fn senders(&self) -> u32;
    /// How many hold the receiving end.
    fn receivers(&self) -> u32;
}

/// Why nothing was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Patience ended: the ring is full for a sender, empty for a receiver.
    Waiting,
    /// Nobody holds the other end, and (for a receiver) no message is left.
    Disconnected,
    /// The word that this operation watches has changed.
    Interrupted,
    /// The ring is sealed, and there is another one.
    Sealed,
    /// A word of the ring has a value that no operation gives it: somebody wrote where he must not.
    Corrupt,
}
