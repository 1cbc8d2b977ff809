//! Signals that whoever runs the tests may ignore.

#![expect(unsafe_code, reason = "signal actions")]

/// Makes this process, and those that it starts from now on, heed SIGHUP, SIGINT and SIGTERM: `nohup`, or a shell that runs the tests in the
/// background, ignores some of them, and processes inherit that.
pub fn heed_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the default action runs no code.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
