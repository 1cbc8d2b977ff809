//! A shared library with multiproc in it, loaded by programs while they run: see `xtask/src/linking.rs`.

#![expect(unsafe_code, reason = "functions that are found by name, a constructor")]
#![expect(clippy::unwrap_used, reason = "a library that checks itself")]

#[path = "../linked/checks.rs"]
mod checks;

use mp_shm::Fd;
use mp_spawn::{Process, set_executable};
use std::ffi::{CStr, c_char};

/// A function that knows nothing of processes.
#[unsafe(no_mangle)]
pub fn plugin_triple(n: u64) -> u64 {
    n * 3
}

/// Starts processes by this library's own copy of multiproc, with a program if one is given; says what comes of it.
///
/// # Safety
/// `program` is null, or a path that ends with a null byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_check(program: *const c_char) {
    if !program.is_null() {
        // SAFETY: the caller says so.
        set_executable(unsafe { CStr::from_ptr(program) }.to_str().unwrap());
    }
    match Process::spawn(plugin_triple, 14) {
        Err(error) => {
            println!("refused: {error}");
            deposit();
        }
        Ok(child) => match child.join() {
            Err(error) => {
                println!("failed: {error}");
                deposit();
            }
            Ok(value) => {
                assert_eq!(value, 42);
                println!("in the library: {}", checks::check());
            }
        },
    }
}

/// The process that holds descriptors is this program, too.
fn deposit() {
    match Fd::new(std::fs::File::open("/dev/null").unwrap()) {
        Ok(_) => println!("deposited"),
        Err(error) => println!("no broker: {}", error.failure()),
    }
}
