//! The place that a primitive lies in, found by its address when it is about to sleep.

use crate::raw::Ground;
use mp_shm::death::Domain;
use mp_shm::place::{self, NotedWait, WaitKind};

/// The memory around a primitive.
pub(crate) struct Here {
    address: usize,
    kind: WaitKind,
}

impl Here {
    pub(crate) fn of<T>(primitive: &T, kind: WaitKind) -> Self {
        Self::at(std::ptr::from_ref(primitive) as usize, kind)
    }

    pub(crate) fn at(address: usize, kind: WaitKind) -> Self {
        Self { address, kind }
    }
}

impl Ground for Here {
    type Noted = Option<NotedWait>;

    fn domain(&self) -> Option<&(dyn Domain + Sync)> {
        place::of(self.address).map(|place| place.domain())
    }

    fn note_wait(&self) -> Option<NotedWait> {
        place::of(self.address)?.note_wait(self.address, self.kind)
    }
}
