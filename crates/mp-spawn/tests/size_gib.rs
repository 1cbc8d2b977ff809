//! An argument and a value of 1 GiB. Strings: what is done to each byte of them is in libraries that are built with optimisation.

use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

const MIB: usize = 1 << 20;

/// 1 GiB, each part with a mark of its own.
fn marked(with: usize) -> Vec<String> {
    let part = |number: usize| {
        let mark = (number * with).to_string();
        " ".repeat(MIB - mark.len()) + &mark
    };
    (0..1024).map(part).collect()
}

#[test]
fn a16_argument_and_value_may_have_a_gib() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    let answer = |text: Vec<String>| {
        assert!(text == marked(3));
        drop(text);
        marked(7)
    };
    let back = Process::spawn(answer, marked(3)).unwrap().join().unwrap();
    assert!(back == marked(7));
    drop(back);
    leaks.end();
    assert_no_backstop();
}
