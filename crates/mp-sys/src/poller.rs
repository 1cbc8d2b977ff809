//! The thread that waits for file descriptors and times on behalf of futures.
//!
//! Owns: one thread a process, started when a future first waits for such a thing, and a list of registrations. It sleeps in `poll(2)`, with
//! one descriptor by which it is told that the list has changed. A registration is for one wake.
//!
//! After a fork the thread is the parent's; in the child nobody waits.

use crate::deadline::Deadline;
use crate::poll::{EventFd, Interest, poll};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

static LIST: Mutex<List> = Mutex::new(List { entries: BTreeMap::new(), next: 0, changed: None });

struct List {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// Rung when the list has changed; made with the thread.
    changed: Option<Arc<EventFd>>,
}

struct Entry {
    /// Duplicates: they stay open whatever happens to the descriptors that a future was given. The thread holds them while it sleeps.
    fds: Vec<(Arc<OwnedFd>, Interest)>,
    until: Option<Deadline>,
    waker: Waker,
}

/// A place in the poller's list; dropping it takes it off.
#[derive(Debug)]
pub struct Registration(u64);

impl Drop for Registration {
    fn drop(&mut self) {
        // What is in it is dropped without the lock: a waker's destructor is not our code.
        let removed = lock().entries.remove(&self.0);
        drop(removed);
    }
}

fn lock() -> MutexGuard<'static, List> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `waker` woken once when one of `fds` is ready, or at `until`.
///
/// # Errors
/// No free descriptor, or the thread cannot be started.
pub fn register(
    fds: &[(BorrowedFd<'_>, Interest)],
    until: Option<Deadline>,
    waker: Waker,
) -> io::Result<Registration> {
    let fds = fds
        .iter()
        .map(|(fd, interest)| Ok((Arc::new(fd.try_clone_to_owned()?), *interest)))
        .collect::<io::Result<Vec<_>>>()?;
    let mut list = lock();
    let changed = match &list.changed {
        Some(changed) => changed.clone(),
        None => {
            let changed = Arc::new(EventFd::new()?);
            let of_thread = changed.clone();
            crate::process::with_signals_blocked(|| {
                std::thread::Builder::new()
                    .name("mp-poller".to_owned())
                    .stack_size(128 << 10)
                    .spawn(move || run(&of_thread))
            })?;
            list.changed = Some(changed.clone());
            changed
        }
    };
    let id = list.next;
    list.next += 1;
    list.entries.insert(id, Entry { fds, until, waker });
    drop(list);
    changed.ring();
    Ok(Registration(id))
}

/// Wakes; a waker that panics is no harm to those who come after it.
pub fn wake(waker: Waker) {
    // The panic hook has said what there is to say.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

fn run(changed: &EventFd) {
    loop {
        changed.quiet();
        let (fds, owners, until) = {
            let list = lock();
            let mut fds = Vec::new();
            let mut owners = Vec::new();
            for (id, entry) in &list.entries {
                for (fd, interest) in &entry.fds {
                    // Held by this thread, too: the entry may be taken off meanwhile.
                    fds.push((fd.clone(), *interest));
                    owners.push(*id);
                }
            }
            let until = list.entries.values().filter_map(|entry| entry.until).min();
            (fds, owners, until)
        };
        let mut polled = vec![(changed.as_fd(), Interest::Read)];
        polled.extend(fds.iter().map(|(fd, interest)| (fd.as_fd(), *interest)));
        let ready = poll(&polled, until).unwrap_or_else(|error| {
            // Not to be expected; whoever waits looks for himself then.
            debug_assert!(false, "polling {} descriptors: {error}", polled.len());
            vec![true; polled.len()]
        });
        let mut list = lock();
        let mut done: Vec<u64> =
            owners.iter().zip(&ready[1..]).filter(|(_, ready)| **ready).map(|(id, _)| *id).collect();
        let timed_out = |entry: &Entry| entry.until.is_some_and(Deadline::passed);
        done.extend(list.entries.iter().filter(|(_, entry)| timed_out(entry)).map(|(id, _)| *id));
        let done: Vec<Entry> = done.into_iter().filter_map(|id| list.entries.remove(&id)).collect();
        drop(list);
        for Entry { waker, fds, .. } in done {
            drop(fds);
            wake(waker);
        }
    }
}
