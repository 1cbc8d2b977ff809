//! What one can wait for, alone or several at once.

use crate::error::Failure;
use crate::here::Here;
use crate::patience::Patience;
use crate::raw::{Gate, Inside, Waiting};
use mp_shm::death::OWN_MAX;
use mp_shm::place::{self, WaitKind};
use mp_sys::atomic::Ordering;
use mp_sys::futex::Watch;

/// Something that becomes ready, and that one can sleep on until then.
///
/// The order matters: who waits first arms it, then looks whether it is ready, then sleeps on what [`arm`](Self::arm) gave.
pub trait Waitable {
    /// Whether waiting would end at once.
    fn is_ready(&self) -> bool;

    /// Changes when it becomes ready, if it can become unready again: who waits since before goes on all the same.
    fn turn(&self) -> u32 {
        0
    }

    /// Says that the caller may be about to sleep: from now on, until the result is dropped, becoming ready is announced.
    fn arm(&self) -> Armed<'_>;
}

/// A waitable that somebody may be about to sleep on.
#[derive(Debug)]
pub struct Armed<'a> {
    inside: Inside<'a>,
    address: usize,
    holders: Vec<Watch<'a>>,
}

impl<'a> Armed<'a> {
    /// Arms what announces at `gate`, and is `waitable`.
    pub(crate) fn at<W>(gate: &'a Gate, waitable: &W) -> Self {
        Self::with_holders(gate, waitable, Vec::new)
    }

    /// [`at`](Self::at), with the words of threads whose end makes it ready; they are read after it is armed.
    pub(crate) fn with_holders<W>(
        gate: &'a Gate,
        waitable: &W,
        holders: impl FnOnce() -> Vec<Watch<'a>>,
    ) -> Self {
        let address = std::ptr::from_ref(waitable) as usize;
        let deaths = place::of(address).map(|place| {
            let epoch = place.domain().epoch();
            // EPOCH: Acquire, pairs with the Release of `death::advance`.
            Watch::Word(epoch, epoch.load(Ordering::Acquire))
        });
        let inside = gate.enter_after(deaths);
        Self { inside, address, holders: holders() }
    }

    /// The words that change when it may have become ready, with the values that they had.
    pub fn words(&self) -> impl Iterator<Item = Watch<'a>> {
        self.watches().chain(self.holders())
    }

    fn holders(&self) -> impl Iterator<Item = Watch<'a>> {
        self.holders.iter().copied()
    }

    fn watches(&self) -> impl Iterator<Item = Watch<'a>> {
        self.inside.watches().into_iter().flatten()
    }
}

/// Most waitables of one [`wait_any`].
pub const WAIT_ANY_MAX: usize = 32;

/// Waits until one of `waitables` is ready; gives its index, the lowest if several are.
///
/// The end of a thread that forgot a latch's ticket, in a process that lives on, is noticed at once for as many tickets as one sleep can
/// watch: 66 less two for each waitable.
///
/// They should lie in one session, segment or file: deaths are watched in that of the first, the others have their announcements alone.
///
/// # Errors
/// [`Failure`]
///
/// # Panics
/// If there are none, or more than [`WAIT_ANY_MAX`].
pub fn wait_any(waitables: &[&dyn Waitable], patience: Patience) -> Result<usize, Failure> {
    assert!(
        (1..=WAIT_ANY_MAX).contains(&waitables.len()),
        "1 to {WAIT_ANY_MAX} waitables can be waited for at once"
    );
    let began: Vec<u32> = waitables.iter().map(|one| one.turn()).collect();
    let ready =
        || waitables.iter().zip(&began).position(|(one, &began)| one.is_ready() || one.turn() != began);
    if let Some(index) = ready() {
        return Ok(index);
    }
    let here = Here::at(waitables[0].arm().address, WaitKind::Event);
    let mut waiting = Waiting::new(&here, patience);
    loop {
        let armed: Vec<Armed<'_>> = waitables.iter().map(|one| one.arm()).collect();
        if let Some(index) = ready() {
            waiting.succeeded();
            return Ok(index);
        }
        let mut watches: Vec<Watch<'_>> = armed.iter().flat_map(Armed::watches).collect();
        watches.extend(armed.iter().flat_map(Armed::holders));
        watches.truncate(OWN_MAX);
        waiting.sleep(&watches)?;
    }
}
