//! Sealed sparse memory files and their mappings.
//!
//! A [`SharedFile`] is a `memfd` whose size cannot change (`F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL`), so no peer can
//! make an access fault by truncating it. Address space is reserved in full, memory is committed in steps with
//! `fallocate`, so a lack of memory is an error at allocation. A [`Mapping`] stays until the process ends: links of
//! robust lists and references into it can therefore never dangle.

#![expect(unsafe_code, reason = "mapping of shared memory")]

use rustix::fs::{MemfdFlags, SealFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// A new memory file: empty, close-on-exec, not executable, not sealed yet.
fn memory_file(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let modern = if crate::force::is("no-noexec-seal") {
        Err(rustix::io::Errno::INVAL)
    } else {
        rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
    };
    match modern {
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::memfd_create(name, flags)?),
        other => Ok(other?),
    }
}

/// A memory file of fixed size.
#[derive(Debug)]
pub struct SharedFile {
    fd: OwnedFd,
    size: u64,
}

impl SharedFile {
    /// Creates a sparse file of `size` bytes, close-on-exec, not executable, sealed against any change of size.
    ///
    /// # Errors
    /// What `memfd_create`, `ftruncate` or sealing says: no memory, no free file descriptor.
    pub fn create(name: &str, size: u64) -> io::Result<Self> {
        let fd = memory_file(name)?;
        rustix::fs::ftruncate(&fd, size)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { fd, size })
    }

    /// Takes over a file descriptor that somebody handed on, after checking that it is a file sealed as ours are.
    ///
    /// # Errors
    /// `InvalidData` if its size could still change; otherwise what the kernel says.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "the file descriptor is not a sealed memory file")
        })?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the memory file's size is not sealed"));
        }
        let size = u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0);
        Ok(Self { fd, size })
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes sure that memory for these bytes exists; already committed bytes keep their content.
    ///
    /// # Errors
    /// `ENOSPC`/`ENOMEM` when there is no memory.
    pub fn commit(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.fd, rustix::fs::FallocateFlags::KEEP_SIZE, offset, len)?)
    }

    /// Gives the memory of these bytes back; they read as zero afterwards.
    ///
    /// # Errors
    /// What `fallocate` says.
    pub fn release(&self, offset: u64, len: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        Ok(rustix::fs::fallocate(
            &self.fd,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset,
            len,
        )?)
    }

    /// Bytes of memory the file occupies now.
    ///
    /// # Errors
    /// What `fstat` says.
    pub fn committed_bytes(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.fd)?.st_blocks).unwrap_or(0) * 512)
    }

    /// Maps the whole file, readable and writable, left out of core dumps, until the process ends.
    ///
    /// # Errors
    /// `ENOMEM` where the address space is limited.
    pub fn map(&self) -> io::Result<Mapping> {
        use rustix::mm::{Advice, MapFlags, ProtFlags};
        let len = usize::try_from(self.size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new shared mapping at an address of the kernel's choice aliases nothing in this process.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &self.fd,
                0,
            )
        }?;
        // SAFETY: the range was just mapped; the advice changes nothing about its content.
        unsafe { rustix::mm::madvise(base, len, Advice::LinuxDontDump) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }
}

/// A mapped [`SharedFile`]; valid until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory that any thread may address; who may touch what is the caller's protocol.
unsafe impl Send for Mapping {}
// SAFETY: as above; `Mapping` itself has no interior state.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of `len` bytes at `offset`, or `None` if they are not inside or not aligned to `align` (a power of
    /// two, at most a page).
    #[inline]
    #[must_use]
    pub fn at(&self, offset: u64, len: usize, align: usize) -> Option<NonNull<u8>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(len)?;
        if end > self.len || start & (align - 1) != 0 {
            return None;
        }
        // SAFETY: start <= end <= len, so the address is inside the mapping.
        Some(unsafe { self.base.add(start) })
    }
}

