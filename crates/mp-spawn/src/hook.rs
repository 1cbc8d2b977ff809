//! How a child finds its job before `main`, and how a fork server's process and the broker of descriptors find out what they are.
//!
//! With the feature `constructor` (a default) a function in the executable's `.init_array` looks for the marker in the environment.
//! In a child it runs the job and exits; otherwise it only notes that it was there. So programs, tests, doc tests and benchmarks need
//! no set-up. Without the feature, [`init`] at the top of `main` does the same; without either, a start is refused
//! ([`SpawnError::NoHook`]), so that a program cannot start itself again and again.
//!
//! In the constructor: it acts only inside the main executable (a plugin has a copy of this crate and must not steal the job; one of its own
//! is handed over to it, see [`set_executable`](crate::set_executable)); the
//! marker is removed first, while there is one thread; constructors that come after ours run before the job, since a job expects
//! a fully made program (the broker runs none of its code and does without); SIGPIPE is ignored, as Rust programs expect; panics are caught, for none may leave a constructor.

#![expect(unsafe_code, reason = "a constructor, the environment, file descriptors by number")]

use crate::broker;
use crate::error::SpawnError;
use crate::family::{self, Birth};
use crate::forkserver;
use crate::job;
use crate::library;
use crate::program;
use mp_shm::Session;
use mp_shm::deliver::Record;
#[cfg(feature = "constructor")]
use std::ffi::c_char;
use std::ffi::c_int;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Environment variable by which a child is told where its job is.
pub(crate) const MARKER: &str = "MULTIPROC_CHILD";
/// Environment variable by which a fork server's process is told what it is.
pub(crate) const ZYGOTE: &str = "MULTIPROC_ZYGOTE";

static RAN: AtomicBool = AtomicBool::new(false);

/// Exit code of a child that could not get at its job.
pub(crate) const EXIT_NO_JOB: i32 = 125;

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The session's file.
    pub(crate) fd: RawFd,
    /// What a daemon clings to.
    pub(crate) lifeline: Option<RawFd>,
    pub(crate) errand: Errand,
}

/// What a new process is to do, and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    pub(crate) record: Record,
    pub(crate) nonce: u64,
    /// The parent's process id.
    pub(crate) parent: u32,
    /// Empty if it was given none.
    pub(crate) name: String,
}

impl Marker {
    pub(crate) fn to_text(&self) -> String {
        format!("{}:{}:{}", self.fd, self.lifeline.unwrap_or(0), self.errand.to_text())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let fd = parts.next()?.parse().ok().filter(|&fd| fd > 2)?;
        let lifeline = match parts.next()?.parse().ok()? {
            0 => None,
            other => Some(other).filter(|&other| other > 2 && other != fd).map(Some)?,
        };
        Some(Self { fd, lifeline, errand: Errand::parse(parts.next()?)? })
    }
}

impl Errand {
    pub(crate) fn to_text(&self) -> String {
        let Self { record: Record { owner, offset, generation }, nonce, parent, name } = self;
        format!("{owner}:{offset}:{generation}:{nonce}:{parent}:{name}")
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        // The name may hold anything.
        let mut parts = text.splitn(6, ':');
        let owner = parts.next()?.parse().ok()?;
        let offset = parts.next()?.parse().ok()?;
        let generation = parts.next()?.parse().ok()?;
        let nonce = parts.next()?.parse().ok()?;
        let parent = parts.next()?.parse().ok()?;
        let name = parts.next()?.to_owned();
        Some(Self { record: Record { owner, offset, generation }, nonce, parent, name })
    }

    /// The process's name, given or not.
    pub(crate) fn full_name(&self) -> String {
        if self.name.is_empty() { format!("process-{}", self.nonce) } else { self.name.clone() }
    }
}

/// Whether this program's children will find their jobs; what is missing if not.
pub(crate) fn check() -> Result<(), SpawnError> {
    // With a program that was said to have the hook, unless this process shows that it has not: nobody has taken its marker.
    let is_promised = || {
        program::is_set()
            && [MARKER, ZYGOTE, broker::MARKER].iter().all(|name| std::env::var_os(name).is_none())
    };
    if RAN.load(Ordering::Relaxed) || is_promised() {
        return Ok(());
    }
    Err(library::own_path().map_or(SpawnError::NoHook, SpawnError::InLibrary))
}

/// Runs the job if this process was started for one, or is the broker of descriptors, and exits; returns at once otherwise.
///
/// Only needed without the feature `constructor`: call it first thing in `main`, before threads are started.
pub fn init() {
    RAN.store(true, Ordering::Relaxed);
    mp_shm::fds::set_starter(broker::start);
    if let Some(text) = std::env::var_os(library::MARKER) {
        // SAFETY: at the top of `main`, or in the constructor, no other thread reads the environment.
        unsafe { std::env::remove_var(library::MARKER) };
        let left = text.to_str().ok_or(String::from("no marker")).and_then(library::leave_to);
        let nothing = || report("the library found no marker of its own in the environment");
        std::process::exit(left.map_or_else(|text| report(&text), |()| nothing()));
    }
    if let Some(text) = std::env::var_os(broker::MARKER) {
        // SAFETY: at the top of `main`, or in the constructor, no other thread reads the environment.
        unsafe { std::env::remove_var(broker::MARKER) };
        std::process::exit(text.to_str().map_or(EXIT_NO_JOB, broker::run));
    }
    if let Some(text) = std::env::var_os(ZYGOTE) {
        // SAFETY: at the top of `main`, or in the constructor, no other thread reads the environment.
        unsafe { std::env::remove_var(ZYGOTE) };
        let served = text.to_str().ok_or(String::from("no marker")).and_then(forkserver::run);
        std::process::exit(served.map_or_else(|text| report(&text), |()| 0));
    }
    if let Some(text) = std::env::var_os(MARKER) {
        // SAFETY: at the top of `main`, or in the constructor, no other thread reads the environment.
        unsafe { std::env::remove_var(MARKER) };
        let code = match text.to_str().and_then(Marker::parse) {
            Some(marker) => child(&marker),
            None => report("the marker in the environment is not one of multiproc's"),
        };
        std::process::exit(code);
    }
}

