//! The kinds of objects that recovery must know how to look into; the crates above register theirs.

use crate::handle::Kind;
use crate::session::Session;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};

/// What recovery and the last reference's drop need to do with an object. Called with the domain's lock held: no call back
/// into the session, no user code.
pub trait ObjectKind: Sync {
    /// The count of `role` fell to zero: wake who waits for that.
    fn closed(&self, session: Session, object: u64, role: usize);

    /// Calls `visit` with every block that a slot of the object names.
    fn blocks(&self, session: Session, object: u64, visit: &mut dyn FnMut(u64));

    /// Whether messages in the object may hold references to the object itself: then it may be that nobody else does.
    fn may_hold_itself(&self, _session: Session, _object: u64) -> bool {
        false
    }

    /// Releases what dead threads held in the object. `abandoned` is called with blocks whose message is lost; they stay with
    /// their slot.
    fn sweep(
        &self,
        session: Session,
        object: u64,
        dead: &dyn Fn(u16) -> bool,
        abandoned: &mut dyn FnMut(u64),
    );
}

/// Plain memory: nothing in it names a block, and no thread's death changes it.
struct Memory;

impl ObjectKind for Memory {
    fn closed(&self, _: Session, _: u64, _: usize) {}

    fn blocks(&self, _: Session, _: u64, _: &mut dyn FnMut(u64)) {}

    fn sweep(&self, _: Session, _: u64, _: &dyn Fn(u16) -> bool, _: &mut dyn FnMut(u64)) {}
}

static KINDS: RwLock<Vec<(Kind, &'static dyn ObjectKind)>> = RwLock::new(Vec::new());
/// How many kinds this process knows, plain memory included: never 0.
static KNOWN: AtomicU32 = AtomicU32::new(1);

/// Makes a kind known in this process; again is no harm.
pub fn register(kind: Kind, object_kind: &'static dyn ObjectKind) {
    let mut kinds = KINDS.write().unwrap_or_else(PoisonError::into_inner);
    if !kinds.iter().any(|(known, _)| *known == kind) {
        kinds.push((kind, object_kind));
        KNOWN.fetch_add(1, Ordering::Relaxed);
    }
}

/// Changes whenever this process comes to know another kind; never 0.
pub(crate) fn known() -> u32 {
    KNOWN.load(Ordering::Relaxed)
}

pub(crate) fn find(kind: Kind) -> Option<&'static dyn ObjectKind> {
    if kind.is_memory() {
        return Some(&Memory);
    }
    let kinds = KINDS.read().unwrap_or_else(PoisonError::into_inner);
    kinds.iter().find(|(known, _)| *known == kind).map(|(_, object_kind)| *object_kind)
}
