//! Taking back what the dead held.
//!
//! Under the domain's lock, in this order; every step can be done again from the start, so a death in the middle (the next
//! locker finds the tables dirty) is followed by the same steps:
//!
//! 1. dirty tables: rebuild free lists and spans from stamps;
//! 2. in every object, release the slots of dead threads, and strip the messages that are lost;
//! 3. free the blocks with a dead process's stamp that no slot names;
//! 4. count all references again, tell objects whose end lost its last holder, destroy those that have none, or none but in their own messages:
//!    nobody could take those out. What was attached to the messages of the destroyed is counted anew, until nothing more is found;
//! 5. give the ids of dead threads and processes free;
//! 6. advance the death epoch and wake all who watch it.
//!
//! Ids are given free last, so an id in a slot always means the thread that wrote it. A process that does not know every kind
//! of object there is (it has not touched a channel yet, say) does what it can of steps 1, 2 and 6 and leaves the tables marked for one that does.

use crate::block::{SHARED, Stamp};
use crate::death;
use crate::domain::Locked;
use crate::handle::Kind;
use crate::kinds;
use crate::layout::{DIRTY_BLOCKS, DIRTY_COUNTS, DIRTY_NOT, PROCESS_FREE, PROCESS_LIVE, PROCESS_STARTING};
use crate::participants::is_alive;
use mp_sys::robust::{OWNER_DIED, TID_MASK, WAITERS};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

struct Dead {
    threads: HashSet<u16>,
    processes: HashSet<u16>,
    /// A process is dying in parts, or goes on in part: look again later.
    half_dead: bool,
}

impl Locked {
    /// Takes back what the dead held. Returns `false` if a process is dying in parts and must be looked at again.
    pub(crate) fn recover(&mut self) -> bool {
        let dirty = self.header.dirty.load(Ordering::Relaxed);
        let dead = self.find_dead();
        if dirty == DIRTY_NOT && dead.threads.is_empty() && dead.processes.is_empty() {
            return !dead.half_dead;
        }
        // Dirty until done: whoever comes after a death in here starts again.
        self.header.dirty.store(DIRTY_BLOCKS, Ordering::Relaxed);
        mp_sys::crash::point("recover.begin");
        if dirty == DIRTY_BLOCKS {
            self.rebuild_blocks();
        }
        let known = kinds::known();
        let objects = self.objects();
        self.sweep(&objects, &dead);
        mp_sys::crash::point("recover.swept");
        if objects.iter().any(|&(_, kind)| kinds::find(kind).is_none()) {
            // Somebody who knows all kinds does the rest: at his next turn with the lock, or when the epoch wakes him.
            self.header.dirty.store(DIRTY_COUNTS, Ordering::Relaxed);
            death::advance(&self.header.death_epoch.0);
            self.note_stuck(known);
            return !dead.half_dead;
        }
        self.free_blocks(&objects, &dead);
        mp_sys::crash::point("recover.freed");
        self.recount(&dead);
        mp_sys::crash::point("recover.counted");
        self.free_ids(&dead);
        mp_sys::crash::point("recover.before_advance");
        self.header.dirty.store(DIRTY_NOT, Ordering::Relaxed);
        death::advance(&self.header.death_epoch.0);
        !dead.half_dead
    }

    /// Whether this process has tried already, and knows no more kinds by now, and nobody has recovered since: it would look through all
    /// blocks in vain at every turn with the lock.
    pub(crate) fn is_stuck(&self) -> bool {
        self.session.inner().stuck_at.load(Ordering::Relaxed) == self.state_of_recovery(kinds::known())
    }

    fn note_stuck(&self, known: u32) {
        self.session.inner().stuck_at.store(self.state_of_recovery(known), Ordering::Relaxed);
    }

    /// Advances the death epoch for what is no recovery.
    pub(crate) fn wake_all(&self) {
        let was_stuck = self.is_stuck();
        death::advance(&self.header.death_epoch.0);
        if was_stuck {
            self.note_stuck(kinds::known());
        }
    }

