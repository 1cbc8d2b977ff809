//! Guards that are forgotten, threads that end with a lock held, processes forked behind the library's back: all have defined results.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "forks behind the library's back")]

use mp_shm::{Shared, ShmSafe};
use mp_sync::{
    Barrier, Event, Failure, Latch, LatchError, LockError, Mutex, Patience, RecursiveMutex, RwLock,
    Semaphore, Waitable, wait_any,
};
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, watchdog};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Runs `body` in a thread that is blocked when this returns.
fn blocked_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(Task::current()).unwrap();
        body()
    });
    told.recv().unwrap().wait_until_blocked();
    thread
}

/// A thread that runs `body`, says so, and ends when it is told to.
fn thread_that_ends_later(body: impl FnOnce() + Send + 'static) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let ((tell, told), (end, ends)) = (mpsc::channel(), mpsc::channel::<()>());
    let thread = std::thread::spawn(move || {
        body();
        tell.send(()).unwrap();
        ends.recv().unwrap();
    });
    told.recv().unwrap();
    (end, thread)
}

fn died_here<G>(error: &LockError<G>) -> bool {
    matches!(error, LockError::OwnerDied { owner, .. } if owner.is_none_or(|pid| pid == std::process::id()))
}

#[test]
fn c13_memory_dropped_under_forgotten_guards_is_not_used_again() {
    let _watchdog = watchdog(LONG);
    let mutex = Mutex::shared([7_u64; 40]).unwrap();
    let rwlock = RwLock::<u64, 4>::shared(7).unwrap();
    let semaphore = Semaphore::<4>::shared(2).unwrap();
    let latch = Latch::<4>::shared(2).unwrap();
    let addresses = [
        std::ptr::from_ref(&*mutex) as usize,
        std::ptr::from_ref(&*rwlock) as usize,
        std::ptr::from_ref(&*semaphore) as usize,
        std::ptr::from_ref(&*latch) as usize,
    ];
    forget(mutex.lock().unwrap());
    forget(rwlock.read().unwrap());
    forget(semaphore.acquire().unwrap());
    forget(latch.ticket().unwrap());
    drop((mutex, rwlock, semaphore, latch));
    // Their words are still linked in this thread's list: none of this may overwrite them.
    let mut others = Vec::new();
    for round in 0..200_u64 {
        let other = Mutex::shared([round; 40]).unwrap();
        assert!(!addresses.contains(&(std::ptr::from_ref(&*other) as usize)), "memory is given out twice");
        *other.lock().unwrap() = [u64::MAX; 40];
        others.push((other, Semaphore::<4>::shared(1).unwrap()));
    }
    for (mutex, semaphore) in &others {
        assert_eq!(mutex.lock().unwrap()[39], u64::MAX);
        drop(semaphore.acquire().unwrap());
    }
}

#[test]
fn c13_a_forgotten_guard_keeps_its_mutex() {
    let mutex = Mutex::shared(0_u64).unwrap();
    forget(mutex.lock().unwrap());
    assert_eq!(mutex.try_lock().unwrap_err().failure(), Some(Failure::AlreadyHeld));
    let other = mutex.clone();
    let other = std::thread::spawn(move || other.try_lock().unwrap_err().failure()).join().unwrap();
    assert_eq!(other, Some(Failure::WouldBlock));
}

