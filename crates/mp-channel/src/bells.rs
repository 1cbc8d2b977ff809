//! Sleeping until one of several sources, words or deaths may have changed something.
//!
//! Owns: nothing. A [`Round`] is one turn of: note the bells, arm the sources, a heavy barrier, look, sleep. What is published after the
//! arming rings a bell, whose value was noted before; what was published before is seen by the look.
//!
//! Death: of a publisher between publication and ring: its sentinel, or the death epoch, which is noted with the bells, ends the sleep. Of one
//! who waits: its bit costs one ring in vain.

use crate::source::Source;
use mp_shm::Session;
use mp_shm::death::{self, Domain, OWN_MAX, Slept};
use mp_shm::error::SessionError;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::backstop::{self, Backstop};
use mp_sys::barrier;
use mp_sys::deadline::Deadline;
use mp_sys::futex::{self, Watch};
use std::time::Duration;

/// How long a sleep lasts that cannot watch all that is waited for: on a kernel before 5.16, with too many words, with several sessions.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The words noted before a look.
#[derive(Debug, Default)]
pub(crate) struct Round {
    sessions: Vec<Session>,
    watches: Vec<Watch<'static>>,
}

impl Round {
    /// Notes the bells of all sessions of `sources` and arms these. The caller notes what else it waits for, and then [`look`](Self::look)s.
    pub(crate) fn begin<'a>(sources: impl Iterator<Item = &'a Source>) -> Result<Self, SessionError> {
        let mut round = Self::default();
        let mut bits: Vec<u64> = Vec::new();
        for source in sources {
            let session = source.session();
            let at = match round.sessions.iter().position(|known| *known == session) {
                Some(at) => at,
                None => {
                    let (bell, bit) = session.bell()?;
                    // BELL: Acquire, pairs with the Release of who rings. EPOCH: as in `death::sleep`; both read before the look.
                    round.note(bell);
                    round.note(session.death_epoch());
                    round.sessions.push(session);
                    bits.push(bit);
                    bits.len() - 1
                }
            };
            source.arm(bits[at]);
        }
        Ok(round)
    }

    /// The sessions whose bells are noted.
    pub(crate) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Notes one more word: its next change ends the sleep.
    fn note(&mut self, word: &'static AtomicU32) {
        self.watches.push(Watch::Word(word, word.load(Ordering::Acquire)));
    }

    /// Between arming and looking.
    pub(crate) fn look() {
        barrier::heavy();
    }

    /// Sleeps until one of the noted words, or one of `more`, changes, somebody dies, or `until`; no longer than the backstop. Where there are
    /// more words than one sleep can watch it is a short one.
    pub(crate) fn sleep<'w>(
        &self,
        more: impl Iterator<Item = Watch<'w>>,
        until: Option<Deadline>,
        backstop: &mut Backstop,
    ) -> Result<Slept, SessionError> {
        let session = match self.sessions.first() {
            Some(session) => *session,
            None => Session::current()?,
        };
        session.me()?;
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
        Ok(death::sleep(&session, &own, None, backstop.until(until), look))
    }

    fn words<'w>(&self, more: impl Iterator<Item = Watch<'w>>) -> Vec<Watch<'w>> {
        self.watches.iter().copied().chain(more).collect()
    }

    /// After a sleep that its backstop ended, with something ready: counts it, unless somebody announces it within a second.
    pub(crate) fn count_if_lost<'w>(&self, more: impl Iterator<Item = Watch<'w>>) {
        let words = self.words(more);
        let words: Vec<Watch<'w>> = words.into_iter().take(OWN_MAX).map(Watch::again).collect();
        if futex::watches_all() && backstop::are_lost(&words) {
            backstop::found_work();
        }
    }
}
