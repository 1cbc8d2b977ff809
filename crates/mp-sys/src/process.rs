//! Processes seen from outside: children, start times, states.
//!
//! A pid alone never reaches a signal call: [`Child`] is a [`Pidfd`], so no signal goes to a recycled pid.

use crate::deadline::Deadline;
use crate::fork;
use crate::pidfd::Pidfd;
use crate::status;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, WaitIdOptions};
use std::io::{self, Read};
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Exit code of a process whose job panicked, as of a program whose `main` did.
pub(crate) const EXIT_PANICKED: i32 = 101;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Killed {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
}

/// A child process of this process: what its [`Pidfd`] can do, and reaping.
///
/// Any number of threads may reap it, at once and again: one of them does, and all are told the same.
#[derive(Debug)]
pub struct Child {
    process: Pidfd,
    /// How it ended, once it is reaped. Locked for calls that do not wait, so nobody waits for it longer than for such a call.
    ended: Mutex<Option<Ended>>,
}

impl Deref for Child {
    type Target = Pidfd;

    fn deref(&self) -> &Pidfd {
        &self.process
    }
}

/// How long a process that has ended, and is somebody else's to reap, may stay unreaped before its status is given up.
const REAPER_PATIENCE: Duration = Duration::from_secs(1);

impl Child {
    pub(crate) fn new(pid: u32, pidfd: OwnedFd) -> Self {
        Self { process: Pidfd::new(pid, pidfd), ended: Mutex::new(None) }
    }

