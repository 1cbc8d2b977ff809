//! What is special to a pool of threads.

use mp_pool::{PoolError, ThreadPool};
use mp_shm::codec::Serde;
use mp_testkit::{proc, watchdog};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, OnceLock, mpsc};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(100);

fn thread_name(_: u32) -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

#[test]
fn e26_there_are_as_many_threads_as_asked_for_and_all_work() {
    static MEETING: Barrier = Barrier::new(3);
    let _watchdog = watchdog(LIMIT);
    let pool = ThreadPool::new(3).unwrap();
    assert_eq!(pool.threads(), 3);
    // Three tasks that wait for each other are at work at the same time.
    let meet = |n: u32| {
        MEETING.wait();
        thread_name(n)
    };
    let expected: HashSet<String> = ["pool-0", "pool-1", "pool-2"].map(str::to_owned).into();
    assert_eq!(pool.map(meet, 0..3).unwrap().into_iter().collect::<HashSet<_>>(), expected);
    let names: HashSet<String> = pool.map(thread_name, 0..500).unwrap().into_iter().collect();
    assert!(names.is_subset(&expected), "{names:?}");
}

#[test]
fn e26_a_pool_without_threads_is_an_error() {
    let _watchdog = watchdog(LIMIT);
    assert!(matches!(ThreadPool::new(0), Err(PoolError::NoWorkers)));
    assert!(ThreadPool::builder().build().unwrap().threads() >= 1);
}

#[test]
fn e26_tasks_that_wait_for_tasks_of_their_own_pool_get_done() {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    fn fibonacci(n: u64) -> u64 {
        if n < 2 {
            return n;
        }
        let pool = POOL.get().unwrap();
        let smaller = pool.submit(fibonacci, n - 1).unwrap();
        pool.map(fibonacci, [n - 2]).unwrap()[0] + smaller.get().unwrap()
    }
    let _watchdog = watchdog(LIMIT);
    let pool = POOL.get_or_init(|| ThreadPool::new(1).unwrap());
    assert_eq!(pool.submit(fibonacci, 12).unwrap().get().unwrap(), 144);
}

#[test]
fn e26_tasks_that_wait_for_tasks_of_two_pools_get_done() {
    static POOLS: OnceLock<[ThreadPool; 2]> = OnceLock::new();
    fn down(n: usize) -> usize {
        if n == 0 { 0 } else { 1 + POOLS.get().unwrap()[n % 2].submit(down, n - 1).unwrap().get().unwrap() }
    }
    let _watchdog = watchdog(LIMIT);
    let pools = POOLS.get_or_init(|| [ThreadPool::new(1).unwrap(), ThreadPool::new(1).unwrap()]);
    assert_eq!(pools[1].submit(down, 20).unwrap().get().unwrap(), 20);
}

#[test]
fn e26_a_dropped_pool_does_not_wait_for_running_tasks_and_tells_their_waiters() {
    static RELEASE: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
    static BEGUN: AtomicBool = AtomicBool::new(false);
    static RUN: AtomicUsize = AtomicUsize::new(0);
    static ENDED: AtomicBool = AtomicBool::new(false);
    fn held(n: u32) -> u32 {
        BEGUN.store(true, Ordering::Release);
        let released = RELEASE.lock().unwrap().take().unwrap().recv();
        ENDED.store(released.is_ok(), Ordering::Release);
        n
    }
    let _watchdog = watchdog(LIMIT);
    let (release, released) = mpsc::channel();
    *RELEASE.lock().unwrap() = Some(released);

    let pool = ThreadPool::new(1).unwrap();
    let running = pool.submit(held, 1).unwrap();
    let queued = pool.submit(|n: usize| RUN.fetch_add(n, Ordering::Relaxed), 1).unwrap();
    proc::until(|| BEGUN.load(Ordering::Acquire));
    drop(pool);
    for error in [running.get().unwrap_err().to_string(), queued.get().unwrap_err().to_string()] {
        assert!(error.contains("the pool is closed"), "{error}");
    }
    release.send(()).unwrap();
    proc::until(|| ENDED.load(Ordering::Acquire));
    assert_eq!(RUN.load(Ordering::Relaxed), 0, "a task that nobody had begun is not run");
}

/// Counts the ends of threads.
struct Ends;

static ENDS: AtomicUsize = AtomicUsize::new(0);

impl Drop for Ends {
    fn drop(&mut self) {
        ENDS.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn e26_a_dropped_pool_has_no_threads_left_when_its_tasks_are_done() {
    static MEETING: Barrier = Barrier::new(3);
    thread_local! {
        static END: Ends = const { Ends };
    }
    let _watchdog = watchdog(LIMIT);
    let meet = |()| {
        END.with(|_| ());
        MEETING.wait();
    };
    for round in 1..=300 {
        let pool = ThreadPool::new(3).unwrap();
        pool.map(meet, [(); 3]).unwrap();
        drop(pool);
        assert_eq!(ENDS.load(Ordering::Relaxed), 3 * round);
    }
}

#[test]
fn e26_a_task_whose_handle_is_dropped_is_not_run_if_nobody_has_begun_it() {
    static RELEASE: Barrier = Barrier::new(2);
    static RUN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    let _watchdog = watchdog(LIMIT);
    let pool = ThreadPool::new(1).unwrap();
    let blocker = pool.submit(|()| RELEASE.wait().is_leader(), ()).unwrap();
    let mut tasks: Vec<_> =
        (0..5).map(|n| pool.submit(|n: u32| RUN.lock().unwrap().push(n), n).unwrap()).collect();
    drop(tasks.remove(3));
    drop(tasks.remove(0));
    RELEASE.wait();
    blocker.get().unwrap();
    for task in tasks {
        task.get().unwrap();
    }
    assert_eq!(*RUN.lock().unwrap(), [1, 2, 4]);
}

/// Panics when it is dropped, once it was sent.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Explosive {
    armed: bool,
}

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(!self.armed, "dropped");
    }
}

