//! Children that start children.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Sender, channel};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::time::Duration;

/// Starts two children unless `depth` is 0. Gives the pids of the whole tree below and including this process; each of them is
/// also sent, so that handles reach every depth.
fn tree((depth, report): (u32, Sender<u32>)) -> Vec<u32> {
    report.send(std::process::id()).unwrap();
    let mut pids = vec![std::process::id()];
    if depth > 0 {
        let children = [0, 1].map(|_| Process::spawn(tree, (depth - 1, report.clone())).unwrap());
        for child in children {
            pids.append(&mut child.join().unwrap());
        }
        assert!(proc::children().is_empty(), "all reaped");
    }
    assert_no_backstop();
    pids
}

#[test]
fn a9_children_start_children_to_a_depth_of_four() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    let (report, reports) = channel(64).unwrap();
    let mut pids = Process::spawn(tree, (3, report)).unwrap().join().unwrap();
    assert_eq!(pids.len(), 1 + 2 + 4 + 8);
    let mut reported: Vec<u32> = reports.iter().collect();
    pids.sort_unstable();
    reported.sort_unstable();
    assert_eq!(pids, reported);
    pids.dedup();
    assert_eq!(pids.len(), 15, "each is a process of its own");
    drop(reports);
    leaks.end();
    assert_no_backstop();
}