    /// Tells one state of affairs from another; never 0. The epoch is advanced under the lock alone.
    fn state_of_recovery(&self, known: u32) -> u64 {
        u64::from(known) << 32 | u64::from(self.header.death_epoch.0.load(Ordering::Relaxed))
    }

    fn find_dead(&self) -> Dead {
        let mut half_dead = self.mark_the_replaced();
        let mut threads = HashSet::new();
        let mut alive = HashSet::new();
        for id in self.session.thread_ids().iter() {
            let Some(sentinel) = self.session.sentinel(id) else { break };
            let word = sentinel.word.load(Ordering::Acquire);
            if word == 0 {
                // Its holder died before it had the sentinel, or after it had freed it.
                self.session.thread_ids().remove(id);
            } else if word & OWNER_DIED != 0 {
                threads.extend(u16::try_from(id));
            } else if is_alive(word) {
                alive.insert(sentinel.tag.load(Ordering::Relaxed));
            }
        }
        let mut processes = HashSet::new();
        for id in self.session.process_ids().iter() {
            let Some(entry) = self.session.process(id) else { break };
            let pid = entry.pid.load(Ordering::Relaxed);
            let start_time = entry.start_time.load(Ordering::Relaxed);
            let is_dead = match entry.state.load(Ordering::Acquire) {
                PROCESS_LIVE if !alive.contains(&id) => {
                    let runs_on = mp_sys::process::runs_without_leader(pid, start_time);
                    half_dead |= runs_on;
                    !runs_on
                }
                // It has no sentinel yet; it is gone if no process of that pid and start time exists. Without /proc (start time 0), and
                // without a descriptor to read it with, nobody can tell.
                PROCESS_STARTING if !alive.contains(&id) && start_time != 0 => mp_sys::process::status(pid)
                    .is_ok_and(|found| {
                        found.is_none_or(|status| status.start_time != start_time || status.leader_ended)
                    }),
                PROCESS_FREE => {
                    // As with threads.
                    self.session.process_ids().remove(id);
                    false
                }
                _ => false,
            };
            if is_dead {
                processes.extend(u16::try_from(id));
            }
        }
        Dead { threads, processes, half_dead }
    }

    /// Looks at processes whose lead is dead; says whether one of them has living threads, so that it must be looked at again.
    ///
    /// Usually such a process is dying, and the kernel will mark the rest. But a thread other than the first that replaces the program
    /// (`execve`) gets the first one's id before its robust list is walked, so the kernel cannot mark its sentinel. That is done here,
    /// once there is no thread of that id any more. (A program whose first thread has ended for good is looked at for ever.)
    fn mark_the_replaced(&self) -> bool {
        let mut look_again = false;
        for id in self.session.process_ids().iter() {
            let Some(entry) = self.session.process(id) else { break };
            let lead = self.session.sentinel(entry.lead.load(Ordering::Relaxed));
            let lead_lives = lead.is_some_and(|lead| {
                lead.tag.load(Ordering::Relaxed) == id && is_alive(lead.word.load(Ordering::Acquire))
            });
            if entry.state.load(Ordering::Acquire) != PROCESS_LIVE || lead_lives {
                continue;
            }
            let pid = entry.pid.load(Ordering::Relaxed);
            let start_time = entry.start_time.load(Ordering::Relaxed);
            for sentinel in self.session.sentinels_of(id) {
                let word = sentinel.word.load(Ordering::Acquire);
                if is_alive(word) {
                    if start_time == 0 || mp_sys::process::has_thread(pid, start_time, word & TID_MASK) {
                        look_again = true;
                    } else {
                        // The thread is gone: nobody but us changes the word, and we hold the lock.
                        sentinel.word.store(OWNER_DIED | WAITERS, Ordering::Release);
                    }
                }
            }
        }
        look_again
    }

    fn objects(&self) -> Vec<(u64, Kind)> {
        let mut objects = Vec::new();
        self.for_each_block(&mut |offset, _, stamp| {
            if stamp.owner == SHARED {
                objects.push((offset, stamp.kind));
            }
        });
        objects
    }