fn child(marker: &Marker) -> c_int {
    guarded(|| {
        mp_sys::process::ignore_sigpipe();
        mp_sys::process::open_standard().map_err(|error| format!("opening the null device: {error}"))?;
        let passed = |fd: RawFd| {
            // SAFETY: the parent passed this descriptor for us alone, and the marker names each once; nothing else in this process has
            // opened any yet, or knows of them.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            mp_sys::process::close_on_exec(&fd).map(|()| fd).map_err(|error| error.to_string())
        };
        let (file, lifeline) = (passed(marker.fd)?, marker.lifeline.map(passed).transpose()?);
        let session = || Session::attach(file).map_err(|error| error.to_string());
        let is_daemon = lifeline.is_some();
        work(session, &marker.errand, is_daemon, lifeline, Ok(()))
    })
}

/// Runs what a new process is for; what goes wrong is told on standard error. The code to exit with.
pub(crate) fn guarded(body: impl FnOnce() -> Result<c_int, String>) -> c_int {
    match crate::panics::catch(body) {
        Ok(Ok(code)) => code,
        Ok(Err(text)) => report(&text),
        Err(panic) => report(&panic.to_string()),
    }
}

/// Does what a new process is for, once that is known. `prepared` tells whether it could be set up as it was asked to.
pub(crate) fn work(
    session: impl FnOnce() -> Result<Session, String>,
    errand: &Errand,
    is_daemon: bool,
    lifeline: Option<OwnedFd>,
    prepared: Result<(), String>,
) -> Result<c_int, String> {
    if let Some(lifeline) = lifeline {
        mp_sys::lifeline::cling(lifeline)
            .map_err(|error| format!("arranging to die with the parent: {error}"))?;
    }
    if !errand.name.is_empty() {
        mp_sys::process::name_thread(&errand.name);
    }
    family::born(Birth { name: errand.full_name(), parent: errand.parent, is_daemon });
    let session = session()?;
    session.make_current().map_err(|error| error.to_string())?;
    job::run(session, errand.record, errand.nonce, prepared)
}

fn report(text: &str) -> c_int {
    eprintln!("multiproc: process {}: {text}", std::process::id());
    EXIT_NO_JOB
}

#[cfg(feature = "constructor")]
type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

#[cfg(feature = "constructor")]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: Constructor = constructor;

#[cfg(feature = "constructor")]
extern "C" fn constructor(count: c_int, arguments: *const *const c_char, environment: *const *const c_char) {
    if !mp_sys::object::main_program_holds(constructor as *const () as usize) {
        return;
    }
    if std::env::var_os(MARKER).is_some() || std::env::var_os(ZYGOTE).is_some() {
        run_later_constructors(count, arguments, environment);
    }
    // A child exits in there.
    init();
}

/// Runs the constructors that the loader would run after ours, since in a child ours does not return.
#[cfg(feature = "constructor")]
fn run_later_constructors(count: c_int, arguments: *const *const c_char, environment: *const *const c_char) {
    unsafe extern "C" {
        static __init_array_start: [Option<Constructor>; 0];
        static __init_array_end: [Option<Constructor>; 0];
    }
    let start = (&raw const __init_array_start).cast::<Option<Constructor>>();
    let end = (&raw const __init_array_end).cast::<Option<Constructor>>();
    let len = (end as usize).saturating_sub(start as usize) / size_of::<Option<Constructor>>();
    // SAFETY: the linker defines the two symbols around the executable's table of constructors.
    let table = unsafe { std::slice::from_raw_parts(start, len) };
    let ours = constructor as *const () as usize;
    let after_ours = table
        .iter()
        .skip_while(|entry| entry.is_none_or(|entry| entry as *const () as usize != ours))
        .skip(1);
    for entry in after_ours.flatten() {
        entry(count, arguments, environment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_survives_its_text_and_nonsense_is_none() {
        let errand = Errand {
            record: Record { owner: 1, offset: 1 << 35, generation: u32::MAX },
            nonce: u64::MAX,
            parent: 1,
            name: String::from("a:b=c d"),
        };
        let marker = Marker { fd: 3, lifeline: Some(4), errand };
        assert_eq!(Marker::parse(&marker.to_text()), Some(marker.clone()));
        let plain =
            Marker { lifeline: None, errand: Errand { name: String::new(), ..marker.errand }, ..marker };
        assert_eq!(Marker::parse(&plain.to_text()), Some(plain));
        let bad = [
            "",
            "3:0:1:2:3",
            "3:0:1:2:3:4:5",
            "2:0:1:2:3:4:5:",
            "x:0:1:2:3:4:5:",
            "3:0:1:2:3:-4:5:",
            "3:3:1:2:3:4:5:",
            "3:2:1:2:3:4:5:",
            "3:x:1:2:3:4:5:",
        ];
        for text in bad {
            assert_eq!(Marker::parse(text), None, "{text}");
        }
    }
}
