//! The gate: what a copy of a process waits at until its parent has its pidfd.
//!
//! Death: of the parent, at any instruction, shuts the gate.

#![expect(unsafe_code, reason = "ending a process without running anything of its program's")]

use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

const OPEN: u8 = 1;
const SHUT: u8 = 0;

/// The writing end of the pipe that a new process waits at. Our copy of the other end makes writing to it no signal, whoever is dead.
pub(crate) struct Gate {
    writer: io::PipeWriter,
    reader: io::PipeReader,
}

impl Gate {
    /// # Errors
    /// No free descriptor.
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { writer, reader })
    }

    /// What the new process waits at, in a copy of this process.
    pub(crate) fn into_end(self) -> OwnedFd {
        self.reader.into()
    }

    /// Lets the new process go on, or has it end.
    pub(crate) fn set(&self, open: bool) {
        // One byte finds room in an empty pipe.
        let _ = rustix::io::write(&self.writer, &[if open { OPEN } else { SHUT }]);
    }
}

/// Waits at the gate: returns if the parent has opened it, ends this process if it was shut or the parent is no more.
pub(crate) fn pass(gate: OwnedFd) {
    let mut word = [0];
    let is_open = loop {
        match rustix::io::read(&gate, &mut word) {
            Err(Errno::INTR) => {}
            other => break other == Ok(1) && word == [OPEN],
        }
    };
    if !is_open {
        // SAFETY: ends this process without running anything of the program's, none of which it has begun.
        unsafe { libc::_exit(0) }
    }
}