    /// Waits until the process has ended, reaps it, and says how it ended. If somebody else has reaped it (the program ignores SIGCHLD,
    /// say), the kernel is asked, as [`Pidfd::status`] does.
    ///
    /// # Errors
    /// `ECHILD` if somebody else has reaped it and the kernel does not tell how it ended (before Linux 6.15).
    pub fn reap(&self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.try_reap()? {
                return Ok(ended);
            }
            // It is left for `try_reap`, so all threads that wait here are woken.
            match status::wait(&self.process, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return self.reaped_by_another(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reaps the process if it has ended, and says how; `None` if it has not, or if somebody else is about to reap it.
    ///
    /// # Errors
    /// As [`reap`](Self::reap).
    pub fn try_reap(&self) -> io::Result<Option<Ended>> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.is_none() {
            *ended = match status::wait(&self.process, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(ended) => ended,
                Err(Errno::CHILD) => match self.process.status_for_others()? {
                    status::Status::Ended(ended) => Some(ended),
                    status::Status::Running | status::Status::Unreaped => None,
                    status::Status::Unknown => return Err(Errno::CHILD.into()),
                },
                Err(error) => return Err(error.into()),
            };
        }
        Ok(*ended)
    }

    /// The status of a process that `waitid` no longer knows: a thread of ours has just reaped it, or somebody else has, or is about to.
    #[cold]
    fn reaped_by_another(&self) -> io::Result<Ended> {
        self.process.wait_ended(None)?;
        let patience = Deadline::after(REAPER_PATIENCE);
        loop {
            if let Some(ended) = self.try_reap()? {
                return Ok(ended);
            }
            if patience.passed() {
                return Err(Errno::CHILD.into());
            }
            // The kernel is between the end of the process and the publication of its status, some microseconds.
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// What `/proc` tells about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Clock ticks between boot and the start of the process; with the pid it names a process for ever.
    pub start_time: u64,
    /// Whether its first thread has ended (the process is a zombie, or lives on in other threads).
    pub leader_ended: bool,
}

/// Reads the status of process `pid`; `None` if there is none (or no `/proc`).
///
/// # Errors
/// It cannot be told: no free descriptor to read it with, above all. Then the process is not to be taken for dead.
pub fn status(pid: u32) -> io::Result<Option<Status>> {
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Usually a process that is asked for has been reaped, and `/proc` takes ten times as long to say that.
    if known.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH)) {
        return Ok(None);
    }
    read_stat(&format!("/proc/{pid}/stat"))
}

fn read_stat(path: &str) -> io::Result<Option<Status>> {
    match read_line(path) {
        Ok(text) => Ok(parse_stat(&text)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file of `/proc` that has one line. In one piece: each reading makes the system write it anew, up to there.
fn read_line(path: &str) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    // A name of 64 bytes at most, and some fifty numbers.
    let mut text = vec![0; 2048];
    let mut len = 0;
    loop {
        match file.read(&mut text[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // Nothing comes behind the line's end.
        if text[..len].ends_with(b"\n") || len == text.len() {
            break;
        }
    }
    text.truncate(len);
    Ok(text)
}

/// Whether what was to be read in `/proc` was not there, or ended while it was read.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The fields of a `stat` line from the state on.
pub(crate) fn stat_fields(text: &[u8]) -> Option<impl Iterator<Item = &str>> {
    // The command name in parentheses may hold anything, parentheses included; the fields start after the last one.
    let after_name = text.iter().rposition(|&byte| byte == b')')? + 1;
    Some(std::str::from_utf8(text.get(after_name..)?).ok()?.split_ascii_whitespace())
}

fn parse_stat(text: &[u8]) -> Option<Status> {
    let mut fields = stat_fields(text)?;
    let state = fields.next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Status { start_time, leader_ended: matches!(state, "Z" | "X") })
}

/// Time since the machine was started, as the system counts it for processes; it may be some nanoseconds more.
pub(crate) fn boot_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
}

/// In a process that was cloned just now, after the [`boot_time`] `before`: notes when, if that is certain to be what [`status`] says, which counts in ticks.
/// To read it there takes a tenth of what a fork server's start takes.
pub(crate) fn note_start(before: Duration) {
    let tick = 1_000_000_000 / u128::from(rustix::param::clock_ticks_per_second()).max(1);
    let ticks = |time: Duration| time.as_nanos() / tick;
    let slack = Duration::from_micros(1);
    let (first, last) = (ticks(before.saturating_sub(slack)), ticks(boot_time() + slack));
    if let Ok(start) = u64::try_from(first)
        && first == last
    {
        fork::note_start_time(start);
    }
}

/// Whether `/proc` is that of this process's namespace: it is another one's in some containers.
pub(crate) fn has_own_proc() -> bool {
    let link = std::fs::read_link("/proc/self");
    link.is_ok_and(|link| link.as_os_str().to_str() == Some(&std::process::id().to_string()))
}

/// The start time of this process, 0 if it cannot be told.
#[must_use]
pub fn own_start_time() -> u64 {
    let read = || status(std::process::id()).ok().flatten().map_or(0, |status| status.start_time);
    fork::start_time().unwrap_or_else(read)
}

/// Whether a process of that pid and start time may still run code of its program although its first thread has ended.
///
/// `false` once the process is gone, replaced its program, or is a zombie without other threads; `true` also if it cannot be told.
#[must_use]
pub fn runs_without_leader(pid: u32, start_time: u64) -> bool {
    match status(pid) {
        Ok(Some(status)) if status.start_time == start_time && status.leader_ended => {}
        Ok(_) => return false,
        Err(_) => return true,
    }
    match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(tasks) => tasks
            .flatten()
            .filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok())
            .any(|tid| tid != pid && may_run(pid, tid)),
        Err(error) => !is_absence(&error),
    }
}

/// Whether the process of that pid and start time may have a thread of that id which has not ended: `true` also if it cannot be told.
#[must_use]
pub fn has_thread(pid: u32, start_time: u64, tid: u32) -> bool {
    match status(pid) {
        Ok(status) => status.is_some_and(|status| status.start_time == start_time) && may_run(pid, tid),
        Err(_) => true,
    }
}

fn may_run(pid: u32, tid: u32) -> bool {
    match read_stat(&format!("/proc/{pid}/task/{tid}/stat")) {
        Ok(status) => status.is_some_and(|status| !status.leader_ended),
        Err(_) => true,
    }
}

/// Whether the process has a thread of this id at this moment.
#[must_use]
pub fn is_thread(pid: u32, tid: u32) -> bool {
    std::fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap_or(false)
}

/// The effective user id of this process.
#[must_use]
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this program has more rights than who started it (set-user-id, say), who is then not to be trusted: `AT_SECURE`.
#[must_use]
pub fn has_more_rights() -> bool {
    crate::start::is_secure()
}

/// Tells this process's pid namespace from others: the low half of its inode, 0 without `/proc`.
#[must_use]
pub fn pid_namespace() -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a fingerprint")]
    let low = rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino as u32);
    low
}

/// Tells this boot of the machine from others: 128 bits, 0 without `/proc`.
#[must_use]
pub fn boot() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    let half = |range| digits.get(range).and_then(|half| u64::from_str_radix(half, 16).ok()).unwrap_or(0);
    [half(0..16), half(16..32)]
}

/// Random bytes from the kernel, which nobody can foresee.
///
/// # Errors
/// What `getrandom` says.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        // Before the kernel has gathered its first randomness a signal ends the wait for it.
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// 128 random bits from the kernel, as [`random_bytes`].
///
/// # Errors
/// As [`random_bytes`].
pub fn random() -> io::Result<[u64; 2]> {
    let number = u128::from_ne_bytes(random_bytes()?);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    Ok([number as u64, (number >> 64) as u64])
}

