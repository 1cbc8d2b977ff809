//! The longest a sleep lasts without a wake, and the count of those that were needed.
//!
//! Every protocol here wakes exactly; a backstop turns an undiscovered lost wake-up from a hang into a delay. One that finds
//! work is counted, and a count above zero fails the tests. `MP_BACKSTOP=off` turns it off: kill tests run that way.
//! A sleep's first backstop is 1 s, the next 8 s, all others 60 s. Where the kernel cannot watch several words it stays at 1 s.

use crate::atomic::AtomicU32;
use crate::deadline::Deadline;
use crate::futex::{self, Waited, Watch};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

static FOUND: AtomicU64 = AtomicU64::new(0);

/// The backstops of one wait, which may sleep several times.
#[derive(Debug)]
pub struct Backstop {
    next: Duration,
}

impl Backstop {
    /// For a wait that begins.
    #[must_use]
    pub fn new() -> Self {
        Self { next: FIRST }
    }

    /// When the sleep that begins now must end: the backstop or `deadline`, whichever is first.
    pub fn until(&mut self, deadline: Option<Deadline>) -> Option<Deadline> {
        if is_off() {
            return deadline;
        }
        let backstop = Deadline::after(self.next);
        self.next = if crate::futex::watches_all() { (self.next * 8).min(LONGEST) } else { FIRST };
        Some(deadline.map_or(backstop, |deadline| deadline.min(backstop)))
    }
}

impl Default for Backstop {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether backstops are off (`MP_BACKSTOP=off`, read once).
fn is_off() -> bool {
    use std::sync::OnceLock;
    static OFF: OnceLock<bool> = OnceLock::new();
    *OFF.get_or_init(|| std::env::var_os("MP_BACKSTOP").is_some_and(|value| value == "off"))
}

/// Whether a wake-up for `word` was lost: what the sleeper waits for is there, yet the word keeps its value for a second more and
/// nobody wakes. A publisher that is only late (it lost its processor between publishing and waking) changes the word or wakes in
/// that time.
#[must_use]
pub fn is_lost(word: &AtomicU32, value: u32) -> bool {
    are_lost(&[Watch::Word(word, value)])
}

/// [`is_lost`] for who sleeps on several words, with their present values.
#[must_use]
pub fn are_lost(watches: &[Watch<'_>]) -> bool {
    futex::wait(watches, Some(Deadline::after(FIRST))) == Waited::TimedOut
}

/// Counts a backstop that found work which no wake had announced.
pub fn found_work() {
    FOUND.fetch_add(1, Ordering::Relaxed);
}

/// How many backstops of this process found work: lost wake-ups, each a defect.
#[must_use]
pub fn found() -> u64 {
    FOUND.load(Ordering::Relaxed)
}
