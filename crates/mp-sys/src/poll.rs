//! Waiting for file descriptors, and a descriptor that can be rung.
//!
//! Contract. [`poll`] and [`poll_one`] return when a descriptor is ready, or was closed or failed, or at the deadline, never before it; a
//! signal does not end them.

use crate::deadline::Deadline;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What to wait for at a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// That reading does not block: there is data, or the other end is closed.
    Read,
    /// That writing does not block.
    Write,
}

impl Interest {
    fn flags(self) -> PollFlags {
        match self {
            Self::Read => PollFlags::IN,
            Self::Write => PollFlags::OUT,
        }
    }
}

/// Waits until one of `fds` is ready or `until` has passed; says which are ready. Without a deadline it waits for ever.
///
/// # Errors
/// What `poll(2)` says: no memory, too many descriptors.
pub fn poll(fds: &[(BorrowedFd<'_>, Interest)], until: Option<Deadline>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|(fd, interest)| PollFd::from_borrowed_fd(*fd, interest.flags())).collect();
    wait(&mut polled, until)?;
    Ok(polled.iter().map(|one| !one.revents().is_empty()).collect())
}

/// [`poll`] for one descriptor, without allocating; says whether it is ready.
///
/// # Errors
/// As [`poll`].
pub fn poll_one(fd: impl AsFd, interest: Interest, until: Option<Deadline>) -> io::Result<bool> {
    wait(&mut [PollFd::new(&fd, interest.flags())], until)
}

/// Says whether one is ready.
fn wait(polled: &mut [PollFd<'_>], until: Option<Deadline>) -> io::Result<bool> {
    loop {
        let timeout = until.map(Deadline::left).map(timespec);
        match rustix::event::poll(polled, timeout.as_ref()) {
            Ok(0) if until.is_some_and(Deadline::passed) => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

fn timespec(time: std::time::Duration) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// A descriptor that is ready to be read once it was rung, until it is quieted. Close-on-exec.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Not rung.
    ///
    /// # Errors
    /// No free descriptor.
    pub fn new() -> io::Result<Self> {
        Ok(Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Rings it; again is no harm.
    pub fn ring(&self) {
        // It fails only when it was rung 2^64 times, and is ready then.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes it quiet; says whether it was rung.
    pub fn quiet(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One that another process has made.
impl From<OwnedFd> for EventFd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl std::task::Wake for EventFd {
    fn wake(self: std::sync::Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_event_is_ready_from_ring_to_quiet() {
        let event = EventFd::new().unwrap();
        let ready = || {
            let one = poll_one(&event, Interest::Read, Some(Deadline::now())).unwrap();
            assert_eq!(poll(&[(event.as_fd(), Interest::Read)], Some(Deadline::now())).unwrap(), [one]);
            one
        };
        assert!(!ready());
        event.ring();
        event.ring();
        assert!(ready());
        assert!(event.quiet());
        assert!(!ready() && !event.quiet());
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_when_the_other_end_closes() {
        let (reader, writer) = std::io::pipe().unwrap();
        let soon = Deadline::after(Duration::from_millis(5));
        assert_eq!(poll(&[(reader.as_fd(), Interest::Read)], Some(soon)).unwrap(), [false]);
        assert!(soon.passed());
        assert_eq!(poll(&[(writer.as_fd(), Interest::Write)], None).unwrap(), [true]);
        drop(writer);
        assert_eq!(poll(&[(reader.as_fd(), Interest::Read)], None).unwrap(), [true]);
    }
}
