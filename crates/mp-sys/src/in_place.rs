//! Copying this process: the low half of the start method `fork`.
//!
//! ```text
//! this process                           its copy
//! counts its threads, writes out what
//! it buffers, forks                 →    waits at the gate, signals blocked
//! gets the copy's pidfd
//! opens the gate                    →    runs the job, exits with its code
//! ```
//!
//! glibc's `fork` and not a clone, since the program's own handlers (`pthread_atfork`: random number generators have some) are to run. So the pidfd
//! comes after the fact; the gate sees to it that the copy is there still, whoever reaps children.
//!
//! Death: of this process shuts the gate; the copy ends and has run nothing. Of the copy is found by its pidfd.

#![expect(unsafe_code, reason = "fork, and writing out what the C library buffers")]

use crate::gate::{Gate, pass};
use crate::process::{Child, EXIT_PANICKED, is_alone, tasks};
use crate::start::{block_signals, restore_signals};
use crate::{crash, pidfd};
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;

/// Copies this process. The copy calls `run` and exits with what it returns, or with 101 if it panics; nothing behind this call happens there.
///
/// # Errors
/// `ResourceBusy`: this process has other threads. No `/proc` to tell. What the system says: no process left, no memory, no free descriptor.
/// Nothing has run then, and no process is left.
pub fn fork(run: impl FnOnce() -> i32) -> io::Result<Child> {
    if !is_alone(&tasks()?)? {
        let text = "this process has other threads, whose locks nobody would release in its copy";
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    let gate = Gate::new()?;
    // Else both would write it. What cannot be written stays, and is told to who writes next.
    let _ = io::stdout().flush();
    // SAFETY: writes out all open streams of the C library.
    unsafe { libc::fflush(std::ptr::null_mut()) };
    let mask = block_signals();
    // SAFETY: the copy has the only thread there is, so it may do all that this process may.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        crash::point("fork.born");
        pass(gate.into_end());
        crash::point("fork.passed");
        restore_signals(&mask);
        // Nothing may unwind into what the program was at.
        let code = std::panic::catch_unwind(AssertUnwindSafe(run));
        std::process::exit(code.unwrap_or(EXIT_PANICKED));
    }
    let made = match u32::try_from(pid) {
        Ok(pid) => {
            crash::point("fork.made");
            let opened = pidfd::open(pid);
            gate.set(opened.is_ok());
            opened.map(|pidfd| Child::new(pid, pidfd)).inspect_err(|_| reap(pid))
        }
        Err(_) => Err(io::Error::last_os_error()),
    };
    restore_signals(&mask);
    made
}

/// Waits for the end of a copy that has found its gate shut.
fn reap(pid: u32) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    while let Some(pid) = pid {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            // Reaped, by us or by somebody else.
            _ => break,
        }
    }
}