#[test]
fn e26_a_destructor_that_panics_costs_no_thread() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    static RELEASE: Barrier = Barrier::new(2);
    let _watchdog = watchdog(LIMIT);
    let pool = ThreadPool::new(1).unwrap();
    let make = |armed: bool| {
        BEGUN.fetch_add(1, Ordering::Release);
        RELEASE.wait();
        Explosive { armed }
    };
    let unwanted = pool.submit(make, true).unwrap();
    proc::until(|| BEGUN.load(Ordering::Acquire) == 1);
    // The value has no taker: the thread drops it.
    drop(unwanted);
    RELEASE.wait();
    assert_eq!(pool.submit(thread_name, 0).unwrap().get().unwrap(), "pool-0");
}

#[test]
fn e26_an_argument_whose_destructor_panics_keeps_nobody_waiting_for_other_tasks() {
    static RELEASE: Barrier = Barrier::new(2);
    static BEGUN: AtomicBool = AtomicBool::new(false);
    let _watchdog = watchdog(LIMIT);
    let pool = ThreadPool::new(1).unwrap();
    let held = |()| {
        BEGUN.store(true, Ordering::Release);
        RELEASE.wait();
    };
    let running = pool.submit(held, ()).unwrap();
    let queued: Vec<_> =
        (0..3).map(|_| pool.submit(|_: Explosive| (), Explosive { armed: true }).unwrap()).collect();
    proc::until(|| BEGUN.load(Ordering::Acquire));
    assert!(queued[0].cancel());
    drop(pool);
    assert!(queued.into_iter().chain([running]).all(|task| task.get().is_err()));
    RELEASE.wait();
}

/// Knows serde only, and that not well.
struct Shy {
    speaks: bool,
}

impl serde::Serialize for Shy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.speaks { self.speaks.serialize(serializer) } else { Err(serde::ser::Error::custom("shy")) }
    }
}

impl<'de> serde::Deserialize<'de> for Shy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bool::deserialize(deserializer)?;
        Err(serde::de::Error::custom("shy of others"))
    }
}

#[test]
fn e26_checked_threads_find_what_cannot_travel() {
    fn take(shy: Serde<Shy>) -> bool {
        shy.speaks
    }
    fn give(speaks: bool) -> Serde<Shy> {
        Serde(Shy { speaks })
    }
    let _watchdog = watchdog(LIMIT);
    let plain = ThreadPool::new(1).unwrap();
    assert!(!plain.submit(take, Serde(Shy { speaks: false })).unwrap().get().unwrap());
    assert!(plain.submit(give, true).unwrap().get().unwrap().speaks);

    // As a pool of processes says it, word for word.
    let checked = ThreadPool::builder().threads(1).checked(true).build().unwrap();
    let processes = mp_pool::Pool::builder().workers(1).build().unwrap();
    for speaks in [false, true] {
        let text = checked.submit(take, Serde(Shy { speaks })).unwrap().get().unwrap_err().kind.to_string();
        assert!(text.contains("argument"), "{text}");
        let expected =
            processes.submit(take, Serde(Shy { speaks })).unwrap().get().unwrap_err().kind.to_string();
        assert_eq!(text, expected);
        let text = checked.submit(give, speaks).unwrap().get().err().unwrap().kind.to_string();
        assert!(text.contains("value"), "{text}");
        let expected = processes.submit(give, speaks).unwrap().get().err().unwrap().kind.to_string();
        assert_eq!(text, expected);
    }
    assert_eq!(checked.submit(|n: u32| n + 1, 1).unwrap().get().unwrap(), 2);
}

#[test]
fn e26_values_are_moved_unless_they_are_checked() {
    fn address(bytes: Vec<u8>) -> (usize, Vec<u8>) {
        (bytes.as_ptr() as usize, bytes)
    }
    let _watchdog = watchdog(LIMIT);
    let run = |pool: ThreadPool| {
        let bytes = vec![1; 100_000];
        let before = bytes.as_ptr() as usize;
        let (there, bytes) = pool.submit(address, bytes).unwrap().get().unwrap();
        [before, there, bytes.as_ptr() as usize]
    };
    let [before, there, after] = run(ThreadPool::new(1).unwrap());
    assert!(before == there && there == after);
    let [_, there, after] = run(ThreadPool::builder().threads(1).checked(true).build().unwrap());
    assert_ne!(there, after);
}
