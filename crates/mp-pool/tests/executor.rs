//! The same code over processes, threads and the caller itself: what all executors promise.

#![expect(clippy::unwrap_used, reason = "tests")]

use mp_pool::{Executor, Inline, NamedExecutor, Pool, TaskError, TaskHandle, ThreadPool, task};
use mp_testkit::watchdog;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(100);

fn square(n: u64) -> u64 {
    n * n
}

fn unlucky(n: u64) -> u64 {
    assert!(n != 777 && n != 780, "unlucky {n}");
    n
}

fn long(text: String) -> Vec<String> {
    vec![text; 1000]
}

#[task]
fn hypotenuse(a: f64, b: f64) -> f64 {
    a.hypot(b)
}

#[task]
fn nothing() {}

#[task]
fn is_even(n: u64) -> bool {
    n.is_multiple_of(2)
}

fn sum_of_squares<E: Executor>(executor: &E, n: u64) -> Result<u64, TaskError> {
    let tasks: Vec<_> = (0..n).map(|i| executor.submit(square, i)).collect::<Result<_, _>>()?;
    tasks.into_iter().map(TaskHandle::get).sum()
}

fn conforms<E: Executor>(executor: &E) {
    assert_eq!(sum_of_squares(executor, 100).unwrap(), 328_350);
    assert_eq!(executor.submit(long, "a".to_owned()).unwrap().get().unwrap(), vec!["a"; 1000]);

    let task = executor.submit(square, 3).unwrap();
    while !task.is_finished() {
        std::thread::yield_now();
    }
    assert_eq!(task.get().unwrap(), 9);

    let expected: Vec<u64> = (0..5000).map(|n| n * n).collect();
    assert_eq!(executor.map(square, 0..5000).unwrap(), expected);
    assert!(executor.map(square, []).unwrap().is_empty());

    panics(executor);
    named(executor);
}

fn panics<E: Executor>(executor: &E) {
    let error = executor.submit(unlucky, 777).unwrap().get().unwrap_err().to_string();
    assert!(error.contains("unlucky 777"), "{error}");
    assert!(error.contains("executor.rs:"), "it says where: {error}");
    assert!(executor.in_flight_max() >= 1);
    // Without a bound on what is taken from the inputs, this would not end.
    let error = executor.map(unlucky, 0..).unwrap_err();
    assert_eq!(error.items, 777..778, "the first of two failures: {error}");
    assert_eq!(executor.submit(square, 5).unwrap().get().unwrap(), 25, "it goes on");
}

fn named<E: NamedExecutor>(executor: &E) {
    assert!(
        (executor.submit(hypotenuse, (3.0, 4.0)).unwrap().get().unwrap() - hypotenuse(3.0, 4.0)).abs() < 1e-9
    );
    executor.submit(nothing, ()).unwrap().get().unwrap();
    assert_eq!(executor.map(is_even, 0..3).unwrap(), [true, false, true]);
}

#[test]
fn e26_code_for_any_executor_runs_in_processes() {
    let _watchdog = watchdog(LIMIT);
    conforms(&Pool::builder().workers(2).build().unwrap());
}

#[test]
fn e26_code_for_any_executor_runs_in_threads() {
    let _watchdog = watchdog(LIMIT);
    conforms(&ThreadPool::new(3).unwrap());
    conforms(&ThreadPool::new(1).unwrap());
}

#[test]
fn e26_code_for_any_executor_runs_in_threads_that_encode_as_processes_do() {
    let _watchdog = watchdog(LIMIT);
    conforms(&ThreadPool::builder().threads(2).checked(true).build().unwrap());
}

#[test]
fn e26_code_for_any_executor_runs_in_the_caller() {
    let _watchdog = watchdog(LIMIT);
    conforms(&Inline);
    let here = std::thread::current().id();
    let there = Inline.submit(|()| format!("{:?}", std::thread::current().id()), ()).unwrap().get().unwrap();
    assert_eq!(there, format!("{here:?}"));
}

#[test]
fn e20_inline_runs_nothing_behind_the_first_failure() {
    let _watchdog = watchdog(LIMIT);
    let mut taken = 0;
    let inputs = (770..800).inspect(|_| taken += 1);
    assert_eq!(Inline.map(unlucky, inputs).unwrap_err().items, 7..8);
    assert_eq!(taken, 8);
}

#[test]
fn e20_a_marked_function_is_called_as_any_other_and_gives_a_pointer() {
    let _watchdog = watchdog(LIMIT);
    let roots: Vec<bool> = (0..3).map(*is_even).collect();
    assert_eq!(roots, [is_even(0), is_even(1), is_even(2)]);
    let pool = Inline;
    assert!(pool.submit(*is_even, 2).unwrap().get().unwrap());
}
