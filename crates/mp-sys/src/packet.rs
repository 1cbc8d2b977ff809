//! Frames with at most one file descriptor each, between processes that know an abstract name.
//!
//! Contract. A [`Socket`] is one connection (`SOCK_SEQPACKET`): a frame arrives whole or not at all, and with its descriptor. Nothing
//! here waits beyond its deadline, a signal ends no wait, and every descriptor is close-on-exec. The other end may be anybody: ask
//! the [`Peer`] that comes with a connection.

use crate::deadline::Deadline;
use crate::poll::{Interest, poll_one};
use crate::socket::{Peer, peer};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Connections that wait to be accepted, at most; further ones wait to connect.
const BACKLOG: i32 = 1024;

/// One end of a connection.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// A name at which one can connect; gone when it is dropped.
#[derive(Debug)]
pub struct PacketListener(OwnedFd);

/// What came in one frame.
#[derive(Debug)]
pub struct Packet {
    /// Bytes of the frame that were stored; 0 also if the other end has closed.
    pub len: usize,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
    /// Whether bytes or descriptors of it are lost, because there were more than asked for or than this process may have.
    pub is_cut: bool,
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl Socket {
    /// Connects to who listens at the abstract name, and says who that is.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody does; `TimedOut`; no free descriptor.
    pub fn connect(name: &[u8], until: Deadline) -> io::Result<(Self, Peer)> {
        let socket = socket(SocketFlags::empty())?;
        let address = SocketAddrUnix::new_abstract_name(name)?;
        loop {
            // Zero would mean no limit.
            let left = until.left().max(Duration::from_millis(1));
            set_socket_timeout(&socket, Timeout::Send, Some(left))?;
            match rustix::net::connect(&socket, &address) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(timed_out()),
                Err(error) => return Err(error.into()),
            }
        }
        let peer = peer(&socket)?;
        Ok((Self(socket), peer))
    }

    /// Connects to the abstract name and closes again, without waiting: who listens wakes up.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens there; `WouldBlock` if so many others wait there that who listens must wake up anyway.
    pub fn knock(name: &[u8]) -> io::Result<()> {
        let socket = socket(SocketFlags::NONBLOCK)?;
        Ok(rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?)
    }

    /// Sends a frame, and a duplicate of `fd` with it.
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset` if the other end has gone; `TimedOut`; the descriptor is not open.
    pub fn send(&self, frame: &[u8], fd: Option<BorrowedFd<'_>>, until: Deadline) -> io::Result<()> {
        let fds = fd.map(|fd| [fd]);
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if let Some(fds) = &fds
                && !control.push(SendAncillaryMessage::ScmRights(fds))
            {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(frame)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(Interest::Write, until)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a frame into `buffer`; one that is longer is cut.
    ///
    /// # Errors
    /// `ConnectionReset` if the other end has gone and left something unread; `TimedOut`.
    pub fn receive(&self, buffer: &mut [u8], until: Deadline) -> io::Result<Packet> {
        loop {
            if let Some(packet) = self.try_receive(buffer)? {
                return Ok(packet);
            }
            self.wait(Interest::Read, until)?;
        }
    }

    /// [`receive`](Self::receive) without waiting; `None` if there is nothing yet.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = loop {
            match rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let is_cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        Ok(Some(Packet { len: received.bytes, fds: rights.flatten().collect(), is_cut }))
    }

    fn wait(&self, interest: Interest, until: Deadline) -> io::Result<()> {
        if poll_one(&self.0, interest, Some(until))? { Ok(()) } else { Err(timed_out()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PacketListener {
    /// Listens at the abstract name.
    ///
    /// # Errors
    /// `AddrInUse` if somebody else does.
    pub fn bind(name: &[u8]) -> io::Result<Self> {
        let socket = socket(SocketFlags::NONBLOCK)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self(socket))
    }

    /// A connection that has come, and who it is; `None` if there is none at the moment.
    ///
    /// # Errors
    /// What `accept` says: no free descriptor.
    pub fn accept(&self) -> io::Result<Option<(Socket, Peer)>> {
        loop {
            match rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    let peer = peer(&socket)?;
                    return Ok(Some((Socket(socket), peer)));
                }
                Err(Errno::AGAIN) => return Ok(None),
                // It came and went.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl From<OwnedFd> for PacketListener {
    /// Takes over a descriptor that somebody else has bound.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for PacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(test: &str) -> Vec<u8> {
        format!("multiproc-test-{}-{test}", std::process::id()).into_bytes()
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    #[test]
    fn a_frame_arrives_whole_with_its_descriptor() {
        let name = name("frame");
        assert_eq!(
            Socket::connect(&name, soon()).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused,
            "nobody listens"
        );
        let listener = PacketListener::bind(&name).unwrap();
        assert_eq!(PacketListener::bind(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(listener.accept().unwrap().is_none());
        let (client, _) = Socket::connect(&name, soon()).unwrap();
        let (server, peer) = listener.accept().unwrap().unwrap();
        assert_eq!(peer, Peer { pid: std::process::id(), user: crate::process::user() });
        let (_reader, writer) = io::pipe().unwrap();
        client.send(b"one", Some(writer.as_fd()), soon()).unwrap();
        client.send(b"twelve bytes", None, soon()).unwrap();
        let mut buffer = [0; 5];
        let packet = server.receive(&mut buffer, soon()).unwrap();
        assert_eq!((&buffer[..packet.len], packet.fds.len(), packet.is_cut), (&b"one"[..], 1, false));
        let packet = server.receive(&mut buffer, soon()).unwrap();
        assert_eq!((&buffer[..packet.len], packet.fds.len(), packet.is_cut), (&b"twelv"[..], 0, true));
        assert!(server.try_receive(&mut buffer).unwrap().is_none());
        drop(client);
        assert_eq!(server.receive(&mut buffer, soon()).unwrap().len, 0);
    }

    #[test]
    fn waits_end_at_their_deadlines() {
        let name = name("waits");
        let listener = PacketListener::bind(&name).unwrap();
        let (client, _) = Socket::connect(&name, soon()).unwrap();
        let deadline = Deadline::after(Duration::from_millis(5));
        assert_eq!(client.receive(&mut [0], deadline).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(deadline.passed());
        let knocks =
            std::iter::repeat_with(|| Socket::knock(&name)).take(2 * BACKLOG.unsigned_abs() as usize);
        let full = knocks.into_iter().find_map(Result::err);
        // If the system's own limit is higher than ours, nobody is turned away.
        if let Some(error) = full {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            let deadline = Deadline::after(Duration::from_millis(5));
            let refused = Socket::connect(&name, deadline).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        }
        drop(listener);
        let until = soon();
        let refused = loop {
            match Socket::knock(&name) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break error,
                // A process that another test is just starting has a duplicate until it runs its program.
                _ => assert!(!until.passed(), "somebody listens yet"),
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
