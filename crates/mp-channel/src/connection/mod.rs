//! Connections between unrelated programs, over local sockets and TCP; a Python program can be the other end.
//!
//! A [`Listener`] accepts at an [`Address`], a [`Connection`] is made to it; both ends prove that they know the same key. Then whole
//! messages travel both ways: [bytes](Connection::send_bytes), [values](Connection::send_value), and over local sockets
//! [descriptors](Connection::send_fd).
//!
//! ```text
//! address    where; text and back                    frame      messages on a stream of bytes; pure
//! listener   accepts                                 auth       who may talk; pure
//! reader     the receiving half                      handshake  auth over a stream
//! writer     the sending half
//! ```
//!
//! The system calls are [`mp_sys::stream`]'s.
//!
//! On the wire it is CPython's `multiprocessing.connection`, framing and challenge: `Client((host, port), authkey=key)` and
//! `Listener(path, authkey=key)` of Python 3.12 and newer talk to this as they are, older ones with [`Auth::allow_md5`]. To and from
//! Python use `send_bytes` and `recv_bytes`; Python's `send` and `recv` speak pickle, which can run any code and is not read here.
//!
//! What arrives is input: lengths are bounded before memory is asked for, values are validated, the handshake has a time limit. What it
//! does not give is secrecy, nor a proof that bytes were not changed on the way: across machines, put it through a tunnel.
//!
//! Signals are not seen by any call here, and a closed other end is an error, never SIGPIPE.
//!
//! Limits: a message of 1 GiB unless [set otherwise](Options::max_message_bytes); one handshake at a time in [`Listener::accept`]
//! ([`Listener::incoming`] for more); resolving a host name takes what it takes, whatever the time-out.
//!
//! Source: the CPython library reference, section "Listeners and Clients" of `multiprocessing`.

mod address;
mod forms;
mod handshake;
mod listener;
mod options;
mod peer;
mod reader;
mod value;
mod writer;

#[doc(hidden)]
pub mod auth;
pub mod error;
#[doc(hidden)]
pub mod frame;

pub use address::{Address, AddressError, NAME_BYTES_MAX};
pub use auth::{Auth, Refusal};
pub use error::{AcceptError, ConnectError, HandshakeError, ListenError, RecvError, SendError};
pub use frame::FrameError;
pub use listener::{Incoming, Listener};
pub use options::{HANDSHAKE_TIMEOUT, MAX_MESSAGE_BYTES, Options};
pub use peer::Peer;
pub use reader::Reader;
pub use value::{Plain, from_bytes, to_bytes};
pub use writer::Writer;

use auth::Role;
use forms::{forms, try_form};
use handshake::handshake;
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use mp_sys::stream::{Stop, Stream};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection to another program, for messages both ways.
///
/// It is used by one thread at a time; [`split`](Self::split) gives two halves for two threads.
///
/// # Examples
/// ```
/// use mp_channel::connection::Connection;
///
/// let (mut one, mut other) = Connection::pair()?;
/// one.send_bytes(b"bytes")?;
/// one.send_value(&("a value".to_owned(), 5_u64))?;
/// assert_eq!(other.recv_bytes()?, b"bytes");
/// assert_eq!(other.recv_value::<(String, u64)>()?, ("a value".to_owned(), 5));
/// drop(one);
/// assert!(other.recv_bytes().unwrap_err().is_disconnected());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    reader: Reader,
    writer: Writer,
}

