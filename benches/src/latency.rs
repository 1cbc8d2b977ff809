//! Round trips: how they are timed, and what share of them came back within which time.

use crate::Outcome;
use crate::measure::{Plan, timed};
use std::thread;
use std::time::{Duration, Instant};

/// The shares that are reported, in thousandths: the median, the 99th percentile, and 99.9 %.
pub const SHARES: [usize; 3] = [500, 990, 999];

/// How long a side rests so that the other one has gone to sleep.
const REST: Duration = Duration::from_micros(300);

/// What a repetition of round trips gave.
pub struct Trips {
    /// The time of [`Plan::count`] of them in a row.
    pub wall: Duration,
    /// More of them, timed one by one; the clock's own time is in each.
    pub single: Vec<Duration>,
}

/// The time within which `share` thousandths of `sorted` lie, if there are any: the smallest that at least so many do not exceed.
#[must_use]
pub fn percentile(sorted: &[Duration], share: usize) -> Option<Duration> {
    let rank = (sorted.len() * share).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Makes round trips, numbered from 0: those of the warm-up, those timed together, those timed singly.
///
/// # Errors
/// Those of `trip`.
pub fn time_trips(plan: &Plan, mut trip: impl FnMut(u32) -> Outcome<()>) -> Outcome<Trips> {
    (0..plan.warm_up).try_for_each(&mut trip)?;
    let ((), wall) = timed(|| (plan.warm_up..plan.total()).try_for_each(&mut trip))?;
    let clocked = |turn| {
        let start = Instant::now();
        trip(turn)?;
        Ok(start.elapsed())
    };
    let single = (plan.total()..plan.trips()).map(clocked).collect::<Outcome<_>>()?;
    Ok(Trips { wall, single })
}

/// As [`time_trips`], but rests before each of them, so that the other side has gone to sleep. No rest is part of a figure.
///
/// # Errors
/// Those of `trip`.
pub fn time_rested_trips(plan: &Plan, mut trip: impl FnMut(u32) -> Outcome<()>) -> Outcome<Trips> {
    let mut clocked = |turn| {
        thread::sleep(REST);
        let ((), time) = timed(|| trip(turn))?;
        Ok(time)
    };
    (0..plan.warm_up).try_for_each(|turn| clocked(turn).map(drop))?;
    let mut times = (plan.warm_up..plan.trips()).map(clocked).collect::<Outcome<Vec<_>>>()?;
    let single = times.split_off(usize::try_from(plan.count)?);
    Ok(Trips { wall: times.into_iter().sum(), single })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_of_many() {
        let times = |count: u64| (1..=count).map(Duration::from_nanos).collect::<Vec<_>>();
        let at = |count, share| percentile(&times(count), share).map(|time| time.as_nanos());
        assert_eq!([at(1, 500), at(1, 999)], [Some(1), Some(1)]);
        assert_eq!(SHARES.map(|share| at(1000, share)), [Some(500), Some(990), Some(999)]);
        assert_eq!(SHARES.map(|share| at(10, share)), [Some(5), Some(10), Some(10)]);
        assert_eq!(at(0, 500), None);
    }

    #[test]
    fn every_trip_is_made_once_and_in_order() -> Outcome<()> {
        let (plan, mut made) = (Plan { rounds: 1, warm_up: 3, count: 8 }, vec![]);
        let trips = time_trips(&plan, |turn| {
            made.push(turn);
            Ok(())
        })?;
        assert_eq!(made, (0..13).collect::<Vec<_>>());
        assert_eq!(trips.single.len(), 2);
        Ok(())
    }
    #[test]
    fn every_rested_trip_is_made_once_and_in_order() -> Outcome<()> {
        let (plan, mut made) = (Plan { rounds: 1, warm_up: 3, count: 8 }, vec![]);
        let trips = time_rested_trips(&plan, |turn| {
            made.push(turn);
            Ok(())
        })?;
        assert_eq!(made, (0..13).collect::<Vec<_>>());
        assert_eq!(trips.single.len(), 2);
        Ok(())
    }
}
