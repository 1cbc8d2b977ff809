//! What the test tools promise where processes take part.

use mp_spawn::Process;
use mp_testkit::watchdog;
use std::process::{Command, Stdio};
use std::time::Duration;

fn sleep_for_good((): ()) {
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "fails by design: the test below runs it"]
fn fails_and_leaves_a_child() {
    let _watchdog = watchdog(Duration::from_secs(1));
    let child = Process::spawn(sleep_for_good, ());
    assert!(child.is_err(), "{child:?}");
}

#[test]
fn a_failed_test_that_leaves_a_child_comes_to_an_end() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let program = std::env::current_exe().expect("the test has a program");
    let mut one = Command::new(program);
    one.args(["--exact", "--ignored", "fails_and_leaves_a_child"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Its exit waits for the child, which never ends by itself.
    let status = one.status().expect("it starts");
    assert!(!status.success(), "{status}");
}
