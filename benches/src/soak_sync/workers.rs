//! What users of each primitive do, and what they check meanwhile.
//!
//! Words beside the primitive say who is inside of it: the serial number of a process, which is *doomed* from before it is killed. Who
//! is inside although somebody else's number is there has found a fault, unless that one is doomed.
//! What locks guard is changed in two halves; halves that differ are a fault unless the lock told of a death or of poison.

use super::{Board, Soaked, User, WORKERS};
use mp_sync::{
    Barrier, BarrierError, Condvar, Event, Failure, Latch, LatchError, LockError, LockResult, Mutex, Once,
    Patience, RecursiveMutex, RwLock, Semaphore,
};
use multiproc::{Shared, ShmSafe};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

/// A wait of a turn that is not to last for ever.
const SHORT: Duration = Duration::from_micros(300);
/// A wait at rest, where nobody is left to wait for.
const LONG: Duration = Duration::from_secs(20);

/// What locks guard: both halves are equal whenever nobody is changing them.
#[derive(Debug, ShmSafe)]
#[repr(C)]
struct Halves {
    first: AtomicU64,
    second: AtomicU64,
}

impl Halves {
    fn are_equal(&self) -> bool {
        let first = self.first.load(SeqCst);
        pause();
        first == self.second.load(SeqCst) && first == self.first.load(SeqCst)
    }

    fn change(&self) {
        self.first.fetch_add(1, SeqCst);
        pause();
        self.second.fetch_add(1, SeqCst);
    }

    fn repair(&self) {
        self.second.store(self.first.load(SeqCst), SeqCst);
    }
}

/// About a microsecond, for a kill to fall into.
fn pause() {
    for _ in 0..30 {
        std::hint::spin_loop();
    }
}

/// What taking a lock told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    None,
    Died,
    Poisoned,
}

/// The guard with what was told; `None` if the time was over.
fn taken<G>(result: LockResult<G>, board: &Board) -> Result<Option<(G, News)>, String> {
    match result {
        Ok(guard) => Ok(Some((guard, News::None))),
        Err(LockError::OwnerDied { guard, owner }) => {
            board.told(owner);
            Ok(Some((guard, News::Died)))
        }
        Err(LockError::Poisoned { guard }) => Ok(Some((guard, News::Poisoned))),
        Err(LockError::Failed(failure)) if failure.is_time() => Ok(None),
        Err(LockError::Failed(failure)) => Err(failure.to_string()),
    }
}

impl User<'_> {
    /// Varies what is done from turn to turn.
    fn is_nth(&self, n: u64) -> bool {
        fastrand::u64(..n) == 0
    }

    /// Comes in where only one may be; `died`: a death was told.
    fn alone(&self, inside: &AtomicU32, died: bool) -> Result<(), String> {
        match inside.swap(self.serial, SeqCst) {
            0 => Ok(()),
            other if died && self.board.is_doomed(other) => Ok(()),
            other => Err(format!("inside together with process {other}; a death was told: {died}")),
        }
    }
}

#[derive(ShmSafe)]
#[repr(C)]
pub(super) struct MutexPlace {
    mutex: Mutex<Halves>,
    inside: AtomicU32,
}

impl Soaked for MutexPlace {
    fn make() -> multiproc::Result<Shared<Self>> {
        Ok(Shared::zeroed()?)
    }

    fn turn(&self, user: &User<'_>, _: bool) -> Result<(), String> {
        let result = match fastrand::u32(..8) {
            0 => self.mutex.try_lock(),
            1 => self.mutex.lock_timeout(SHORT),
            _ => self.mutex.lock(),
        };
        let Some((guard, news)) = taken(result, user.board)? else { return Ok(()) };
        user.alone(&self.inside, news == News::Died)?;
        if news != News::None && user.is_nth(4) {
            // Left as it is: the next one finds it poisoned.
            self.inside.store(0, SeqCst);
            return Ok(());
        }
        if !guard.are_equal() && news == News::None {
            return Err(format!("torn, and nobody told: {:?}", *guard));
        }
        guard.repair();
        guard.recover();
        guard.change();
        self.inside.store(0, SeqCst);
        Ok(())
    }

