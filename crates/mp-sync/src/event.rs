//! An event between processes.

#![expect(unsafe_code, reason = "the markers of memory that is shared")]

use crate::error::Failure;
use crate::here::Here;
use crate::macros::shared_primitive;
use crate::patience::Patience;
use crate::raw::RawEvent;
use crate::waitable::{Armed, Waitable};
use mp_shm::Shared;
use mp_shm::error::SessionError;
use mp_shm::place::WaitKind;
use std::fmt;
use std::time::{Duration, Instant};

/// A flag that can be set, cleared, and waited for, between processes. Where it can live: as [`Mutex`](crate::Mutex); all bytes zero is
/// an event that is not set.
///
/// Who waits when it is set goes on, also if it is cleared at once.
///
/// # Examples
/// ```
/// let ready = mp_sync::Event::shared()?;
/// assert!(!ready.is_set());
/// ready.set();
/// ready.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[repr(C)]
pub struct Event {
    raw: RawEvent,
}

shared_primitive!([] Event, "Event", raw: RawEvent);

impl Event {
    /// An event that is not set, in the session of this program tree, behind a handle that can be sent.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn shared() -> Result<Shared<Self>, SessionError> {
        Shared::zeroed()
    }

    /// Sets the event; all who wait go on.
    pub fn set(&self) {
        self.raw.set();
    }

    /// Clears the event.
    pub fn clear(&self) {
        self.raw.clear();
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.raw.is_set()
    }

    /// Waits until it is set, as long as it takes.
    ///
    /// # Errors
    /// [`Failure::NotAMember`] in a process forked behind the library's back.
    pub fn wait(&self) -> Result<(), Failure> {
        self.wait_patiently(Patience::Forever)
    }

    /// Waits until it is set, for at most `timeout`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`Failure::TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), Failure> {
        self.wait_patiently(timeout.into())
    }

    /// Waits until it is set, or `deadline`.
    ///
    /// # Errors
    /// As [`wait_timeout`](Self::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<(), Failure> {
        self.wait_patiently(deadline.into())
    }

    fn wait_patiently(&self, patience: Patience) -> Result<(), Failure> {
        self.raw.wait(&Here::of(self, WaitKind::Event), patience)
    }
}

impl Waitable for Event {
    fn is_ready(&self) -> bool {
        self.is_set()
    }

    fn turn(&self) -> u32 {
        self.raw.times_set()
    }

    fn arm(&self) -> Armed<'_> {
        Armed::at(self.raw.gate(), self)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish()
    }
}
