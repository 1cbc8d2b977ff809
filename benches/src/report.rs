//! The report: a table for people, and a JSON record with every repetition.

use crate::figures::Figures;
use crate::latency::SHARES;
use crate::measure::{Goal, Measurement, Score};
use serde_json::{Value, json};
use std::fmt::Write;

/// The columns of the table.
pub const HEAD: &str = "\
measurement             unit  contestant            median       min       max   cpu us/op   ours/it    min    max  goal";

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

/// `met`, `missed`, or `unstable`, which is not met either; nothing without a goal.
fn verdict(goal: Goal, ratio: &Figures) -> &'static str {
    match goal.met(ratio.median()) {
        None => "",
        Some(_) if ratio.unstable() => ": unstable",
        Some(true) => ": met",
        Some(false) => ": missed",
    }
}

/// The lines of one measurement. `scores` has ours first.
#[must_use]
pub fn table(measurement: &Measurement, scores: &[Score]) -> String {
    let mut text = String::new();
    let Some(ours) = scores.first() else { return text };
    for score in scores {
        let wall = &score.wall;
        let _ = write!(
            text,
            "{:<23} {:<5} {:<18} {:>9} {:>9} {:>9} {:>11}",
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
            let _ = write!(text, " {:>9} {:>6} {:>6}", number(middle), number(low), number(high));
            if score.goal != Goal::None {
                let _ = write!(text, "  {}{}", score.goal.text(score.name), verdict(score.goal, &ratio));
            } else if ratio.unstable() {
                text.push_str("  unstable");
            }
        }
        let [.., late, _] = &score.single;
        if !late.0.is_empty() {
            let _ = write!(text, "  (p99 {} us)", number(late.median()));
        }
        text.push('\n');
    }
    text
}

/// Median, least, most and all repetitions.
fn figures(all: &Figures) -> Value {
    json!({ "median": all.median(), "min": all.min(), "max": all.max(), "all": all.0 })
}

/// `p50_us` for 500 thousandths, `p99.9_us` for 999.
fn percentile_name(share: usize) -> String {
    match share % 10 {
        0 => format!("p{}_us", share / 10),
        part => format!("p{}.{part}_us", share / 10),
    }
}

/// The JSON record of one measurement. `scores` has ours first.
#[must_use]
pub fn record(measurement: &Measurement, scores: &[Score]) -> Value {
    let Some((ours, peers)) = scores.split_first() else { return Value::Null };
    let of = |score: &Score| {
        let mut value = json!({
            "name": score.name,
            "wall": figures(&score.wall),
            "cpu_us_per_operation": figures(&score.cpu),
        });
        for (share, single) in SHARES.iter().zip(&score.single) {
            if !single.0.is_empty() {
                value[percentile_name(*share)] = figures(single);
            }
        }
        value
    };
    let peers: Vec<Value> = peers
        .iter()
        .map(|peer| {
            let (ratio, goal) = (ours.wall.over(&peer.wall), peer.goal);
            let mut value = of(peer);
            value["ratio"] = figures(&ratio);
            value["cpu_ratio"] = figures(&ours.cpu.over(&peer.cpu));
            value["unstable"] = ratio.unstable().into();
            value["goal"] = goal.text(peer.name).into();
            value["goal_met"] = goal.met(ratio.median()).map(|met| met && !ratio.unstable()).into();
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

    fn sample() -> Measurement {
        let contestant = |name| Contestant::new(name, |_| Ok(Duration::from_millis(1)));
        Measurement {
            name: "sample",
            unit: Unit::Nanoseconds,
            plan: Plan { rounds: 2, warm_up: 1, count: 10 },
            ours: contestant("ours"),
            peers: vec![contestant("limit").at_most(1.5), contestant("peer").at_most(0.6)],
        }
    }

    fn score(name: &'static str, goal: Goal, wall: [f64; 2], single: &[f64]) -> Score {
        let single = [0.5, 1.0, 2.0].map(|times| Figures(single.iter().map(|one| one * times).collect()));
        Score { name, goal, wall: Figures(wall.into()), single, cpu: Figures(vec![1.0; 2]) }
    }

    fn scores(ours: [f64; 2], limit: [f64; 2], peer: [f64; 2]) -> Vec<Score> {
        vec![
            score("ours", Goal::None, ours, &[7.0, 7.0]),
            score("limit", Goal::AtMost(1.5), limit, &[]),
            score("peer", Goal::AtMost(0.6), peer, &[]),
        ]
    }

    #[test]
    fn every_peer_has_its_verdict() {
        let text = table(&sample(), &scores([3.0, 3.0], [2.0, 2.0], [4.0, 4.0]));
        assert!(text.contains("at most 1.5 x limit: met"));
        assert!(text.contains("at most 0.6 x peer: missed"));
    }

    #[test]
    fn an_unstable_ratio_holds_no_goal() {
        let scores = scores([1.0, 2.5], [2.0, 2.0], [9.0, 9.0]);
        assert!(table(&sample(), &scores).contains("at most 1.5 x limit: unstable"));
        assert_eq!(record(&sample(), &scores)["peers"][0]["goal_met"], json!(false));
    }

    #[test]
    fn late_trips_are_told() {
        let scores = scores([3.0, 5.0], [2.0, 2.0], [2.0, 2.0]);
        let lines = table(&sample(), &scores);
        assert_eq!(lines.matches("(p99 7.000 us)").count(), 1);
        let value = record(&sample(), &scores);
        assert_eq!(value["ours"]["p50_us"]["median"], json!(3.5));
        assert_eq!(value["ours"]["p99.9_us"]["median"], json!(14.0));
        assert!(value["peers"][0]["p99_us"].is_null());
    }

    #[test]
    fn the_record_has_every_repetition() {
        let value = record(&sample(), &scores([3.0, 5.0], [2.0, 2.0], [8.0, 8.0]));
        assert_eq!(value["ours"]["wall"]["all"], json!([3.0, 5.0]));
        assert_eq!(value["peers"][0]["ratio"]["median"], json!(2.0));
        assert_eq!(value["peers"][0]["goal_met"], json!(false));
        assert_eq!(value["peers"][1]["goal_met"], json!(true));
    }
}