    fn at_rest(&self, board: &Board) -> Result<(), String> {
        let taken = taken(self.mutex.lock_timeout(LONG), board)?;
        let (guard, news) = taken.ok_or("the mutex is not free")?;
        if news == News::None && !guard.are_equal() {
            return Err(format!("torn, and nobody told: {:?}", *guard));
        }
        Ok(())
    }
}

#[derive(ShmSafe)]
#[repr(C)]
pub(super) struct RecursivePlace {
    mutex: RecursiveMutex<Halves>,
    inside: AtomicU32,
}

impl Soaked for RecursivePlace {
    fn make() -> multiproc::Result<Shared<Self>> {
        Ok(Shared::zeroed()?)
    }

    fn turn(&self, user: &User<'_>, _: bool) -> Result<(), String> {
        let result = if user.is_nth(8) { self.mutex.lock_timeout(SHORT) } else { self.mutex.lock() };
        let Some((guard, news)) = taken(result, user.board)? else { return Ok(()) };
        user.alone(&self.inside, news == News::Died)?;
        if !guard.are_equal() && news == News::None {
            return Err(format!("torn, and nobody told: {:?}", *guard));
        }
        guard.repair();
        guard.recover();
        for _ in 0..3 {
            match self.mutex.try_lock() {
                Ok(again) => again.change(),
                Err(error) => return Err(format!("taking it once more: {error}")),
            }
            if self.inside.load(SeqCst) != user.serial {
                return Err("the inner guard gave the mutex away".to_owned());
            }
        }
        self.inside.store(0, SeqCst);
        Ok(())
    }

    fn at_rest(&self, board: &Board) -> Result<(), String> {
        let taken = taken(self.mutex.lock_timeout(LONG), board)?;
        let (guard, news) = taken.ok_or("the mutex is not free")?;
        if news == News::None && !guard.are_equal() {
            return Err(format!("torn, and nobody told: {:?}", *guard));
        }
        Ok(())
    }
}

#[derive(ShmSafe)]
#[repr(C)]
pub(super) struct RwLockPlace {
    lock: RwLock<Halves, 8>,
    writer: AtomicU32,
    readers: [AtomicU32; WORKERS],
}

impl RwLockPlace {
    fn read(&self, user: &User<'_>) -> Result<(), String> {
        let result = match fastrand::u32(..8) {
            0 => self.lock.try_read(),
            1 => self.lock.read_timeout(SHORT),
            _ => self.lock.read(),
        };
        let Some((guard, news)) = taken(result, user.board)? else { return Ok(()) };
        self.readers[user.slot].store(user.serial, SeqCst);
        let writer = self.writer.load(SeqCst);
        if writer != 0 && (news == News::None || !user.board.is_doomed(writer)) {
            return Err(format!("reads while process {writer} writes"));
        }
        let before = (guard.first.load(SeqCst), guard.second.load(SeqCst));
        pause();
        let after = (guard.first.load(SeqCst), guard.second.load(SeqCst));
        if before != after {
            return Err(format!("changed while it reads: {before:?}, {after:?}"));
        }
        if before.0 != before.1 && news == News::None {
            return Err(format!("torn, and nobody told: {before:?}"));
        }
        self.readers[user.slot].store(0, SeqCst);
        Ok(())
    }

