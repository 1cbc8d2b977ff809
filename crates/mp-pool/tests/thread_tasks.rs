//! Tasks of threads as handles: waited for, cancelled, timed out, called back, awaited.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_pool::{
    Executor, Inline, InlineTask, PoolError, TaskError, TaskErrorKind, TaskHandle, ThreadPool, ThreadTask,
    as_completed, wait_all, wait_any, wait_any_timeout,
};
use mp_shm::rkyv;
use mp_testkit::{proc, watchdog};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// What holds tasks up until it is opened.
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    waiters: AtomicUsize,
}

impl Gate {
    const fn new() -> Self {
        Self { is_open: Mutex::new(false), opened: Condvar::new(), waiters: AtomicUsize::new(0) }
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        self.waiters.fetch_add(1, Ordering::Release);
        drop(self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
    }

    /// Waits until so many are, or were, at it.
    fn until(&self, waiters: usize) {
        proc::until(|| self.waiters.load(Ordering::Acquire) >= waiters);
    }
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPool::new(threads).unwrap()
}

#[test]
fn e10_a_task_of_threads_that_is_not_done_in_time_is_given_back() {
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let held = |n: u32| {
        GATE.pass();
        n
    };
    let task = pool.submit(held, 5).unwrap();
    assert!(!task.wait_timeout(Duration::ZERO));
    let task = task.get_timeout(SHORT).unwrap_err();
    assert!(!task.is_finished());
    GATE.open();
    // As long as there is time.
    assert_eq!(task.get_timeout(Duration::MAX).unwrap().unwrap(), 5);
}

#[test]
fn e10_a_queued_task_of_threads_is_cancelled_and_never_runs() {
    static GATE: Gate = Gate::new();
    static RUN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let first = pool.submit(|()| GATE.pass(), ()).unwrap();
    let tasks: Vec<_> =
        (0..5).map(|n| pool.submit(|n: u32| RUN.lock().unwrap().push(n), n).unwrap()).collect();
    for task in &tasks[2..] {
        assert!(task.cancel(), "it has not run");
        assert!(!task.cancel(), "only once");
    }
    GATE.open();
    first.get().unwrap();
    for (place, task) in (0..).zip(tasks) {
        let id = task.id();
        match task.get() {
            Ok(()) => assert!(place < 2),
            Err(error) => {
                assert!(place >= 2 && error.is_cancelled(), "{error}");
                assert_eq!((error.task, error.attempts), (id, 0));
            }
        }
    }
    assert_eq!(*RUN.lock().unwrap(), [0, 1]);
    let stats = pool.stats();
    assert_eq!((stats.tasks_done, stats.tasks_failed, stats.workers_lost), (3, 3, 0));
}

/// Counts how many of it are dropped.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Counted;

static DROPPED: AtomicU32 = AtomicU32::new(0);

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn e14_a_running_task_of_threads_is_cancelled_at_once_and_the_pool_is_at_full_size() {
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let held = |()| {
        GATE.pass();
        Counted
    };
    let tasks = [pool.submit(held, ()).unwrap(), pool.submit(held, ()).unwrap()];
    GATE.until(2);
    for task in &tasks {
        assert!(task.cancel());
        assert!(!task.cancel());
        assert!(task.is_finished());
    }
    // Both threads are still held up. Two tasks that wait for each other need two more.
    static MEETING: std::sync::Barrier = std::sync::Barrier::new(2);
    let meet = |n: u32| {
        MEETING.wait();
        n
    };
    assert_eq!(pool.map(meet, 0..2).unwrap(), [0, 1]);
    assert_eq!(DROPPED.load(Ordering::Acquire), 0);
    let stats = pool.stats();
    assert_eq!((stats.workers_started, stats.workers_lost, stats.tasks_failed), (4, 2, 2));
    GATE.open();
    // Their values come to nobody.
    proc::until(|| DROPPED.load(Ordering::Acquire) == 2);
    for task in tasks {
        let error = task.get().err().unwrap();
        assert!(error.is_cancelled() && error.attempts == 1, "{error}");
    }
    assert_eq!(pool.apply(|n: u32| n, 1).unwrap(), 1);
    assert_eq!(pool.stats().tasks_done, 3);
}

#[test]
fn e14_a_task_of_threads_that_runs_too_long_is_settled_and_no_other() {
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let pool = ThreadPool::builder().threads(1).task_timeout(Duration::from_secs(1)).build().unwrap();
    let hung = pool.submit(|()| GATE.pass(), ()).unwrap();
    let quick: Vec<_> = (0..20).map(|n| pool.submit(|n: u32| n, n).unwrap()).collect();
    let error = hung.get().unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    // The one thread that there was is still at it.
    assert!((0..).zip(quick).all(|(n, task)| task.get().unwrap() == n));
    // Also when nobody waits, and again.
    let (tell, told) = mpsc::channel();
    pool.submit(|()| GATE.pass(), ()).unwrap().on_done(move |result| tell.send(result).unwrap());
    assert!(told.recv().unwrap().unwrap_err().is_timed_out());
    GATE.open();
    pool.join().unwrap();
}

#[test]
fn e10_the_first_of_several_tasks_of_threads_and_all_of_them_are_waited_for() {
    static GATES: [Gate; 3] = [const { Gate::new() }; 3];
    let _watchdog = watchdog(LONG);
    let pool = pool(3);
    let held = |n: usize| {
        GATES[n].pass();
        n
    };
    let tasks: Vec<ThreadTask<usize>> = (0..3).map(|n| pool.submit(held, n).unwrap()).collect();
    let all: Vec<&ThreadTask<usize>> = tasks.iter().collect();
    assert_eq!(wait_any_timeout(&all, SHORT), None);
    GATES[1].open();
    assert_eq!(wait_any(&all), Some(1));
    assert!(!wait_all(&all, Some(SHORT)));
    GATES[0].open();
    GATES[2].open();
    assert!(wait_all(&all, Some(Duration::MAX)));
    assert_eq!(wait_any::<ThreadTask<u32>>(&[]), None);
    let other = self::pool(1);
    let foreign = other.submit(|n: usize| n, 1).unwrap();
    assert_eq!(wait_any(&[&tasks[0], &foreign]), None, "of two pools");
    assert!(wait_all(&[&tasks[0], &foreign], None));
    assert_eq!(tasks.into_iter().map(|task| task.get().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn e10_a_cancelled_task_of_threads_ends_the_wait_for_it() {
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let held = pool.submit(|()| GATE.pass(), ()).unwrap();
    let queued = pool.submit(|()| (), ()).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| wait_any(&[&held, &queued]));
        proc::until(|| pool_waits(&pool));
        assert!(queued.cancel());
        assert_eq!(waiter.join().unwrap(), Some(1));
    });
    GATE.open();
    held.get().unwrap();
}

/// Whether somebody waits for one of several of its tasks.
fn pool_waits(pool: &ThreadPool) -> bool {
    format!("{pool:?}").contains("waiters: 1")
}

#[test]
fn e10_tasks_of_threads_come_in_the_order_in_which_they_are_done() {
    static GATES: [Gate; 2] = [const { Gate::new() }; 2];
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let held = |n: usize| {
        GATES[n].pass();
        n
    };
    let mut done = as_completed((0..2).map(|n| pool.submit(held, n).unwrap()));
    GATES[1].open();
    // It waits for the first only when it is asked for it.
    assert_eq!(done.next().unwrap().get().unwrap(), 1);
    GATES[0].open();
    assert_eq!(done.next().unwrap().get().unwrap(), 0);
    assert!(done.next().is_none());
}

#[test]
fn e10_callbacks_of_threads_are_called_also_for_failures_and_one_that_panics_hurts_nobody() {
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let (tell, told) = mpsc::channel::<Result<u32, TaskError>>();
    let say = |tell: &mpsc::Sender<_>| {
        let tell = tell.clone();
        move |result| tell.send(result).unwrap()
    };
    pool.submit(|n: u32| n, 1).unwrap().on_done(|_| panic!("in a callback"));
    pool.submit(|n: u32| n + 1, 1).unwrap().on_done(say(&tell));
    assert_eq!(told.recv().unwrap().unwrap(), 2);
    assert_eq!(pool.stats().workers_started, 1, "its thread goes on");
    pool.submit(|n: u32| -> u32 { panic!("{n}") }, 1).unwrap().on_done(say(&tell));
    let error = told.recv().unwrap().unwrap_err();
    assert!(matches!(error.kind, TaskErrorKind::Panicked(_)));
    assert_eq!((error.task, error.attempts), (2, 1));
    // One that is done already, and panics here.
    let done = pool.submit(|n: u32| n, 9).unwrap();
    assert!(done.wait_timeout(LONG));
    done.on_done(say(&tell));
    assert_eq!(told.recv().unwrap().unwrap(), 9);
    let done = pool.submit(|n: u32| n, 9).unwrap();
    assert!(done.wait_timeout(LONG));
    done.on_done(|_| panic!("in a callback"));
    // And those that will never be.
    let held = |n: u32| {
        GATE.pass();
        n
    };
    pool.submit(held, 1).unwrap().on_done(say(&tell));
    pool.submit(held, 2).unwrap().on_done(say(&tell));
    GATE.until(1);
    pool.terminate();
    for _ in 0..2 {
        let error = told.recv().unwrap().unwrap_err();
        assert!(matches!(error.kind, TaskErrorKind::Pool(PoolError::Closed)), "{error}");
    }
    GATE.open();
}

#[test]
fn e10_a_callback_may_use_the_pool_and_even_drop_it() {
    fn next(pool: &Arc<ThreadPool>, n: u32, tell: mpsc::Sender<u32>) {
        let again = pool.clone();
        pool.submit(|n: u32| n + 1, n).unwrap().on_done(move |result| match result.unwrap() {
            100 => tell.send(100).unwrap(),
            n => next(&again, n, tell),
        });
    }
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let shared = Arc::new(pool(2));
    let (tell, told) = mpsc::channel();
    for _ in 0..3 {
        next(&shared, 0, tell.clone());
    }
    drop(tell);
    assert_eq!(told.iter().collect::<Vec<_>>(), [100; 3]);
    drop(shared);

    let last = pool(2);
    let (tell, told) = mpsc::channel();
    let task = last.submit(|()| GATE.pass(), ()).unwrap();
    task.on_done(move |_| {
        drop(last);
        tell.send(()).unwrap();
    });
    GATE.open();
    told.recv().unwrap();
}

/// Counts how often it is called.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn e10_tasks_of_threads_are_futures_of_any_runtime() {
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let both = async {
        let (first, second) = (pool.submit(|n: u32| n, 1).unwrap(), pool.submit(|n: u32| n, 2).unwrap());
        let mut sum = second.await.unwrap() + first.await.unwrap();
        for n in 0..100 {
            sum += pool.submit(|n: u32| n, n).unwrap().await.unwrap();
        }
        let failed = pool.submit(|n: u32| -> u32 { panic!("{n}") }, 3).unwrap().await;
        assert!(matches!(failed.unwrap_err().kind, TaskErrorKind::Panicked(_)));
        sum
    };
    assert_eq!(runtime.block_on(both), 3 + 99 * 50);
    // Cancelled while it is awaited.
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let mut held = pin!(pool.submit(|()| GATE.pass(), ()).unwrap());
    assert!(matches!(held.as_mut().poll(&mut context), Poll::Pending));
    assert!(held.cancel());
    assert_eq!(woken.0.load(Ordering::Acquire), 1);
    assert!(matches!(held.as_mut().poll(&mut context), Poll::Ready(Err(error)) if error.is_cancelled()));
    GATE.open();
}