#[test]
fn c13_a_thread_ends_with_locks_held() {
    let _watchdog = watchdog(LONG);
    let mutex = Mutex::shared(1_u64).unwrap();
    let recursive = RecursiveMutex::shared(1_u64).unwrap();
    let rwlock = RwLock::<u64>::shared(1).unwrap();
    let (m, r, w) = (mutex.clone(), recursive.clone(), rwlock.clone());
    let (end, holder) = thread_that_ends_later(move || {
        forget(m.lock().unwrap());
        forget(r.lock().unwrap());
        forget(w.write().unwrap());
    });
    let (m, r, w) = (mutex.clone(), recursive.clone(), rwlock.clone());
    let waiters = [
        blocked_thread(move || died_here(&m.lock().unwrap_err())),
        blocked_thread(move || died_here(&r.lock().unwrap_err())),
        blocked_thread(move || died_here(&w.read().unwrap_err())),
    ];
    end.send(()).unwrap();
    for (number, waiter) in waiters.into_iter().enumerate() {
        assert!(waiter.join().unwrap(), "waiter {number} is told of a death in this process");
    }
    holder.join().unwrap();
    assert!(mutex.lock().unwrap_err().is_poisoned());
    assert!(recursive.lock().unwrap_err().is_poisoned());
    assert!(rwlock.write().unwrap_err().is_poisoned());
    assert_no_backstop();
}

#[test]
fn c13_a_thread_ends_with_permits_held() {
    let _watchdog = watchdog(LONG);
    let semaphore = Semaphore::<4>::shared(2).unwrap();
    let held = semaphore.clone();
    let (end, holder) = thread_that_ends_later(move || forget(held.acquire_many(2, Patience::None).unwrap()));
    let wanted = semaphore.clone();
    let waiter = blocked_thread(move || wanted.acquire().is_ok());
    end.send(()).unwrap();
    assert!(waiter.join().unwrap());
    holder.join().unwrap();
    assert_eq!(semaphore.available(), 2);
    assert_no_backstop();
}

#[test]
fn c13_a_thread_ends_reading() {
    let _watchdog = watchdog(LONG);
    let rwlock = RwLock::<u64>::shared(1).unwrap();
    let held = rwlock.clone();
    let (end, holder) = thread_that_ends_later(move || forget(held.read().unwrap()));
    let wanted = rwlock.clone();
    let waiter = blocked_thread(move || wanted.write().is_ok());
    end.send(()).unwrap();
    assert!(waiter.join().unwrap());
    holder.join().unwrap();
    assert_no_backstop();
}

#[test]
fn c13_a_thread_ends_with_a_ticket() {
    let _watchdog = watchdog(LONG);
    let latch = Latch::<4>::shared(1).unwrap();
    let held = latch.clone();
    let (end, holder) = thread_that_ends_later(move || forget(held.ticket().unwrap()));
    let wanted = latch.clone();
    let waiter = blocked_thread(move || wanted.wait());
    end.send(()).unwrap();
    assert_eq!(waiter.join().unwrap(), Err(LatchError::OwnerDied { owner: std::process::id() }));
    holder.join().unwrap();
    assert_no_backstop();
}

#[test]
fn c13_a_thread_ends_with_a_ticket_of_one_of_several_that_are_waited_for() {
    let _watchdog = watchdog(LONG);
    let (event, latch) = (Event::shared().unwrap(), Latch::<4>::shared(1).unwrap());
    let held = latch.clone();
    let (end, holder) = thread_that_ends_later(move || forget(held.ticket().unwrap()));
    let wanted = (event.clone(), latch.clone());
    let waiter = blocked_thread(move || {
        let waitables: [&dyn Waitable; 2] = [&*wanted.0, &*wanted.1];
        wait_any(&waitables, Patience::Forever)
    });
    end.send(()).unwrap();
    holder.join().unwrap();
    assert_eq!(waiter.join().unwrap(), Ok(1));
    assert_no_backstop();
}

#[test]
fn c13_a_panic_passes_through_all_guards() {
    let _watchdog = watchdog(LONG);
    let semaphore = Semaphore::<4>::shared(1).unwrap();
    let latch = Latch::<4>::shared(1).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _permit = semaphore.acquire().unwrap();
        let _ticket = latch.ticket().unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(semaphore.available(), 1);
    assert_eq!(latch.wait(), Ok(()));
}

