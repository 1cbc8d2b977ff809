//! Where a primitive lies, and sleeping there.
//!
//! A primitive asks only when it is about to sleep, so all this costs nothing on a fast path.

use crate::error::Failure;
use crate::patience::Patience;
use mp_shm::death::{self, Domain, Slept};
use mp_sys::atomic::Ordering;
use mp_sys::backstop::{self, Backstop};
use mp_sys::futex::{self, Waited, Watch};

/// What a primitive needs to know of the place it lies in.
pub trait Ground {
    /// Notes a wait for reports until it is dropped.
    type Noted;

    /// The domain whose deaths matter; `None` outside of sessions, segments and files.
    fn domain(&self) -> Option<&(dyn Domain + Sync)>;

    /// Notes that the calling thread is about to sleep.
    fn note_wait(&self) -> Self::Noted;
}

/// One blocking call, which may sleep several times.
pub struct Waiting<'g, G: Ground> {
    ground: &'g G,
    patience: Patience,
    backstop: Backstop,
    noted: Option<G::Noted>,
    lost: bool,
}

impl<'g, G: Ground> Waiting<'g, G> {
    /// A call that begins.
    pub fn new(ground: &'g G, patience: Patience) -> Self {
        Self { ground, patience, backstop: Backstop::new(), noted: None, lost: false }
    }

    /// The word that every death of the domain advances, as it is now. Read before looking at what is waited for: who died before
    /// that made its changes before that.
    pub(crate) fn deaths(&self) -> Option<Watch<'g>> {
        let domain = self.ground.domain()?;
        // EPOCH: Acquire, pairs with the Release of `death::advance`.
        Some(Watch::Word(domain.epoch(), domain.epoch().load(Ordering::Acquire)))
    }

    /// Sleeps while `own` have their values and nobody of the domain dies. `own[0]` is what announcements advance.
    ///
    /// # Errors
    /// [`Failure::WouldBlock`], [`Failure::TimedOut`], [`Failure::NotAMember`].
    pub fn sleep(&mut self, own: &[Watch<'_>]) -> Result<(), Failure> {
        if self.patience == Patience::None {
            return Err(Failure::WouldBlock);
        }
        let deadline = self.patience.deadline();
        self.noted.get_or_insert_with(|| self.ground.note_wait());
        let until = self.backstop.until(deadline);
        let slept = match self.ground.domain() {
            Some(domain) if !domain.is_member() => return Err(Failure::NotAMember),
            Some(domain) => {
                let look = domain.before_sleep();
                death::sleep(domain, own, None, until, look)
            }
            None => match futex::wait(own, until) {
                Waited::TimedOut => Slept::TimedOut,
                Waited::Woken(_) | Waited::Changed => Slept::Again,
            },
        };
        self.lost = false;
        if slept == Slept::TimedOut {
            if deadline.is_some_and(mp_sys::deadline::Deadline::passed) {
                return Err(Failure::TimedOut);
            }
            self.lost = is_lost(own[0]);
        }
        Ok(())
    }

    /// What was waited for is there.
    pub fn succeeded(&self) {
        if self.lost {
            backstop::found_work();
        }
    }
}

/// Whether `watch` has changed without a wake.
#[cold]
fn is_lost(watch: Watch<'_>) -> bool {
    match watch {
        Watch::Word(word, seen) => {
            let now = word.load(Ordering::Relaxed);
            now != seen && backstop::is_lost(word, now)
        }
        Watch::Low(..) => false,
    }
}

impl<G: Ground> std::fmt::Debug for Waiting<'_, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("patience", &self.patience).finish_non_exhaustive()
    }
}
