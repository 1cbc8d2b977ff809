//! `map` and its relatives.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_pool::{ParMap, Pool, TaskErrorKind, with_worker_state};
use mp_shm::Array;
use mp_shm::value::Value;
use mp_testkit::{assert_no_backstop, watchdog};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn pool() -> Pool {
    Pool::builder().workers(2).build().unwrap()
}

fn odd(n: u32) -> u32 {
    assert!(n % 2 == 1, "{n} is even");
    n
}

#[test]
fn e20_values_come_in_order_or_as_they_come_and_each_once() {
    let _watchdog = watchdog(LONG);
    let pool = pool();
    let ordered: Vec<u32> = pool.imap(|n: u32| n + 1, 0..10_000).map(Result::unwrap).collect();
    assert_eq!(ordered, (1..=10_000).collect::<Vec<_>>());
    let mut unordered: Vec<u32> =
        pool.imap_unordered(|n: u32| n + 1, 0..10_000).map(Result::unwrap).collect();
    unordered.sort_unstable();
    assert_eq!(unordered, ordered);
    let mapped: Vec<u32> = (0..100).par_map(&pool, |n: u32| n * 2).map(Result::unwrap).collect();
    assert_eq!(mapped, (0..100).map(|n| n * 2).collect::<Vec<_>>());
    assert_eq!(pool.map(|(a, b): (u32, String)| format!("{a}{b}"), [(1, "x".to_owned())]).unwrap(), ["1x"]);
    assert_eq!(pool.imap(|n: u32| n, []).count(), 0);
    assert_no_backstop();
}

#[test]
fn e20_large_inputs_and_large_values_travel_a_few_at_a_time() {
    const LARGE: usize = 256 << 10;
    let _watchdog = watchdog(LONG);
    let chunks = |run: fn(&Pool)| {
        let pool = pool();
        run(&pool);
        pool.stats().tasks_done
    };
    let inputs = chunks(|pool| {
        // Text is copied at once also without optimisation; what takes long comes one by one for that alone.
        let lengths = pool.map(|text: String| text.len(), (0..200).map(|_| "x".repeat(LARGE))).unwrap();
        assert!(lengths.into_iter().all(|len| len == LARGE));
    });
    // At most four, which are 1 MiB, from the first on.
    assert!(inputs >= 50, "{inputs}");
    let values = chunks(|pool| {
        let values = pool.map(|n: u8| char::from(n % 128).to_string().repeat(LARGE), 0..200).unwrap();
        assert!((0..).zip(values).all(|(n, text)| text.len() == LARGE && text.as_bytes()[0] == n % 128));
    });
    assert!(values >= 50, "{values}");
}

fn minus(a: u64, b: u64) -> u64 {
    a - b
}

#[test]
fn e20_a_function_of_two_is_given_pairs() {
    let _watchdog = watchdog(LONG);
    let pool = pool();
    let pairs = |count: u64| (0..count).map(|n| (3 * n, n));
    let values = pool.starmap(minus, pairs(10_000)).unwrap();
    assert!(values.into_iter().eq((0..10_000).map(|n| 2 * n)));
    let lengths = pool.starmap(|a: String, b: Vec<u8>| a.len() + b.len(), [("abc".to_owned(), vec![1, 2])]);
    assert_eq!(lengths.unwrap(), [5]);
    let error = pool.starmap(minus, pairs(50).chain([(1, 2)]).chain(pairs(50))).unwrap_err();
    assert_eq!(error.items, 50..51);
    assert!(error.to_string().contains("overflow"), "{error}");
    assert_no_backstop();
}

#[test]
fn e11_each_input_fails_by_itself() {
    let _watchdog = watchdog(LONG);
    let pool = pool();
    for (place, result) in pool.map_results(odd, 0..200).into_iter().enumerate() {
        match result {
            Ok(value) => assert!(value as usize == place && place % 2 == 1),
            Err(error) => {
                assert_eq!(error.items, place..place + 1);
                assert!(matches!(error.error.kind, TaskErrorKind::Panicked(_)), "{error}");
            }
        }
    }
    assert_eq!(pool.stats().workers_lost, 0);
    // Of those that kill, too, whatever chunk they are in.
    let dies = |n: u32| if n % 50 == 7 { std::process::abort() } else { n };
    for size in [1, 10, 64] {
        let pool = Pool::builder().workers(2).chunk_size(size).build().unwrap();
        let results = pool.map_results(dies, 0..200);
        assert_eq!(results.len(), 200);
        for (place, result) in results.into_iter().enumerate() {
            match result {
                Ok(value) => assert!(value as usize == place && place % 50 != 7),
                Err(error) => {
                    assert_eq!(error.items, place..place + 1);
                    assert!(place % 50 == 7 && error.error.signal() == Some(6), "{error}");
                }
            }
        }
        assert_eq!(pool.stats().workers_lost, 4);
    }
    assert_no_backstop();
}

#[test]
fn e18_an_input_that_kills_is_tried_again_and_then_passed_over() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).chunk_size(10).retries(2).build().unwrap();
    let dies = |n: u32| if n == 55 { std::process::abort() } else { n };
    let results = pool.map_results(dies, 0..100);
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!((results.len(), failed.len()), (100, 1));
    assert_eq!(failed[0].items, 55..56);
    assert!(matches!(failed[0].error.kind, TaskErrorKind::Quarantined { deaths: 3, .. }), "{}", failed[0]);
    assert_eq!((pool.stats().tasks_retried, pool.stats().workers_lost), (2, 3));
}