/// What the tests of forks use.
#[derive(ShmSafe)]
#[repr(C)]
struct All {
    mutex: Mutex<u64>,
    recursive: RecursiveMutex<u64>,
    rwlock: RwLock<u64, 4>,
    rwlock_read: RwLock<u64, 4>,
    semaphore: Semaphore<4>,
    latch: Latch<4>,
    barrier: Barrier<4>,
    free: Mutex<u64>,
    event: Event,
}

/// Runs `body` in a child of a plain fork; the child succeeds if it returns true.
fn in_a_fork(body: impl FnOnce() -> bool) {
    // SAFETY: the child runs `body` and leaves by `_exit`; no other thread of this process has a lock that it needs.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let fine = catch_unwind(AssertUnwindSafe(body)).unwrap_or(false);
            // SAFETY: ends the child alone, without the parent's exit handlers.
            unsafe { nix::libc::_exit(i32::from(!fine)) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
}

fn all() -> Shared<All> {
    Shared::<All>::with(|all| {
        all.semaphore.set_up(3, None);
        all.latch.set_up(2);
        all.barrier.set_up(2);
    })
    .unwrap()
}

/// Whether another thread of this process gets none of what `all` has that is held.
fn all_are_held(all: &Shared<All>) {
    std::thread::scope(|scope| {
        let look = || {
            assert_eq!(all.mutex.try_lock().unwrap_err().failure(), Some(Failure::WouldBlock));
            assert_eq!(all.recursive.try_lock().unwrap_err().failure(), Some(Failure::WouldBlock));
            assert_eq!(all.rwlock.try_read().unwrap_err().failure(), Some(Failure::WouldBlock));
            assert_eq!(all.rwlock_read.try_write().unwrap_err().failure(), Some(Failure::WouldBlock));
            assert_eq!(all.semaphore.try_acquire().unwrap_err(), Failure::WouldBlock);
            assert_eq!((all.semaphore.available(), all.semaphore.total()), (0, 3));
            assert_eq!(all.latch.count(), 2);
        };
        scope.spawn(look).join().unwrap();
    });
}

#[test]
fn c1_a_forked_child_gives_back_nothing_of_its_parents() {
    let _watchdog = watchdog(LONG);
    let all = all();
    let held = (
        all.mutex.lock().unwrap(),
        all.recursive.lock().unwrap(),
        all.rwlock.write().unwrap(),
        all.rwlock_read.read().unwrap(),
        all.semaphore.acquire_many(3, Patience::None).unwrap(),
        all.latch.ticket().unwrap(),
    );
    let copy = std::mem::ManuallyDrop::new(held);
    in_a_fork(|| {
        // SAFETY: in the child the parent's guards are dropped this once.
        drop(unsafe { std::ptr::read(&raw const *copy) });
        true
    });
    all_are_held(&all);
    drop(std::mem::ManuallyDrop::into_inner(copy));
    assert!(all.mutex.try_lock().is_ok() && all.recursive.try_lock().is_ok());
    assert!(all.rwlock.try_write().is_ok() && all.rwlock_read.try_write().is_ok());
    assert_eq!((all.semaphore.available(), all.latch.count()), (3, 1));
}

#[test]
fn c1_a_forked_child_cannot_take_its_parents_permits_for_good() {
    let _watchdog = watchdog(LONG);
    let all = all();
    let copy = std::mem::ManuallyDrop::new(all.semaphore.acquire().unwrap());
    in_a_fork(|| {
        // SAFETY: in the child the parent's permit is used this once.
        unsafe { std::ptr::read(&raw const *copy) }.forget();
        true
    });
    assert_eq!((all.semaphore.available(), all.semaphore.total()), (2, 3));
    drop(std::mem::ManuallyDrop::into_inner(copy));
    assert_eq!((all.semaphore.available(), all.semaphore.total()), (3, 3));
}

#[test]
fn c13_a_forked_child_that_panics_under_its_parents_lock_poisons_nothing() {
    let _watchdog = watchdog(LONG);
    let all = all();
    let copy = std::mem::ManuallyDrop::new((
        all.mutex.lock().unwrap(),
        all.recursive.lock().unwrap(),
        all.rwlock.write().unwrap(),
    ));
    in_a_fork(|| {
        catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: in the child the parent's guards are dropped this once.
            let _guards = unsafe { std::ptr::read(&raw const *copy) };
            // Without the hook, which prints under locks of the standard library: other threads of the parent may have held them.
            std::panic::resume_unwind(Box::new("on purpose"));
        }))
        .is_err()
    });
    drop(std::mem::ManuallyDrop::into_inner(copy));
    assert!(!all.mutex.is_poisoned() && !all.recursive.is_poisoned() && !all.rwlock.is_poisoned());
}

