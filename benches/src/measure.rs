//! How a measurement runs: contestants in turn, several rounds, and the figures that come of it.

use crate::machine::cpu_time;
use crate::{Outcome, payload};
use std::time::{Duration, Instant};

/// How much work one repetition does, and how often it is repeated.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Rounds; in each, every contestant runs once.
    pub rounds: u32,
    /// Operations done before the clock starts.
    pub warm_up: u32,
    /// Operations that are timed.
    pub count: u32,
}

impl Plan {
    /// All operations of a repetition.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.warm_up + self.count
    }
}

/// One repetition of one contestant: runs, checks what it got, and gives the time of
/// [`Plan::count`] operations.
pub type Run = fn(&Plan) -> Outcome<Duration>;

/// Who takes part, and what makes it run.
pub struct Contestant {
    /// Its name in the report.
    pub name: &'static str,
    /// Its work.
    pub run: Run,
}

/// What the figures of a measurement count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nanoseconds for one operation.
    Nanoseconds,
    /// Microseconds for one operation.
    Microseconds,
    /// Million operations in a second.
    MillionsPerSecond,
}

impl Unit {
    /// As written in the report.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::MillionsPerSecond => "M/s",
        }
    }

    /// `count` operations that took `time`, in this unit.
    #[must_use]
    pub fn figure(self, time: Duration, count: u32) -> f64 {
        let one = time.as_secs_f64() / f64::from(count);
        match self {
            Self::Nanoseconds => one * 1e9,
            Self::Microseconds => one * 1e6,
            Self::MillionsPerSecond => 1e-6 / one,
        }
    }
}

/// What the ratio "ours / peer" shall be.
#[derive(Clone, Copy)]
pub enum Goal {
    /// No larger than this.
    AtMost(f64),
    /// No smaller than this.
    AtLeast(f64),
    /// Reported only.
    None,
}

impl Goal {
    /// As written in the report.
    #[must_use]
    pub fn text(self, peer: &str) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {limit} x {peer}"),
            Self::AtLeast(limit) => format!("at least {limit} x {peer}"),
            Self::None => "none, reported only".to_owned(),
        }
    }

    /// Whether `ratio` reaches the goal; `None` without a goal.
    #[must_use]
    pub fn met(self, ratio: f64) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(ratio <= limit),
            Self::AtLeast(limit) => Some(ratio >= limit),
            Self::None => None,
        }
    }
}

/// A measurement: this library, and one or more others with the same work.
pub struct Measurement {
    /// Its name, for `--only` and the report.
    pub name: &'static str,
    /// What the figures count.
    pub unit: Unit,
    /// How much work.
    pub plan: Plan,
    /// The goal for the ratio to the first of `peers`.
    pub goal: Goal,
    /// This library.
    pub ours: Contestant,
    /// The limits and peers; never empty.
    pub peers: &'static [Contestant],
}

/// The repetitions of a figure.
pub struct Figures(pub Vec<f64>);

impl Figures {
    /// In ascending order.
    fn sorted(&self) -> Vec<f64> {
        let mut all = self.0.clone();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The middle one, or the mean of the two middle ones.
    #[must_use]
    pub fn median(&self) -> f64 {
        let all = self.sorted();
        let upper = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
        let lower = all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
        f64::midpoint(lower, upper)
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(f64::NAN)
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(f64::NAN)
    }

    /// Whether the largest is over twice the smallest: then the median says little.
    #[must_use]
    pub fn unstable(&self) -> bool {
        self.max() > 2.0 * self.min()
    }

    /// Each of these divided by the one of the same round in `other`.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// What one contestant did.
pub struct Score {
    /// The contestant's name.
    pub name: &'static str,
    /// Wall time figures, in the unit of the measurement.
    pub wall: Figures,
    /// CPU microseconds for one operation, of this process and the children it waited for. Starting
    /// them and the warm-up are part of it.
    pub cpu: Figures,
}

impl Measurement {
    /// Runs all contestants in turn, ours first in each round. One more round before, not counted,
    /// loads the code and lets the machine settle.
    ///
    /// # Errors
    /// When a contestant fails, or got wrong data.
    pub fn run(&self) -> Outcome<Vec<Score>> {
        let all: Vec<&Contestant> = std::iter::once(&self.ours).chain(self.peers).collect();
        let empty = |one: &&Contestant| Score { name: one.name, wall: Figures(vec![]), cpu: Figures(vec![]) };
        let mut scores: Vec<Score> = all.iter().map(empty).collect();
        for round in 0..=self.plan.rounds {
            for (one, score) in all.iter().zip(&mut scores) {
                let before = cpu_time()?;
                let told = |error| format!("{}, {}: {error}", self.name, one.name);
                let wall = (one.run)(&self.plan).map_err(told)?;
                let cpu = cpu_time()?.saturating_sub(before);
                if round > 0 {
                    score.wall.0.push(self.unit.figure(wall, self.plan.count));
                    score.cpu.0.push(Unit::Microseconds.figure(cpu, self.plan.total()));
                }
            }
        }
        Ok(scores)
    }
}

/// Times `work`.
///
/// # Errors
/// Those of `work`.
pub fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Duration)> {
    let start = Instant::now();
    let value = work()?;
    Ok((value, start.elapsed()))
}

/// Runs a mapping of squares twice, first over the warm-up's numbers; times and checks the second.
///
/// # Errors
/// Those of `map`, and wrong results.
pub fn time_squares(plan: &Plan, map: impl Fn(Vec<u64>) -> Outcome<Vec<u64>>) -> Outcome<Duration> {
    let numbers = |count: u32| (0..u64::from(count)).collect::<Vec<u64>>();
    map(numbers(plan.warm_up))?;
    let input = numbers(plan.count);
    let (results, time) = timed(|| map(input))?;
    if !payload::are_squares(&results, plan.count) {
        return Err("wrong results".into());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_odd_and_even_counts() {
        let odd = Figures(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.min(), odd.median(), odd.max()), (1.0, 2.0, 3.0));
        let even = Figures(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!(even.median(), 2.5);
        assert!(even.unstable());
        assert!(!Figures(vec![1.0, 2.0]).unstable());
        assert!(Figures(vec![]).median().is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratio = Figures(vec![2.0, 9.0]).over(&Figures(vec![1.0, 3.0]));
        assert_eq!(ratio.0, [2.0, 3.0]);
        assert_eq!(Goal::AtMost(1.5).met(1.5), Some(true));
        assert_eq!(Goal::AtLeast(0.5).met(0.4), Some(false));
    }

    #[test]
    fn units() {
        let second = Duration::from_secs(1);
        assert_eq!(Unit::Nanoseconds.figure(second, 1_000_000).round(), 1000.0);
        assert_eq!(Unit::Microseconds.figure(second, 1_000_000).round(), 1.0);
        assert_eq!(Unit::MillionsPerSecond.figure(second, 2_000_000).round(), 2.0);
    }
}
