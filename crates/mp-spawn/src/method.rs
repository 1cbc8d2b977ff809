//! Start methods: the ways in which a process comes to be.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// How processes are started.
///
/// | | `spawn` | `forkserver` | `fork` |
/// |---|---|---|---|
/// | a new process is | this program, executed anew | a copy of a small process that was executed anew once | a copy of this process |
/// | costs | about a millisecond | half as much | the more, the more memory this process uses |
/// | has of this process | its environment, directory, limits as they are | as they were when the server was started | everything |
/// | has besides | nothing | what the server's [preload](crate::ForkServer::with_preload) function made | |
///
/// With all of them, what is set with a [`Builder`](crate::Builder) is set. With the first two no descriptor is inherited but those named, and no memory
/// but the session's.
///
/// # The hazards of `fork`
/// - The copy has the calling thread alone, while what other threads had locked stays locked in it for ever. So it is refused when this process has other
///   threads, also those of libraries; a test of `cargo test` has some.
/// - It has all descriptors of this process, also those that are close-on-exec. The reader of a pipe whose other end was copied does not see its end.
/// - What this process had of this library (channels, locks, processes, sessions that it was attached to) is still this process's: used in the
///   copy, it tells so by an error. What the copy is to have comes in its argument.
/// - Handlers that the program has registered with `atexit` run at the end of the copy, too. What was buffered for output is written out before.
/// - The copy runs its function on top of the caller's stack and never returns there: nothing on it is dropped in the copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// Executes the program anew.
    #[default]
    Spawn,
    /// Has a [`ForkServer`](crate::ForkServer) copy itself. Where there can be none (a kernel without `CONFIG_CHECKPOINT_RESTORE`, no `/proc`) it is
    /// as `Spawn`.
    ForkServer,
    /// Copies this process, which must have one thread.
    Fork,
}

impl StartMethod {
    const ALL: [Self; 3] = [Self::Spawn, Self::ForkServer, Self::Fork];
}

impl fmt::Display for StartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spawn => "spawn",
            Self::ForkServer => "forkserver",
            Self::Fork => "fork",
        })
    }
}

/// No start method has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownStartMethod(String);

impl fmt::Display for UnknownStartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no start method is called `{}`: there are `spawn`, `forkserver` and `fork`", self.0)
    }
}

impl std::error::Error for UnknownStartMethod {}

impl FromStr for StartMethod {
    type Err = UnknownStartMethod;

    fn from_str(name: &str) -> Result<Self, UnknownStartMethod> {
        let known = Self::ALL.into_iter().find(|method| method.to_string() == name);
        known.ok_or_else(|| UnknownStartMethod(name.to_owned()))
    }
}

/// A place in `StartMethod::ALL`.
static DEFAULT: AtomicU8 = AtomicU8::new(StartMethod::Spawn as u8);

/// Makes `method` the one of this process for all that does not say otherwise. (For a part of a program: a [`Builder`](crate::Builder) that is kept, and
/// cloned for each process.)
pub fn set_start_method(method: StartMethod) {
    DEFAULT.store(method as u8, Ordering::Relaxed);
}

/// The method by which this process starts others when nothing else is said.
#[must_use]
pub fn start_method() -> StartMethod {
    StartMethod::ALL[usize::from(DEFAULT.load(Ordering::Relaxed))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a19_names_are_those_of_methods_and_no_others() {
        for (place, method) in StartMethod::ALL.into_iter().enumerate() {
            assert_eq!(method.to_string().parse(), Ok(method));
            assert_eq!(method as usize, place);
        }
        let error = "fork-server".parse::<StartMethod>().unwrap_err();
        assert!(error.to_string().contains("`fork-server`"), "{error}");
    }
}
