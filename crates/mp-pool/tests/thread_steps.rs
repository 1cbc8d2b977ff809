//! What threads of a pool do before their first task and after their last one, and who waits to submit.

use mp_pool::{PoolError, TaskErrorKind, ThreadPool, with_worker_state, worker_id};
use mp_shm::rkyv;
use mp_testkit::{proc, watchdog};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Made by an initializer; its argument has no `Clone`.
struct Counter {
    base: u64,
    count: u64,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
struct Base(u64);

fn make(base: Base) -> Counter {
    Counter { base: base.0, count: 0 }
}

fn add(n: u64) -> u64 {
    with_worker_state(|counter: &mut Counter| {
        counter.count += 1;
        counter.base + n
    })
}

fn waits(pool: &ThreadPool) -> bool {
    format!("{pool:?}").contains("waiters: 1")
}

#[test]
fn e26_what_the_initializer_makes_stays_with_the_thread_and_the_finalizer_gets_it() {
    let _watchdog = watchdog(LONG);
    let pool = ThreadPool::builder()
        .threads(2)
        .initializer(make, Base(1000))
        .finalizer(|counter: Counter| (worker_id().unwrap(), counter.count))
        .build()
        .unwrap();
    assert!(pool.map(add, 0..100).unwrap().into_iter().eq(1000..1100));
    let error = pool.submit(|()| with_worker_state(|_: &mut String| ()), ()).unwrap().get().unwrap_err();
    assert!(error.to_string().contains("made no `alloc::string::String`"), "{error}");
    let mut finals: Vec<(u64, u64)> = pool.join_with().unwrap();
    finals.sort_unstable();
    assert_eq!(finals.iter().map(|(thread, _)| *thread).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(finals.iter().map(|(_, count)| count).sum::<u64>(), 100);
    assert_eq!(worker_id(), None, "not in a worker");
}

#[test]
fn e26_a_finalizer_that_fails_is_told_and_costs_nobody_else_anything() {
    let _watchdog = watchdog(LONG);
    let fails = |(): ()| -> u32 { panic!("no more") };
    let failing = || ThreadPool::builder().threads(1).initializer(|(): ()| (), ()).finalizer(fails);
    let error = failing().build().unwrap().join_with::<u32>().unwrap_err();
    assert!(
        matches!(&error, PoolError::Worker(kind) if matches!(**kind, TaskErrorKind::Panicked(_))),
        "{error}"
    );
    failing().build().unwrap().join().unwrap();
    // Also where nobody asks for the value, and the pool is not gone before it has ended.
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    let count = |(): ()| ENDED.fetch_add(1, Ordering::AcqRel);
    let counting = ThreadPool::builder().threads(2).initializer(|(): ()| (), ()).finalizer(count);
    drop(counting.build().unwrap());
    assert_eq!(ENDED.load(Ordering::Acquire), 2);
    let other = ThreadPool::builder().threads(1).initializer(|(): ()| 1_u32, ()).finalizer(|n: u64| n);
    let error = other.build().unwrap().join_with::<u64>().unwrap_err();
    assert!(error.to_string().contains("made no `u64`"), "{error}");
    let pool = ThreadPool::builder().threads(1).initializer(|(): ()| 1_u32, ()).finalizer(|n: u32| n).build();
    let error = pool.unwrap().join_with::<u64>().unwrap_err();
    assert!(error.to_string().contains("gives no `u64`"), "{error}");
}

#[test]
fn e26_an_initializer_that_fails_again_and_again_breaks_the_pool_and_is_told() {
    static STARTS: AtomicUsize = AtomicUsize::new(0);
    let _watchdog = watchdog(LONG);
    let make = |n: u64| -> u64 {
        // Until there is a task.
        proc::until(|| STARTS.load(Ordering::Acquire) > 0);
        panic!("no database {n}")
    };
    let pool = ThreadPool::builder().threads(2).initializer(make, 7).build().unwrap();
    let task = pool.submit(|n: u32| n, 1).unwrap();
    STARTS.store(1, Ordering::Release);
    let error = task.get().unwrap_err();
    assert!(matches!(&error.kind, TaskErrorKind::Pool(PoolError::Broken(_))), "{error}");
    assert!(error.to_string().contains("the initializer panicked: no database 7"), "{error}");
    assert!(matches!(pool.submit(|n: u32| n, 1), Err(PoolError::Broken(_))));
    assert!(pool.stats().workers_started < 30, "bounded");
    assert!(matches!(pool.join(), Err(PoolError::Broken(_))));
    // One that only fails sometimes is tried again.
    let unlucky = |()| assert!(worker_id().unwrap() >= 2, "the first two fail");
    let pool = ThreadPool::builder().threads(2).initializer(unlucky, ()).build().unwrap();
    assert_eq!(pool.map(|n: u32| n, 0..10).unwrap().len(), 10);
    pool.join().unwrap();
}

#[test]
fn e26_a_thread_that_is_given_up_has_no_last_word() {
    static GATE: Mutex<()> = Mutex::new(());
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    static FINALIZED: AtomicUsize = AtomicUsize::new(0);
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Told;
    impl Drop for Told {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::AcqRel);
        }
    }
    let _watchdog = watchdog(LONG);
    let finalize = |_: Told| {
        FINALIZED.fetch_add(1, Ordering::AcqRel);
        worker_id().unwrap()
    };
    let builder = ThreadPool::builder().threads(1).initializer(|(): ()| Told, ()).finalizer(finalize);
    let pool = builder.build().unwrap();
    let closed = GATE.lock().unwrap();
    let wait = |()| {
        BEGUN.store(1, Ordering::Release);
        drop(GATE.lock().unwrap());
    };
    let task = pool.submit(wait, ()).unwrap();
    proc::until(|| BEGUN.load(Ordering::Acquire) == 1);
    assert!(task.cancel());
    assert_eq!(pool.submit(|()| worker_id(), ()).unwrap().get().unwrap(), Some(1));
    drop(closed);
    proc::until(|| DROPPED.load(Ordering::Acquire) == 1);
    assert_eq!(FINALIZED.load(Ordering::Acquire), 0);
    assert_eq!(pool.join_with::<u64>().unwrap(), [1]);
}

