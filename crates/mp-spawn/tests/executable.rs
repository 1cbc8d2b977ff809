//! Children that run another executable than ours.

use mp_spawn::{JoinError, Process, SpawnError, set_executable};
use mp_sys::process::Ended;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::path::PathBuf;
use std::time::Duration;

/// `target/debug/examples/other_build`, seen from `target/debug/deps/executable-…`.
fn other_build() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let path = own.parent()?.parent()?.join("examples/other_build");
    path.exists().then_some(path)
}

fn double(n: u32) -> u32 {
    n * 2
}

#[test]
fn a17_a_child_of_another_build_is_told_and_runs_no_code_address() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();

    set_executable("/bin/true");
    let error = Process::spawn(double, 1).unwrap().join().unwrap_err();
    assert!(matches!(error, JoinError::NotStarted(Ended::Exited(0))), "{error:?}");
    assert!(error.to_string().contains("does its executable link multiproc?"), "{error}");

    set_executable("/nonexistent/program");
    let error = Process::spawn(double, 1).unwrap_err();
    assert!(matches!(error, SpawnError::Start(_)), "{error:?}");

    match other_build() {
        Some(path) => {
            set_executable(path);
            let error = Process::spawn(double, 1).unwrap().join().unwrap_err();
            assert!(matches!(error, JoinError::Refused(_)), "{error:?}");
            assert!(error.to_string().contains("build"), "{error}");
        }
        None if std::env::var_os("CI").is_some() => panic!("the example other_build is not built"),
        None => eprintln!("skipped: the example other_build is not built"),
    }

    set_executable("/proc/self/exe");
    assert_eq!(Process::spawn(double, 1).unwrap().join().unwrap(), 2);
    leaks.end();
    assert_no_backstop();
}
