//! Processes that have not taken their job yet.
//!
//! Owns: the list of them. Should one end before it has taken its job no sentinel tells, and what its argument holds must come back: for another
//! process may wait for the last holder of it to go. So sleepers of this process look after those in the list.

use crate::child::Child;
use crate::job::{self, Job};
use mp_shm::Session;
use mp_shm::codec::Payload;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug)]
struct Start {
    child: Child,
    session: Session,
    job: &'static Job,
}

static STARTING: Mutex<Vec<Start>> = Mutex::new(Vec::new());
/// Entries of `STARTING`, to be read without its lock.
static STARTS: AtomicUsize = AtomicUsize::new(0);
/// How soon a sleeper looks at starting processes again; a start takes about a millisecond.
const START_LOOK: Duration = Duration::from_millis(2);

pub(crate) fn watch(child: Child, session: Session, job: &'static Job) {
    mp_shm::starts::set_look(look);
    let mut starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let is_first = starting.iter().all(|start| start.session != session);
    starting.push(Start { child, session, job });
    STARTS.store(starting.len(), Ordering::Release);
    drop(starting);
    if is_first {
        // Who sleeps now found nothing to look after. Beside others of the session it is looked after with them.
        session.wake_sleepers();
    }
}

/// Takes back the arguments of processes that ended without taking them; says when to look again.
fn look() -> Option<Duration> {
    if STARTS.load(Ordering::Acquire) == 0 {
        return None;
    }
    // Another thread looks: enough to look again later.
    let Ok(mut starting) = STARTING.try_lock() else { return Some(START_LOOK) };
    starting.retain(|start| {
        if start.job.state.load(Ordering::Acquire) != job::NEW {
            return false;
        }
        let ended = start.child.is_finished();
        if ended {
            take_back(start.session, start.job);
        }
        !ended
    });
    STARTS.store(starting.len(), Ordering::Release);
    (!starting.is_empty()).then_some(START_LOOK)
}

/// In a copy of the process that started them.
pub(crate) fn forsake_all() {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner).clear();
    STARTS.store(0, Ordering::Release);
}

/// Before the record of a process is used for something else.
pub(crate) fn forget(job: &Job) {
    let mut starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    starting.retain(|start| !std::ptr::eq(start.job, job));
    STARTS.store(starting.len(), Ordering::Release);
}

/// Drops the argument that no child will take any more.
pub(crate) fn take_back(session: Session, job: &Job) {
    drop(session.take_back(&job.argument).map(Payload::in_block));
}
