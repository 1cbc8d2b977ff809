//! How a measurement runs: contestants in turn, several rounds, and the figures that come of it.

use crate::Outcome;
use crate::figures::Figures;
use crate::latency::{SHARES, Trips, percentile};
use crate::machine::cpu_time;
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

    /// Round trips that are timed one by one, behind the others.
    #[must_use]
    pub fn single(&self) -> u32 {
        self.count / 4
    }

    /// All round trips of a repetition.
    #[must_use]
    pub fn trips(&self) -> u32 {
        self.total() + self.single()
    }
}

/// One repetition of one contestant: runs and checks what it got.
#[derive(Clone, Copy)]
pub enum Run {
    /// Gives the time of [`Plan::count`] operations.
    Time(fn(&Plan) -> Outcome<Duration>),
    /// Gives the time of [`Plan::count`] round trips, and single ones.
    Trips(fn(&Plan) -> Outcome<Trips>),
    /// Gives an amount for one operation, in the unit of the measurement.
    Amount(fn(&Plan) -> Outcome<f64>),
}

/// What one repetition gave.
struct Took {
    /// In the unit of the measurement.
    figure: f64,
    /// Operations done in all.
    operations: u32,
    /// Single round trips, where they were timed.
    single: Vec<Duration>,
}

/// Who takes part, and what makes it run.
pub struct Contestant {
    /// Its name in the report.
    pub name: &'static str,
    /// Its work.
    pub run: Run,
    /// The goal for the ratio of ours to this one.
    pub goal: Goal,
    /// It does one in so many of the operations: for the slow ones.
    pub one_in: u32,
}

impl Contestant {
    /// One that does all operations, without a goal.
    #[must_use]
    pub const fn new(name: &'static str, run: fn(&Plan) -> Outcome<Duration>) -> Self {
        Self { name, run: Run::Time(run), goal: Goal::None, one_in: 1 }
    }

    /// One that makes round trips, without a goal.
    #[must_use]
    pub const fn trips(name: &'static str, run: fn(&Plan) -> Outcome<Trips>) -> Self {
        Self { name, run: Run::Trips(run), goal: Goal::None, one_in: 1 }
    }

    /// One that gives an amount, without a goal.
    #[must_use]
    pub const fn amount(name: &'static str, run: fn(&Plan) -> Outcome<f64>) -> Self {
        Self { name, run: Run::Amount(run), goal: Goal::None, one_in: 1 }
    }

    /// The ratio of ours to this one shall be at most `limit`.
    #[must_use]
    pub const fn at_most(self, limit: f64) -> Self {
        Self { goal: Goal::AtMost(limit), ..self }
    }

    /// The ratio of ours to this one shall be at least `limit`.
    #[must_use]
    pub const fn at_least(self, limit: f64) -> Self {
        Self { goal: Goal::AtLeast(limit), ..self }
    }

    /// It does one in `one_in` of the operations.
    #[must_use]
    pub const fn one_in(self, one_in: u32) -> Self {
        Self { one_in, ..self }
    }

    /// Its part of `plan`.
    fn part(&self, plan: &Plan) -> Plan {
        let part = |count: u32| count.div_ceil(self.one_in);
        Plan { warm_up: part(plan.warm_up), count: part(plan.count), ..*plan }
    }

    /// Runs it once.
    fn run(&self, plan: &Plan, unit: Unit) -> Outcome<Took> {
        let (plan, timed) = (&self.part(plan), |wall, plan: &Plan| unit.figure(wall, plan.count));
        Ok(match self.run {
            Run::Time(run) => {
                Took { figure: timed(run(plan)?, plan), operations: plan.total(), single: vec![] }
            }
            Run::Amount(run) => Took { figure: run(plan)?, operations: plan.total(), single: vec![] },
            Run::Trips(run) => {
                let Trips { wall, mut single } = run(plan)?;
                single.sort_unstable();
                Took { figure: timed(wall, plan), operations: plan.trips(), single }
            }
        })
    }
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
    /// Thousand operations in a second.
    ThousandsPerSecond,
    /// Bytes for one operation.
    Bytes,
}

impl Unit {
    /// As written in the report.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::MillionsPerSecond => "M/s",
            Self::ThousandsPerSecond => "k/s",
            Self::Bytes => "bytes",
        }
    }

    /// `count` operations that took `time`, in this unit; not a number for bytes.
    #[must_use]
    pub fn figure(self, time: Duration, count: u32) -> f64 {
        let one = time.as_secs_f64() / f64::from(count);
        match self {
            Self::Nanoseconds => one * 1e9,
            Self::Microseconds => one * 1e6,
            Self::MillionsPerSecond => 1e-6 / one,
            Self::ThousandsPerSecond => 1e-3 / one,
            Self::Bytes => f64::NAN,
        }
    }
}

