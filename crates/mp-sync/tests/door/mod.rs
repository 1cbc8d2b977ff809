//! A door at which processes wait until they are allowed through, with two condition variables.

use mp_shm::{Shared, ShmSafe};
use mp_spawn::Process;
use mp_sync::{Condvar, LockResult, Mutex, MutexGuard};
use mp_testkit::proc::Task;

#[derive(ShmSafe, Clone, Copy)]
#[repr(C)]
pub(crate) struct Counts {
    pub(crate) waiting: u32,
    pub(crate) allowed: u32,
    pub(crate) through: u32,
}

#[derive(ShmSafe)]
#[repr(C)]
pub(crate) struct Door {
    pub(crate) counts: Mutex<Counts>,
    pub(crate) opened: Condvar,
    pub(crate) moved: Condvar,
}

pub(crate) fn door() -> Shared<Door> {
    Shared::<Door>::zeroed().unwrap()
}

/// One that waits wakes at every death, and may be killed in turn while it has the mutex; nothing is half changed then.
pub(crate) fn taken<'a>(result: LockResult<MutexGuard<'a, Counts>>) -> MutexGuard<'a, Counts> {
    result.unwrap_or_else(|error| {
        let guard = error.into_guard().unwrap();
        guard.recover();
        guard
    })
}

pub(crate) fn go_through(door: &Door) {
    let mut counts = taken(door.counts.lock());
    counts.waiting += 1;
    door.moved.notify_all();
    while counts.allowed == 0 {
        counts = taken(door.opened.wait(counts));
    }
    counts.allowed -= 1;
    counts.through += 1;
    door.moved.notify_all();
}

pub(crate) fn child_through(door: Shared<Door>) {
    go_through(&door);
}

/// Children that wait at the door, asleep.
pub(crate) fn waiting(door: &Shared<Door>, count: u32) -> Vec<Process<()>> {
    let children: Vec<_> = (0..count).map(|_| Process::spawn(child_through, door.clone()).unwrap()).collect();
    let counts = door.counts.lock().unwrap();
    drop(door.moved.wait_while(counts, |counts| counts.waiting < count).unwrap());
    children.iter().for_each(|child| Task::leader(child.pid()).wait_until_blocked());
    children
}

pub(crate) fn allow(door: &Door, count: u32) {
    taken(door.counts.lock()).allowed += count;
}