#[test]
fn e26_tasks_that_wait_for_one_of_several_of_their_own_pool_get_done() {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    fn three() -> Vec<ThreadTask<u32>> {
        (0..3).map(|n| POOL.get().unwrap().submit(|n: u32| n, n).unwrap()).collect()
    }
    let _watchdog = watchdog(LONG);
    let pool = POOL.get_or_init(|| pool(1));
    let place = |()| wait_any(&three().iter().collect::<Vec<_>>());
    assert_eq!(pool.apply(place, ()).unwrap(), Some(0));
    assert!(pool.apply(|()| wait_all(&three().iter().collect::<Vec<_>>(), None), ()).unwrap());
    let sum = |()| as_completed(three()).map(|task| task.get().unwrap()).sum::<u32>();
    assert_eq!(pool.apply(sum, ()).unwrap(), 3);
    let scoped = |()| POOL.get().unwrap().scope(|scope| scope.submit(|n: u32| n, 7).unwrap()).get().unwrap();
    assert_eq!(pool.apply(scoped, ()).unwrap(), 7);
    let awaited = |()| {
        let mut task = pin!(POOL.get().unwrap().submit(|n: u32| n, 8).unwrap());
        match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value.unwrap(),
            Poll::Pending => unreachable!("nobody else could do it"),
        }
    };
    assert_eq!(pool.apply(awaited, ()).unwrap(), 8);
    let all = |()| POOL.get().unwrap().imap_unordered(|n: u32| n, 0..10).map(Result::unwrap).sum::<u32>();
    assert_eq!(pool.apply(all, ()).unwrap(), 45);
}

