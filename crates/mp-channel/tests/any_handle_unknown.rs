//! The last holder of an end is a process that has never seen a channel. One test alone in its process: it counts the session's objects.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{channel, spsc};
use mp_shm::{AnyHandle, Fd, Session};
use mp_spawn::Process;
use mp_testkit::watchdog;
use std::io::Read;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The child has never seen a channel, and lives on until the parent has noticed.
#[test]
fn b9_the_last_holder_does_not_know_the_kind() {
    if std::env::var_os("MP_BACKSTOP").is_none() && mp_sys::futex::watches_all() {
        // A lost wake-up would be made good by a backstop, so this is done without: it would hang. (Where the kernel cannot watch
        // the epoch, too, the backstop is what there is.)
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "b9_the_last_holder_does_not_know_the_kind"]).env("MP_BACKSTOP", "off");
        assert!(again.status().unwrap().success());
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    fn drop_and_wait((any, until): (AnyHandle, Fd)) -> usize {
        let mut until = std::fs::File::from(until.open().unwrap());
        drop(any);
        until.read(&mut [0]).unwrap()
    }
    fn unnoticed(any: AnyHandle, notice: impl FnOnce()) {
        let (until, writer) = std::io::pipe().unwrap();
        let child = Process::spawn(drop_and_wait, (any, Fd::new(until).unwrap())).unwrap();
        notice();
        drop(writer);
        assert_eq!(child.join().unwrap(), 0);
    }
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let any = AnyHandle::of(&sender).unwrap();
    drop(sender);
    unnoticed(any, || assert!(receiver.recv().unwrap_err().is_disconnected()));
    let (sender, mut receiver) = spsc::channel::<u64>(1).unwrap();
    let any = AnyHandle::of(&sender).unwrap();
    drop(sender);
    unnoticed(any, || assert!(receiver.recv().unwrap_err().is_disconnected()));
    // The object itself is its last, too.
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let any = AnyHandle::of(&receiver).unwrap();
    drop(receiver);
    let objects = || Session::current().unwrap().audit().objects;
    let before = objects();
    drop(sender);
    // Two of the descriptor's: it comes and goes.
    unnoticed(any, || mp_testkit::proc::until(|| objects() <= before));
    assert_eq!(objects(), before - 1);
    a_thousand_of_them();
}

/// Each is told of, and none makes the child look through the session again.
fn a_thousand_of_them() {
    let session = Session::current().unwrap();
    let anys = |count: usize| -> Vec<_> {
        let ends = (0..count).map(|_| channel::<u64>(1).unwrap());
        ends.map(|(sender, _)| AnyHandle::of(&sender).unwrap()).collect()
    };
    let before = session.audit().objects;
    let anys = anys(1000);
    let recoveries = session.death_epoch().load(Ordering::Relaxed);
    assert_eq!(Process::spawn(|anys: Vec<AnyHandle>| anys.len(), anys).unwrap().join().unwrap(), 1000);
    let recoveries = session.death_epoch().load(Ordering::Relaxed) - recoveries;
    assert!((1000..1100).contains(&recoveries), "{recoveries}");
    assert_eq!(session.audit().objects, before, "who knows the kind has taken them away");
}
