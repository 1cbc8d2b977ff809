//! What contestants have in common: the tasks, how they are timed, and how their results are checked.

use crate::Outcome;
use crate::measure::{Plan, timed};
use crate::payload::{self, Source};
use std::cell::RefCell;
use std::hint;
use std::time::{Duration, Instant};

/// Workers of every pool here.
pub(super) const WORKERS: u32 = 2;

/// How long a task of some length takes.
pub(super) const LENGTH: Duration = Duration::from_micros(20);

/// Bytes of a large result.
pub(super) const RESULT: usize = 1 << 20;

/// A task that takes [`LENGTH`]: looks at the clock until then.
pub(super) fn spin(number: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < LENGTH {
        hint::spin_loop();
    }
    payload::square(number)
}

thread_local! {
    static SOURCE: RefCell<Source<RESULT>> = RefCell::new(Source::new());
}

/// Lets `look` have the large result number `number`, as it is before anybody owns it.
pub(super) fn with_result<R>(number: u64, look: impl FnOnce(&[u8; RESULT]) -> R) -> R {
    SOURCE.with_borrow_mut(|source| look(source.marked(number)))
}

/// A task with a large result that is an array.
pub(super) fn result_array(number: u64) -> [u8; RESULT] {
    with_result(number, |bytes| *bytes)
}

/// A task with a large result.
pub(super) fn result(number: u64) -> Vec<u8> {
    with_result(number, |bytes| bytes.to_vec())
}

/// Maps the numbers from 0 on twice, first as many as the warm-up has; times the second, and checks it by `right`.
fn time_map<R>(
    plan: &Plan,
    mut map: impl FnMut(Vec<u64>) -> Outcome<Vec<R>>,
    right: impl Fn(&[R]) -> bool,
) -> Outcome<Duration> {
    let numbers = |count: u32| (0..u64::from(count)).collect::<Vec<u64>>();
    map(numbers(plan.warm_up))?;
    let input = numbers(plan.count);
    let (results, time) = timed(|| map(input))?;
    let all = u32::try_from(results.len()) == Ok(plan.count);
    if all && right(&results) { Ok(time) } else { Err("wrong results".into()) }
}

/// Times a mapping of squares.
pub(super) fn time_squares(plan: &Plan, map: impl FnMut(Vec<u64>) -> Outcome<Vec<u64>>) -> Outcome<Duration> {
    time_map(plan, map, |results| payload::are_squares(results, plan.count))
}

/// Times a mapping to large results, which are bytes.
pub(super) fn time_results<R: AsRef<[u8]>>(
    plan: &Plan,
    map: impl FnMut(Vec<u64>) -> Outcome<Vec<R>>,
) -> Outcome<Duration> {
    time_map(plan, map, |results| {
        (0..).zip(results).all(|(number, bytes)| payload::is_marked::<RESULT>(bytes.as_ref(), number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { rounds: 1, warm_up: 1, count: 3 };

    #[test]
    fn results_are_counted_and_checked_whole() {
        let all = |numbers: Vec<u64>| Ok(numbers.into_iter().map(result).collect::<Vec<_>>());
        assert!(time_results(&PLAN, all).is_ok());
        assert!(time_results(&PLAN, |numbers| all(numbers[1..].to_vec())).is_err(), "one is missing");
        let torn = |numbers: Vec<u64>| {
            let (last, mut results) = (numbers.len() - 1, all(numbers)?);
            results[last][RESULT - 1] ^= 1;
            Ok(results)
        };
        assert!(time_results(&PLAN, torn).is_err(), "the last byte");
    }

    #[test]
    fn a_task_of_some_length_takes_it() {
        let start = Instant::now();
        assert_eq!(spin(3), 9);
        assert!(start.elapsed() >= LENGTH);
    }
}
