//! Starting processes from tests, whoever runs them; doc tests do it in each crate's examples.

use mp_spawn::{Process, Stdio};
use mp_testkit::watchdog;
use std::io::Read;
use std::time::Duration;

/// What a process has of the program that started it.
fn arguments(_: ()) -> Vec<String> {
    println!("only this");
    std::env::args().collect()
}

#[test]
fn a20_a_test_starts_processes_that_run_their_job_and_no_tests() {
    let _watchdog = watchdog(Duration::from_secs(60));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut process = Process::builder().stdout(Stdio::Piped).spawn(arguments, ()).unwrap();
                let mut said = String::new();
                process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
                assert_eq!(said, "only this\n", "the runner of the tests has not begun");
                assert!(process.join().unwrap().into_iter().eq(std::env::args()));
            });
        }
    });
}
