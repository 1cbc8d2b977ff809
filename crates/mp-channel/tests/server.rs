//! A server that is found once, by programs that it did not start.
#![cfg(not(loom))]

use mp_channel::server::{self, OneShotServer, ServerError};
use mp_testkit::watchdog;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const NAME: &str = "MP_TEST_ONE_SHOT_NAME";

/// What the other program does: this test program, started with a name in its environment.
#[test]
fn b17_the_other_program() {
    let Ok(name) = std::env::var(NAME) else { return };
    let _watchdog = watchdog(LONG);
    let sender = server::connect::<(u32, String)>(&name).unwrap();
    for number in 0..100 {
        sender.send((number, "x".repeat(number as usize * 10))).unwrap();
    }
}

#[test]
fn b17_a_program_that_was_not_started_from_here_finds_a_server_by_its_name() {
    let _watchdog = watchdog(LONG);
    let server = OneShotServer::<(u32, String)>::new().unwrap();
    let name = server.name().to_owned();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "b17_the_other_program"])
        .env(NAME, &name)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (receiver, first) = server.accept().unwrap();
    assert_eq!(first, (0, String::new()));
    for number in 1..100 {
        assert_eq!(receiver.recv().unwrap(), (number, "x".repeat(number as usize * 10)));
    }
    assert!(other.wait().unwrap().success());
    // The only sender has ended.
    assert!(receiver.recv().unwrap_err().is_disconnected());
    // Who comes later does not find it.
    assert!(matches!(server::connect::<(u32, String)>(&name), Err(ServerError::Listen(_))));
}

#[test]
fn b9_a_server_that_nobody_finds_keeps_its_deadline_and_another_type_is_refused() {
    let _watchdog = watchdog(LONG);
    let server = OneShotServer::<u64>::new().unwrap();
    let name = server.name().to_owned();
    let accepting = std::thread::spawn(move || server.accept_timeout(Duration::from_millis(50)));
    assert!(server::connect::<String>(&name).is_err());
    assert!(matches!(accepting.join().unwrap(), Err(ServerError::TimedOut)));
    assert!(matches!(server::connect::<u64>(&name), Err(ServerError::Listen(_))));
    assert!(server::connect::<u64>("nobody").is_err());
}
