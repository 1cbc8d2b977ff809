//! A process id that another process has got. One test alone in its program: it needs the next id that the system gives.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_spawn::Process;
use mp_testkit::proc::{self, Task};
use mp_testkit::watchdog;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// Another process with this id, if the system can be asked for it: the number of the last one can be set, by the privileged.
fn recycle(pid: u32) -> Option<Child> {
    for _ in 0..1000 {
        if let Err(error) = fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()) {
            eprintln!("skipped: the next process id cannot be chosen here: {error}");
            return None;
        }
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        if other.id() == pid {
            return Some(other);
        }
        // Somebody else has started a process meanwhile.
        other.kill().unwrap();
        other.wait().unwrap();
        if Path::new(&format!("/proc/{pid}")).exists() {
            eprintln!("skipped: process id {pid} has gone to somebody else");
            return None;
        }
    }
    panic!("process id {pid} does not come again");
}

#[test]
fn a15_no_signal_reaches_a_process_that_got_the_id_of_an_ended_one() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let process = Process::spawn(|()| (), ()).unwrap();
    let child = process.child().clone();
    process.join().unwrap();
    let Some(mut other) = recycle(child.pid()) else { return };
    child.terminate().unwrap();
    child.interrupt().unwrap();
    child.kill().unwrap();
    assert!(child.kill_tree().is_ok_and(|tree| tree.descendants.is_empty()));
    assert!(child.is_finished());
    // Stopped and gone on it has taken all signals that came before, and lives.
    let pid = rustix::process::Pid::from_raw(other.id().cast_signed()).unwrap();
    let task = Task::leader(other.id());
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    proc::until(|| task.state() == Some('T'));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    proc::until(|| task.state() != Some('T'));
    assert!(other.try_wait().unwrap().is_none(), "it has got a signal that was not for it");
    other.kill().unwrap();
    other.wait().unwrap();
}
