//! Starting a program: `clone(VM | VFORK | PIDFD)` and `execve`, the way `posix_spawn` does it, with a pidfd from the
//! kernel in the same step.
//!
//! Why not `std::process::Command`: its pidfd is not stable, and every hook that would pass a file descriptor turns it into
//! a fork that copies the parent's page tables. Here the cost does not depend on the parent's memory.
//!
//! The child runs `in_child` on a stack of its own inside our memory until it execs: no allocation, no locks, only system
//! calls. The parent's thread is suspended meanwhile. All signals are blocked around it, handlers are reset in the child
//! before they are unblocked, so no handler of ours ever runs in the child.
//!
//! Source: glibc sysdeps/unix/sysv/linux/spawni.c (the idea), clone(2).

#![expect(unsafe_code, reason = "clone, signal masks and execve")]

use crate::process::Child;
use crate::setup::{Setup, Step, apply, errno};
use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What to start.
#[derive(Debug)]
pub struct Program<'a> {
    /// Path of the program file.
    pub path: &'a CStr,
    /// Its arguments, the name first.
    pub arguments: &'a [&'a CStr],
    /// Its environment, as `NAME=value`.
    pub environment: &'a [&'a CStr],
    /// File descriptors, 3 or higher, that stay open in the child under the same number; all others above 2 are closed.
    pub inherit: &'a [BorrowedFd<'a>],
    /// What it changes about itself first.
    pub setup: &'a Setup,
}

struct Shared {
    /// Where the stack of the program proper begins, if another process stands between it and us; null otherwise.
    inner_stack: *mut libc::c_void,
    /// What the standard descriptors become; below 0, they stay.
    null: RawFd,
    path: *const libc::c_char,
    arguments: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    inherit: *const RawFd,
    inherit_len: usize,
    setup: *const Setup,
    mask: libc::sigset_t,
    step: Step,
    error: libc::c_int,
}

const STACK_SIZE: usize = 64 * 1024;

fn pointers(strings: &[&CStr]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// Starts a program.
///
/// # Errors
/// What `clone` says (no process left, no memory), or what `execve` said in the child.
pub fn start(program: &Program<'_>) -> io::Result<Child> {
    start_with(program, std::ptr::null_mut(), -1)
}

/// Starts a program that is nobody's child and has no terminal: it leads a session of its own, its standard descriptors are the null
/// device, and it is never a zombie of this process.
///
/// A child of ours clones it, and ends when it has exec'd; so whoever adopts orphans is its parent.
///
/// # Errors
/// As [`start`].
pub fn start_detached(program: &Program<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    // Above the standard ones, even if those are closed: onto itself it would keep its close-on-exec.
    let null = above_standard(&null)?;
    let mut stack = vec![0_u128; STACK_SIZE / 16];
    // SAFETY: one past the end of the stack's allocation, 16-byte aligned.
    let top = unsafe { stack.as_mut_ptr().add(stack.len()) };
    let between = start_with(program, top.cast(), null.as_raw_fd())?;
    // It has ended. Somebody else may have reaped it, whose business children are.
    let _ = between.reap();
    Ok(())
}

/// A duplicate of a descriptor with a number above the standard ones, close-on-exec.
///
/// # Errors
/// What `fcntl` says: no free descriptor.
pub fn above_standard(fd: impl std::os::fd::AsFd) -> io::Result<OwnedFd> {
    above(fd, 2)
}

/// A duplicate of a descriptor with a number above `most`, close-on-exec.
///
/// # Errors
/// As [`above_standard`].
pub fn above(fd: impl std::os::fd::AsFd, most: RawFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, most.saturating_add(1))?)
}

