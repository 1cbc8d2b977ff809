//! Files that have a name: opened so that the name cannot lead astray, given memory, locked, mapped.
//!
//! Owns: nothing. The currency is [`std::fs::File`]; all are close-on-exec.
//!
//! Opening never follows a symbolic link in the last part of a name where the directory is shared with other users, and never blocks:
//! what turns out to be no regular file is refused.

use crate::deadline::Deadline;
use crate::memory::Mapping;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
}

/// Which file this is.
///
/// # Errors
/// What `fstat` says.
pub fn identity(file: impl AsFd) -> io::Result<Identity> {
    let stat = rustix::fs::fstat(file)?;
    Ok(Identity { device: stat.st_dev, inode: stat.st_ino })
}

/// Which file is at `path`, links followed; `None` if there is none.
///
/// # Errors
/// What `stat` says.
pub fn identity_at(path: &Path) -> io::Result<Option<Identity>> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some(Identity { device: found.dev(), inode: found.ino() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the directory `path`, which belongs to this user alone, and makes it if it is not there.
///
/// # Errors
/// `PermissionDenied` if there is something of that name that is not a directory of this user, closed to all others.
pub fn private_directory(path: &Path) -> io::Result<File> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let not_ours =
        |what: &str| io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {what}", path.display()));
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Err(not_ours("is not a directory"));
        }
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&directory)?;
    if stat.st_uid != crate::process::user() {
        return Err(not_ours("belongs to another user"));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(not_ours("is open to other users"));
    }
    Ok(directory)
}

/// Makes a file without a name in `directory`; it is gone with its last descriptor unless it is [given a name](give_name).
///
/// # Errors
/// What `open` with `O_TMPFILE` says: no memory, a file system that cannot do it.
pub fn create_unnamed(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Gives a file without a name one, in one step.
///
/// # Errors
/// `AlreadyExists` if the name is in use.
pub fn give_name(file: &File, path: &Path) -> io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(rustix::fs::CWD, unnamed, rustix::fs::CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Read,
    /// To read and write.
    Write,
    /// To read and write; it is made if it is not there.
    WriteOrCreate,
}

/// Opens the regular file at `path`. `follow` says whether that may be a symbolic link.
///
/// # Errors
/// What `open` says; `InvalidInput` if it is something else than a regular file.
pub fn open(path: &Path, access: Access, follow: bool) -> io::Result<File> {
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= match access {
        Access::Read => OFlags::RDONLY,
        Access::Write => OFlags::RDWR,
        Access::WriteOrCreate => OFlags::RDWR | OFlags::CREATE,
    };
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// Sets the size of a file and makes sure that there is memory, or space on the disk, for all of it.
///
/// # Errors
/// `StorageFull`, `OutOfMemory`, or what else `ftruncate` and `fallocate` say.
pub fn set_size(file: &File, size: u64) -> io::Result<()> {
    file.set_len(size)?;
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size)?)
}

/// Maps the first `len` bytes of a file until the process ends. Only for reading, no pointer into it can be written through; the kernel
/// answers with SIGSEGV.
///
/// # Errors
/// What `mmap` says.
pub fn map(file: &File, len: u64, writable: bool) -> io::Result<Mapping> {
    Mapping::of(file.as_fd(), len, writable)
}

/// Runs `body` while nobody else does so with the same file.
///
/// # Errors
/// `TimedOut` if others hold it for seconds; what `body` says.
pub fn locked<T>(file: &File, body: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let deadline = Deadline::after(LOCKED_MAX);
    while let Err(error) = file.try_lock() {
        match error {
            std::fs::TryLockError::Error(error) => return Err(error),
            std::fs::TryLockError::WouldBlock if deadline.passed() => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the directory stays locked by another process",
                ));
            }
            std::fs::TryLockError::WouldBlock => std::thread::sleep(Duration::from_micros(200)),
        }
    }
    let result = body();
    // Not by closing: a child forked meanwhile has the descriptor, too.
    file.unlock()?;
    result
}

/// How long a lock that is held for microseconds is waited for: its holder may be stopped, or not get a processor.
const LOCKED_MAX: Duration = Duration::from_secs(10);
