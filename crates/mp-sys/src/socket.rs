//! Handing a file descriptor to a process that asks at a Unix socket.
//!
//! ```text
//! listener                                       client
//! binds path or @name                            connects
//! accepts, looks who it is (SO_PEERCRED)         looks who listens
//! sends one byte with the descriptor, or closes  receives, or finds the end
//! ```
//!
//! An address that begins with `@` is a name in the abstract namespace, which needs no file and is gone with the listener; any
//! other is a path. A socket file that nobody listens at any more is replaced.

#![expect(unsafe_code, reason = "asking who is at the other end")]

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::file::{Identity, identity_at, locked};
use crate::poll::{Interest, poll_one};

/// A process at the other end of a socket, as it was when it connected or began to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; 0 if it is in a process namespace that this process does not see into.
    pub pid: u32,
    /// Its effective user id.
    pub user: u32,
}

/// A socket at which a descriptor is handed out. Dropping it removes its file.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: Option<(PathBuf, Identity)>,
}

fn address_of(address: &Path) -> io::Result<SocketAddr> {
    match address.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(address),
    }
}

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// `AddrInUse` if somebody else listens there or a file of another kind is there.
    pub fn bind(address: &Path) -> io::Result<Self> {
        let name = address_of(address)?;
        if address.as_os_str().as_bytes().starts_with(b"@") {
            return Ok(Self { socket: UnixListener::bind_addr(&name)?, file: None });
        }
        let parent = address.parent().filter(|parent| !parent.as_os_str().is_empty());
        // Of two that replace a dead one's file, the second must not take the first one's away.
        let directory = File::open(parent.unwrap_or(Path::new(".")))?;
        let socket = locked(&directory, || match UnixListener::bind_addr(&name) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(address, &name) => {
                std::fs::remove_file(address)?;
                UnixListener::bind_addr(&name)
            }
            other => other,
        })?;
        let file = identity_at(address)?.map(|identity| (address.to_owned(), identity));
        Ok(Self { socket, file })
    }

    /// Waits until somebody has connected; `None` if nobody has until the deadline.
    ///
    /// # Errors
    /// What `poll` and `accept` say.
    pub fn accept(&self, deadline: Option<Deadline>) -> io::Result<Option<(Connection, Peer)>> {
        if !poll_one(&self.socket, Interest::Read, deadline)? {
            return Ok(None);
        }
        let (stream, _) = self.socket.accept()?;
        let peer = peer(&stream)?;
        Ok(Some((Connection(stream), peer)))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, identity)) = &self.file
            && identity_at(path).is_ok_and(|there| there == Some(*identity))
        {
            // Somebody who removes it first is no harm.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether a socket is at `path` that nobody listens at. A file of another kind refuses connections, too.
fn is_stale(path: &Path, address: &SocketAddr) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
        && UnixStream::connect_addr(address)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Who is at the other end of a connected local socket.
///
/// # Errors
/// What `getsockopt` says.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of_val(&found)).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // Not by rustix: a process id of 0, which stands for a process of another namespace, is none that its type can hold.
    // SAFETY: the descriptor is open; the kernel writes at most `len` bytes, which is the size of `found`, and every value is valid there.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut len)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: found.pid.unsigned_abs(), user: found.uid })
}

/// A connection over which one descriptor travels.
#[derive(Debug)]
pub struct Connection(UnixStream);

impl Connection {
    /// Connects to who listens at `address`, and says who that is.
    ///
    /// # Errors
    /// What `connect` says: nobody listens there.
    pub fn to(address: &Path) -> io::Result<(Self, Peer)> {
        let stream = UnixStream::connect_addr(&address_of(address)?)?;
        let peer = peer(&stream)?;
        Ok((Self(stream), peer))
    }

    /// Sends a descriptor.
    ///
    /// # Errors
    /// What `sendmsg` says: the other end has gone.
    pub fn send(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sent =
            rustix::net::sendmsg(self.0.as_fd(), &[IoSlice::new(b"f")], &mut control, SendFlags::NOSIGNAL)?;
        if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Waits for the descriptor that the listener sends, close-on-exec; no longer than `limit`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the listener closed without sending one; `TimedOut`; what `recvmsg` says.
    pub fn receive(self, limit: Option<Duration>) -> io::Result<OwnedFd> {
        self.0.set_read_timeout(limit)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut byte)];
            match rustix::net::recvmsg(self.0.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                other => break other?.bytes,
            }
        };
        let mut fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd = fds.by_ref().flatten().next();
        fd.filter(|_| received == 1).ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the listener closed without handing anything over")
        })
    }
}