/// A memory file that nobody can change any more, not even its creator, and a read-only mapping of it.
#[derive(Debug)]
pub struct SealedFile {
    fd: OwnedFd,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes cannot change, so any thread may read them.
unsafe impl Send for SealedFile {}
// SAFETY: as above.
unsafe impl Sync for SealedFile {}

/// What makes a file unchangeable.
const UNCHANGEABLE: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

impl SealedFile {
    /// Creates a file with `parts`, one after the other, seals and maps it. Close-on-exec.
    ///
    /// # Errors
    /// What the kernel says: no memory, no free file descriptor; `InvalidInput` if there are no bytes.
    pub fn create(name: &str, parts: &[&[u8]]) -> io::Result<Self> {
        let fd = memory_file(name)?;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                match rustix::io::write(&fd, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        rustix::fs::fcntl_add_seals(&fd, UNCHANGEABLE)?;
        Self::map(fd)
    }

    /// Maps a file that somebody handed on, after checking that nobody can change it.
    ///
    /// # Errors
    /// `InvalidData` if it could still change; otherwise what the kernel says.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "the file descriptor is not a sealed memory file")
        })?;
        if !seals.contains(UNCHANGEABLE) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the memory file is not sealed against writing",
            ));
        }
        Self::map(fd)
    }

    fn map(fd: OwnedFd) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags};
        let len = usize::try_from(rustix::fs::fstat(&fd)?.st_size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // Private, since before Linux 6.7 a file sealed against writing cannot be mapped shared, even read-only. The pages are the
        // file's all the same.
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing in this process.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, &fd, 0)
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { fd, base, len })
    }

    /// What is in it, for ever.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped until `self` is dropped; the file is sealed against writing and shrinking, and the mapping is read-only.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The file descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping that `map` made; borrows of it ended with `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_file_is_sparse_sealed_and_can_be_committed_and_released() {
        let file = SharedFile::create("mp-test", 1 << 30).unwrap();
        let mapping = file.map().unwrap();
        assert_eq!(file.committed_bytes().unwrap(), 0);
        file.commit(4096, 8192).unwrap();
        assert_eq!(file.committed_bytes().unwrap(), 8192);
        let byte = mapping.at(4096, 1, 1).unwrap();
        // SAFETY: inside the mapping, and nobody else uses this file.
        unsafe { byte.write(7) };
        file.release(4096, 8192).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { byte.read() }, 0);
        assert!(rustix::fs::ftruncate(file.fd(), 5).is_err(), "the size is sealed");
        assert!(rustix::fs::ftruncate(file.fd(), 1 << 31).is_err(), "the size is sealed");
    }

    #[test]
    fn addresses_outside_or_misaligned_are_refused() {
        let mapping = SharedFile::create("mp-test", 4096).unwrap().map().unwrap();
        assert!(mapping.at(0, 4096, 64).is_some());
        assert!(mapping.at(1, 8, 8).is_none());
        assert!(mapping.at(4096, 1, 1).is_none());
        assert!(mapping.at(u64::MAX, 2, 1).is_none());
        assert!(mapping.at(8, usize::MAX, 1).is_none());
    }

    #[test]
    fn a_sealed_file_keeps_its_bytes() {
        let file = SealedFile::create("mp-test", &[b"for", b" ever"]).unwrap();
        assert_eq!(file.bytes(), b"for ever");
        assert!(rustix::io::write(file.fd(), b"x").is_err(), "it is sealed");
        let again = SealedFile::adopt(file.fd().try_clone_to_owned().unwrap()).unwrap();
        drop(file);
        assert_eq!(again.bytes(), b"for ever");
        let unsealed = SharedFile::create("mp-test", 4096).unwrap();
        let adopted = SealedFile::adopt(unsealed.fd().try_clone_to_owned().unwrap());
        assert_eq!(adopted.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(SealedFile::create("mp-test", &[]).is_err(), "nothing cannot be mapped");
    }

    #[test]
    fn a_file_that_is_not_sealed_is_not_adopted() {
        let plain =
            rustix::fs::memfd_create("plain", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert_eq!(SharedFile::adopt(plain).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(SharedFile::adopt(null.into()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