/// The id of this process's parent: 1, or another adopter's, once that has ended.
#[must_use]
pub fn parent() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_pid().unsigned_abs())
}

/// The directory of this process's threads, whose links tell how many there are.
pub(crate) fn tasks() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/self/task", flags, Mode::empty())?)
}

/// Whether the process of these [`tasks`] has one thread: its directory is linked twice, as any, and once more by each thread.
pub(crate) fn is_alone(tasks: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstat(tasks)?.st_nlink == 3)
}

/// Names the calling thread in the system's lists; the first 15 bytes.
pub fn name_thread(name: &str) {
    let mut short: Vec<u8> = name.bytes().take_while(|&byte| byte != 0).take(15).collect();
    short.push(0);
    // It is for reading alone; a process that is called otherwise works as well.
    let _ = std::ffi::CStr::from_bytes_with_nul(&short).map(rustix::thread::set_name);
}

/// Opens the null device for each of the standard descriptors that is closed: else the next file that is opened would be one, and what is printed
/// would go there. Rust's runtime does the same before `main`.
///
/// # Errors
/// The null device cannot be opened.
pub fn open_standard() -> io::Result<()> {
    loop {
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        if std::os::fd::AsRawFd::as_raw_fd(&null) > 2 {
            return Ok(());
        }
        // For as long as the process lives.
        std::mem::forget(null);
    }
}

/// Makes writes to a closed pipe an error instead of a signal, as Rust's runtime does before `main`.
pub fn ignore_sigpipe() {
    crate::start::ignore(libc::SIGPIPE);
}

/// Gives SIGHUP, SIGINT and SIGTERM their default actions, which end this process: whoever started it may have ignored them.
pub fn heed_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        crate::start::by_default(signal);
    }
}

/// Leaves the terminal, the user and the directory alone that this process was started from: ignores SIGHUP, SIGINT and SIGTERM, and
/// works in the root directory.
///
/// # Errors
/// What `chdir` says.
pub fn stand_apart() -> io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE] {
        crate::start::ignore(signal);
    }
    std::env::set_current_dir("/")
}

/// Makes the limit of open descriptors as high as it may be; says how many there may be.
#[must_use]
pub fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    // It can be refused; then it stays as it was.
    let current = if setrlimit(Resource::Nofile, limit).is_ok() { limit.maximum } else { before };
    current.map_or(usize::MAX, |current| usize::try_from(current).unwrap_or(usize::MAX))
}

/// Keeps `fd` from programs started later.
///
/// # Errors
/// What `fcntl` says: it is not open, say.
pub fn close_on_exec(fd: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?)
}

/// Runs `body` with all signals blocked for this thread; a thread it starts never takes one.
pub fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    let before = crate::start::block_signals();
    let value = body();
    crate::start::restore_signals(&before);
    value
}

/// Names of the signals users meet, for messages.
#[must_use]
pub fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => "signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stat_line_is_read_past_any_name() {
        let line = b"12 (a) (b c) Z 1 12 12 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 98765 0 0";
        assert_eq!(parse_stat(line), Some(Status { start_time: 98765, leader_ended: true }));
        assert_eq!(parse_stat(b"12 (a"), None);
        assert_eq!(parse_stat(b"12 (a) S 1"), None);
    }

    #[test]
    fn own_status_is_found() {
        let status = status(std::process::id()).unwrap().unwrap();
        assert!(!status.leader_ended);
        assert_eq!(status.start_time, own_start_time());
        assert!(!runs_without_leader(std::process::id(), status.start_time));
    }

    #[test]
    fn a_process_that_cannot_be_looked_at_is_not_taken_for_dead() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        const PART: &str = "MP_SYS_NO_DESCRIPTOR";
        if std::env::var_os(PART).is_none() {
            // In a process of its own, which can do without descriptors.
            let name = "process::tests::a_process_that_cannot_be_looked_at_is_not_taken_for_dead";
            let mut part = std::process::Command::new(std::env::current_exe().unwrap());
            assert!(part.args(["--exact", name]).env(PART, "yes").status().unwrap().success());
            return;
        }
        let pid = std::process::id();
        let tid = rustix::thread::gettid().as_raw_pid().unsigned_abs();
        let start_time = own_start_time();
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
        let (found, has_thread_then) = (status(pid), has_thread(pid, start_time, tid));
        let runs_then = runs_without_leader(pid, start_time);
        setrlimit(Resource::Nofile, limit).unwrap();
        assert!(found.is_err() && has_thread_then && runs_then, "nobody can tell");
        assert!(has_thread(pid, start_time, tid) && !has_thread(pid, start_time + 1, tid));
        assert!(!has_thread(pid, start_time, 1) && !runs_without_leader(pid, start_time));
    }
}
