//! What a locker is told beside having the lock.

use crate::error::Failure;
use crate::raw::{Acquired, RawMutex};
use std::fmt;

/// The result of taking a lock.
pub type LockResult<G> = Result<G, LockError<G>>;

/// Something is to be known about the lock, or it was not taken.
///
/// In the first two cases the caller has the lock all the same: [`into_guard`](Self::into_guard).
pub enum LockError<G> {
    /// The last owner died with the lock: what it guards may be half changed. Told once; the lock is [`Poisoned`](Self::Poisoned)
    /// from then on.
    OwnerDied {
        /// The lock, taken.
        guard: G,
        /// Pid of the process that died; `None` if it died in the instant in which it took the lock.
        owner: Option<u32>,
    },
    /// An owner died with the lock before, or panicked, and nobody has called `recover` on a guard since.
    Poisoned {
        /// The lock, taken.
        guard: G,
    },
    /// The lock was not taken.
    Failed(Failure),
}

impl<G> LockError<G> {
    /// The guard, if the lock was taken.
    pub fn into_guard(self) -> Option<G> {
        match self {
            Self::OwnerDied { guard, .. } | Self::Poisoned { guard } => Some(guard),
            Self::Failed(_) => None,
        }
    }

    /// Why the lock was not taken, if it was not.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::OwnerDied { .. } | Self::Poisoned { .. } => None,
            Self::Failed(failure) => Some(*failure),
        }
    }

    /// Whether this is the news of an owner's death.
    #[must_use]
    pub fn is_owner_died(&self) -> bool {
        matches!(self, Self::OwnerDied { .. })
    }

    /// Whether what the lock guards is suspect since earlier.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Poisoned { .. })
    }

    pub(crate) fn map<H>(self, with: impl FnOnce(G) -> H) -> LockError<H> {
        match self {
            Self::OwnerDied { guard, owner } => LockError::OwnerDied { guard: with(guard), owner },
            Self::Poisoned { guard } => LockError::Poisoned { guard: with(guard) },
            Self::Failed(failure) => LockError::Failed(failure),
        }
    }
}

impl<G> From<Failure> for LockError<G> {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied { owner, .. } => {
                f.debug_struct("OwnerDied").field("owner", owner).finish_non_exhaustive()
            }
            Self::Poisoned { .. } => f.debug_struct("Poisoned").finish_non_exhaustive(),
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
        }
    }
}

impl<G> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied { owner: Some(pid), .. } => {
                write!(
                    f,
                    "taking a lock: its owner, process {pid}, died with it; what it guards may be half changed"
                )
            }
            Self::OwnerDied { owner: None, .. } => {
                f.write_str("taking a lock: its owner died with it; what it guards may be half changed")
            }
            Self::Poisoned { .. } => f.write_str(
                "taking a lock: what it guards may be half changed since an owner died or panicked",
            ),
            Self::Failed(failure) => write!(f, "taking a lock: {failure}"),
        }
    }
}

impl<G> std::error::Error for LockError<G> {}

/// What the new owner is told, with its guard. A death was noted as poison before.
#[inline]
pub(crate) fn tell<G>(mutex: &RawMutex, acquired: Acquired, guard: G) -> LockResult<G> {
    match acquired {
        Acquired::Clean if !mutex.is_poisoned() => Ok(guard),
        Acquired::Clean => Err(LockError::Poisoned { guard }),
        Acquired::OwnerDied { pid, leaving } => Err(LockError::OwnerDied { guard, owner: who(pid, leaving) }),
    }
}

/// Who died: a pid whose owner had begun to leave is its only if that process is dead.
#[cold]
fn who(pid: u32, leaving: bool) -> Option<u32> {
    let is_dead =
        || mp_sys::process::status(pid).is_ok_and(|found| found.is_none_or(|status| status.leader_ended));
    (pid != 0 && (!leaving || is_dead())).then_some(pid)
}
