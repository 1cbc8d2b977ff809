//! Sealed sparse memory files and their mappings.
//!
//! A [`SharedFile`] is a `memfd` whose size cannot change (`F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL`), so no peer can
//! make an access fault by truncating it. Address space is reserved in full, memory is committed in steps with
//! `fallocate`, so a lack of memory is an error at allocation. A [`Mapping`] stays until the process ends: links of
//! robust lists and references into it can therefore never dangle.

#![expect(unsafe_code, reason = "mapping of shared memory")]

use rustix::fs::{FlockOperation, MemfdFlags, Mode, OFlags, SealFlags};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

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

    /// Notes that this process uses the file, through the open file that its descriptor and mappings stand for: those that were handed
    /// the descriptor share the note, and it ends when the last of them has closed and unmapped it, or is dead.
    ///
    /// # Errors
    /// What `flock` says.
    pub fn note_use(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockShared)?)
    }

    /// Whether nobody uses the file any more, as [noted](Self::note_use); this is the file [opened anew](Self::opened_anew). From then on
    /// nobody can note it.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// The same file, opened a second time: it has no part in the first one's note of use.
    ///
    /// # Errors
    /// What opening it by `/proc` says.
    pub fn opened_anew(fd: impl AsFd) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        Ok(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Takes over a file descriptor that somebody handed on, after checking that it is a file sealed as ours are.
    ///
    /// # Errors
    /// `InvalidData` if its size could still change; otherwise what the kernel says.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        if !Self::is_sealed(&fd) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file descriptor is not a memory file whose size is sealed",
            ));
        }
        let size = u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0);
        Ok(Self { fd, size })
    }

    /// Whether this is a memory file whose size is sealed, as that of ours is.
    #[must_use]
    pub fn is_sealed(fd: impl AsFd) -> bool {
        let seals = rustix::fs::fcntl_get_seals(fd);
        seals.is_ok_and(|seals| seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL))
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

    /// Whether all these bytes are zero. Looking commits no memory for what has none.
    ///
    /// # Errors
    /// What `lseek` and `pread` say.
    pub fn is_zero(&self, offset: u64, len: u64) -> io::Result<bool> {
        let end = offset.saturating_add(len);
        let mut at = offset;
        let mut page = [0; 4096];
        while at < end {
            at = match rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Data(at)) {
                Ok(data) if data < end => data,
                Ok(_) | Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let wanted = usize::try_from(end - at).unwrap_or(page.len()).min(page.len());
            let read = rustix::io::pread(&self.fd, &mut page[..wanted], at)?;
            if page[..read].iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at += read.max(1) as u64;
        }
        Ok(true)
    }

    /// Maps the whole file, readable and writable, left out of core dumps, until the process ends.
    ///
    /// # Errors
    /// `ENOMEM` where the address space is limited.
    pub fn map(&self) -> io::Result<Mapping> {
        Mapping::of(self.fd(), self.size, true)
    }

    /// Maps the whole file for reading only: the kernel answers a store with SIGSEGV.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_read_only(&self) -> io::Result<Mapping> {
        Mapping::of(self.fd(), self.size, false)
    }
}

/// A mapped file; valid until the process ends.
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
    pub(crate) fn of(fd: BorrowedFd<'_>, len: u64, writable: bool) -> io::Result<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags};
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new shared mapping at an address of the kernel's choice aliases nothing in this process.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) }?;
        // SAFETY: the range was just mapped; the advice changes nothing about its content.
        unsafe { rustix::mm::madvise(base, len, Advice::LinuxDontDump) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// Takes the mapping away.
    ///
    /// # Safety
    /// Nobody uses an address of it from now on, and no thread of this process has a robust word in it.
    pub unsafe fn unmap(self) {
        // SAFETY: the range is a mapping of ours, and the caller promises that nobody uses it.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "a whole mapping can be taken away");
    }

    /// Puts pages under these bytes now, writable, instead of at the first access to each. Their content stays. Memory for them must be
    /// committed.
    ///
    /// # Errors
    /// `InvalidInput` for a range outside of the mapping; no memory.
    pub fn prefault(&self, range: Range<u64>) -> io::Result<()> {
        use rustix::mm::Advice;
        let page = rustix::param::page_size();
        let outside = || io::Error::from(io::ErrorKind::InvalidInput);
        let len = usize::try_from(range.end.checked_sub(range.start).ok_or_else(outside)?)
            .map_err(|_| outside())?;
        let first = self.at(range.start, len, 1).ok_or_else(outside)?.as_ptr();
        let lead = first.addr() % page;
        let populated = if crate::force::is("no-populate") {
            Err(rustix::io::Errno::INVAL)
        } else {
            let start = first.wrapping_sub(lead).cast();
            // SAFETY: mappings begin at a page, so the range from the page of its first byte is inside; the advice keeps its content.
            unsafe { rustix::mm::madvise(start, len + lead, Advice::LinuxPopulateWrite) }
        };
        match populated {
            // Linux before 5.14.
            Err(rustix::io::Errno::INVAL) => {}
            other => return Ok(other?),
        }
        let touch = |offset: usize| {
            // SAFETY: `offset` is less than `len`, which was checked to be inside the mapping.
            let byte = unsafe { first.add(offset) };
            // SAFETY: mapped until the process ends, and a byte is aligned; others may write it as an atomic at the same time.
            let byte = unsafe { AtomicU8::from_ptr(byte) };
            // Writes what is there.
            byte.fetch_or(0, Ordering::Relaxed);
        };
        (0..len).step_by(page).chain(len.checked_sub(1)).for_each(touch);
        Ok(())
    }

    /// Asks for huge pages under the whole mapping. Whether there are any for shared memory is for the machine to say: see
    /// [`grants_huge_pages`].
    ///
    /// # Errors
    /// What `madvise` says: a kernel without them.
    pub fn advise_huge_pages(&self) -> io::Result<()> {
        let advice = rustix::mm::Advice::LinuxHugepage;
        // SAFETY: the range is the mapping; the advice changes nothing about its content.
        Ok(unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.len, advice) }?)
    }

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

/// Whether this machine gives huge pages to shared memory that is advised to have them.
#[must_use]
pub fn grants_huge_pages() -> bool {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    enabled.is_ok_and(|text| {
        ["[always]", "[within_size]", "[advise]", "[force]"].iter().any(|one| text.contains(one))
    })
}

/// Bytes of memory that this process has in use; 0 if the system does not tell.
#[must_use]
pub fn resident_bytes() -> u64 {
    let pages = || std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok();
    pages().unwrap_or(0) * rustix::param::page_size() as u64
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
    fn a_file_is_in_use_until_its_last_mapping_is_gone() {
        let file = SharedFile::create("mp-test", 4096).unwrap();
        file.note_use().unwrap();
        let observer = SharedFile::adopt(SharedFile::opened_anew(file.fd()).unwrap()).unwrap();
        assert!(!observer.is_unused());
        let handed_on = file.fd().try_clone_to_owned().unwrap();
        let mapping = file.map().unwrap();
        drop(file);
        assert!(!observer.is_unused());
        drop(handed_on);
        assert!(!observer.is_unused(), "it is mapped");
        // SAFETY: nothing of it was lent out.
        unsafe { mapping.unmap() };
        assert!(observer.is_unused());
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

    #[test]
    fn what_is_written_to_is_in_use() {
        let before = resident_bytes();
        let touched = vec![1_u8; 32 << 20];
        assert!(resident_bytes() >= before + (16 << 20), "{before}, and {} more", touched.len());
    }
}