#[test]
fn e2_inputs_that_panic_do_so_after_the_values_before_them() {
    let _watchdog = watchdog(LONG);
    let pool = pool();
    let inputs = || (0..).inspect(|&n: &u32| assert!(n != 500, "no more inputs"));
    let mut values = pool.imap(|n: u32| n, inputs());
    let mut got = 0;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        for value in values.by_ref() {
            assert_eq!(value.unwrap(), got);
            got += 1;
        }
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref::<&str>().unwrap(), &"no more inputs");
    assert_eq!(got, 500);
    assert!(values.next().is_none());
    drop(values);
    catch_unwind(AssertUnwindSafe(|| pool.map(|n: u32| n, inputs()).map(|_| ()))).unwrap_err();
    assert_eq!(pool.map(|n: u32| n, 0..10).unwrap().len(), 10, "the pool is usable");
}

#[test]
fn e16_an_endless_input_is_pulled_in_every_flavour_as_values_are_taken() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).chunk_size(10).build().unwrap();
    let pulled = Cell::new(0_u64);
    let endless = || (0_u64..).inspect(|_| pulled.set(pulled.get() + 1));
    assert!(pool.imap(|n: u64| n, endless()).take(100).map(Result::unwrap).eq(0..100));
    assert!(pulled.get() <= 300, "{}", pulled.get());
    pulled.set(0);
    assert_eq!(pool.imap_unordered(|n: u64| n, endless()).take(100).count(), 100);
    assert!(pulled.get() <= 300, "{}", pulled.get());
    pulled.set(0);
    assert_eq!(endless().par_map(&pool, |n: u64| n).take(100).count(), 100);
    assert!(pulled.get() <= 300, "{}", pulled.get());
}

#[test]
fn e22_values_land_in_place_and_inputs_are_read_where_they_lie() {
    let _watchdog = watchdog(LONG);
    let pool = pool();
    let inputs: Vec<u64> = (0..200_000).collect();
    assert!(pool.map_slice(|n: u64| n * n, &inputs).unwrap().into_iter().eq(inputs.iter().map(|n| n * n)));
    let (shared, outputs) = (Array::from_slice(&inputs).unwrap(), Array::<f32>::new(inputs.len()).unwrap());
    let half = |n: u64| f32::from(u16::try_from(n % 60_000).unwrap()) / 2.0;
    pool.map_into(half, &shared, &outputs).unwrap();
    assert!((0..).zip(&inputs).all(|(place, n)| outputs.get(place) == Some(half(*n))));
    assert!(pool.map_slice(|n: u64| n, &[]).unwrap().is_empty());
    assert_no_backstop();
}

#[test]
fn e22_an_input_that_fails_or_kills_costs_no_other_its_place() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).chunk_size(50).build().unwrap();
    let f = |n: u32| match n {
        333 => std::process::abort(),
        777 => panic!("unlucky"),
        n => n + 1,
    };
    let inputs: Vec<u32> = (0..1000).collect();
    let (shared, outputs) = (Array::from_slice(&inputs).unwrap(), Array::<u32>::new(1000).unwrap());
    let error = pool.map_into(f, &shared, &outputs).unwrap_err();
    assert_eq!((error.items.clone(), error.error.signal()), (333..334, Some(6)), "{error}");
    for n in 0..1000 {
        let expected = if n == 333 || n == 777 { 0 } else { n + 1 };
        assert_eq!(outputs.get(n as usize), Some(expected));
    }
}

/// Works longer than a chunk of an array should take.
fn long_work(n: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(9) {
        std::hint::spin_loop();
    }
    n + 1
}

#[test]
fn e22_a_worker_gives_back_what_would_take_it_too_long() {
    let _watchdog = watchdog(LONG);
    let inputs: Vec<u64> = (0..16).collect();
    let tasks = |pool: Pool| {
        assert!(pool.map_slice(long_work, &inputs).unwrap().into_iter().eq(1..17));
        pool.stats().tasks_done
    };
    assert_eq!(tasks(Pool::builder().workers(1).build().unwrap()), 16, "one at a time");
    assert_eq!(tasks(Pool::builder().workers(1).chunk_size(8).build().unwrap()), 2, "as many as was said");
}

#[test]
fn e22_an_input_that_kills_is_run_again_as_often_as_was_said_however_long_the_others_take_then() {
    let _watchdog = watchdog(LONG);
    // All before it are in its chunk at first, and take longer than a chunk may when they are run again.
    fn third_kills(n: u64) -> u64 {
        with_worker_state(|kills: &mut Value<u64>| {
            if n == 3 {
                kills.update(|kills| kills + 1);
                std::process::abort();
            }
            if kills.get() == 0 { n + 1 } else { long_work(n) }
        })
    }
    let kills = Value::new(0_u64).unwrap();
    let initialized = Pool::builder().initializer(|kills: Value<u64>| kills, kills.clone());
    let pool = initialized.workers(1).retries(2).build().unwrap();
    let (inputs, outputs) =
        (Array::from_slice(&(0..8).collect::<Vec<u64>>()).unwrap(), Array::<u64>::new(8).unwrap());
    let error = pool.map_into(third_kills, &inputs, &outputs).unwrap_err();
    assert_eq!(error.items, 3..4);
    assert!(matches!(error.error.kind, TaskErrorKind::Quarantined { deaths: 3, .. }), "{error}");
    assert_eq!(kills.get(), 3);
    assert_eq!(outputs.to_vec(), [1, 2, 3, 0, 5, 6, 7, 8]);
}