    fn write(&self, user: &User<'_>) -> Result<(), String> {
        let result = match fastrand::u32(..8) {
            0 => self.lock.try_write(),
            1 => self.lock.write_timeout(SHORT),
            _ => self.lock.write(),
        };
        let Some((guard, news)) = taken(result, user.board)? else { return Ok(()) };
        user.alone(&self.writer, news != News::None)?;
        for reader in &self.readers {
            let reader = reader.load(SeqCst);
            if reader != 0 && !user.board.is_doomed(reader) {
                return Err(format!("writes while process {reader} reads"));
            }
        }
        if news != News::None && user.is_nth(4) {
            self.writer.store(0, SeqCst);
            return Ok(());
        }
        if !guard.are_equal() && news == News::None {
            return Err(format!("torn, and nobody told: {:?}", *guard));
        }
        guard.repair();
        guard.recover();
        guard.change();
        self.writer.store(0, SeqCst);
        Ok(())
    }
}

impl Soaked for RwLockPlace {
    fn make() -> multiproc::Result<Shared<Self>> {
        Ok(Shared::zeroed()?)
    }

    fn turn(&self, user: &User<'_>, _: bool) -> Result<(), String> {
        if user.is_nth(3) { self.write(user) } else { self.read(user) }
    }

    fn at_rest(&self, board: &Board) -> Result<(), String> {
        let taken = taken(self.lock.write_timeout(LONG), board)?;
        let (guard, news) = taken.ok_or("the lock is not free")?;
        if news == News::None && !guard.are_equal() {
            return Err(format!("torn, and nobody told: {:?}", *guard));
        }
        Ok(())
    }
}

/// Made and not yet used; how many there are is kept besides.
#[derive(Debug, ShmSafe)]
#[repr(C)]
struct Tokens {
    made: u64,
    used: u64,
    there: u64,
}

#[derive(ShmSafe)]
#[repr(C)]
pub(super) struct CondvarPlace {
    tokens: Mutex<Tokens>,
    not_empty: Condvar,
    not_full: Condvar,
}

/// Most tokens there may be.
const TOKENS_MAX: u64 = 2;

impl Soaked for CondvarPlace {
    fn make() -> multiproc::Result<Shared<Self>> {
        Ok(Shared::zeroed()?)
    }

    fn turn(&self, user: &User<'_>, _: bool) -> Result<(), String> {
        let gives = user.slot < 2;
        let condvar = if gives { &self.not_full } else { &self.not_empty };
        let mut result = self.tokens.lock();
        loop {
            let Some((mut guard, news)) = taken(result, user.board)? else {
                return Err("a wait without limit ended".to_owned());
            };
            if news != News::None {
                // Of the three, `there` is changed last.
                guard.there = guard.made - guard.used;
                guard.recover();
            }
            if guard.there != guard.made - guard.used || guard.there > TOKENS_MAX {
                return Err(format!("not right: {:?}", *guard));
            }
            if gives && guard.there < TOKENS_MAX {
                guard.made += 1;
                pause();
                guard.there = std::hint::black_box(guard.there) + 1;
                drop(guard);
                self.not_empty.notify_one();
                return Ok(());
            }
            if !gives && guard.there > 0 {
                guard.used += 1;
                pause();
                guard.there = std::hint::black_box(guard.there) - 1;
                drop(guard);
                self.not_full.notify_one();
                return Ok(());
            }
            result = if user.is_nth(16) {
                match condvar.wait_timeout(guard, SHORT) {
                    Ok((guard, _)) => Ok(guard),
                    Err(LockError::OwnerDied { guard, owner }) => {
                        Err(LockError::OwnerDied { guard: guard.0, owner })
                    }
                    Err(LockError::Poisoned { guard }) => Err(LockError::Poisoned { guard: guard.0 }),
                    Err(LockError::Failed(failure)) => Err(LockError::Failed(failure)),
                }
            } else {
                condvar.wait(guard)
            };
        }
    }

    fn at_rest(&self, board: &Board) -> Result<(), String> {
        let taken = taken(self.tokens.lock_timeout(LONG), board)?;
        let (guard, news) = taken.ok_or("the mutex is not free")?;
        if news == News::None && guard.there != guard.made - guard.used {
            return Err(format!("not right: {:?}", *guard));
        }
        Ok(())
    }
}

