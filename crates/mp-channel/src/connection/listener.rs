//! Where connections come from.
//!
//! Owns: the listening socket and, for a path, its file, which is removed with it if it is still its own.
//! Death: leaves a socket file at which nobody listens; the next listener replaces it.

use super::Connection;
use super::address::Address;
use super::auth::Role;
use super::error::{AcceptError, HandshakeError, ListenError};
use super::handshake::handshake;
use super::options::Options;
use super::peer::Peer;
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use mp_sys::stream::{self, Stop, Stream};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Accepts connections at an [`Address`]. Dropping it ends that and removes its socket file.
///
/// Threads may share it: each connection goes to one of those that accept.
///
/// # Examples
/// ```
/// use mp_channel::connection::{Address, Auth, Connection, Listener};
///
/// let any_port: Address = "localhost:0".parse()?;
/// let listener = Listener::bind(&any_port, Auth::new("the key"))?;
/// let address = listener.address().clone();
/// let client = std::thread::spawn(move || {
///     let mut connection = Connection::connect(&address, Auth::new("the key"))?;
///     connection.send_bytes(b"hello")?;
///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
/// });
/// let mut connection = listener.accept()?;
/// assert_eq!(connection.recv_bytes()?, b"hello");
/// client.join().expect("it does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    socket: stream::Listener,
    address: Address,
    options: Options,
}

impl AsFd for Listener {
    /// The listening socket: readable when somebody has come. It is in non-blocking mode.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Somebody who has come to a [`Listener`] and has proved nothing yet.
///
/// A handshake takes as long as the other end lets it, up to the [limit](Options::handshake_timeout). A listener for many does it
/// in a thread for each.
#[derive(Debug)]
pub struct Incoming {
    stream: Stream,
    options: Options,
}

impl Incoming {
    /// Which process it was that connected, as the system knows it; `None` over TCP.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn peer(&self) -> io::Result<Option<Peer>> {
        Peer::of(&self.stream)
    }

    /// Does the handshake.
    ///
    /// # Errors
    /// [`AcceptError::Handshake`].
    pub fn authenticate(self) -> Result<Connection, AcceptError> {
        self.authenticate_until(None)
    }

    fn authenticate_until(self, deadline: Option<Deadline>) -> Result<Connection, AcceptError> {
        handshake(&self.stream, &self.options, Role::Listener, deadline).map_err(|error| match error {
            HandshakeError::TimedOut if deadline.is_some_and(Deadline::passed) => AcceptError::TimedOut,
            other => AcceptError::Handshake(other),
        })?;
        Ok(Connection::over(self.stream, self.options.max_message_bytes))
    }
}

impl Listener {
    /// Listens at `address`. A socket file at which nobody listens any more is replaced.
    ///
    /// Who may connect to a socket file is up to its directory's permissions and the process's umask, to other addresses everybody on the
    /// machine or the network: the key in `options` is what keeps them out.
    ///
    /// # Errors
    /// [`ListenError::InUse`]; the address is none; what `bind` says.
    pub fn bind(address: &Address, options: impl Into<Options>) -> Result<Self, ListenError> {
        address.check().map_err(ListenError::Address)?;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse,
            _ => ListenError::Io { doing: "binding the socket", error },
        };
        let (socket, address) = match address {
            Address::Unix(path) => (stream::Listener::bind_path(path).map_err(failed)?, address.clone()),
            Address::Abstract(name) => {
                (stream::Listener::bind_abstract(name).map_err(failed)?, address.clone())
            }
            Address::Tcp { host, port } => {
                let (socket, bound) = stream::Listener::bind_tcp(host, *port).map_err(failed)?;
                let host = if bound.ip().is_unspecified() { host.clone() } else { bound.ip().to_string() };
                (socket, Address::Tcp { host, port: bound.port() })
            }
        };
        Ok(Self { socket, address, options: options.into() })
    }

    /// Where it can be reached: over TCP with the address and port that it has got.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits until somebody comes and has done the handshake.
    ///
    /// One who does nothing holds it up for as long as a [handshake may take](Options::handshake_timeout); see
    /// [`incoming`](Self::incoming).
    ///
    /// # Errors
    /// [`AcceptError`]. After one that [is of the peer](AcceptError::is_of_the_peer) go on listening.
    pub fn accept(&self) -> Result<Connection, AcceptError> {
        self.incoming_patiently(Patience::Forever)?.authenticate()
    }

    /// [`accept`](Self::accept), no longer than `timeout` for all of it.
    ///
    /// # Errors
    /// As [`accept`](Self::accept); [`AcceptError::TimedOut`].
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Connection, AcceptError> {
        self.accept_until(Deadline::after(timeout))
    }

    /// [`accept`](Self::accept), until `deadline` at the latest.
    ///
    /// # Errors
    /// As [`accept_timeout`](Self::accept_timeout).
    pub fn accept_deadline(&self, deadline: Instant) -> Result<Connection, AcceptError> {
        self.accept_until(deadline.into())
    }

    fn accept_until(&self, deadline: Deadline) -> Result<Connection, AcceptError> {
        self.incoming_patiently(Patience::Until(deadline))?.authenticate_until(Some(deadline))
    }

    /// Waits until somebody comes; the handshake is [still to be done](Incoming::authenticate).
    ///
    /// # Errors
    /// [`AcceptError::Io`].
    pub fn incoming(&self) -> Result<Incoming, AcceptError> {
        self.incoming_patiently(Patience::Forever)
    }

    /// Somebody who has come already.
    ///
    /// # Errors
    /// As [`incoming`](Self::incoming); [`AcceptError::TimedOut`].
    pub fn try_incoming(&self) -> Result<Incoming, AcceptError> {
        self.incoming_patiently(Patience::None)
    }

    /// [`incoming`](Self::incoming), waiting no longer than `timeout`.
    ///
    /// # Errors
    /// As [`try_incoming`](Self::try_incoming).
    pub fn incoming_timeout(&self, timeout: Duration) -> Result<Incoming, AcceptError> {
        self.incoming_patiently(timeout.into())
    }

    /// [`incoming`](Self::incoming), waiting until `deadline`.
    ///
    /// # Errors
    /// As [`try_incoming`](Self::try_incoming).
    pub fn incoming_deadline(&self, deadline: Instant) -> Result<Incoming, AcceptError> {
        self.incoming_patiently(deadline.into())
    }

    fn incoming_patiently(&self, patience: Patience) -> Result<Incoming, AcceptError> {
        match self.socket.accept(patience) {
            Ok(stream) => Ok(Incoming { stream, options: self.options.clone() }),
            Err(Stop::Late) => Err(AcceptError::TimedOut),
            Err(Stop::Io(error)) => Err(AcceptError::Io(error)),
        }
    }
}
