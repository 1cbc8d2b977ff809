//! What a child holds of its parent: descriptors.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::time::Duration;

/// The numbers of the child's descriptors, and what those above 2 are.
fn held((): ()) -> (Vec<u32>, Vec<String>) {
    let split =
        |one: &str| one.split_once(" -> ").map(|(number, link)| (number.parse().unwrap(), link.to_owned()));
    let mut all: Vec<(u32, String)> = proc::descriptors().iter().map(|one| split(one).unwrap()).collect();
    all.sort_unstable();
    let numbers = all.iter().map(|(number, _)| *number).collect();
    (numbers, all.into_iter().filter(|(number, _)| *number > 2).map(|(_, link)| link).collect())
}

#[test]
fn a5_a_child_holds_the_standard_descriptors_and_the_session_alone() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    // Descriptors that any program started the usual way would inherit.
    let open: Vec<std::fs::File> = (0..20).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    for file in &open {
        rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).unwrap();
    }
    // All are kept, so that the parent's own descriptors grow in number.
    let children: Vec<_> = (0..50).map(|_| Process::spawn(held, ()).unwrap()).collect();
    let found: Vec<_> = children.into_iter().map(|child| child.join().unwrap()).collect();
    let (numbers, others) = &found[0];
    assert_eq!(numbers[..3], [0, 1, 2]);
    assert_eq!(others.len(), 1, "{others:?}");
    assert!(others[0].starts_with("/memfd:multiproc"), "{others:?}");
    for (number, one) in found.iter().enumerate() {
        assert_eq!(one, &found[0], "child {number} holds what the first one holds");
    }
    drop(open);
    leaks.end();
    assert_no_backstop();
}
