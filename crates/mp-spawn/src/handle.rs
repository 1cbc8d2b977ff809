//! Processes as handles: what lets a process that is not the parent wait for another one and end it.
//!
//! Owns: a [`ProcessHandle`] the process's id and an [`Fd`] of its pidfd, which the session's broker holds; a [`PeerProcess`] a duplicate of
//! that pidfd. A pidfd stands for one process for ever: no signal goes to another that got its id.
//!
//! Death: of the process makes the pidfd readable for all who have opened it, and changes nothing else; how it ended is told to its parent
//! alone. Of who holds a handle: as of an [`Fd`].

use mp_shm::Fd;
use mp_shm::fds::FdError;
use mp_shm::rkyv;
use mp_sys::deadline::Deadline;
use mp_sys::pidfd::Pidfd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A process, named so that every process of the session can wait for it and end it. Clone it, send it, nest it in messages; whoever has it
/// [opens](Self::open) it.
///
/// It keeps nothing of the process alive. Limits: those of [`Fd`].
///
/// # Examples
/// ```
/// use mp_spawn::{Process, ProcessHandle};
///
/// let sleeper = Process::spawn(|()| std::thread::park(), ())?;
/// // Another process ends it.
/// let killer = Process::spawn(|victim: ProcessHandle| victim.open().unwrap().kill().unwrap(), sleeper.handle()?)?;
/// killer.join()?;
/// assert_eq!(sleeper.join().unwrap_err().signal(), Some(9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
pub struct ProcessHandle {
    pid: u32,
    pidfd: Fd,
}

mp_shm::if_serde! {
    impl mp_shm::serde::Serialize for ProcessHandle {
        fn serialize<S: mp_shm::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            mp_shm::serde::Serialize::serialize(&(self.pid, &self.pidfd), serializer)
        }
    }

    impl<'de> mp_shm::serde::Deserialize<'de> for ProcessHandle {
        fn deserialize<D: mp_shm::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let (pid, pidfd) = mp_shm::serde::Deserialize::deserialize(deserializer)?;
            Ok(Self { pid, pidfd })
        }
    }
}

impl ProcessHandle {
    /// A handle of the calling process.
    ///
    /// # Errors
    /// [`FdError`]: no free descriptor, or the session's broker cannot hold one.
    pub fn current() -> Result<Self, FdError> {
        Self::of(&Pidfd::own().map_err(|error| FdError::io("opening this process's own pidfd", error))?)
    }

    pub(crate) fn of(process: &Pidfd) -> Result<Self, FdError> {
        Ok(Self { pid: process.pid(), pidfd: Fd::of(process.pidfd())? })
    }

    /// The process id. Another process may get it once this one has ended and was reaped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Opens it here. That works also after the process has ended.
    ///
    /// # Errors
    /// As [`Fd::open`].
    pub fn open(&self) -> Result<PeerProcess, FdError> {
        Ok(PeerProcess(Pidfd::new(self.pid, self.pidfd.open()?)))
    }
}

/// A process of the session that this process can wait for and end, of whomever it is the child. It takes one descriptor.
///
/// As [`AsFd`] it is readable once the process has ended, so a `select` can wait for it.
#[derive(Debug)]
pub struct PeerProcess(Pidfd);

impl PeerProcess {
    /// The process id. Another process may get it once this one has ended and was reaped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.has_ended().unwrap_or(true)
    }

    /// Waits until the process has ended, as long as it takes. How it ended is told to its parent alone.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&self) -> io::Result<()> {
        self.0.wait_ended(None).map(|_| ())
    }

    /// Waits for the end of the process for at most `timeout`; says whether it has ended.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait_timeout(&self, timeout: Duration) -> io::Result<bool> {
        self.0.wait_ended(Some(Deadline::after(timeout)))
    }

    /// Asks the process to end (SIGTERM). Nothing happens if it has ended; the signal never reaches another process.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn terminate(&self) -> io::Result<()> {
        self.0.terminate()
    }

    /// Ends the process (SIGKILL). Nothing happens if it has ended; the signal never reaches another process.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kill(&self) -> io::Result<()> {
        self.0.kill()
    }
}

impl AsFd for PeerProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.pidfd()
    }
}
