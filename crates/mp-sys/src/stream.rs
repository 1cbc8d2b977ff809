//! Bytes in both directions, over a local socket or TCP, and descriptors beside them over a local one.
//!
//! Contract. A [`Stream`] stays in blocking mode, since whoever shares its socket must see no difference: each call says that it does not
//! want to wait, and waits in `poll`. So a signal is only a reason to look again, and no call outlasts its deadline, on the monotonic
//! clock, but the asking for a host's addresses. A closed other end is an error, never a signal; every descriptor is close-on-exec.
//! The other end may be anybody, and may send anything.
//!
//! Owns: the sockets; of a [`Listener`] at a path also its file, which is removed with it if it is still its own.
//! Death: of either end is the end of the stream for the other one, once it has read what was sent. A listener at a path leaves
//! its file, at which nobody listens; the next listener replaces it.

use crate::deadline::Deadline;
use crate::patience::Patience;
use crate::poll::{Interest, poll_one};
use crate::socket;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// What stands for "no limit" where the system wants one; its own limits are shorter.
const LONG: Duration = Duration::from_secs(3600);

/// A call was not completed.
#[derive(Debug)]
pub enum Stop {
    /// The time was over.
    Late,
    /// The system said so.
    Io(io::Error),
}

impl Stop {
    /// Whether the other end is no more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Io(error)
            if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset))
    }
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

