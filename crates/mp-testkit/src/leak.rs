//! What must be the same after a test as before it.

use crate::proc;
use mp_shm::Session;
use mp_shm::audit::Audit;
use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

/// Names in `/dev/shm` that are ours; others are the business of other programs on this machine.
const NAME_PREFIX: &str = "multiproc";

/// How long the end may take to come about. What is still there then is leaked, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Compares what this process holds in the system and in its session, at the begin and at the end of a test.
#[derive(Debug)]
#[must_use = "it checks at its end"]
pub struct LeakCheck {
    before: Held,
}

#[derive(Debug, PartialEq, Eq)]
struct Held {
    children: Vec<u32>,
    descriptors: Vec<String>,
    shm_names: Vec<String>,
}

impl LeakCheck {
    /// Notes what this process holds. It takes part in its session from here on, since that stays until it ends.
    ///
    /// # Panics
    /// If there is no session to be had.
    pub fn begin() -> Self {
        let session = Session::current().unwrap_or_else(|error| panic!("{error}"));
        session.me().unwrap_or_else(|error| panic!("{error}"));
        Self { before: Held::now() }
    }

    /// Waits until this process holds again what it held, and its session is empty but for itself.
    ///
    /// # Panics
    /// If it stays otherwise, with the difference.
    pub fn end(self) {
        let start = Instant::now();
        let session = Session::current().unwrap_or_else(|error| panic!("{error}"));
        let mut difference = String::new();
        proc::until(|| {
            difference = self.before.difference(&Held::now());
            difference.push_str(&left_in(session.audit()));
            difference.is_empty() || start.elapsed() > PATIENCE
        });
        assert!(difference.is_empty(), "the test leaks:\n{difference}");
    }
}

impl Held {
    fn now() -> Self {
        let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // The directory of segments' names stays; what this process has in it is asked for below.
        let is_directory = |name: &String| {
            name.strip_prefix("multiproc-").is_some_and(|user| user.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let mut shm_names: Vec<String> =
            names.filter(|name| name.starts_with(NAME_PREFIX) && !is_directory(name)).collect();
        let segments = mp_shm::segment::list().unwrap_or_default().into_iter();
        shm_names.extend(segments.filter(|one| one.owner == std::process::id()).map(|one| one.name));
        shm_names.sort_unstable();
        Self { children: proc::children(), descriptors: proc::descriptors(), shm_names }
    }

    fn difference(&self, now: &Self) -> String {
        let state = |pid: &u32| format!("{pid} in state {:?}", proc::Task::leader(*pid).state());
        let mut text = changes("child process", &self.children, &now.children, state);
        text.push_str(&changes("file descriptor", &self.descriptors, &now.descriptors, String::clone));
        // Others of our tests, in parallel, may remove theirs: only what is new is of interest.
        let new = now.shm_names.iter().filter(|name| !self.shm_names.contains(name));
        new.for_each(|name| text.push_str(&format!("  name in /dev/shm: new: {name}\n")));
        text
    }
}

fn changes<T: PartialEq>(what: &str, before: &[T], now: &[T], describe: impl Fn(&T) -> String) -> String {
    let mut text = String::new();
    for one in now.iter().filter(|one| !before.contains(one)) {
        let _ = writeln!(text, "  {what}: new: {}", describe(one));
    }
    for one in before.iter().filter(|one| !now.contains(one)) {
        let _ = writeln!(text, "  {what}: gone: {}", describe(one));
    }
    text
}

fn left_in(audit: Audit) -> String {
    let empty = Audit { processes: 1, counts_are_right: true, ..Audit::default() };
    if audit == empty { String::new() } else { format!("  session: {audit:?}\n") }
}
