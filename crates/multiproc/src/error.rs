//! One error for programs that pass them all on with `?`.

use mp_channel::{ChannelError, RecvError, SendError, SendFailure};
use mp_pool::{MapError, PoolError, TaskError};
use mp_shm::error::SessionError;
use mp_shm::fds::FdError;
use mp_spawn::{JoinError, SpawnError};
use std::fmt;

/// What a `main` may return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of this library. Made by `?` from those of the operations; its text is theirs.
#[non_exhaustive]
pub enum Error {
    /// Of a session.
    Session(SessionError),
    /// Of handing on a file descriptor; one that was to be deposited is closed.
    Fd(FdError),
    /// Of making a channel.
    Channel(ChannelError),
    /// Of sending; the value that was not sent is dropped.
    Send(SendFailure),
    /// Of receiving.
    Recv(RecvError),
    /// Of starting a process.
    Spawn(SpawnError),
    /// Of what a process did.
    Join(JoinError),
    /// Of a pool.
    Pool(PoolError),
    /// Of a task.
    Task(TaskError),
    /// Of a `map`.
    Map(MapError),
    /// Of the operating system: waiting for a process or signalling it, writing to its pipe.
    Io(std::io::Error),
}

macro_rules! each {
    ($($variant:ident($of:ty)),* $(,)?) => {
        $(impl From<$of> for Error {
            fn from(error: $of) -> Self {
                Self::$variant(error)
            }
        })*

        impl Error {
            fn inner(&self) -> &(dyn std::error::Error + 'static) {
                match self {
                    $(Self::$variant(error) => error,)*
                }
            }
        }
    };
}

each!(
    Session(SessionError),
    Fd(FdError),
    Channel(ChannelError),
    Send(SendFailure),
    Recv(RecvError),
    Spawn(SpawnError),
    Join(JoinError),
    Pool(PoolError),
    Task(TaskError),
    Map(MapError),
    Io(std::io::Error),
);

impl<T> From<SendError<T>> for Error {
    fn from(error: SendError<T>) -> Self {
        Self::Send(error.failure)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.inner(), f)
    }
}

/// As the text: it is what a `main` that returns the error prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner().source()
    }
}