/// Does `call`, which must not wait, until it is done or fails; while it would have to wait for `fd`, waits here.
fn patiently<T>(
    fd: impl AsFd,
    interest: Interest,
    patience: Patience,
    mut call: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Stop> {
    loop {
        match call() {
            Ok(done) => return Ok(done),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if patience == Patience::None || !poll_one(&fd, interest, patience.deadline())? {
                    return Err(Stop::Late);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a read brought.
#[derive(Debug)]
pub struct Read {
    /// Bytes; 0 at the end.
    pub count: usize,
    /// The descriptor that came with them, if it was the only one.
    pub descriptor: Option<OwnedFd>,
}

/// A connected stream socket.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    is_local: bool,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Stream {
    /// Two ends of one stream within this process.
    ///
    /// # Errors
    /// No free descriptor.
    pub fn pair() -> io::Result<[Self; 2]> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok([one, other].map(|fd| Self { fd, is_local: true }))
    }

    /// Connects to who listens at a socket file.
    ///
    /// # Errors
    /// `ConnectionRefused` or `NotFound` if nobody listens there; [`Stop::Late`]; the path is too long for the system.
    pub fn connect_path(path: &Path, deadline: Option<Deadline>) -> Result<Self, Stop> {
        Self::connect_local(&SocketAddrUnix::new(path.as_os_str().as_bytes())?, deadline)
    }

    /// Connects to who listens at an abstract name.
    ///
    /// # Errors
    /// As [`connect_path`](Self::connect_path).
    pub fn connect_abstract(name: &[u8], deadline: Option<Deadline>) -> Result<Self, Stop> {
        Self::connect_local(&SocketAddrUnix::new_abstract_name(name)?, deadline)
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

    /// Connects over TCP, trying each address of the host. Asking for them is the system's business and takes the time it takes.
    ///
    /// # Errors
    /// What the last of them says: `ConnectionRefused`, say; [`Stop::Late`]; the host has no address.
    pub fn connect_tcp(host: &str, port: u16, deadline: Option<Deadline>) -> Result<Self, Stop> {
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
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Reads what there is into `space`, waiting for the first byte. Descriptors that come along are closed.
    ///
    /// # Errors
    /// [`Stop::Late`]; `ConnectionReset` if the other end has gone and left something unread.
    pub fn recv(&self, space: &mut [u8], patience: Patience) -> Result<usize, Stop> {
        patiently(self, Interest::Read, patience, || {
            rustix::net::recv(&self.fd, &mut *space, RecvFlags::DONTWAIT).map(|(_, count)| count)
        })
    }

    /// As [`recv`](Self::recv), and keeps a descriptor that comes along, if it comes alone. Of several all are closed.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_with_descriptor(&self, space: &mut [u8], patience: Patience) -> Result<Read, Stop> {
        if !self.is_local {
            return Ok(Read { count: self.recv(space, patience)?, descriptor: None });
        }
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let (count, returned) = patiently(self, Interest::Read, patience, || {
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
        Ok(Read { count, descriptor: first.filter(|_| is_alone) })
    }

    /// Sends a first part of `parts`, waiting until there is room for some.
    ///
    /// # Errors
    /// [`Stop::Late`] if nothing was sent; one that [is gone](Stop::is_gone).
    pub fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<usize, Stop> {
        patiently(self, Interest::Write, patience, || {
            let mut control = SendAncillaryBuffer::default();
            rustix::net::sendmsg(&self.fd, parts, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        })
    }

    /// Sends `byte`, and a duplicate of `fd` with it: both or neither. The stream must be [local](Self::is_local).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_descriptor(&self, byte: u8, fd: BorrowedFd<'_>, patience: Patience) -> Result<(), Stop> {
        let byte = [byte];
        let fds = [fd];
        patiently(self, Interest::Write, patience, || {
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
    pub fn end_sending(&self) {
        // An other end that is gone need not be told.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }

    /// Ends both directions.
    pub fn close(&self) {
        // As above.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
    }
}

/// Where streams come from. Its socket is in non-blocking mode, and may be shared by threads: each stream goes to one of them.
#[derive(Debug)]
pub struct Listener(Bound);

#[derive(Debug)]
enum Bound {
    Local(socket::Listener),
    Tcp(TcpListener),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Bound::Local(socket) => socket.as_fd(),
            Bound::Tcp(socket) => socket.as_fd(),
        }
    }
}

impl Listener {
    /// Listens at a path, whatever it begins with. A socket file at which nobody listens any more is replaced.
    ///
    /// # Errors
    /// `AddrInUse` if somebody else listens there or a file of another kind is there.
    pub fn bind_path(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().starts_with(b"@") {
            return Self::local(&Path::new(".").join(path));
        }
        Self::local(path)
    }

    /// Listens at an abstract name.
    ///
    /// # Errors
    /// `AddrInUse` if somebody else does.
    pub fn bind_abstract(name: &[u8]) -> io::Result<Self> {
        Self::local(Path::new(OsStr::from_bytes(&[b"@", name].concat())))
    }

    fn local(address: &Path) -> io::Result<Self> {
        let socket = socket::Listener::bind(address)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(Bound::Local(socket)))
    }

    /// Listens at a TCP port of `host`, 0 for any that is free; with the address and port it has got.
    ///
    /// # Errors
    /// `AddrInUse` if somebody else does; the host has no address here.
    pub fn bind_tcp(host: &str, port: u16) -> io::Result<(Self, SocketAddr)> {
        let socket = TcpListener::bind((host, port))?;
        let bound = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        Ok((Self(Bound::Tcp(socket)), bound))
    }

    /// Waits until somebody connects.
    ///
    /// # Errors
    /// [`Stop::Late`]; no free descriptor.
    pub fn accept(&self, patience: Patience) -> Result<Stream, Stop> {
        let fd = patiently(self, Interest::Read, patience, || {
            match rustix::net::accept_with(self, SocketFlags::CLOEXEC) {
                // It has gone again before we took it: look for the next.
                Err(Errno::CONNABORTED | Errno::PROTO) => Err(Errno::INTR),
                other => other,
            }
        })?;
        let is_local = matches!(self.0, Bound::Local(_));
        if !is_local {
            sockopt::set_tcp_nodelay(&fd, true)?;
        }
        Ok(Stream { fd, is_local })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Patience {
        Patience::Until(Deadline::after(Duration::from_secs(20)))
    }

    #[test]
    fn bytes_and_a_descriptor_arrive() {
        let [one, other] = Stream::pair().unwrap();
        assert!(matches!(one.recv(&mut [0], Patience::None), Err(Stop::Late)));
        assert_eq!(other.send(&[IoSlice::new(b"a"), IoSlice::new(b"b")], soon()).unwrap(), 2);
        let mut space = [0; 5];
        assert_eq!(one.recv(&mut space, soon()).unwrap(), 2);
        assert_eq!(&space[..2], b"ab");
        let (reader, _writer) = io::pipe().unwrap();
        other.send_descriptor(7, reader.as_fd(), soon()).unwrap();
        let read = one.recv_with_descriptor(&mut space, soon()).unwrap();
        assert_eq!((read.count, space[0]), (1, 7));
        let same = |fd: &dyn AsFd| rustix::fs::fstat(fd.as_fd()).unwrap().st_ino;
        assert_eq!(same(&read.descriptor.unwrap()), same(&reader));
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        let [one, other] = Stream::pair().unwrap();
        let deadline = Deadline::after(Duration::from_millis(5));
        assert!(matches!(one.recv(&mut [0], Patience::Until(deadline)), Err(Stop::Late)));
        assert!(deadline.passed());
        let full = vec![0; 1 << 20];
        while other.send(&[IoSlice::new(&full)], Patience::None).is_ok() {}
        let deadline = Deadline::after(Duration::from_millis(5));
        assert!(matches!(other.send(&[IoSlice::new(&full)], Patience::Until(deadline)), Err(Stop::Late)));
        assert!(deadline.passed());
    }

    #[test]
    fn an_end_that_has_gone_is_an_error_and_not_a_signal() {
        let [one, other] = Stream::pair().unwrap();
        other.end_sending();
        assert_eq!(one.recv(&mut [0], Patience::Forever).unwrap(), 0);
        drop(other);
        assert!(one.send(&[IoSlice::new(b"x")], Patience::Forever).unwrap_err().is_gone());
    }

    #[test]
    fn a_stream_comes_from_each_kind_of_listener() {
        let name = format!("multiproc-test-{}-stream", std::process::id());
        let none = Stream::connect_abstract(name.as_bytes(), None).unwrap_err();
        assert!(matches!(none, Stop::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused));
        let path = std::env::temp_dir().join(&name);
        let (tcp, at) = Listener::bind_tcp("127.0.0.1", 0).unwrap();
        let listeners =
            [Listener::bind_abstract(name.as_bytes()).unwrap(), Listener::bind_path(&path).unwrap(), tcp];
        for (listener, number) in listeners.into_iter().zip(0..) {
            assert!(matches!(listener.accept(Patience::None), Err(Stop::Late)));
            let until = Some(Deadline::after(Duration::from_secs(20)));
            let client = match number {
                0 => Stream::connect_abstract(name.as_bytes(), until),
                1 => Stream::connect_path(&path, until),
                _ => Stream::connect_tcp("127.0.0.1", at.port(), until),
            };
            let (client, accepted) = (client.unwrap(), listener.accept(soon()).unwrap());
            assert_eq!((client.is_local(), accepted.is_local()), (number < 2, number < 2));
            client.send(&[IoSlice::new(b"x")], soon()).unwrap();
            assert_eq!(accepted.recv_with_descriptor(&mut [0; 2], soon()).unwrap().count, 1);
        }
        assert!(!path.exists(), "its file goes with the listener");
    }
}
