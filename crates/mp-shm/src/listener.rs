//! Attaching from a program that was started by nobody of the session: by a socket that hands the session's file over.
//!
//! ```text
//! listener                                          program that connects
//! listens at a path, or at an abstract `@name`      connects; looks that the listener is of the same user
//! accepts; looks that it is of the same user        waits
//! hands the file over (SCM_RIGHTS), or closes       attaches: the file is checked as any that is handed over
//! ```
//!
//! Owns: the socket and its file. Whoever is let in is trusted fully, as any process of the session.
//! Death: of the listener leaves a socket file that the next listener replaces; who has attached stays.

use crate::error::SessionError;
use crate::session::Session;
use mp_sys::deadline::Deadline;
use mp_sys::socket::{Connection, Listener};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// Hands the session to programs of this user that [connect](Session::connect). Dropping it ends that.
#[derive(Debug)]
pub struct SessionListener {
    session: Session,
    socket: Listener,
}

/// A session could not be handed over or reached.
#[derive(Debug)]
pub enum ListenError {
    /// Somebody listens there already, or something else is there.
    InUse,
    /// The program at the other end belongs to another user.
    OtherUser(u32),
    /// Nobody came, or answered, in the time given.
    TimedOut,
    /// The file that was handed over is no session that this process can attach to.
    Session(SessionError),
    /// The system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("listening for a session: the address is in use"),
            Self::OtherUser(user) => write!(f, "handing over a session: the other program is of user {user}"),
            Self::TimedOut => f.write_str("handing over a session: the time is over"),
            Self::Session(error) => error.fmt(f),
            Self::Io { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Session(error) => Some(error),
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> ListenError {
    move |error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse,
        io::ErrorKind::TimedOut => ListenError::TimedOut,
        _ => ListenError::Io { doing, error },
    }
}

impl Session {
    /// Attaches to the session whose file `fd` is; again is no harm. The same as [`attach`](Self::attach).
    ///
    /// The descriptor can come from anywhere: inherited, sent over a socket, opened through `/proc`.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn from_fd(fd: OwnedFd) -> Result<Self, SessionError> {
        Self::attach(fd)
    }

    /// Listens at `address` for programs that want to attach: a path, or a name in the abstract namespace if it begins with `@`. A socket
    /// file that a dead listener left is replaced.
    ///
    /// # Errors
    /// [`ListenError::InUse`]; what `bind` says.
    pub fn listen(self, address: impl AsRef<Path>) -> Result<SessionListener, ListenError> {
        let socket = Listener::bind(address.as_ref()).map_err(io_error("listening for a session"))?;
        Ok(SessionListener { session: self, socket })
    }

    /// Attaches to the session that is handed over at `address`, waiting for the listener as long as it takes.
    ///
    /// # Errors
    /// Nobody listens there, or it is another user; [`ListenError::Session`].
    pub fn connect(address: impl AsRef<Path>) -> Result<Self, ListenError> {
        Self::connect_patiently(address.as_ref(), None)
    }

    /// [`connect`](Self::connect), waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`ListenError::TimedOut`].
    pub fn connect_timeout(address: impl AsRef<Path>, limit: Duration) -> Result<Self, ListenError> {
        // Zero would mean no limit.
        Self::connect_patiently(address.as_ref(), Some(limit.max(Duration::from_millis(1))))
    }

    fn connect_patiently(address: &Path, limit: Option<Duration>) -> Result<Self, ListenError> {
        let (connection, listener) =
            Connection::to(address).map_err(io_error("connecting to a session's listener"))?;
        if listener.user != mp_sys::process::user() {
            return Err(ListenError::OtherUser(listener.user));
        }
        let fd = connection.receive(limit).map_err(io_error("receiving a session"))?;
        Self::attach(fd).map_err(ListenError::Session)
    }
}

impl SessionListener {
    /// Waits for a program that connects, and hands it the session; gives its process id.
    ///
    /// # Errors
    /// [`ListenError::OtherUser`]: it was turned away. What goes wrong with one program is no reason to stop listening.
    pub fn accept_one(&self) -> Result<u32, ListenError> {
        self.accept_patiently(None)
    }

    /// [`accept_one`](Self::accept_one), waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`accept_one`](Self::accept_one); [`ListenError::TimedOut`].
    pub fn accept_one_timeout(&self, limit: Duration) -> Result<u32, ListenError> {
        self.accept_patiently(Some(Deadline::after(limit)))
    }

    fn accept_patiently(&self, deadline: Option<Deadline>) -> Result<u32, ListenError> {
        loop {
            let accepted = self.socket.accept(deadline).map_err(io_error("accepting a program"))?;
            let (connection, peer) = accepted.ok_or(ListenError::TimedOut)?;
            if peer.user != mp_sys::process::user() {
                return Err(ListenError::OtherUser(peer.user));
            }
            match connection.send(self.session.fd()) {
                // It has gone again: died, or only looked whether anybody listens here.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                }
                other => {
                    other.map_err(io_error("handing over a session"))?;
                    return Ok(peer.pid);
                }
            }
        }
    }
}
