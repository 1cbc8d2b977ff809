//! Mutexes: ours, and the C library's process-shared robust one as the peer. Both lie in the same kind of shared memory and are used by
//! processes started the same way.
#![expect(unsafe_code, reason = "the peer is the C library's mutex")]

use crate::Outcome;
use crate::machine::{Pinned, move_to};
use crate::measure::{Plan, timed};
use multiproc::sync::{Barrier, Event, Mutex};
use multiproc::{Process, Shared, ShmSafe};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A counter under the peer's mutex.
#[derive(ShmSafe)]
#[repr(C, align(64))]
pub struct Peer {
    mutex: [AtomicU64; size_of::<libc::pthread_mutex_t>().div_ceil(8)],
    unused: [AtomicU64; 3],
    counter: AtomicU64,
}

/// A counter under ours.
type Ours = Mutex<u64>;

/// What the measurement does under either lock: adds one.
trait Counter: ShmSafe {
    fn make() -> Outcome<Shared<Self>>
    where
        Self: Sized;
    fn add(&self);
    fn value(&self) -> u64;
}

impl Counter for Ours {
    fn make() -> Outcome<Shared<Self>> {
        Ok(Mutex::shared(0)?)
    }

    #[inline]
    fn add(&self) {
        if let Ok(mut counter) = self.lock() {
            *counter += 1;
        }
    }

    fn value(&self) -> u64 {
        self.lock().map_or(0, |counter| *counter)
    }
}

impl Peer {
    fn mutex(&self) -> *mut libc::pthread_mutex_t {
        self.mutex.as_ptr().cast_mut().cast()
    }
}

impl Counter for Peer {
    fn make() -> Outcome<Shared<Self>> {
        let peer = Shared::<Self>::zeroed()?;
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: initialises the attributes.
        let begun = unsafe { libc::pthread_mutexattr_init(attributes) };
        // SAFETY: initialised above.
        let shared = unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
        // SAFETY: initialised above.
        let robust = unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) };
        // SAFETY: room for a mutex, aligned to 64 bytes, that nobody uses yet.
        let made = unsafe { libc::pthread_mutex_init(peer.mutex(), attributes) };
        match [begun, shared, robust, made].into_iter().find(|&result| result != 0) {
            None => Ok(peer),
            Some(error) => Err(std::io::Error::from_raw_os_error(error).into()),
        }
    }

    #[inline]
    fn add(&self) {
        // SAFETY: initialised in `make`.
        if unsafe { libc::pthread_mutex_lock(self.mutex()) } == 0 {
            let counter = self.counter.load(Ordering::Relaxed);
            self.counter.store(counter + 1, Ordering::Relaxed);
            // SAFETY: this thread locked it.
            unsafe { libc::pthread_mutex_unlock(self.mutex()) };
        }
    }

    fn value(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }
}

fn uncontended<C: Counter>(plan: &Plan) -> Outcome<Duration> {
    let _pinned = Pinned::to_first()?;
    let counter = C::make()?;
    let add = |count: u32| (0..count).for_each(|_| black_box(&*counter).add());
    add(plan.warm_up);
    let ((), time) = timed(|| {
        add(plan.count);
        Ok(())
    })?;
    check(&*counter, u64::from(plan.total()))?;
    Ok(time)
}

fn check<C: Counter>(counter: &C, expected: u64) -> Outcome<()> {
    let value = counter.value();
    if value == expected { Ok(()) } else { Err(format!("counted {value}, not {expected}").into()) }
}

/// A process that counts: when all have come it begins, and when all are done it ends.
fn count<C: Counter>((counter, meet, turns, cpu): (Shared<C>, Shared<Barrier>, u32, Option<u32>)) -> bool {
    move_to(cpu);
    let begun = meet.wait().is_ok();
    (0..turns).for_each(|_| counter.add());
    begun && meet.wait().is_ok()
}

