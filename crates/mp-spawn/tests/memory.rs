//! What a child holds of its parent: memory, arguments, environment, directory.

use mp_spawn::Process;
use mp_testkit::watchdog;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

static TOUCHED: AtomicU32 = AtomicU32::new(7);
static GROWN: Mutex<Vec<u32>> = Mutex::new(Vec::new());

#[test]
fn a18_a_child_has_statics_of_its_own() {
    let _watchdog = watchdog(LONG);
    TOUCHED.store(1000, Ordering::SeqCst);
    GROWN.lock().unwrap().extend([1, 2, 3]);
    let seen = |()| {
        let seen = (TOUCHED.load(Ordering::SeqCst), GROWN.lock().map_or(99, |list| list.len() as u64));
        TOUCHED.store(5, Ordering::SeqCst);
        seen
    };
    let child = Process::spawn(seen, ()).unwrap();
    assert_eq!(child.join().unwrap(), (7, 0), "as the program begins");
    assert_eq!(TOUCHED.load(Ordering::SeqCst), 1000, "what a child writes is its own");
}

#[test]
fn a18_a_child_has_the_arguments_and_directory_of_its_parent() {
    let _watchdog = watchdog(LONG);
    let told = |()| {
        let directory = std::env::current_dir().map(|path| path.to_string_lossy().into_owned());
        (std::env::args().collect::<Vec<String>>(), directory.unwrap_or_default())
    };
    let here = std::env::current_dir().unwrap().to_string_lossy().into_owned();
    assert_eq!(Process::spawn(told, ()).unwrap().join().unwrap(), (std::env::args().collect(), here));
}

#[test]
fn a18_the_marker_of_a_child_is_not_left_in_its_environment() {
    let _watchdog = watchdog(LONG);
    let strip = |all: std::env::Vars| {
        let mut all: Vec<String> = all.map(|(name, value)| format!("{name}={value}")).collect();
        all.sort_unstable();
        all
    };
    let mut expected = strip(std::env::vars());
    let child =
        Process::spawn(|()| std::env::vars().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>(), ());
    let mut found = child.unwrap().join().unwrap();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
