//! Who slept already when a process was started hears that it ended before it took its job.
#![cfg(not(loom))]

use mp_channel::{Sender, channel};
use mp_spawn::Process;
use mp_testkit::proc::Task;
use mp_testkit::watchdog;
use std::process::Command;
use std::time::Duration;

#[test]
fn a13_who_sleeps_when_a_process_is_started_hears_of_its_end_before_its_job() {
    if std::env::var_os("MP_BACKSTOP").is_none() && mp_sys::futex::watches_all() {
        // A backstop would only make it late. (Where the kernel cannot watch all words, the backstop is what there is.)
        let mut again = Command::new(std::env::current_exe().unwrap());
        let name = "a13_who_sleeps_when_a_process_is_started_hears_of_its_end_before_its_job";
        again.args(["--exact", name]).env("MP_BACKSTOP", "off");
        assert!(again.status().unwrap().success());
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let (told, is_told) = std::sync::mpsc::channel();
    // Also of one that is started while another one is looked after.
    for children in [1, 2] {
        let (sender, receiver) = channel::<u32>(1).unwrap();
        let told = told.clone();
        let sleeper = std::thread::spawn(move || {
            told.send(Task::current()).unwrap();
            receiver.recv()
        });
        is_told.recv().unwrap().wait_until_blocked();
        let start = |_| {
            let child =
                Process::spawn(|sender: Sender<u32>| sender.send(1).unwrap(), sender.clone()).unwrap();
            // It takes many times as long to begin.
            child.kill().unwrap();
            child
        };
        let children: Vec<_> = (0..children).map(start).collect();
        drop(sender);
        // Nobody joins them: that would tell as well. A value comes if the kill was late after all.
        let _ = sleeper.join().unwrap();
        drop(children);
    }
}