const PERMITS: u32 = 2;

#[derive(ShmSafe)]
#[repr(C)]
pub(super) struct SemaphorePlace {
    semaphore: Semaphore<8>,
    /// Serial number in the upper half, permits held in the lower.
    holds: [AtomicU64; WORKERS],
}

impl Soaked for SemaphorePlace {
    fn make() -> multiproc::Result<Shared<Self>> {
        Ok(Shared::with(|place: &mut Self| place.semaphore.set_up(PERMITS, Some(PERMITS)))?)
    }

    fn turn(&self, user: &User<'_>, _: bool) -> Result<(), String> {
        let result = match fastrand::u32(..8) {
            0 => self.semaphore.try_acquire(),
            1 => self.semaphore.acquire_timeout(SHORT),
            2 => self.semaphore.acquire_many(2, Patience::from(SHORT)),
            _ => self.semaphore.acquire(),
        };
        let permit = match result {
            Ok(permit) => permit,
            Err(failure) if failure.is_time() => return Ok(()),
            Err(failure) => return Err(failure.to_string()),
        };
        self.holds[user.slot].store(u64::from(user.serial) << 32 | u64::from(permit.count()), SeqCst);
        let mut held = 0;
        for holds in &self.holds {
            let holds = holds.load(SeqCst);
            let serial = u32::try_from(holds >> 32).unwrap_or(0);
            if !user.board.is_doomed(serial) || serial == user.serial {
                held += holds & u64::from(u32::MAX);
            }
        }
        if held > PERMITS.into() || self.semaphore.total() != PERMITS {
            return Err(format!("{held} permits in use of {PERMITS}: {:?}", self.semaphore));
        }
        pause();
        self.holds[user.slot].store(0, SeqCst);
        drop(permit);
        Ok(())
    }

    fn at_rest(&self, _: &Board) -> Result<(), String> {
        let all = self.semaphore.acquire_many(PERMITS, Patience::from(LONG));
        drop(all.map_err(|failure| format!("permits are lost: {failure}, {:?}", self.semaphore))?);
        if self.semaphore.available() != PERMITS || self.semaphore.total() != PERMITS {
            return Err(format!("permits are lost: {:?}", self.semaphore));
        }
        Ok(())
    }
}

/// Slot 0 sets one of two events in turn, when all others have gone on from the other one.
#[derive(ShmSafe)]
#[repr(C)]
pub(super) struct EventPlace {
    events: [Event; 2],
    /// The round whose event is about to be set.
    setting: AtomicU64,
    seen: [AtomicU64; WORKERS],
}

impl Soaked for EventPlace {
    fn make() -> multiproc::Result<Shared<Self>> {
        Ok(Shared::zeroed()?)
    }

    fn turn(&self, user: &User<'_>, fresh: bool) -> Result<(), String> {
        let event = |round: u64| &self.events[usize::from(!round.is_multiple_of(2))];
        if user.slot == 0 {
            // The last one of this slot may have died half-way: its round is begun again.
            let round = self.setting.load(SeqCst) + u64::from(!fresh);
            event(round + 1).clear();
            self.setting.store(round, SeqCst);
            event(round).set();
            while self.seen[1..].iter().any(|seen| seen.load(SeqCst) < round) {
                std::thread::sleep(Duration::from_micros(20));
            }
            return Ok(());
        }
        let next = self.seen[user.slot].load(SeqCst) + 1;
        match if user.is_nth(8) { event(next).wait_timeout(SHORT) } else { event(next).wait() } {
            Ok(()) => {}
            Err(failure) if failure.is_time() => return Ok(()),
            Err(failure) => return Err(failure.to_string()),
        }
        let setting = self.setting.load(SeqCst);
        if setting != next {
            return Err(format!("went on for round {next} while round {setting} was set"));
        }
        self.seen[user.slot].store(next, SeqCst);
        Ok(())
    }

