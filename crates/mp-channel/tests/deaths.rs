//! Deaths at awkward moments: each test is the shortest program that once hung or lost something.

#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::Process;
use mp_testkit::proc::Task;
use std::time::Duration;

fn no_backstop_was_needed() {
    assert_eq!(mp_sys::backstop::found(), 0, "a wake-up was lost");
}

/// Holds the end, says so, and waits to be killed.
fn hold((_end, ready): (Sender<u32>, Sender<()>)) {
    ready.send(()).unwrap();
    loop {
        std::thread::park();
    }
}

/// Waits to be told that nobody sends any more; says how many wake-ups were lost on the way.
fn wait_for_the_end((end, ready): (Receiver<u32>, Sender<()>)) -> u64 {
    ready.send(()).unwrap();
    assert!(end.recv().unwrap_err().is_disconnected());
    mp_sys::backstop::found()
}

#[test]
fn b9_a_process_that_joined_while_the_receiver_slept_is_missed() {
    let (tx, rx) = channel::<u32>(4).unwrap();
    let (ready, is_ready) = channel::<()>(1).unwrap();
    // In a process of its own: the one that starts the other looks after that one anyway.
    let receiver = Process::spawn(wait_for_the_end, (rx, ready.clone())).unwrap();
    is_ready.recv().unwrap();
    Task::leader(receiver.pid()).wait_until_blocked();
    let holder = Process::spawn(hold, (tx, ready)).unwrap();
    is_ready.recv().unwrap();
    holder.kill().unwrap();
    // Not `holder.join()` yet: that would recover in the receiver's place.
    assert!(
        receiver.wait_timeout(Duration::from_secs(60)).unwrap(),
        "the receiver is told that the last sender died"
    );
    assert_eq!(receiver.join().unwrap(), 0, "a wake-up was lost");
    assert_eq!(holder.join().unwrap_err().signal(), Some(9));
}

#[test]
fn b9_polling_finds_a_death() {
    let (tx, rx) = channel::<u32>(4).unwrap();
    let (ready, is_ready) = channel::<()>(1).unwrap();
    let child = Process::spawn(hold, (tx, ready)).unwrap();
    is_ready.recv().unwrap();
    child.kill().unwrap();
    while !rx.try_recv().unwrap_err().is_disconnected() {
        std::thread::yield_now();
    }
    drop(child);
    no_backstop_was_needed();
}

#[test]
fn b9_a_dropped_handle_does_not_keep_the_value_of_its_process() {
    let (tx, rx) = channel::<u32>(4).unwrap();
    drop(Process::spawn(|end: Sender<u32>| end, tx).unwrap());
    assert!(rx.recv().unwrap_err().is_disconnected());
    no_backstop_was_needed();
}

#[test]
fn a21_a_program_replaced_from_another_thread_holds_nothing_any_more() {
    fn replace((end, ready): (Sender<u32>, Sender<()>)) {
        use std::os::unix::process::CommandExt;
        let thread = std::thread::spawn(move || {
            // This thread has a sentinel of its own from here on.
            ready.send(()).unwrap();
            let error = std::process::Command::new("/bin/sleep").arg("1000").exec();
            panic!("{error} {end:?}");
        });
        thread.join().unwrap();
    }
    let (tx, rx) = channel::<u32>(4).unwrap();
    let (ready, is_ready) = channel::<()>(1).unwrap();
    let child = Process::spawn(replace, (tx, ready)).unwrap();
    is_ready.recv().unwrap();
    assert!(rx.recv().unwrap_err().is_disconnected());
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
    no_backstop_was_needed();
}

#[test]
fn b2_a_destructor_of_a_thread_can_send() {
    struct Last(Option<Sender<String>>);
    impl Drop for Last {
        fn drop(&mut self) {
            if let Some(end) = &self.0 {
                end.send("last words".to_owned()).unwrap();
            }
        }
    }
    thread_local! {
        static LAST: std::cell::RefCell<Last> = const { std::cell::RefCell::new(Last(None)) };
    }
    let (tx, rx) = channel::<String>(4).unwrap();
    let sender = tx.clone();
    std::thread::spawn(move || {
        LAST.with(|last| last.borrow_mut().0 = Some(sender.clone()));
        sender.send("first".to_owned()).unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(rx.recv_timeout(Duration::from_secs(60)).unwrap(), "first");
    assert_eq!(rx.recv_timeout(Duration::from_secs(60)).unwrap(), "last words");
}
