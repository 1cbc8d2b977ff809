//! Sleeping so that the death of any process of the domain ends the sleep.
//!
//! Owns the protocol between sleepers, sentinels and the *death epoch*; the tables of participants are behind [`Domain`].
//!
//! ```text
//! who                     does                                              then
//! sleeper                 watches its own words, the epoch, the count of    futex wait
//!                         members, and one live sentinel of every other
//!                         process
//! a process that joins    has its sentinel, then advances the count of      all sleepers watch it, too
//!                         members and wakes all who watch that
//! kernel                  marks a dead thread's sentinel, wakes one         that one recovers
//! the woken one           recovers under the domain's lock, advances the    all sleepers look again
//!                         epoch, wakes all who watch it
//! it dies instead         its own sentinel wakes another sleeper            that one recovers both
//! sleeper that comes      finds the mark when it gathers sentinels, or the  recovers before it sleeps
//! too late                kernel finds the word changed
//! ```
//!
//! Every sleeper watches *every* other process, not only those it waits for: the woken one may die before it can tell the
//! rest, and then its death must wake somebody. A wait takes 128 words at most, so beyond some 120 processes, fewer for who has many words of his own,
//! the rest is left to the backstop.
//!
//! Models: loom `death_*` in `tests/loom_death.rs`, negative control without watching all.

use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::deadline::Deadline;
use mp_sys::futex::{self, WATCH_MAX, Waited, Watch};
use std::time::Duration;

/// Most words of its own a sleeper passes to [`sleep`]. The others are for sentinels, 59 or more.
pub const OWN_MAX: usize = 66;

/// What a sleeper needs to know of the domain it sleeps in.
pub trait Domain {
    /// The word that is advanced after every recovery.
    fn epoch(&self) -> &AtomicU32;

    /// The word that is advanced when a process joins, after it has its sentinel.
    fn members(&self) -> &AtomicU32;

    /// Whether this process takes part, so that its death wakes who sleeps. It is no part of a domain after a `fork` behind the
    /// library's back.
    fn is_member(&self) -> bool {
        true
    }

    /// Rings the bells of these bits: advances each and wakes all who sleep on it. None where nobody waits for several things at once.
    fn ring(&self, _bells: u64) {}

    /// Called before every sleep, while nothing is pending; a good moment for what is too slow elsewhere. A time says that something may happen soon that no word
    /// announces, and when to look for it: that is how long the sleep lasts at most.
    fn before_sleep(&self) -> Option<Duration> {
        None
    }

    /// Calls `watch` with a live sentinel of every other process and its present value, until `watch` says `false`.
    /// Returns whether a dead one was met that nobody has recovered yet.
    fn sentinels<'a>(&'a self, watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool;

    /// Takes back what the dead held, advances the epoch and wakes all who watch it. Returns whether it did: `false` means
    /// that a process is half dead, and the sleeper should look again soon.
    fn recover(&self) -> bool;
}

/// Why [`sleep`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// Something happened: look again.
    Again,
    /// The time given passed.
    TimedOut,
}

/// Sleeps while all of `own` have their expected values, nobody of the domain dies or joins, and `until` has not passed. `owner` is the
/// sentinel of a thread whose death matters even if its process has others. `look` is what [`Domain::before_sleep`] said, which is called
/// before the caller makes anything pending.
///
/// The caller reads the values in `own` before it looks at what it waits for, so that a change in between ends the sleep.
///
/// # Panics
/// If `own` is longer than [`OWN_MAX`].
pub fn sleep<D: Domain + ?Sized>(
    domain: &D,
    own: &[Watch<'_>],
    owner: Option<Watch<'_>>,
    until: Option<Deadline>,
    look: Option<Duration>,
) -> Slept {
    assert!(own.len() <= OWN_MAX, "at most {OWN_MAX} words of one's own");
    let (epoch, members) = (domain.epoch(), domain.members());
    let mut watches = [Watch::Word(epoch, 0); WATCH_MAX];
    let mut len = own.len();
    watches[..len].copy_from_slice(own);
    // EPOCH, MEMBERS: Acquire, pair with the Release of `advance`. Read before the sentinels are gathered: who joins after that ends
    // the sleep.
    watches[len] = Watch::Word(epoch, epoch.load(Ordering::Acquire));
    watches[len + 1] = Watch::Word(members, members.load(Ordering::Acquire));
    len += 2;
    let own_end = len;
    if let Some(owner) = owner {
        watches[len] = owner;
        len += 1;
    }
    let dead = domain.sentinels(&mut |word, value| {
        watches[len] = Watch::Word(word, value);
        len += 1;
        len < WATCH_MAX
    });
    if dead && domain.recover() {
        return Slept::Again;
    }
    // A process that has lost its lead but lives on in part: it may be that no word announces the rest.
    let look = if dead { Some(HALF_DEAD_LOOK) } else { look };
    let look = look.map(Deadline::after).filter(|look| until.is_none_or(|until| *look < until));
    match futex::wait(&watches[..len], look.or(until)) {
        Waited::TimedOut if look.is_none() => Slept::TimedOut,
        Waited::Woken(index) if index >= own_end => {
            // A sentinel: recover before anything else, for all the others sleep on.
            domain.recover();
            Slept::Again
        }
        Waited::Woken(_) | Waited::Changed | Waited::TimedOut => Slept::Again,
    }
}

/// Looks for a death without sleeping; says whether there was one, and it has been recovered from.
pub fn find<D: Domain + ?Sized>(domain: &D) -> bool {
    domain.before_sleep();
    domain.sentinels(&mut |_, _| true) && domain.recover()
}

/// How long a sleeper waits before it looks again at a process that is dying in parts.
const HALF_DEAD_LOOK: Duration = Duration::from_millis(5);

/// Advances a word and wakes everybody who watches it: the epoch as the last step of a recovery, the members after joining, a bell that is rung.
pub fn advance(word: &AtomicU32) {
    // EPOCH, MEMBERS, BELL: Release, pair with the Acquire in `sleep`, and of who notes a bell.
    word.fetch_add(1, Ordering::Release);
    mp_sys::crash::point("death.before_wake");
    futex::wake_all(word);
}