fn contended<C: Counter>(plan: &Plan, processes: u32) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let counter = C::make()?;
    let meet = Barrier::shared(processes + 1)?;
    let turns = plan.count / processes;
    // The first stays where this process is pinned; who waits for the end takes no time from it.
    let cpu = |number: u32| if number.is_multiple_of(2) { None } else { pinned.second() };
    let start = |number| Process::spawn(count::<C>, (counter.clone(), meet.clone(), turns, cpu(number)));
    let children: Vec<_> = (0..processes).map(start).collect::<Result<_, _>>()?;
    meet.wait()?;
    let (_, time) = timed(|| Ok(meet.wait()?))?;
    for child in children {
        if !child.join()? {
            return Err("a process could not wait at the barrier".into());
        }
    }
    check(&*counter, u64::from(turns) * u64::from(processes))?;
    Ok(time)
}

/// Lock, add one, unlock, by one thread.
///
/// # Errors
/// When the library fails, or the count is wrong.
pub fn ours_alone(plan: &Plan) -> Outcome<Duration> {
    uncontended::<Ours>(plan)
}

/// The same with the peer.
///
/// # Errors
/// As [`ours_alone`].
pub fn peer_alone(plan: &Plan) -> Outcome<Duration> {
    uncontended::<Peer>(plan)
}

/// The same by two processes at once.
///
/// # Errors
/// As [`ours_alone`].
pub fn ours_two(plan: &Plan) -> Outcome<Duration> {
    contended::<Ours>(plan, 2)
}

/// The same with the peer.
///
/// # Errors
/// As [`ours_alone`].
pub fn peer_two(plan: &Plan) -> Outcome<Duration> {
    contended::<Peer>(plan, 2)
}

/// The same by four processes at once.
///
/// # Errors
/// As [`ours_alone`].
pub fn ours_four(plan: &Plan) -> Outcome<Duration> {
    contended::<Ours>(plan, 4)
}

/// The same with the peer.
///
/// # Errors
/// As [`ours_alone`].
pub fn peer_four(plan: &Plan) -> Outcome<Duration> {
    contended::<Peer>(plan, 4)
}

/// A process that takes the mutex, says so, and is killed with it.
fn hold((mutex, held): (Shared<Ours>, Shared<Event>)) {
    let _guard = mutex.lock();
    held.set();
    loop {
        thread::park();
    }
}

/// The 99th percentile of the time from the kill of the owner to the mutex being another's, times [`Plan::count`].
///
/// # Errors
/// When the library fails, or a death is not told.
pub fn handover(plan: &Plan) -> Outcome<Duration> {
    let mut times = Vec::new();
    for _ in 0..plan.count {
        let (mutex, held) = (Mutex::shared(0)?, Event::shared()?);
        let owner = Process::spawn(hold, (mutex.clone(), held.clone()))?;
        held.wait()?;
        let waiter = {
            let mutex = mutex.clone();
            thread::spawn(move || (mutex.lock().is_err_and(|error| error.is_owner_died()), Instant::now()))
        };
        while !waits(&mutex) {
            thread::yield_now();
        }
        let killed = Instant::now();
        owner.kill()?;
        let (told, taken) = waiter.join().map_err(|_| "the waiter panicked")?;
        if !told {
            return Err("the death was not told".into());
        }
        times.push(taken.saturating_duration_since(killed));
        // Reaps it; that it was killed is known.
        let _ = owner.join();
    }
    times.sort_unstable();
    let at = times.len().saturating_sub(1) * 99 / 100;
    Ok(times.get(at).copied().unwrap_or_default() * plan.count)
}

/// Whether somebody is noted as waiting for the mutex.
fn waits(mutex: &Shared<Ours>) -> bool {
    !multiproc::sync::deadlock::report_around(&**mutex).blocked.is_empty()
}

/// One millisecond, the goal for the hand-over.
///
/// # Errors
/// None.
pub fn one_millisecond(plan: &Plan) -> Outcome<Duration> {
    Ok(Duration::from_millis(1) * plan.count)
}
