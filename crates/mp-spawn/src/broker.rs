//! The process that holds descriptors for a session: this program once more, which finds in its environment that it is to be that.
//!
//! What it does is [`mp_shm::fds::broker`]'s; here is how it comes to be. It is nobody's child, has no terminal and no descriptor of ours
//! but the session's file and the socket, which are named in its environment.

#![expect(unsafe_code, reason = "file descriptors by number")]

use crate::hook;
use crate::program::{borrowed, environment, executable};
use mp_shm::Session;
use mp_sys::setup::Setup;
use mp_sys::start::{Program, above_standard, start_detached};
use std::ffi::{CString, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Environment variable by which a process is told that it is a broker.
pub(crate) const MARKER: &str = "MULTIPROC_BROKER";

/// What a broker is called in lists of processes; the session's number follows.
const NAME: &str = "multiproc-fds";

/// Starts the broker of a session, which takes `listener` over.
pub(crate) fn start(session: Session, listener: BorrowedFd<'_>) -> io::Result<()> {
    hook::check().map_err(io::Error::other)?;
    let (file, listener) = (above_standard(session.fd())?, above_standard(listener)?);
    let marker = format!("{MARKER}={}:{}", file.as_raw_fd(), listener.as_raw_fd());
    let environment = environment(&marker)?;
    let arguments = [CString::new(NAME)?, CString::new(session.number().to_string())?];
    start_detached(&Program {
        path: &executable()?,
        arguments: &borrowed(&arguments),
        environment: &borrowed(&environment),
        inherit: &[file.as_fd(), listener.as_fd()],
        setup: &Setup::default(),
    })
}

/// Is the broker until the session ends; the code to exit with.
pub(crate) fn run(marker: &str) -> c_int {
    let Some([file, listener]) = parse(marker) else { return hook::EXIT_NO_JOB };
    // SAFETY: whoever started this process passed this descriptor for this alone; nothing else here has opened any yet, or knows of it.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    // SAFETY: as above; it is another one.
    let listener = unsafe { OwnedFd::from_raw_fd(listener) };
    let kept = mp_sys::process::close_on_exec(&listener);
    let served = crate::panics::catch(|| mp_shm::fds::broker::run(file, listener));
    // Nobody is there to be told anything: clients find that it is gone.
    if kept.is_ok() && matches!(served, Ok(Ok(()))) { 0 } else { hook::EXIT_NO_JOB }
}

fn parse(marker: &str) -> Option<[RawFd; 2]> {
    let (file, listener) = marker.split_once(':')?;
    let number = |text: &str| text.parse().ok().filter(|&fd: &RawFd| fd > 2);
    let (file, listener) = (number(file)?, number(listener)?);
    (file != listener).then_some([file, listener])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_names_two_descriptors_above_the_standard_ones() {
        assert_eq!(parse("3:4"), Some([3, 4]));
        for text in ["", "3", "3:", "3:3", "2:3", "3:0", "3:4:5", "-3:4", "a:b"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
