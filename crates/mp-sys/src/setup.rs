//! What a new process changes about itself before its program starts: working directory, standard descriptors, process group, niceness,
//! processors, limits.
//!
//! Owns: nothing. A [`Setup`] is made by the parent, with all that takes memory; the child, which may share that memory ([`crate::start`]) or be a
//! copy of a process with one thread, only makes system calls. So nothing of it goes through `pre_exec`, and nothing depends on the
//! parent's heap.
//!
//! Death: of the child in the middle of it: it ends as a process that was never started right; nothing of the parent's has changed.

#![expect(unsafe_code, reason = "system calls in a child that may share its parent's memory")]

use crate::cpu::MASK_WORDS;
use std::ffi::{CString, c_int};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What to change. By default nothing.
#[derive(Debug, Default)]
pub struct Setup {
    /// The working directory.
    pub directory: Option<CString>,
    /// What standard input, output and error become; `None` leaves the parent's. Descriptors above 2, see [`crate::start::above_standard`].
    pub standard: [Option<OwnedFd>; 3],
    /// The process group to join; 0 for a new one, which the process leads.
    pub group: Option<u32>,
    /// −20 (goes first) to 19; below the parent's it takes a privilege.
    pub niceness: Option<i32>,
    /// The processors that it may run on, one bit each.
    pub processors: Option<[u64; MASK_WORDS]>,
    /// Limits of its use of the machine.
    pub limits: Vec<Limit>,
}

/// A limit, in the kernel's words the soft and the hard one; `u64::MAX` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub resource: Resource,
    /// What the kernel holds the process to.
    pub soft: u64,
    /// How far the process may raise that.
    pub hard: u64,
}

/// What a process can be limited in; see `getrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// Bytes of address space; beyond, allocations fail.
    AddressSpace,
    /// Bytes of a core file.
    Core,
    /// Seconds of processor time; at the soft limit SIGXCPU, at the hard one SIGKILL.
    ProcessorTime,
    /// Bytes of heap and other private writable memory.
    Data,
    /// Bytes of a file it writes; beyond, SIGXFSZ.
    FileSize,
    /// Bytes of locked memory.
    LockedMemory,
    /// One more than the highest descriptor.
    Descriptors,
    /// Processes and threads of its user.
    Processes,
    /// Bytes of the main thread's stack.
    Stack,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AddressSpace,
        Self::Core,
        Self::ProcessorTime,
        Self::Data,
        Self::FileSize,
        Self::LockedMemory,
        Self::Descriptors,
        Self::Processes,
        Self::Stack,
    ];

    fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Self::AddressSpace => libc::RLIMIT_AS,
            Self::Core => libc::RLIMIT_CORE,
            Self::ProcessorTime => libc::RLIMIT_CPU,
            Self::Data => libc::RLIMIT_DATA,
            Self::FileSize => libc::RLIMIT_FSIZE,
            Self::LockedMemory => libc::RLIMIT_MEMLOCK,
            Self::Descriptors => libc::RLIMIT_NOFILE,
            Self::Processes => libc::RLIMIT_NPROC,
            Self::Stack => libc::RLIMIT_STACK,
        }
    }
}

/// What a child was doing when it failed to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Step {
    Program,
    Descriptors,
    Group,
    Directory,
    Niceness,
    Processors,
    Limits,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Program => "executing the program",
            Self::Descriptors => "passing descriptors",
            Self::Group => "joining the process group",
            Self::Directory => "changing to the directory",
            Self::Niceness => "setting the niceness",
            Self::Processors => "choosing processors",
            Self::Limits => "setting limits",
        })
    }
}

impl Step {
    /// The error of a child that failed at this step; of the program itself as the system calls it.
    pub(crate) fn error(self, errno: c_int) -> io::Error {
        let error = io::Error::from_raw_os_error(errno);
        match self {
            Self::Program => error,
            step => io::Error::new(error.kind(), format!("{step}: {error}")),
        }
    }
}

pub(crate) fn errno() -> c_int {
    // SAFETY: errno of the calling thread.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *place }
}

/// Does it, in the child; what failed, and how. System calls only.
pub(crate) fn apply(setup: &Setup) -> Result<(), (Step, c_int)> {
    let checked = |step, failed: bool| if failed { Err((step, errno())) } else { Ok(()) };
    if let Some(group) = setup.group {
        // SAFETY: no memory is involved.
        let result = unsafe { libc::setpgid(0, group.cast_signed()) };
        checked(Step::Group, result < 0)?;
    }
    for (number, descriptor) in (0..).zip(&setup.standard) {
        if let Some(descriptor) = descriptor {
            let from: RawFd = descriptor.as_raw_fd();
            // SAFETY: changes the child's own table.
            let result = unsafe { libc::dup2(from, number) };
            checked(Step::Descriptors, result < 0)?;
        }
    }
    if let Some(directory) = &setup.directory {
        // SAFETY: a null-terminated path.
        let result = unsafe { libc::chdir(directory.as_ptr()) };
        checked(Step::Directory, result < 0)?;
    }
    if let Some(niceness) = setup.niceness {
        // SAFETY: no memory is involved.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
        checked(Step::Niceness, result < 0)?;
    }
    if let Some(processors) = &setup.processors {
        // SAFETY: the mask has as many bytes as it says.
        let result =
            unsafe { libc::sched_setaffinity(0, size_of_val(processors), processors.as_ptr().cast()) };
        checked(Step::Processors, result < 0)?;
    }
    for limit in &setup.limits {
        let value = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
        // SAFETY: a valid structure.
        let result = unsafe { libc::setrlimit(limit.resource.number(), &raw const value) };
        checked(Step::Limits, result < 0)?;
    }
    Ok(())
}

/// Does it in this process, whose other threads keep what is each thread's own (niceness, processors).
///
/// # Errors
/// What the system says, and of which setting.
pub fn apply_here(setup: &Setup) -> io::Result<()> {
    apply(setup).map_err(|(step, errno)| step.error(errno))
}

/// Sets a limit of this process.
///
/// # Errors
/// What `setrlimit` says: the hard one is above the one before, say.
pub fn limit(limit: Limit) -> io::Result<()> {
    let value = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: a valid structure.
    let result = unsafe { libc::setrlimit(limit.resource.number(), &raw const value) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
