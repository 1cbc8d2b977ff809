//! Whoever waits does nothing: no polling, whatever others do meanwhile.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "sets an environment variable")]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::Process;
use mp_testkit::proc::{Task, Usage};
use mp_testkit::watchdog;
use std::time::Duration;

fn waiter((ready, receiver): (Sender<()>, Receiver<u32>)) -> u32 {
    ready.send(()).unwrap();
    receiver.recv().unwrap()
}

fn tasks_of_threads(bodies: Vec<Box<dyn FnOnce() + Send>>) -> Vec<(Task, std::thread::JoinHandle<()>)> {
    let start = |body: Box<dyn FnOnce() + Send>| {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(Task::current()).unwrap();
            body();
        });
        (told.recv().unwrap(), thread)
    };
    bodies.into_iter().map(start).collect()
}

/// A stream of work through another channel of the same session.
fn work(sender: &Sender<u64>, receiver: &Receiver<u64>) {
    for n in 0..50_000 {
        sender.send(n).unwrap();
        assert_eq!(receiver.recv().unwrap(), n);
    }
}

#[test]
fn b14_who_waits_neither_wakes_nor_computes() {
    let _watchdog = watchdog(Duration::from_secs(120));
    // A backstop is a wake, if a rare one.
    // SAFETY: the test is alone in its process, and the harness's thread waits for it meanwhile.
    unsafe { std::env::set_var("MP_BACKSTOP", "off") };

    let (to_receiver, receiver) = channel::<u32>(1).unwrap();
    let (timed_sender, timed) = channel::<u32>(1).unwrap();
    let (sender, full) = channel::<u32>(1).unwrap();
    sender.send(1).unwrap();
    let (to_child, gate) = channel::<u32>(1).unwrap();
    let (ready, is_ready) = channel(1).unwrap();
    let child = Process::spawn(waiter, (ready, gate)).unwrap();
    is_ready.recv().unwrap();
    let threads = tasks_of_threads(vec![
        Box::new(move || assert_eq!(receiver.recv().unwrap(), 5)),
        Box::new(move || assert_eq!(timed.recv_timeout(Duration::from_secs(3600)).unwrap(), 6)),
        Box::new(move || sender.send(2).unwrap()),
    ]);
    let mut tasks: Vec<Task> = threads.iter().map(|(task, _)| *task).collect();
    tasks.push(Task::leader(child.pid()));
    tasks.iter().for_each(|task| task.wait_until_blocked());
    let usage = || tasks.iter().map(|task| task.usage().unwrap()).collect::<Vec<Usage>>();
    let before = usage();
    let (to_us, from_us) = channel::<u64>(1).unwrap();
    work(&to_us, &from_us);
    tasks.iter().for_each(|task| assert_eq!(task.state(), Some('S')));
    assert_eq!(usage(), before, "they slept all the while");

    to_receiver.send(5).unwrap();
    timed_sender.send(6).unwrap();
    assert_eq!((full.recv().unwrap(), full.recv().unwrap()), (1, 2));
    to_child.send(7).unwrap();
    assert_eq!(child.join().unwrap(), 7);
    threads.into_iter().for_each(|(_, thread)| thread.join().unwrap());
}
