//! `map` and its relatives in threads.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_pool::{TaskErrorKind, ThreadPool};
use mp_testkit::watchdog;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn pool() -> ThreadPool {
    ThreadPool::new(2).unwrap()
}

fn odd(n: u32) -> u32 {
    assert!(n % 2 == 1, "{n} is even");
    n
}

#[test]
fn e20_values_of_threads_come_in_order_or_as_they_come_and_each_once() {
    static MEETING: Barrier = Barrier::new(2);
    let _watchdog = watchdog(LONG);
    let pool = pool();
    let ordered: Vec<u32> = pool.imap(|n: u32| n + 1, 0..2000).map(Result::unwrap).collect();
    assert_eq!(ordered, (1..=2000).collect::<Vec<_>>());
    let mut unordered: Vec<u32> = pool.imap_unordered(|n: u32| n + 1, 0..2000).map(Result::unwrap).collect();
    unordered.sort_unstable();
    assert_eq!(unordered, ordered);
    assert_eq!(pool.imap(|n: u32| n, []).count(), 0);
    assert_eq!(pool.imap_unordered(|n: u32| n, []).count(), 0);
    // The first waits for what comes after it is taken.
    let slow_first = |n: u32| {
        if n == 0 {
            MEETING.wait();
        }
        n
    };
    let mut values = pool.imap_unordered(slow_first, 0..10).map(Result::unwrap);
    let nine: Vec<u32> = values.by_ref().take(9).collect();
    assert_eq!(nine, (1..10).collect::<Vec<_>>());
    MEETING.wait();
    assert_eq!(values.next(), Some(0));
    assert_eq!(values.next(), None);
}

#[test]
fn e20_a_function_of_two_is_given_pairs_in_threads() {
    let _watchdog = watchdog(LONG);
    let minus = |a: u64, b: u64| a - b;
    for checked in [false, true] {
        let pool = ThreadPool::builder().threads(2).checked(checked).build().unwrap();
        assert_eq!(pool.starmap(minus, [(5, 3), (1, 1), (9, 2)]).unwrap(), [2, 0, 7]);
        let error = pool.starmap(minus, [(5, 3), (1, 2)]).unwrap_err();
        assert_eq!(error.items, 1..2);
    }
}

#[test]
fn e11_each_input_of_threads_fails_by_itself() {
    let _watchdog = watchdog(LONG);
    let pool = pool();
    let results = pool.map_results(odd, 0..200);
    assert_eq!(results.len(), 200);
    for (place, result) in results.into_iter().enumerate() {
        match result {
            Ok(value) => assert!(value as usize == place && place % 2 == 1),
            Err(error) => {
                assert!(error.items == (place..place + 1) && place % 2 == 0);
                assert!(matches!(error.error.kind, TaskErrorKind::Panicked(_)), "{error}");
            }
        }
    }
    let stats = pool.stats();
    assert_eq!((stats.tasks_done, stats.tasks_failed, stats.workers_started), (200, 0, 2));
    assert_eq!(stats.workers.iter().map(|worker| worker.tasks).sum::<u64>(), 200);
    assert!(stats.workers.iter().all(|worker| worker.pid == std::process::id() && worker.end.is_none()));
}

#[test]
fn e2_inputs_of_threads_that_panic_do_so_after_the_values_before_them() {
    let _watchdog = watchdog(LONG);
    let pool = pool();
    let inputs = (0..).inspect(|&n: &u32| assert!(n != 50, "no more inputs"));
    let mut values = pool.imap(|n: u32| n, inputs);
    let mut got = 0;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        for value in values.by_ref() {
            assert_eq!(value.unwrap(), got);
            got += 1;
        }
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref::<&str>().unwrap(), &"no more inputs");
    assert_eq!(got, 50);
    assert!(values.next().is_none());
}

#[test]
fn e16_an_endless_input_of_threads_is_pulled_as_values_are_taken() {
    let _watchdog = watchdog(LONG);
    let pool = pool();
    let pulled = Cell::new(0_u64);
    let endless = || (0_u64..).inspect(|_| pulled.set(pulled.get() + 1));
    assert!(pool.imap(|n: u64| n, endless()).take(100).map(Result::unwrap).eq(0..100));
    assert!(pulled.get() <= 110, "{}", pulled.get());
    pulled.set(0);
    assert_eq!(pool.imap_unordered(|n: u64| n, endless()).take(100).count(), 100);
    assert!(pulled.get() <= 110, "{}", pulled.get());
}