#[test]
fn c13_a_forked_childs_own_locks_work_or_err() {
    let _watchdog = watchdog(LONG);
    let all = all();
    let held = all.mutex.lock().unwrap();
    in_a_fork(|| {
        // Held by the parent: it is not the child's.
        let refused = all.mutex.try_lock().unwrap_err().failure() == Some(Failure::WouldBlock);
        let late = all.mutex.lock_timeout(Duration::from_millis(1)).unwrap_err().failure();
        let taken = all.free.lock().is_ok_and(|mut guard| {
            *guard = 9;
            true
        });
        let acquired = all.semaphore.try_acquire().is_ok_and(|permit| permit.count() == 1);
        let reads = all.rwlock.try_read().is_ok() && all.rwlock.try_write().is_ok();
        let waits = all.event.wait_timeout(Duration::from_millis(1));
        let waits = matches!(waits, Err(Failure::NotAMember | Failure::TimedOut));
        refused && late == Some(Failure::TimedOut) && taken && acquired && reads && waits
    });
    drop(held);
    assert_eq!(*all.free.lock().unwrap(), 9, "what the child changed under its lock is there");
    assert_eq!((all.semaphore.available(), all.semaphore.total()), (3, 3));
    assert!(all.rwlock.try_write().is_ok());
}

#[test]
fn c13_a_forked_child_that_dies_with_a_lock_of_its_own_is_told_of() {
    let _watchdog = watchdog(LONG);
    let all = all();
    // This thread has locks in its list when it forks.
    let held = all.mutex.lock().unwrap();
    in_a_fork(|| {
        forget(all.free.lock().unwrap());
        forget(all.semaphore.acquire().unwrap());
        true
    });
    assert!(all.free.lock().unwrap_err().is_owner_died());
    drop(all.semaphore.acquire_many(3, Patience::None).unwrap());
    drop(held);
    drop(all.mutex.lock().unwrap());
}

/// Runs the tests of threads that end again, without backstops: whatever is found then is found by a wake.
#[test]
fn c13_again_without_backstops() {
    let _watchdog = watchdog(Duration::from_secs(280));
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    // Without futex_waitv backstops are what finds deaths: this is about the full waits.
    command.args(["a_thread", "--test-threads", "2"]).env_remove("MP_FORCE").env("MP_BACKSTOP", "off");
    assert!(command.status().unwrap().success());
}

#[test]
fn c13_a_thread_takes_a_ticket_of_one_of_several_that_are_waited_for_and_ends() {
    let _watchdog = watchdog(LONG);
    let (event, latch) = (Event::shared().unwrap(), Latch::<4>::shared(1).unwrap());
    let wanted = (event.clone(), latch.clone());
    let waiter = blocked_thread(move || {
        let waitables: [&dyn Waitable; 2] = [&*wanted.0, &*wanted.1];
        wait_any(&waitables, Patience::Forever)
    });
    let held = latch.clone();
    std::thread::spawn(move || forget(held.ticket().unwrap())).join().unwrap();
    assert_eq!(waiter.join().unwrap(), Ok(1));
    assert_no_backstop();
}
