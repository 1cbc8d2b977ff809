//! What can go wrong with starting a process and with what it does.

use crate::code::CodeError;
use crate::panics::Panic;
use mp_shm::codec::{DecodeError, EncodeError};
use mp_shm::error::SessionError;
use mp_sys::process::{Ended, signal_name};
use std::{fmt, io};

/// A process was not started.
#[derive(Debug)]
pub enum SpawnError {
    /// This program's children could not find their job: the hook has not run.
    NoHook,
    /// The caller's copy of multiproc lies in a shared library of this path. The hook in that does nothing, so that it takes no job of the
    /// executable's.
    InLibrary(String),
    /// No memory in the session, or no part in it.
    Session(SessionError),
    /// The function cannot be named to another process.
    Code(CodeError),
    /// The argument could not be encoded.
    Encode(EncodeError),
    /// The operating system did not start it.
    Start(io::Error),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHook => f.write_str(
                "starting a process: multiproc's hook has not run in this program, so a child would not find its job; \
                 call multiproc::init() first thing in main, or build with the feature `constructor` (a default) \
                 and link multiproc into the executable itself",
            ),
            Self::InLibrary(path) => write!(
                f,
                "starting a process: the library {path} has a copy of multiproc of its own, whose children would not find their job; \
                 start processes from the executable, which may name functions of the library, or call set_executable with a program \
                 that has multiproc's hook (/proc/self/exe if this one has) first"
            ),
            Self::Session(error) => write!(f, "starting a process: {error}"),
            Self::Code(error) => write!(f, "starting a process: {error}"),
            Self::Encode(error) => write!(f, "starting a process: {error}"),
            Self::Start(error) => write!(f, "starting a process: {error}"),
        }
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoHook | Self::InLibrary(_) => None,
            Self::Session(error) => Some(error),
            Self::Code(error) => Some(error),
            Self::Encode(error) => Some(error),
            Self::Start(error) => Some(error),
        }
    }
}

/// A process did not return a value.
#[derive(Debug)]
pub enum JoinError {
    /// The function panicked; or, where panics abort, another thread of the process.
    Panicked(Panic),
    /// It exited with this code before the function returned.
    Exited(i32),
    /// A signal ended it before the function returned.
    Killed {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
        /// Whether the kernel has ended processes for lack of memory while this one ran, so that its SIGKILL may have been one of these.
        out_of_memory: bool,
    },
    /// It ended before it took its job: the executable does not link multiproc, was killed while it started, or could not attach.
    NotStarted(Ended),
    /// It could not run the function: another build, a program file it cannot find. The text says what to do.
    Refused(String),
    /// It could not decode its argument.
    Argument(String),
    /// It could not encode the function's value.
    Value(String),
    /// The value arrived but could not be decoded.
    Decode(DecodeError),
    /// Somebody else reaped the process (does the program ignore SIGCHLD?), and it left no value.
    Lost,
    /// Its value was given to an earlier call.
    Taken,
    /// Waiting for it failed.
    Wait(io::Error),
}

impl JoinError {
    /// The number of the signal that ended the process, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Killed { signal, .. } | Self::NotStarted(Ended::Killed { signal, .. }) => Some(*signal),
            _ => None,
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(panic) => write!(f, "the process panicked: {panic}"),
            Self::Exited(code) => {
                write!(f, "the process exited with code {code} before its function returned")
            }
            Self::Killed { signal, core_dumped, out_of_memory } => {
                let core = if *core_dumped { ", core dumped" } else { "" };
                let memory =
                    if *out_of_memory { ", maybe because the machine ran out of memory" } else { "" };
                write!(f, "the process was killed by {} ({signal}){core}{memory}", signal_name(*signal))
            }
            Self::NotStarted(Ended::Exited(code)) => write!(
                f,
                "the process exited with code {code} before it took its job; does its executable link multiproc?"
            ),
            Self::NotStarted(Ended::Killed { signal, .. }) => write!(
                f,
                "the process was killed by {} ({signal}) before it took its job",
                signal_name(*signal)
            ),
            Self::Refused(text) => write!(f, "the process could not run its function: {text}"),
            Self::Argument(text) => write!(f, "the process could not decode its argument: {text}"),
            Self::Value(text) => write!(f, "the process could not encode its function's value: {text}"),
            Self::Decode(error) => write!(f, "the process's value: {error}"),
            Self::Lost => f.write_str("the process was reaped by somebody else; its status is lost"),
            Self::Taken => f.write_str("the process's value was already taken"),
            Self::Wait(error) => write!(f, "waiting for the process: {error}"),
        }
    }
}

impl std::error::Error for JoinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Decode(error) => Some(error),
            Self::Wait(error) => Some(error),
            _ => None,
        }
    }
}
