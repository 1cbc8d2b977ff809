//! Sleeping until one of several sources, words or deaths may have changed something.
//!
//! Owns: nothing. A [`Round`] is one turn of: note the bells, arm the sources, a heavy barrier, look, sleep. What is published after the
//! arming rings a bell, whose value was noted before; what was published before is seen by the look.
//!
//! ```text
//! bit  bell   event                                            to           who
//! 0    b      a round begins: notes b and the death epoch      1, b         waiter, edge ARMED; then looks
//! 1    b      the look finds something, or patience ends       1, b         waiter: the bit stays, for one ring in vain
//! 1    b      found nothing, b and the epoch are as noted      1, b asleep  waiter
//! 1    b      published something, takes the bit               0, b         publisher, edge PUBLISHED
//! 0    b      rings                                            0, b + 1     that publisher, edge BELL; wakes all at this bell
//! *    b + 1  woken, or not asleep yet: the bell is not b      1, b + 1     waiter: the next round
//! 1    b      the publisher dies before it takes the bit       1, b         its sentinel wakes a sleeper, which recovers and advances
//! 0    b      it dies before it rings                          0, b         the epoch: all who noted the old one look again
//! 1    b      the waiter dies                                  1, b         nobody: one ring in vain
//! ```
//!
//! The bit is a source's, one of each bell; a bell is a word of the session, and several waiters may have the same one. A ring is no wake: who
//! sleeps on a channel alone is woken besides, and has not lost anything to one who was rung and took nothing.
//!
//! Edges: ARMED and PUBLISHED are those of `mp_sync::notify`: of a round and a publication that run at once, at least one sees the other. BELL:
//! Release in who rings, pairs with the Acquire of who notes it.
//! Death: of a publisher, as the table says; its sentinel is watched, or the epoch, which is noted with the bells, has changed. Of one who waits: its
//! bit costs one ring in vain.
//! Models: loom `select_*` in `tests/loom_select.rs`; negative controls without each step of a round, without the watch on sentinels and
//! without the noted epoch.

use mp_shm::death::{self, Domain, OWN_MAX, Slept};
use mp_sync::notify::Notify;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::backstop::{self, Backstop};
use mp_sys::deadline::Deadline;
use mp_sys::futex::{self, Watch};
use mp_sys::{barrier, crash};
use std::time::Duration;

/// How long a sleep lasts that cannot watch all that is waited for: on a kernel before 5.16, with too many words, with several sessions.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a round needs to know of a session, whose words live for `'w`.
pub trait Belled<'w>: Domain + Copy + PartialEq {
    /// Why this process has no bell.
    type Error;

    /// The bell that this process sleeps on, and its bit.
    ///
    /// # Errors
    /// This process has no part in the session.
    fn bell(self) -> Result<(&'w AtomicU32, u64), Self::Error>;

    /// The same as [`Domain::epoch`].
    fn death_epoch(self) -> &'w AtomicU32;
}

#[cfg(not(loom))]
impl Belled<'static> for mp_shm::Session {
    type Error = mp_shm::error::SessionError;

    fn bell(self) -> Result<(&'static AtomicU32, u64), Self::Error> {
        Self::bell(self)
    }

    fn death_epoch(self) -> &'static AtomicU32 {
        Self::death_epoch(self)
    }
}

/// The words noted before a look.
#[derive(Debug)]
pub struct Round<'w, S> {
    sessions: Vec<S>,
    watches: Vec<Watch<'w>>,
}

impl<'w, S: Belled<'w>> Round<'w, S> {
    /// Notes the bells of all sessions of `sources` and arms these: each is where its waiters sleep, in its session. The caller notes what
    /// else it waits for, and then [`look`]s.
    ///
    /// # Errors
    /// As of [`Belled::bell`].
    pub fn begin<'a>(sources: impl Iterator<Item = (S, &'a Notify)>) -> Result<Self, S::Error> {
        let mut round = Self { sessions: Vec::new(), watches: Vec::new() };
        let mut bits: Vec<u64> = Vec::new();
        for (session, notify) in sources {
            let at = match round.sessions.iter().position(|known| *known == session) {
                Some(at) => at,
                None => {
                    let (bell, bit) = session.bell()?;
                    // BELL: Acquire, pairs with the Release of who rings. EPOCH: as in `death::sleep`; both read before the look.
                    round.note(bell);
                    round.note(session.death_epoch());
                    crash::point("bells.noted");
                    round.sessions.push(session);
                    bits.push(bit);
                    bits.len() - 1
                }
            };
            notify.arm(bits[at]);
            crash::point("bells.armed");
        }
        Ok(round)
    }

    /// The sessions whose bells are noted.
    #[must_use]
    pub fn sessions(&self) -> &[S] {
        &self.sessions
    }

    /// Notes one more word: its next change ends the sleep.
    fn note(&mut self, word: &'w AtomicU32) {
        self.watches.push(Watch::Word(word, word.load(Ordering::Acquire)));
    }

    /// Sleeps until one of the noted words, or one of `more`, changes, somebody dies, or `until`; no longer than the backstop. Where there are
    /// more words than one sleep can watch it is a short one. `current` is whose deaths end it if there are no sources.
    ///
    /// # Errors
    /// As of [`Belled::bell`] and `current`.
    pub fn sleep<'m>(
        &self,
        more: impl Iterator<Item = Watch<'m>>,
        until: Option<Deadline>,
        backstop: &mut Backstop,
        current: impl FnOnce() -> Result<S, S::Error>,
    ) -> Result<Slept, S::Error>
    where
        'w: 'm,
    {
        let session = match self.sessions.first() {
            Some(session) => *session,
            None => current()?,
        };
        // Who has no part in it any more is woken by nobody.
        session.bell()?;
        let mut own = self.words(more);
        if own.is_empty() {
            own.push(Watch::Word(session.death_epoch(), session.death_epoch().load(Ordering::Acquire)));
        }
        let mut look = session.before_sleep();
        // A sleep watches the deaths of one session; those of the others are looked for.
        let mut others = self.sessions.iter().skip(1);
        if others.clone().any(death::find) {
            return Ok(Slept::Again);
        }
        let is_blind = others.next().is_some();
        // Only the first word is slept on without waitv.
        if is_blind || own.len() > OWN_MAX || (own.len() > 2 && !futex::watches_all()) {
            look = Some(look.map_or(LOOK_AGAIN, |look| look.min(LOOK_AGAIN)));
        }
        own.truncate(OWN_MAX);
        let slept = death::sleep(&session, &own, None, backstop.until(until), look);
        crash::point("bells.woken");
        Ok(slept)
    }

    fn words<'m>(&self, more: impl Iterator<Item = Watch<'m>>) -> Vec<Watch<'m>>
    where
        'w: 'm,
    {
        self.watches.iter().copied().chain(more).collect()
    }

    /// After a sleep that its backstop ended, with something ready: counts it, unless somebody announces it within a second.
    pub fn count_if_lost<'m>(&self, more: impl Iterator<Item = Watch<'m>>)
    where
        'w: 'm,
    {
        let words = self.words(more);
        let words: Vec<Watch<'m>> = words.into_iter().take(OWN_MAX).map(Watch::again).collect();
        if futex::watches_all() && backstop::are_lost(&words) {
            backstop::found_work();
        }
    }
}

/// Between arming and looking.
pub fn look() {
    // ARMED: pairs with PUBLISHED.
    barrier::heavy();
}