    fn sweep(&self, objects: &[(u64, Kind)], dead: &Dead) {
        for &(object, kind) in objects {
            if let Some(kind) = kinds::find(kind) {
                kind.sweep(self.session, object, &|thread| dead.threads.contains(&thread), &mut |block| {
                    if let Some(header) = self.session.block_header(block) {
                        header.attachments.store(0, Ordering::Relaxed);
                    }
                });
            }
        }
    }

    fn free_blocks(&mut self, objects: &[(u64, Kind)], dead: &Dead) {
        let mut candidates = Vec::new();
        self.for_each_block(&mut |offset, _, stamp| {
            if dead.processes.contains(&stamp.owner) {
                candidates.push(offset);
            }
        });
        // Slots are read after the stamps: whoever takes a block out of a slot stamps it first, so a candidate that is no
        // longer named has another stamp by now.
        let named = self.named_blocks(objects);
        for offset in candidates.into_iter().filter(|offset| !named.contains(offset)) {
            let stamped_dead = self
                .session
                .block_header(offset)
                .is_some_and(|header| dead.processes.contains(&Stamp::read(header).owner));
            if stamped_dead {
                self.free(offset);
            }
        }
        for &process in &dead.processes {
            if let Some(entry) = self.session.process(process.into()) {
                entry.ledger.store(0, Ordering::Relaxed);
            }
        }
    }

    fn named_blocks(&self, objects: &[(u64, Kind)]) -> HashSet<u64> {
        let mut named = HashSet::new();
        for &(object, kind) in objects {
            if let Some(kind) = kinds::find(kind) {
                kind.blocks(self.session, object, &mut |block| {
                    named.insert(block);
                });
            }
        }
        named
    }

    fn recount(&mut self, dead: &Dead) {
        loop {
            let mut counts: HashMap<u64, [u32; 2]> = HashMap::new();
            let mut count = |object: u64, role: usize| counts.entry(object).or_default()[role] += 1;
            for id in self.session.process_ids().iter() {
                let taking_part = self
                    .session
                    .process(id)
                    .is_some_and(|entry| entry.state.load(Ordering::Relaxed) != PROCESS_FREE);
                if taking_part && u16::try_from(id).is_ok_and(|id| !dead.processes.contains(&id)) {
                    self.for_each_entry(id, &mut count);
                }
            }
            self.for_each_name(&mut count);
            // What carries a dead process's stamp and is still there is named by a slot: live, too.
            self.for_each_block(&mut |offset, header, stamp| {
                if stamp.kind == Kind::MESSAGE {
                    self.for_each_attachment(offset, header, &mut count);
                }
            });
            let mut orphans = Vec::new();
            for (object, kind) in self.objects() {
                let Some(header) = self.session.block_header(object) else { continue };
                let right = counts.get(&object).copied().unwrap_or_default();
                for (role, (place, right)) in header.counts.iter().zip(right).enumerate() {
                    let wrong = place.swap(right, Ordering::AcqRel);
                    if right == 0
                        && wrong != 0
                        && let Some(kind) = kinds::find(kind)
                    {
                        kind.closed(self.session, object, role);
                    }
                }
                if right == [0, 0] || self.is_held_by_itself_alone(object, header, kind) {
                    orphans.push((object, kind));
                }
            }
            if orphans.is_empty() {
                return;
            }
            for (object, kind) in orphans {
                // What was attached to its messages is found missing by the next count.
                let _ = self.destroy(object, kind);
            }
        }
    }

    fn free_ids(&mut self, dead: &Dead) {
        for &thread in &dead.threads {
            if let Some(sentinel) = self.session.sentinel(thread.into()) {
                sentinel.word.store(0, Ordering::Release);
                mp_sys::crash::point("recover.thread_freed");
                self.session.thread_ids().remove(thread.into());
            }
        }
        for &process in &dead.processes {
            if let Some(entry) = self.session.process(process.into()) {
                entry.state.store(PROCESS_FREE, Ordering::Release);
                mp_sys::crash::point("recover.process_freed");
                self.session.process_ids().remove(process.into());
            }
        }
    }
}
