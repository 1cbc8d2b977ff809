//! The system calls of a connection.
//!
//! Owns: one stream socket, which stays in blocking mode (whoever shares it sees no difference): each call says that it does not want to
//! wait, and waits in `poll`. So a signal is only a reason to look again, and every wait has its deadline on the monotonic clock.
//! A closed other end is an error, never a signal.

use super::address::Address;
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// What stands for "no limit" where the system wants one; its own limits are shorter.
const LONG: Duration = Duration::from_secs(3600);

/// The byte that goes with a descriptor: how many there are, as CPython's `multiprocessing.reduction` has it.
const ONE_DESCRIPTOR: u8 = 1;

/// A call was not completed.
#[derive(Debug)]
pub(super) enum Stop {
    /// The time was over.
    Late,
    /// The system said so.
    Io(io::Error),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether the other end is no more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Waits until `fd` is ready for one of `events` or broken; `false` if it is not until the time is over.
pub(super) fn ready(fd: impl AsFd, events: PollFlags, patience: Patience) -> io::Result<bool> {
    if patience == Patience::None {
        return Ok(false);
    }
    let deadline = patience.deadline();
    loop {
        let left = deadline.map(|deadline| {
            let left = deadline.left();
            let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            rustix::time::Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() }
        });
        match rustix::event::poll(&mut [PollFd::new(&fd, events)], left.as_ref()) {
            Ok(0) if deadline.is_some_and(Deadline::passed) => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a read brought.
#[derive(Debug)]
pub(super) struct Read {
    /// Bytes; 0 at the end.
    pub(super) count: usize,
    /// The one descriptor that came alone with its byte.
    pub(super) descriptor: Option<OwnedFd>,
}

/// A connected stream socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    is_local: bool,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// A socket that a listener has accepted.
    pub(super) fn accepted(fd: OwnedFd, is_local: bool) -> io::Result<Self> {
        if !is_local {
            sockopt::set_tcp_nodelay(&fd, true)?;
        }
        Ok(Self { fd, is_local })
    }

    /// Two ends of one connection within this process.
    pub(super) fn pair() -> io::Result<[Self; 2]> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok([one, other].map(|fd| Self { fd, is_local: true }))
    }

    /// Connects to who listens at `address`, which was checked.
    pub(super) fn connect(address: &Address, deadline: Option<Deadline>) -> Result<Self, Stop> {
        match address {
            Address::Unix(path) => {
                Self::connect_local(&SocketAddrUnix::new(path.as_os_str().as_bytes())?, deadline)
            }
            Address::Abstract(name) => {
                Self::connect_local(&SocketAddrUnix::new_abstract_name(name)?, deadline)
            }
            Address::Tcp { host, port } => Self::connect_tcp(host, *port, deadline),
        }
    }

    /// A full backlog of the listener is waited for by the system, so the deadline is the socket's own until it is connected.
    fn connect_local(address: &SocketAddrUnix, deadline: Option<Deadline>) -> Result<Self, Stop> {
        let kind = (AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC);
        let fd = rustix::net::socket_with(kind.0, kind.1, kind.2, None)?;
        loop {
            if let Some(deadline) = deadline {
                let left = deadline.left().clamp(Duration::from_micros(1), LONG);
                sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(left))?;
            }
            match rustix::net::connect(&fd, address) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if deadline.is_some_and(Deadline::passed) => return Err(Stop::Late),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if deadline.is_some() {
            sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, None)?;
        }
        Ok(Self { fd, is_local: true })
    }

    /// Tries each address of the host. Asking for them is the system's business and takes the time it takes.
    fn connect_tcp(host: &str, port: u16, deadline: Option<Deadline>) -> Result<Self, Stop> {
        let mut failure = Stop::Io(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
        for address in (host, port).to_socket_addrs()? {
            let left = deadline.map_or(LONG, |deadline| deadline.left().max(Duration::from_micros(1)));
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self { fd: stream.into(), is_local: false });
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut && deadline.is_some() => {
                    failure = Stop::Late;
                }
                Err(error) => failure = Stop::Io(error),
            }
        }
        Err(failure)
    }

    /// Whether it is a local socket, which descriptors can travel through.
    pub(super) fn is_local(&self) -> bool {
        self.is_local
    }

    fn patiently<T>(
        &self,
        events: PollFlags,
        patience: Patience,
        mut call: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Stop> {
        loop {
            match call() {
                Ok(done) => return Ok(done),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !ready(&self.fd, events, patience)? {
                        return Err(Stop::Late);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what there is into `space`, waiting for the first byte. Descriptors that come along are closed.
    pub(super) fn recv(&self, space: &mut [u8], patience: Patience) -> Result<usize, Stop> {
        self.patiently(PollFlags::IN, patience, || {
            rustix::net::recv(&self.fd, &mut *space, RecvFlags::DONTWAIT).map(|(_, count)| count)
        })
    }

    /// As [`recv`](Self::recv), and keeps a descriptor that comes with the one byte that announces it. Others are closed.
    pub(super) fn recv_with_descriptor(&self, space: &mut [u8], patience: Patience) -> Result<Read, Stop> {
        if !self.is_local {
            return Ok(Read { count: self.recv(space, patience)?, descriptor: None });
        }
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let (count, returned) = self.patiently(PollFlags::IN, patience, || {
            let mut parts = [IoSliceMut::new(&mut *space)];
            let read = rustix::net::recvmsg(&self.fd, &mut parts, &mut control, flags)?;
            Ok((read.bytes, read.flags))
        })?;
        let messages = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let mut descriptors = messages.flatten();
        let first = descriptors.next();
        // The room is for one, but padding may hold another; what does not fit the system has closed.
        let is_alone = descriptors.count() == 0 && !returned.contains(ReturnFlags::CTRUNC);
        let is_announced = count == 1 && is_alone && space.first() == Some(&ONE_DESCRIPTOR);
        Ok(Read { count, descriptor: first.filter(|_| is_announced) })
    }

    /// Sends a first part of `parts`, waiting until there is room for some.
    pub(super) fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<usize, Stop> {
        self.patiently(PollFlags::OUT, patience, || {
            let mut control = SendAncillaryBuffer::default();
            rustix::net::sendmsg(&self.fd, parts, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        })
    }

    /// Sends a descriptor with the byte that announces it.
    pub(super) fn send_descriptor(&self, fd: BorrowedFd<'_>, patience: Patience) -> Result<(), Stop> {
        let byte = [ONE_DESCRIPTOR];
        let fds = [fd];
        self.patiently(PollFlags::OUT, patience, || {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut room);
            if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(Errno::INVAL);
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            // One byte is sent whole or not at all.
            rustix::net::sendmsg(&self.fd, &[IoSlice::new(&byte)], &mut control, flags).map(|_| ())
        })
    }

    /// Tells the other end that nothing more comes.
    pub(super) fn end_sending(&self) {
        // An other end that is gone need not be told.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }

    /// Ends both directions.
    pub(super) fn close(&self) {
        // As above.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
    }
}