/// Gives a descriptor another number for good, one that programs started later have, too. What had that number is closed.
///
/// # Errors
/// The number is above the limit.
pub fn place(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the table of descriptors is this process's; the caller says that the number is to be given away.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts a program; with an inner stack, from a process in between, which is the child then.
fn start_with(program: &Program<'_>, inner_stack: *mut libc::c_void, null: RawFd) -> io::Result<Child> {
    use std::os::fd::AsRawFd;
    let arguments = pointers(program.arguments);
    let environment = pointers(program.environment);
    let inherit: Vec<RawFd> = program.inherit.iter().map(AsRawFd::as_raw_fd).collect();
    let mut stack = vec![0_u128; STACK_SIZE / 16];
    let mut shared = Shared {
        inner_stack,
        null,
        path: program.path.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        inherit: inherit.as_ptr(),
        inherit_len: inherit.len(),
        setup: program.setup,
        mask: block_signals(),
        step: Step::Program,
        error: 0,
    };
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: one past the end of the stack's allocation, 16-byte aligned.
    let top = unsafe { stack.as_mut_ptr().add(stack.len()) };
    let run = if inner_stack.is_null() { in_child } else { in_between };
    // SAFETY: `run` follows the rules of a vfork child; the stack and `shared` outlive it, because CLONE_VFORK suspends
    // us until it has exec'd or ended; with CLONE_PIDFD the parent-tid argument receives the pidfd.
    let pid = unsafe { libc::clone(run, top.cast(), flags, (&raw mut shared).cast(), &raw mut pidfd) };
    let clone_error = io::Error::last_os_error();
    restore_signals(&shared.mask);
    let Ok(pid) = u32::try_from(pid) else { return Err(clone_error) };
    // SAFETY: the kernel made this file descriptor for us in the clone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let child = Child::new(pid, pidfd);
    // SAFETY: plain read; volatile because the child wrote it in our memory behind the compiler's back.
    let error = unsafe { (&raw const shared.error).read_volatile() };
    if error != 0 {
        // The child only said why it could not exec, and ended: nothing of its status is of interest.
        let _ = child.reap();
        // SAFETY: as above.
        let step = unsafe { (&raw const shared.step).read_volatile() };
        return Err(step.error(error));
    }
    Ok(child)
}

/// Blocks all signals for the calling thread; returns the mask from before.
pub(crate) fn block_signals() -> libc::sigset_t {
    // SAFETY: a signal set of zeros is a valid (empty) one.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is a valid signal set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: both sets are valid.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    before
}

/// A descriptor that is ready while a signal is pending for the calling thread, which has [blocked](block_signals) all.
///
/// # Errors
/// No free descriptor.
pub(crate) fn pending_signals() -> io::Result<OwnedFd> {
    // SAFETY: a signal set of zeros is a valid (empty) one.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: as above; -1 makes a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made it for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a mask from [`block_signals`] back.
pub(crate) fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: the mask was read by pthread_sigmask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// Whether the kernel told this program to be careful about who started it: `AT_SECURE`.
pub(crate) fn is_secure() -> bool {
    // SAFETY: reads what the kernel told the program at its start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Gives `signal` its default action in this process.
pub(crate) fn by_default(signal: libc::c_int) {
    // SAFETY: the default action runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Ignores `signal` in this process.
pub(crate) fn ignore(signal: libc::c_int) {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Runs in the process between us and a detached program, on its own stack in the parent's memory. System calls only.
extern "C" fn in_between(shared: *mut libc::c_void) -> libc::c_int {
    let shared = shared.cast::<Shared>();
    // SAFETY: the parent is suspended and keeps `Shared` alive.
    let stack = unsafe { (*shared).inner_stack };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: as in `start_with`: it suspends this process, and with it the parent, until it has exec'd or ended.
    if unsafe { libc::clone(in_child, stack, flags, shared.cast()) } < 0 {
        // SAFETY: nobody else uses it: there is no inner process.
        return fail(unsafe { &mut *shared }, Step::Program, errno());
    }
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// Runs in the child, on its own stack in the parent's memory. System calls only.
extern "C" fn in_child(shared: *mut libc::c_void) -> libc::c_int {
    let shared = shared.cast::<Shared>();
    // SAFETY: the parent is suspended and keeps `Shared` alive.
    let shared = unsafe { &mut *shared };
    for signal in 1..=64 {
        // SAFETY: a zeroed action is valid to be overwritten.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: reads this process's action; signal numbers that cannot be asked for are an error that is skipped.
        let known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
        if known && action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN {
            action.sa_sigaction = libc::SIG_DFL;
            // SAFETY: a default action is always valid; the table is the child's own (no CLONE_SIGHAND).
            unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        }
    }
    if shared.null >= 0 {
        // SAFETY: no memory is involved. It fails for the leader of a group, which a process that was just made is not.
        unsafe { libc::setsid() };
        for standard in 0..3 {
            // SAFETY: changes the child's own table.
            if unsafe { libc::dup2(shared.null, standard) } < 0 {
                return fail(shared, Step::Descriptors, errno());
            }
        }
    }
    // SAFETY: the parent keeps it alive.
    if let Err((step, errno)) = apply(unsafe { &*shared.setup }) {
        return fail(shared, step, errno);
    }
    // SAFETY: only marks file descriptors of the child's own table as close-on-exec.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    for index in 0..shared.inherit_len {
        // SAFETY: the array has `inherit_len` entries.
        let entry = unsafe { shared.inherit.add(index) };
        // SAFETY: as above.
        let fd = unsafe { *entry };
        // SAFETY: clears close-on-exec in the child's own table.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
            return fail(shared, Step::Descriptors, errno());
        }
    }
    restore_signals(&shared.mask);
    // SAFETY: path, arguments and environment are null-terminated and outlive the call.
    unsafe { libc::execve(shared.path, shared.arguments, shared.environment) };
    fail(shared, Step::Program, errno())
}

/// Ends the child; `errno` is that of the parent's thread, which is suspended.
fn fail(shared: &mut Shared, step: Step, errno: libc::c_int) -> libc::c_int {
    shared.step = step;
    shared.error = errno;
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Ended;

    fn run(path: &CStr, arguments: &[&CStr], inherit: &[BorrowedFd<'_>]) -> io::Result<Ended> {
        start(&Program { path, arguments, environment: &[], inherit, setup: &Setup::default() })?.reap()
    }

    #[test]
    fn exit_codes_and_signals_come_back() {
        assert_eq!(run(c"/bin/sh", &[c"sh", c"-c", c"exit 7"], &[]).unwrap(), Ended::Exited(7));
        let killed = run(c"/bin/sh", &[c"sh", c"-c", c"kill -9 $$"], &[]).unwrap();
        assert_eq!(killed, Ended::Killed { signal: 9, core_dumped: false });
    }

    #[test]
    fn a_missing_program_is_the_errno_of_exec() {
        let error = run(c"/nonexistent/program", &[c"x"], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_the_named_descriptors_are_inherited() {
        use std::os::fd::{AsFd, AsRawFd};
        let kept = std::fs::File::open("/dev/null").unwrap();
        let not_kept = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&not_kept, rustix::io::FdFlags::empty()).unwrap();
        let script = format!(
            "test -e /proc/self/fd/{} && test ! -e /proc/self/fd/{}\0",
            kept.as_raw_fd(),
            not_kept.as_raw_fd()
        );
        let script = CStr::from_bytes_with_nul(script.as_bytes()).unwrap();
        assert_eq!(run(c"/bin/sh", &[c"sh", c"-c", script], &[kept.as_fd()]).unwrap(), Ended::Exited(0));
    }

    #[test]
    fn a_detached_program_is_nobodys_child_and_has_no_terminal() {
        use std::io::Read;
        use std::os::fd::{AsFd, AsRawFd};
        let (mut reader, low) = io::pipe().unwrap();
        let writer = above_standard(&low).unwrap();
        drop(low);
        let script = format!(
            "exec 9>&{}; readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >&9; cut -d' ' -f4,6 /proc/$$/stat >&9; echo $$ >&9\0",
            writer.as_raw_fd()
        );
        let script = CStr::from_bytes_with_nul(script.as_bytes()).unwrap();
        let path = c"PATH=/usr/bin:/bin";
        let program = Program {
            path: c"/bin/sh",
            arguments: &[c"sh", c"-c", script],
            environment: &[path],
            inherit: &[writer.as_fd()],
            setup: &Setup::default(),
        };
        start_detached(&program).unwrap();
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let [input, _, _, ids, pid] = lines[..] else { panic!("{said}") };
        assert_eq!(input, "/dev/null");
        let (parent, leader) = ids.split_once(' ').unwrap();
        assert_ne!(parent, std::process::id().to_string());
        assert_eq!(leader, pid, "it leads a session");
        let missing = Program {
            path: c"/nonexistent/program",
            arguments: &[c"x"],
            environment: &[],
            inherit: &[],
            setup: &Setup::default(),
        };
        assert_eq!(start_detached(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
