//! Arrays under a lock, in several processes.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_spawn::Process;
use mp_sync::LockedArray;
use std::time::Duration;

fn add(array: LockedArray<u64>) -> bool {
    for _ in 0..1000 {
        let mut elements = array.lock().unwrap();
        for element in elements.iter_mut() {
            *element += 1;
        }
    }
    array.len() == 100
}

#[test]
fn d7_an_array_under_a_lock_is_changed_by_one_process_at_a_time() {
    let _watchdog = mp_testkit::watchdog(Duration::from_secs(60));
    let array = LockedArray::<u64>::new(100).unwrap();
    let children: Vec<_> = (0..3).map(|_| Process::spawn(add, array.clone()).unwrap()).collect();
    assert!(children.into_iter().all(|child| child.join().unwrap()));
    assert!(array.lock().unwrap().iter().all(|&element| element == 3000));
    mp_testkit::assert_no_backstop();
}

fn die(array: LockedArray<u64>) {
    let mut elements = array.lock().unwrap();
    elements[0] = 7;
    std::process::abort();
}

#[test]
fn d7_a_death_in_the_middle_of_a_change_is_told() {
    let _watchdog = mp_testkit::watchdog(Duration::from_secs(60));
    let array = LockedArray::<u64>::new(2).unwrap();
    assert!(Process::spawn(die, array.clone()).unwrap().join().is_err());
    let told = array.lock().unwrap_err();
    assert!(told.is_owner_died());
    let guard = told.into_guard().unwrap();
    assert_eq!(*guard, [7, 0]);
    guard.recover();
    drop(guard);
    assert_eq!(*array.lock().unwrap(), [7, 0]);
}
