//! What a started process gives back, and how it ends.

use mp_spawn::{JoinError, Process, spawn};

fn square(n: u64) -> u64 {
    n * n
}

#[test]
fn a1_a_value_comes_back() {
    assert_eq!(Process::spawn(square, 12).unwrap().join().unwrap(), 144);
}

#[test]
fn a1_an_exit_code_is_told() {
    let child = Process::spawn(|code: i32| -> () { std::process::exit(code) }, 7).unwrap();
    assert!(matches!(child.join(), Err(JoinError::Exited(7))));
}

#[test]
fn a1_a_panic_is_told_with_message_and_location() {
    let child = Process::spawn(|n: u32| -> u32 { panic!("no {n}") }, 5).unwrap();
    let Err(JoinError::Panicked(panic)) = child.join() else { panic!("a panic was expected") };
    assert_eq!(panic.message, "no 5");
    assert!(panic.location.contains("process.rs:"), "{}", panic.location);
}

#[test]
fn a1_a_signal_is_told() {
    let child = Process::spawn(
        |()| loop {
            std::thread::park()
        },
        (),
    )
    .unwrap();
    let _: &Process<()> = &child;
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}

#[test]
fn spawn_takes_several_arguments() {
    fn join(a: String, b: u32, c: Vec<u8>) -> String {
        format!("{a}{b}{c:?}")
    }
    assert_eq!(spawn!(join("x".to_owned(), 1, vec![2])).unwrap().join().unwrap(), "x1[2]");
}
