//! Who waits for whom: a report for programs that hang.
//!
//! It costs nothing while nobody asks: a thread notes what it waits for when it goes to sleep anyway, and all else is read from the
//! locks themselves. The report is a snapshot of something that moves; a deadlock does not, so ask twice if in doubt.

#![expect(unsafe_code, reason = "looking at primitives by their address")]

use crate::raw::{RawMutex, SLOTS};
use mp_shm::Session;
use mp_shm::place::{self, Place, Wait, WaitKind};
use mp_shm::safe::RobustWord;
use mp_sys::atomic::Ordering;
use mp_sys::robust::{OWNER_DIED, TID_MASK};
use std::fmt;

/// A thread, by its ids and the name of its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The name of the process, as the kernel knows it; empty if it is gone.
    pub process: String,
}

/// A thread that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Who waits.
    pub thread: Thread,
    /// For what.
    pub kind: WaitKind,
    /// Where that is, in bytes from the start of the session or file.
    pub offset: u64,
    /// What that is called; empty if it has no name.
    pub name: String,
    /// Who holds it, as far as it is held by threads.
    pub owners: Vec<Thread>,
}

/// Who waits for whom in a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// All that wait.
    pub blocked: Vec<Blocked>,
    /// Circles among them, as indexes into `blocked`: each waits for the next, the last for the first. These never end by themselves.
    pub circles: Vec<Vec<usize>>,
}

/// Who waits for whom in `session`.
#[must_use]
pub fn report(session: Session) -> Report {
    session.bytes(0, 1).and_then(|start| place::of(start.as_ptr() as usize)).map_or_else(Report::default, of)
}

/// Who waits for whom in the segment, file or session that `value` lies in; nothing if it lies in none.
#[must_use]
pub fn report_around<T>(value: &T) -> Report {
    place::of(std::ptr::from_ref(value) as usize).map_or_else(Report::default, of)
}

fn of(place: Place) -> Report {
    let blocked: Vec<Blocked> = place.waits().iter().filter_map(|wait| look(place, wait)).collect();
    let circles = circles(&blocked);
    Report { blocked, circles }
}

fn look(place: Place, wait: &Wait) -> Option<Blocked> {
    let (mut name, mut owners) = (String::new(), Vec::new());
    if let Some(mutex) = mutex_of(place, wait) {
        name = mutex.name();
        let (pid, tid) = (mutex.owner_pid(), mutex.owner_tid());
        let short = matches!(wait.kind, WaitKind::Semaphore | WaitKind::Barrier | WaitKind::Latch);
        // Inside of a primitive the mutex is held for a few instructions, or by the waiter itself.
        if tid != 0 && tid != wait.tid && !short {
            owners.push(thread(pid, tid));
        }
        if matches!(wait.kind, WaitKind::Read | WaitKind::Write | WaitKind::Semaphore | WaitKind::Latch) {
            owners.extend(slots_of(place, wait, mutex).into_iter().filter(|one| one.tid != wait.tid));
        }
    }
    Some(Blocked { thread: thread(wait.pid, wait.tid), kind: wait.kind, offset: wait.offset, name, owners })
}

/// The mutex that a primitive of this kind begins with.
fn mutex_of(place: Place, wait: &Wait) -> Option<&'static RawMutex> {
    if matches!(wait.kind, WaitKind::Condvar | WaitKind::Event) {
        return None;
    }
    // SAFETY: a waiter noted that such a primitive is here, which begins with its mutex; if that is wrong it is still memory of the
    // mapping, which `at` checks, and any bit pattern is a mutex that is only looked at.
    unsafe { place.at(wait.offset) }
}

fn slots_of(place: Place, wait: &Wait, mutex: &RawMutex) -> Vec<Thread> {
    let count = mutex.note(SLOTS).load(Ordering::Relaxed).min(64);
    let slot = |number: u32| -> Option<Thread> {
        let offset = wait.offset + (size_of::<RawMutex>() + number as usize * size_of::<RobustWord>()) as u64;
        // SAFETY: as in `mutex_of`.
        let slot: &RobustWord = unsafe { place.at(offset) }?;
        let word = slot.word.load(Ordering::Acquire);
        let held = word & TID_MASK != 0 && word & OWNER_DIED == 0;
        held.then(|| thread(slot.extra[0].load(Ordering::Relaxed), word & TID_MASK))
    };
    (0..count).filter_map(slot).collect()
}

fn thread(pid: u32, tid: u32) -> Thread {
    let process = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Thread { pid, tid, process: process.trim_end().to_owned() }
}

/// Circles of waiting, each found once.
fn circles(blocked: &[Blocked]) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = Vec::new();
    for start in 0..blocked.len() {
        let mut path = vec![start];
        follow(blocked, &mut path, &mut found);
    }
    found
}

/// Goes on from the last of `path` to those it waits for. A circle is noted from its lowest index, so that it is found once.
fn follow(blocked: &[Blocked], path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
    let Some(&last) = path.last() else { return };
    for (next, other) in blocked.iter().enumerate() {
        if !blocked[last].owners.iter().any(|owner| owner.tid == other.thread.tid) {
            continue;
        }
        if next == path[0] {
            found.push(path.clone());
        } else if next > path[0] && !path.contains(&next) {
            path.push(next);
            follow(blocked, path, found);
            path.pop();
        }
    }
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, thread {})", self.process, self.pid, self.tid)
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waits for {:?} ", self.thread, self.kind)?;
        if self.name.is_empty() {
            write!(f, "at {:#x}", self.offset)?;
        } else {
            write!(f, "\"{}\"", self.name)?;
        }
        for (number, owner) in self.owners.iter().enumerate() {
            write!(f, "{} {owner}", if number == 0 { ", held by" } else { " and" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for blocked in &self.blocked {
            writeln!(f, "{blocked}")?;
        }
        for circle in &self.circles {
            writeln!(f, "deadlock:")?;
            for &at in circle {
                writeln!(f, "  {}", self.blocked[at])?;
            }
        }
        Ok(())
    }
}