#[test]
fn e20_a_scope_of_threads_ends_when_its_tasks_are_done_also_those_whose_handles_are_gone() {
    static RUN: AtomicU32 = AtomicU32::new(0);
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let held = pool.submit(|()| GATE.pass(), ()).unwrap();
    let first = pool.scope(|scope| {
        let first = scope.submit(|n: u32| n, 7).unwrap();
        for n in 0..50 {
            // Nobody has begun it.
            drop(scope.submit(|n: u32| RUN.fetch_add(n, Ordering::AcqRel), n).unwrap());
        }
        GATE.open();
        first
    });
    assert_eq!(RUN.load(Ordering::Acquire), 49 * 25, "all have run");
    assert!(first.is_finished());
    assert_eq!(first.get().unwrap(), 7);
    held.get().unwrap();
}

#[test]
fn e3_a_closed_pool_of_threads_takes_nothing_more_and_does_what_it_has() {
    static RUN: AtomicU32 = AtomicU32::new(0);
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let add = |n: u32| {
        GATE.pass();
        RUN.fetch_add(n, Ordering::AcqRel);
    };
    let tasks: Vec<_> = (0..100).map(|n| pool.submit(add, n).unwrap()).collect();
    pool.close();
    assert!(matches!(pool.submit(add, 1), Err(PoolError::Closed)));
    let error = pool.imap(|n: u32| n, 0..).next().unwrap().unwrap_err();
    assert_eq!(error.items, 0..1);
    GATE.open();
    pool.join().unwrap();
    assert_eq!(RUN.load(Ordering::Acquire), 99 * 50);
    assert!(tasks.iter().all(ThreadTask::is_finished));
}

