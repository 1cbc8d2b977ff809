//! Ending a process with all that it has started.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Sender, channel};
use mp_spawn::Process;
use mp_testkit::{proc, watchdog};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Starts two of itself, `depth` deep, one of them by a fork server; tells that it runs, and does nothing more.
fn grow((depth, runs): (u32, Sender<u32>)) {
    let children: Vec<_> = ["spawn", "forkserver"]
        .into_iter()
        .take(if depth > 0 { 2 } else { 0 })
        .map(|method| {
            let builder = Process::builder().start_method(method.parse().unwrap());
            builder.spawn(grow, (depth - 1, runs.clone())).unwrap()
        })
        .collect();
    runs.send(std::process::id()).unwrap();
    for child in children {
        child.wait().unwrap();
    }
    loop {
        std::thread::park();
    }
}

#[test]
fn a14_a_tree_is_ended_to_its_last_leaf() {
    let _watchdog = watchdog(LONG);
    for is_kill in [false, true] {
        let (sender, receiver) = channel(16).unwrap();
        let root = Process::spawn(grow, (2, sender.clone())).unwrap();
        let neighbour = Process::spawn(grow, (1, sender)).unwrap();
        let all: Vec<u32> = (0..10).map(|_| receiver.recv().unwrap()).collect();
        let tree = if is_kill { root.kill_tree() } else { root.terminate_tree() }.unwrap();
        assert!(tree.is_complete && tree.refused.is_empty(), "{tree:?}");
        assert_eq!(root.join().unwrap_err().signal(), Some(if is_kill { 9 } else { 15 }));
        for pid in tree.descendants.iter().filter(|pid| all.contains(pid)) {
            proc::until(|| proc::has_ended(*pid));
        }
        let spared: Vec<u32> = all.iter().copied().filter(|&pid| !proc::has_ended(pid)).collect();
        assert_eq!(spared.len(), 3, "{spared:?} of {all:?}");
        assert!(spared.contains(&neighbour.pid()) && !tree.descendants.contains(&neighbour.pid()));
        neighbour.kill_tree().unwrap();
        neighbour.join().unwrap_err();
    }
}
