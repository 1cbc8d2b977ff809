//! The report: a table for people, and a JSON record with every repetition.

use crate::measure::{Figures, Goal, Measurement, Score};
use serde_json::{Value, json};
use std::fmt::Write;

/// The columns of the table.
pub const HEAD: &str = "\
measurement  unit  contestant        median       min       max   cpu us/op   ours/it   min   max";

/// A figure with as many places as it deserves.
fn number(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.3}")
    } else if value < 1000.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// `met` or `missed`, or nothing without a goal.
fn verdict(goal: Goal, ratio: f64) -> &'static str {
    match goal.met(ratio) {
        Some(true) => ": met",
        Some(false) => ": missed",
        None => "",
    }
}

/// The lines of one measurement. `scores` has ours first.
#[must_use]
pub fn table(measurement: &Measurement, scores: &[Score]) -> String {
    let mut text = String::new();
    let Some((ours, peers)) = scores.split_first() else { return text };
    for score in scores {
        let wall = &score.wall;
        let _ = write!(
            text,
            "{:<12} {:<5} {:<14} {:>9} {:>9} {:>9} {:>11}",
            measurement.name,
            measurement.unit.text(),
            score.name,
            number(wall.median()),
            number(wall.min()),
            number(wall.max()),
            number(score.cpu.median()),
        );
        if !std::ptr::eq(score, ours) {
            let ratio = ours.wall.over(wall);
            let (middle, low, high) = (ratio.median(), ratio.min(), ratio.max());
            let unstable = if ratio.unstable() { "  unstable" } else { "" };
            let _ = write!(text, " {:>9} {:>5.2} {:>5.2}{unstable}", number(middle), low, high);
        }
        text.push('\n');
    }
    if let Some(first) = peers.first() {
        let ratio = ours.wall.over(&first.wall).median();
        let goal = measurement.goal;
        let _ = writeln!(text, "{:<12} goal: {}{}", "", goal.text(first.name), verdict(goal, ratio));
    }
    text
}

/// Median, least, most and all repetitions.
fn figures(all: &Figures) -> Value {
    json!({ "median": all.median(), "min": all.min(), "max": all.max(), "all": all.0 })
}

/// The JSON record of one measurement. `scores` has ours first.
#[must_use]
pub fn record(measurement: &Measurement, scores: &[Score]) -> Value {
    let Some((ours, peers)) = scores.split_first() else { return Value::Null };
    let of = |score: &Score| {
        json!({
            "name": score.name,
            "wall": figures(&score.wall),
            "cpu_us_per_operation": figures(&score.cpu),
        })
    };
    let peers: Vec<Value> = peers
        .iter()
        .enumerate()
        .map(|(place, peer)| {
            let ratio = ours.wall.over(&peer.wall);
            let goal = if place == 0 { measurement.goal } else { Goal::None };
            let mut value = of(peer);
            value["ratio"] = figures(&ratio);
            value["cpu_ratio"] = figures(&ours.cpu.over(&peer.cpu));
            value["unstable"] = ratio.unstable().into();
            value["goal"] = goal.text(peer.name).into();
            value["goal_met"] = goal.met(ratio.median()).into();
            value
        })
        .collect();
    let plan = &measurement.plan;
    json!({
        "name": measurement.name,
        "unit": measurement.unit.text(),
        "rounds": plan.rounds,
        "operations": plan.count,
        "warm_up_operations": plan.warm_up,
        "ours": of(ours),
        "peers": peers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Contestant, Plan, Unit};
    use std::time::Duration;

    const fn contestant(name: &'static str) -> Contestant {
        Contestant { name, run: |_| Ok(Duration::from_millis(1)) }
    }

    const SAMPLE: Measurement = Measurement {
        name: "sample",
        unit: Unit::Nanoseconds,
        plan: Plan { rounds: 2, warm_up: 1, count: 10 },
        goal: Goal::AtMost(1.5),
        ours: contestant("ours"),
        peers: &[contestant("limit")],
    };

    fn scores(ours: [f64; 2], limit: [f64; 2]) -> Vec<Score> {
        let score =
            |name, wall: [f64; 2]| Score { name, wall: Figures(wall.into()), cpu: Figures(vec![1.0; 2]) };
        vec![score("ours", ours), score("limit", limit)]
    }

    #[test]
    fn a_met_goal_and_a_missed_one() {
        assert!(table(&SAMPLE, &scores([3.0, 3.0], [2.0, 2.0])).contains("at most 1.5 x limit: met"));
        assert!(table(&SAMPLE, &scores([4.0, 4.0], [2.0, 2.0])).contains("at most 1.5 x limit: missed"));
    }

    #[test]
    fn a_wide_spread_is_told() {
        assert!(table(&SAMPLE, &scores([1.0, 2.5], [1.0, 1.0])).contains("unstable"));
        assert!(!table(&SAMPLE, &scores([1.0, 1.5], [1.0, 1.0])).contains("unstable"));
    }

    #[test]
    fn the_record_has_every_repetition() {
        let value = record(&SAMPLE, &scores([3.0, 5.0], [2.0, 2.0]));
        assert_eq!(value["ours"]["wall"]["all"], json!([3.0, 5.0]));
        assert_eq!(value["peers"][0]["ratio"]["median"], json!(2.0));
        assert_eq!(value["peers"][0]["goal_met"], json!(false));
    }
}
