//! What one can wait for, alone or several at once.

use crate::error::Failure;
use crate::here::Here;
use crate::patience::Patience;
use crate::raw::{Gate, Inside, Waiting};
use mp_shm::place::{self, WaitKind};
use mp_sys::atomic::Ordering;
use mp_sys::futex::Watch;

/// Something that becomes ready, and that one can sleep on until then.
///
/// The order matters: who waits first arms it, then looks whether it is ready, then sleeps on what [`arm`](Self::arm) gave.
pub trait Waitable {
    /// Whether waiting would end at once.
    fn is_ready(&self) -> bool;

    /// Says that the caller may be about to sleep: from now on, until the result is dropped, becoming ready is announced.
    fn arm(&self) -> Armed<'_>;
}

/// A waitable that somebody may be about to sleep on.
#[derive(Debug)]
pub struct Armed<'a> {
    inside: Inside<'a>,
    address: usize,
}

impl<'a> Armed<'a> {
    /// Arms what announces at `gate`, and is `waitable`.
    pub(crate) fn at<W>(gate: &'a Gate, waitable: &W) -> Self {
        let address = std::ptr::from_ref(waitable) as usize;
        let deaths = place::of(address).map(|place| {
            let epoch = place.domain().epoch();
            // EPOCH: Acquire, pairs with the Release of `death::advance`.
            Watch::Word(epoch, epoch.load(Ordering::Acquire))
        });
        Self { inside: gate.enter_after(deaths), address }
    }

    fn watches(&self) -> impl Iterator<Item = Watch<'a>> {
        self.inside.watches().into_iter().flatten()
    }
}

/// Most waitables of one [`wait_any`].
pub const WAIT_ANY_MAX: usize = 32;

/// Waits until one of `waitables` is ready; gives its index, the lowest if several are.
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
    let ready = || waitables.iter().position(|one| one.is_ready());
    if let Some(index) = ready() {
        return Ok(index);
    }
    let first = waitables[0].arm();
    let here = Here::at(first.address, WaitKind::Event);
    let mut waiting = Waiting::new(&here, patience);
    loop {
        let armed: Vec<Armed<'_>> = waitables.iter().map(|one| one.arm()).collect();
        if let Some(index) = ready() {
            waiting.succeeded();
            return Ok(index);
        }
        let watches: Vec<Watch<'_>> = armed.iter().flat_map(Armed::watches).collect();
        waiting.sleep(&watches)?;
    }
}