/// What the ratio "ours / peer" shall be.
#[derive(Clone, Copy, PartialEq, Debug)]
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
    /// This library.
    pub ours: Contestant,
    /// The limits and peers, each with the goal for the ratio to it.
    pub peers: Vec<Contestant>,
}

/// What one contestant did.
pub struct Score {
    /// The contestant's name.
    pub name: &'static str,
    /// The goal for the ratio of ours to it.
    pub goal: Goal,
    /// Wall time figures, or amounts, in the unit of the measurement.
    pub wall: Figures,
    /// Where round trips were timed one by one: microseconds within which each of [`SHARES`] of them came back.
    pub single: [Figures; 3],
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
        let all: Vec<&Contestant> = std::iter::once(&self.ours).chain(&self.peers).collect();
        let none = || Figures(vec![]);
        let empty = |one: &&Contestant| {
            let single = [none(), none(), none()];
            Score { name: one.name, goal: one.goal, wall: none(), single, cpu: none() }
        };
        let mut scores: Vec<Score> = all.iter().map(empty).collect();
        for round in 0..=self.plan.rounds {
            for (one, score) in all.iter().zip(&mut scores) {
                let before = cpu_time()?;
                let told = |error| format!("{}, {}: {error}", self.name, one.name);
                let took = one.run(&self.plan, self.unit).map_err(told)?;
                let cpu = cpu_time()?.saturating_sub(before);
                if round == 0 {
                    continue;
                }
                score.wall.0.push(took.figure);
                score.cpu.0.push(Unit::Microseconds.figure(cpu, took.operations));
                for (share, figures) in SHARES.iter().zip(&mut score.single) {
                    figures.0.extend(percentile(&took.single, *share).map(|time| time.as_secs_f64() * 1e6));
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

/// What a program does between two starts, when it does not only start processes.
pub const OTHER_WORK: Duration = Duration::from_micros(500);

/// Times starts of processes, each of which has ended when `start` returns; it gets the number of the start. After each of them this process works for
/// `rest`, which is not timed.
///
/// # Errors
/// Those of `start`.
pub fn starts(plan: &Plan, rest: Duration, start: impl Fn(u32) -> Outcome<()>) -> Outcome<Duration> {
    let one = |number| {
        let ((), time) = timed(|| start(number))?;
        let until = Instant::now() + rest;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        Ok(time)
    };
    (0..plan.warm_up).try_for_each(|number| one(number).map(drop))?;
    (0..plan.count).map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratio = Figures(vec![2.0, 9.0]).over(&Figures(vec![1.0, 3.0]));
        assert_eq!(ratio.0, [2.0, 3.0]);
        assert_eq!(Goal::AtMost(1.5).met(1.5), Some(true));
        assert_eq!(Goal::AtLeast(0.5).met(0.4), Some(false));
    }

    #[test]
    fn each_peer_has_a_goal_of_its_own() -> Outcome<()> {
        let fixed = |name| Contestant::new(name, |plan| Ok(Duration::from_millis(1) * plan.count));
        let measurement = Measurement {
            name: "sample",
            unit: Unit::Microseconds,
            plan: Plan { rounds: 2, warm_up: 10, count: 100 },
            ours: fixed("ours"),
            peers: vec![fixed("limit").at_most(1.5), fixed("peer").at_least(2.0).one_in(7), fixed("other")],
        };
        let scores = measurement.run()?;
        let goals: Vec<Goal> = scores.iter().map(|score| score.goal).collect();
        assert_eq!(goals, [Goal::None, Goal::AtMost(1.5), Goal::AtLeast(2.0), Goal::None]);
        // What does fewer operations gives the same figure for one.
        assert!(scores.iter().all(|score| score.wall.0 == [1000.0, 1000.0]));
        Ok(())
    }

    #[test]
    fn single_trips_become_percentiles() -> Outcome<()> {
        let trips = |plan: &Plan| {
            let single = (0..plan.single()).map(|n| Duration::from_micros(n.into())).collect();
            Ok(Trips { wall: Duration::from_secs(1), single })
        };
        let measurement = Measurement {
            name: "sample",
            unit: Unit::Nanoseconds,
            plan: Plan { rounds: 1, warm_up: 0, count: 4000 },
            ours: Contestant::trips("ours", trips),
            peers: vec![],
        };
        let single: Vec<f64> = measurement.run()?[0].single.iter().map(|one| one.median().round()).collect();
        assert_eq!(single, [499.0, 989.0, 998.0]);
        Ok(())
    }

    #[test]
    fn units() {
        let second = Duration::from_secs(1);
        assert_eq!(Unit::Nanoseconds.figure(second, 1_000_000).round(), 1000.0);
        assert_eq!(Unit::Microseconds.figure(second, 1_000_000).round(), 1.0);
        assert_eq!(Unit::MillionsPerSecond.figure(second, 2_000_000).round(), 2.0);
    }
}