    fn at_rest(&self, _: &Board) -> Result<(), String> {
        self.events[0].set();
        self.events[0].wait_timeout(LONG).map_err(|failure| failure.to_string())
    }
}

#[derive(ShmSafe)]
#[repr(C)]
pub(super) struct BarrierPlace {
    barrier: Barrier<8>,
    /// Odd while a process of the slot waits, or has died waiting.
    waits: [AtomicU64; WORKERS],
}

impl Soaked for BarrierPlace {
    fn make() -> multiproc::Result<Shared<Self>> {
        Ok(Shared::with(|place: &mut Self| place.barrier.set_up(4))?)
    }

    fn turn(&self, user: &User<'_>, fresh: bool) -> Result<(), String> {
        let mine = &self.waits[user.slot];
        if fresh && !mine.load(SeqCst).is_multiple_of(2) {
            mine.fetch_add(1, SeqCst);
        }
        loop {
            let before = self.waits.each_ref().map(|wait| wait.load(SeqCst));
            mine.fetch_add(1, SeqCst);
            let result = self.barrier.wait();
            let after = self.waits.each_ref().map(|wait| wait.load(SeqCst));
            mine.fetch_add(1, SeqCst);
            match result {
                Ok(_) => {
                    let absent = |slot: usize| before[slot].is_multiple_of(2) && before[slot] == after[slot];
                    if let Some(slot) = (0..WORKERS).find(|&slot| absent(slot)) {
                        return Err(format!(
                            "came through, but slot {slot} did not come: {before:?}, {after:?}"
                        ));
                    }
                    return Ok(());
                }
                Err(BarrierError::Broken) => {
                    if self.barrier.is_broken() {
                        self.barrier.reset().map_err(|error| error.to_string())?;
                    }
                }
                Err(BarrierError::Failed(failure)) => return Err(failure.to_string()),
            }
        }
    }

    fn at_rest(&self, _: &Board) -> Result<(), String> {
        self.barrier.reset().map_err(|error| error.to_string())?;
        if self.barrier.is_broken() || self.barrier.waiting() != 0 {
            return Err(format!("not new after a reset: {:?}", self.barrier));
        }
        match self.barrier.wait_timeout(SHORT) {
            Err(BarrierError::Failed(Failure::TimedOut)) => Ok(()),
            other => Err(format!("one alone waits for four: {other:?}")),
        }
    }
}

/// How many are used one after the other in a batch.
const INSTANCES: usize = 4096;

#[derive(ShmSafe)]
#[repr(C)]
struct OneOnce {
    once: Once,
    halves: Halves,
    inside: AtomicU32,
    begun: AtomicU32,
    returned: AtomicU32,
}

#[derive(ShmSafe)]
#[repr(C)]
pub(super) struct OncePlace {
    /// The one that is to be done.
    cursor: AtomicU64,
    onces: [OneOnce; INSTANCES],
}

/// The instance that is in use; none when all have been.
fn current<'a, T>(cursor: &AtomicU64, all: &'a [T]) -> Option<(u64, &'a T)> {
    let at = cursor.load(SeqCst);
    let one = usize::try_from(at).ok().and_then(|at| all.get(at));
    if one.is_none() {
        std::thread::sleep(SHORT);
    }
    one.map(|one| (at, one))
}

/// Goes on to the next instance, unless somebody did.
fn advance(cursor: &AtomicU64, at: u64) {
    // Whoever is first; to the others it is all the same.
    let _ = cursor.compare_exchange(at, at + 1, SeqCst, SeqCst);
}

impl Soaked for OncePlace {
    fn make() -> multiproc::Result<Shared<Self>> {
        Ok(Shared::zeroed()?)
    }