#[test]
fn e26_tasks_that_need_what_the_initializer_makes_are_done_by_its_threads_alone() {
    static OF_BASE: Mutex<Option<ThreadPool>> = Mutex::new(None);
    let _watchdog = watchdog(LONG);
    *OF_BASE.lock().unwrap() =
        Some(ThreadPool::builder().threads(1).initializer(make, Base(5)).build().unwrap());
    let other = ThreadPool::builder().threads(1).initializer(make, Base(1000)).build().unwrap();
    let ask = |n: u64| {
        let of_base = OF_BASE.lock().unwrap();
        // Both ways to wait: for one, and for any.
        let tasks = [0, 1].map(|more| of_base.as_ref().unwrap().submit(add, n + more).unwrap());
        let [one, another] = tasks;
        assert_eq!(mp_pool::wait_any(&[&one]), Some(0));
        one.get().unwrap() + another.get().unwrap() + add(n)
    };
    let values: Vec<u64> = other.map(ask, 0..50).unwrap();
    assert!(values.into_iter().eq((0..50).map(|n| 5 + n + 5 + n + 1 + 1000 + n)));
    drop(OF_BASE.lock().unwrap().take());
}

#[test]
fn e26_submitting_waits_while_too_many_are_in_flight_unless_a_task_does_it() {
    static GATE: Mutex<()> = Mutex::new(());
    static POOL: Mutex<Option<&ThreadPool>> = Mutex::new(None);
    let _watchdog = watchdog(LONG);
    let pass = |n: u32| {
        drop(GATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        n
    };
    let pool: &'static ThreadPool =
        Box::leak(Box::new(ThreadPool::builder().threads(1).in_flight(2).build().unwrap()));
    let submit = move |n| thread::spawn(move || pool.submit(pass, n).unwrap().get().unwrap());
    let closed: MutexGuard<'_, ()> = GATE.lock().unwrap();
    let first = pool.submit(pass, 1).unwrap();
    let second = pool.submit(pass, 2).unwrap();
    // A task that is given up makes room.
    let third = submit(3);
    proc::until(|| waits(pool));
    drop(second);
    proc::until(|| !waits(pool) || third.is_finished());
    // So does one that is done.
    drop(closed);
    assert_eq!((first.get().unwrap(), third.join().unwrap()), (1, 3));
    // A task would wait for itself.
    *POOL.lock().unwrap() = Some(pool);
    let nested = |n: u32| {
        let pool = POOL.lock().unwrap().unwrap();
        let tasks: Vec<_> = (0..5).map(|more| pool.submit(|n: u32| n, n + more).unwrap()).collect();
        tasks.into_iter().map(|task| task.get().unwrap()).sum::<u32>()
    };
    assert_eq!(pool.submit(nested, 1).unwrap().get().unwrap(), 1 + 2 + 3 + 4 + 5);
    // Who waits to submit learns that the pool is closed.
    let closed = GATE.lock().unwrap();
    let tasks = [1, 2].map(|n| pool.submit(pass, n).unwrap());
    let refused = thread::spawn(move || pool.submit(pass, 3).map(drop));
    proc::until(|| waits(pool));
    pool.close();
    assert!(matches!(refused.join().unwrap(), Err(PoolError::Closed)));
    drop(closed);
    assert_eq!(tasks.map(|task| task.get().unwrap()), [1, 2]);
}