impl AsFd for Connection {
    /// The socket: readable when something, not necessarily a whole message, has arrived. Whoever reads from it or writes to it breaks
    /// messages apart.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Connection {
    /// Connects to who listens at `address`, waiting as long as it takes.
    ///
    /// # Errors
    /// [`ConnectError`]: nobody listens there, the keys differ, what the system says.
    ///
    /// # Examples
    /// ```no_run
    /// use mp_channel::connection::{Auth, Connection};
    ///
    /// let mut connection = Connection::connect(&"/run/app/socket".parse()?, Auth::new("the key"))?;
    /// connection.send_bytes(b"hello")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(address: &Address, options: impl Into<Options>) -> Result<Self, ConnectError> {
        Self::connect_until(address, &options.into(), None)
    }

    /// [`connect`](Self::connect), handshake included, within `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`ConnectError::TimedOut`].
    pub fn connect_timeout(
        address: &Address,
        options: impl Into<Options>,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        Self::connect_until(address, &options.into(), Some(Deadline::after(timeout)))
    }

    /// [`connect`](Self::connect), handshake included, until `deadline` at the latest.
    ///
    /// # Errors
    /// As [`connect_timeout`](Self::connect_timeout).
    pub fn connect_deadline(
        address: &Address,
        options: impl Into<Options>,
        deadline: Instant,
    ) -> Result<Self, ConnectError> {
        Self::connect_until(address, &options.into(), Some(deadline.into()))
    }

    fn connect_until(
        address: &Address,
        options: &Options,
        deadline: Option<Deadline>,
    ) -> Result<Self, ConnectError> {
        address.check().map_err(ConnectError::Address)?;
        let stream = match address {
            Address::Unix(path) => Stream::connect_path(path, deadline),
            Address::Abstract(name) => Stream::connect_abstract(name, deadline),
            Address::Tcp { host, port } => Stream::connect_tcp(host, *port, deadline),
        };
        let stream = stream.map_err(|stop| match stop {
            Stop::Late => ConnectError::TimedOut,
            Stop::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ConnectError::Nobody(error),
                _ => ConnectError::Io(error),
            },
        })?;
        handshake(&stream, options, Role::Client, deadline).map_err(|error| match error {
            HandshakeError::TimedOut if deadline.is_some_and(Deadline::passed) => ConnectError::TimedOut,
            other => ConnectError::Handshake(other),
        })?;
        Ok(Self::over(stream, options.max_message_bytes))
    }

    /// Two ends of one local connection. Nobody else can be at it, so there is no handshake; messages have up to
    /// [`MAX_MESSAGE_BYTES`].
    ///
    /// # Errors
    /// [`ConnectError::Io`]: too many descriptors are open, say.
    pub fn pair() -> Result<(Self, Self), ConnectError> {
        let [one, other] = Stream::pair().map_err(ConnectError::Io)?;
        Ok((Self::over(one, MAX_MESSAGE_BYTES), Self::over(other, MAX_MESSAGE_BYTES)))
    }

    fn over(stream: Stream, max_message_bytes: u64) -> Self {
        let stream = Arc::new(stream);
        Self {
            reader: Reader::new(Arc::clone(&stream), max_message_bytes),
            writer: Writer::new(stream, max_message_bytes),
        }
    }

    /// The two halves, for two threads. When the writer is dropped, the other end finds the end; the reader can go on.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// Which process is at the other end, as the system knows it; `None` over TCP.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn peer(&self) -> io::Result<Option<Peer>> {
        self.reader.peer()
    }

    /// Whether something whole can be received without waiting: a message, or a descriptor. Waits for it for `timeout`.
    ///
    /// # Errors
    /// As [`recv_bytes`](Self::recv_bytes): above all [`RecvError::Disconnected`] when nothing will ever come.
    pub fn poll(&mut self, timeout: Duration) -> Result<bool, RecvError> {
        self.reader.poll(timeout)
    }

    /// [`poll`](Self::poll) until `deadline`.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn poll_deadline(&mut self, deadline: Instant) -> Result<bool, RecvError> {
        self.reader.poll_deadline(deadline)
    }

    forms! {
        /// See [`Writer::send_bytes`].
        ///
        /// # Errors
        /// [`SendError`].
        send_bytes, send_bytes_timeout, send_bytes_deadline
        (self => self.writer, message: &[u8]) -> Result<(), SendError> = bytes_patiently
    }
    forms! {
        /// See [`Writer::send_value`].
        ///
        /// # Errors
        /// [`SendError`].
        send_value, send_value_timeout, send_value_deadline
        <T>(self => self.writer, value: &T) -> Result<(), SendError> = value_patiently
    }
    forms! {
        /// See [`Writer::send_fd`].
        ///
        /// # Errors
        /// [`SendError`].
        send_fd, send_fd_timeout, send_fd_deadline
        (self => self.writer, fd: BorrowedFd<'_>) -> Result<(), SendError> = fd_patiently
    }
    forms! {
        /// See [`Reader::recv_bytes`].
        ///
        /// # Errors
        /// [`RecvError`].
        recv_bytes, recv_bytes_timeout, recv_bytes_deadline
        (self => self.reader) -> Result<Vec<u8>, RecvError> = bytes_patiently
    }
    try_form! { try_recv_bytes, recv_bytes (self => self.reader) -> Result<Vec<u8>, RecvError> = bytes_patiently }
    forms! {
        /// See [`Reader::recv_bytes_into`].
        ///
        /// # Errors
        /// [`RecvError`].
        recv_bytes_into, recv_bytes_into_timeout, recv_bytes_into_deadline
        (self => self.reader, buffer: &mut [u8]) -> Result<usize, RecvError> = buffer_patiently
    }
    try_form! {
        try_recv_bytes_into, recv_bytes_into
        (self => self.reader, buffer: &mut [u8]) -> Result<usize, RecvError> = buffer_patiently
    }
    forms! {
        /// See [`Reader::recv_value`].
        ///
        /// # Errors
        /// [`RecvError`].
        recv_value, recv_value_timeout, recv_value_deadline
        <T>(self => self.reader) -> Result<T, RecvError> = value_patiently
    }
    try_form! { try_recv_value, recv_value <T>(self => self.reader) -> Result<T, RecvError> = value_patiently }
    forms! {
        /// See [`Reader::recv_fd`].
        ///
        /// # Errors
        /// [`RecvError`].
        recv_fd, recv_fd_timeout, recv_fd_deadline
        (self => self.reader) -> Result<OwnedFd, RecvError> = fd_patiently
    }
    try_form! { try_recv_fd, recv_fd (self => self.reader) -> Result<OwnedFd, RecvError> = fd_patiently }
}