#[test]
fn e3_a_terminated_pool_of_threads_runs_nothing_more() {
    static RUN: AtomicBool = AtomicBool::new(false);
    static GATE: Gate = Gate::new();
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let held = pool.submit(|()| GATE.pass(), ()).unwrap();
    GATE.until(1);
    let queued: Vec<_> =
        (0..10_000).map(|_| pool.submit(|()| RUN.store(true, Ordering::Release), ()).unwrap()).collect();
    pool.terminate();
    for task in queued.into_iter().chain([held]) {
        let error = task.get().unwrap_err();
        assert!(matches!(error.kind, TaskErrorKind::Pool(PoolError::Closed)), "{error}");
    }
    GATE.open();
    assert!(!RUN.load(Ordering::Acquire));
}

#[test]
fn e28_tasks_of_threads_that_end_while_they_are_cancelled_are_settled_once() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let spin = |n: usize| {
        let _ = std::hint::black_box((0..n % 64 * 50).fold(0, |sum, n| std::hint::black_box(sum ^ n)));
        n
    };
    // They are cancelled while they are queued, run, or are done.
    let (tasks, cancelled): (Vec<ThreadTask<usize>>, Vec<bool>) = (0..3000)
        .map(|n| {
            let task = pool.submit(spin, n).unwrap();
            spin(n / 64);
            let was_cancelled = task.cancel();
            (task, was_cancelled)
        })
        .unzip();
    let most = cancelled.iter().filter(|was| **was).count() as u64;
    for (n, (task, was_cancelled)) in tasks.into_iter().zip(cancelled).enumerate() {
        match task.get() {
            Ok(value) => assert!(value == n && !was_cancelled),
            Err(error) => assert!(was_cancelled && error.is_cancelled(), "{error}"),
        }
    }
    assert_eq!(pool.apply(|n: usize| n, 1).unwrap(), 1);
    let stats = pool.stats();
    assert_eq!((stats.tasks_done, stats.tasks_failed), (3001 - most, most));
    assert_eq!(stats.workers_started - stats.workers_lost, 2, "as many threads as there are to be");
}