    fn turn(&self, user: &User<'_>, _: bool) -> Result<(), String> {
        let Some((at, one)) = current(&self.cursor, &self.onces) else { return Ok(()) };
        let mut fault = None;
        let called = one.once.call_once(|state| {
            fault = user.alone(&one.inside, state.is_again()).err();
            if one.returned.load(SeqCst) != 0 {
                fault = Some("done once more after it was done".to_owned());
            }
            if one.begun.swap(1, SeqCst) != 0 && !state.is_again() {
                fault = Some("begun before, and not told".to_owned());
            }
            one.halves.repair();
            one.halves.first.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_micros(100));
            one.halves.second.fetch_add(1, SeqCst);
            one.inside.store(0, SeqCst);
        });
        called.map_err(|failure| failure.to_string())?;
        if let Some(fault) = fault {
            return Err(format!("once {at}: {fault}"));
        }
        if !one.once.is_completed() || !one.halves.are_equal() || one.halves.first.load(SeqCst) == 0 {
            return Err(format!("once {at} is not done: {:?}", one.halves));
        }
        one.returned.store(1, SeqCst);
        advance(&self.cursor, at);
        Ok(())
    }

    fn at_rest(&self, _: &Board) -> Result<(), String> {
        let used = usize::try_from(self.cursor.load(SeqCst)).unwrap_or(INSTANCES).min(INSTANCES);
        match self.onces[..used].iter().position(|one| !one.once.is_completed()) {
            Some(at) => Err(format!("once {at} was done, and is not")),
            None => Ok(()),
        }
    }
}

#[derive(ShmSafe)]
#[repr(C)]
struct OneLatch {
    latch: Latch<8>,
    /// How often it was, or was about to be, counted down.
    counts: AtomicU32,
    unused: u32,
}

#[derive(ShmSafe)]
#[repr(C)]
pub(super) struct LatchPlace {
    cursor: AtomicU64,
    /// Number of the latch, plus one, that a process of the slot has a ticket of for certain.
    tickets: [AtomicU64; WORKERS],
    latches: [OneLatch; INSTANCES],
}

impl Soaked for LatchPlace {
    fn make() -> multiproc::Result<Shared<Self>> {
        Ok(Shared::with(|place: &mut Self| {
            for one in &mut place.latches {
                one.latch.set_up(4);
            }
        })?)
    }

    fn turn(&self, user: &User<'_>, fresh: bool) -> Result<(), String> {
        let Some((at, one)) = current(&self.cursor, &self.latches) else { return Ok(()) };
        let said = &self.tickets[user.slot];
        let failed = |failure: Failure| format!("latch {at}: {failure}");
        if !fresh {
            let ticket = one.latch.ticket().map_err(failed)?;
            said.store(at + 1, SeqCst);
            std::thread::sleep(Duration::from_micros(60));
            one.counts.fetch_add(1, SeqCst);
            said.store(0, SeqCst);
            drop(ticket);
        } else if said.swap(0, SeqCst) != at + 1 {
            // The last one of this slot did not die with a ticket, so nobody is told: its count, or more, comes from here.
            while one.latch.count() > 0 {
                one.counts.fetch_add(1, SeqCst);
                one.latch.count_down().map_err(failed)?;
            }
        }
        match one.latch.wait() {
            Ok(()) if one.counts.load(SeqCst) < 4 => return Err(format!("latch {at} was early")),
            Err(LatchError::Failed(failure)) => return Err(failed(failure)),
            Err(LatchError::OwnerDied { owner }) => user.board.told(Some(owner)),
            Ok(()) | Err(LatchError::Poisoned) => {}
        }
        advance(&self.cursor, at);
        Ok(())
    }

    fn at_rest(&self, board: &Board) -> Result<(), String> {
        for (at, one) in self.latches.iter().enumerate() {
            one.latch.recover();
            while one.latch.count() > 0 {
                one.latch.count_down().map_err(|failure| failure.to_string())?;
            }
            match one.latch.wait_timeout(LONG) {
                Ok(()) => {}
                Err(LatchError::OwnerDied { owner }) => board.told(Some(owner)),
                Err(error) => return Err(format!("latch {at} at zero: {error}")),
            }
        }
        Ok(())
    }
}
