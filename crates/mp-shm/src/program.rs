//! The table of program files that the session's code references point into.
//!
//! A code reference is `file number << 48 | address − load base`: 8 bytes that mean the same code in every process of the
//! session that has loaded the same file. The number is given at the first use of a file, under the domain's lock; entries are
//! never removed. What the numbers mean in a process (load addresses) is the business of the crate that starts processes.

use crate::error::SessionError;
use crate::layout::{IDENTITY_MAX, OBJECT_MAX, OBJECTS, ObjectEntry, PATH_LEN_MAX};
use crate::session::Session;
use std::sync::atomic::{AtomicU8, Ordering};

/// A program file as the session knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFile {
    /// The loader's path; empty for the main program.
    pub path: String,
    /// Build id, or hash of the code.
    pub identity: Vec<u8>,
}

impl Session {
    /// The number of `file`, 1 to 63, after entering it into the table at its first use.
    ///
    /// # Errors
    /// [`SessionError::Full`]; also for a path or identity longer than the table has room for.
    pub fn number_of_program(self, file: &ProgramFile) -> Result<u16, SessionError> {
        let too_long =
            file.path.len() > PATH_LEN_MAX || file.identity.len() > IDENTITY_MAX || file.identity.is_empty();
        let locked = self.lock();
        let used = self.header().objects.load(Ordering::Acquire).min(OBJECT_MAX - 1);
        if let Some(number) = (1..=used).find(|&number| self.read_program(number).as_ref() == Some(file)) {
            return u16::try_from(number).map_err(|_| SessionError::NotASession);
        }
        let number = used + 1;
        if too_long || number >= OBJECT_MAX {
            return Err(SessionError::Full("program file (or its path is too long)"));
        }
        let size = size_of::<ObjectEntry>() as u64;
        locked.commit_table(OBJECTS + u64::from(number) * size, size)?;
        let entry: &ObjectEntry =
            self.at(OBJECTS + u64::from(number) * size).ok_or(SessionError::NotASession)?;
        write(&entry.path, file.path.as_bytes());
        write(&entry.identity, &file.identity);
        entry.path_len.store(u32::try_from(file.path.len()).unwrap_or(0), Ordering::Relaxed);
        entry.identity_len.store(u32::try_from(file.identity.len()).unwrap_or(0), Ordering::Relaxed);
        // PROGRAM: Release, pairs with the Acquire in `program`.
        self.header().objects.store(number, Ordering::Release);
        u16::try_from(number).map_err(|_| SessionError::NotASession)
    }

    /// The program file of this number.
    #[must_use]
    pub fn program(self, number: u16) -> Option<ProgramFile> {
        // PROGRAM: Acquire, pairs with the Release in `number_of_program`.
        let used = self.header().objects.load(Ordering::Acquire);
        (number != 0 && u32::from(number) <= used).then(|| self.read_program(number.into())).flatten()
    }

    fn read_program(self, number: u32) -> Option<ProgramFile> {
        let size = size_of::<ObjectEntry>() as u64;
        let entry: &ObjectEntry =
            (number < OBJECT_MAX).then(|| self.at(OBJECTS + u64::from(number) * size))??;
        let path = read(&entry.path, entry.path_len.load(Ordering::Relaxed));
        Some(ProgramFile {
            path: String::from_utf8(path).ok()?,
            identity: read(&entry.identity, entry.identity_len.load(Ordering::Relaxed)),
        })
    }
}

fn write(to: &[AtomicU8], bytes: &[u8]) {
    for (place, byte) in to.iter().zip(bytes) {
        place.store(*byte, Ordering::Relaxed);
    }
}

fn read(from: &[AtomicU8], len: u32) -> Vec<u8> {
    let len = usize::try_from(len).unwrap_or(0).min(from.len());
    from[..len].iter().map(|byte| byte.load(Ordering::Relaxed)).collect()
}