#[test]
fn e28_tasks_of_threads_that_end_when_their_time_is_up_are_told_once() {
    let _watchdog = watchdog(LONG);
    let pool = ThreadPool::builder().threads(2).task_timeout(Duration::from_micros(20)).build().unwrap();
    let (tell, told) = mpsc::channel();
    for n in 0..1000 {
        let tell = tell.clone();
        pool.submit(|n: u64| (0..n).fold(0, u64::wrapping_add), n * 20)
            .unwrap()
            .on_done(move |result| tell.send(result.map_err(|error| error.is_timed_out())).unwrap());
    }
    drop(tell);
    pool.join().unwrap();
    let told: Vec<Result<u64, bool>> = told.iter().collect();
    assert_eq!(told.len(), 1000);
    assert!(told.iter().all(|result| *result != Err(false)), "each is done, or timed out");
}

fn generic<E: Executor>(executor: &E) {
    let task = executor.submit(|n: u32| n + 1, 1).unwrap();
    assert_eq!(task.get_timeout(LONG).ok().unwrap().unwrap(), 2);
    let task = executor.submit(|n: u32| n + 1, 1).unwrap();
    assert!(task.wait_timeout(LONG));
    assert!(!task.cancel(), "it is done");
    assert_eq!(task.get().unwrap(), 2);
}

#[test]
fn e26_code_for_any_executor_waits_with_a_limit_and_cancels() {
    let _watchdog = watchdog(LONG);
    generic(&mp_pool::Pool::builder().workers(1).build().unwrap());
    generic(&pool(1));
    generic(&Inline);
}

#[test]
fn e26_tasks_of_the_caller_have_what_others_have() {
    let _watchdog = watchdog(LONG);
    let task = |n: u32| Inline.submit(|n: u32| n, n).unwrap();
    assert_eq!(wait_any(&[&task(1), &task(2)]), Some(0));
    assert_eq!(wait_any_timeout::<InlineTask<u32>>(&[], SHORT), None);
    assert_eq!(as_completed([task(1), task(2)]).map(|task| task.get().unwrap()).collect::<Vec<_>>(), [1, 2]);
    let mut called = None;
    task(3).on_done(|value| called = value.ok());
    assert_eq!(called, Some(3));
    task(3).on_done(|_| panic!("in a callback"));
    let mut awaited = pin!(task(4));
    let polled = awaited.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(4))));
    assert_eq!(Inline.apply(|n: u32| n + 1, 1).unwrap(), 2);
    let odd = |n: u32| {
        assert!(n % 2 == 1, "{n} is even");
        n
    };
    let results = Inline.map_results(odd, 0..4);
    assert_eq!(results[2].as_ref().unwrap_err().items, 2..3);
    assert_eq!(results.into_iter().filter_map(Result::ok).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(Inline.imap(|n: u32| n, 5..).next().unwrap().unwrap(), 5);
}
