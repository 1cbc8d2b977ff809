//! Code that runs when the program ends in the ordinary way: `main` returns, or somebody calls `exit`.
//!
//! It does not run when a signal ends the process, nor at `_exit`. A child made by `fork` inherits it and must look at its pid.

#![expect(unsafe_code, reason = "atexit")]

/// Runs `at_exit` at the end of the program, after what is registered later.
///
/// # Errors
/// If the C library has no room for one more.
pub fn register(at_exit: extern "C" fn()) -> std::io::Result<()> {
    // SAFETY: a function without arguments that lives as long as the program.
    let refused = unsafe { libc::atexit(at_exit) } != 0;
    if refused { Err(std::io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
}
