//! Test tools of multiproc: watchdog, leak check, states of processes and threads.
//!
//! A test that may block arms a [`watchdog()`] first. A test never sleeps to let the other side run: it waits for a [state](proc).
//! A test that checks leaks is alone in its file, since [`LeakCheck`] looks at the whole process.

mod leak;
pub mod proc;
mod watchdog;

pub use leak::LeakCheck;
pub use watchdog::{Watchdog, watchdog};

/// Makes this process, and those that it starts from now on, heed SIGHUP, SIGINT and SIGTERM: `nohup`, or a shell that runs the tests in the
/// background, ignores some of them, and processes inherit that.
pub fn heed_signals() {
    mp_sys::process::heed_signals();
}

/// Panics if a wait of this process had to be ended by a backstop although there was work: a lost wake-up.
///
/// # Panics
/// If there was one.
pub fn assert_no_backstop() {
    let found = mp_sys::backstop::found();
    assert_eq!(found, 0, "{found} waits were ended by a backstop: wake-ups were lost");
}
