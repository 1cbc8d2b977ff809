//! Start methods: the ways in which a process comes to be.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// How processes are started.
///
/// | | `spawn` | `forkserver` |
/// |---|---|---|
/// | a new process is | this program, executed anew | a copy of a small process that was executed anew once |
/// | costs | about a millisecond | half as much |
/// | has of this process | its environment, directory, limits as they are | as they were when the server was started |
/// | has besides | nothing | what the server's [preload](crate::ForkServer::with_preload) function made |
///
/// With both, what is set with a [`Builder`](crate::Builder) is set, no descriptor is inherited but those named, and no memory but the session's.
/// `fork` is not among them: a copy of a process whose other threads are gone holds their locks for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// Executes the program anew.
    #[default]
    Spawn,
    /// Has a [`ForkServer`](crate::ForkServer) copy itself. Where there can be none (a kernel without `CONFIG_CHECKPOINT_RESTORE`, no `/proc`) it is
    /// as `Spawn`.
    ForkServer,
}

impl fmt::Display for StartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spawn => "spawn",
            Self::ForkServer => "forkserver",
        })
    }
}

/// No start method has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownStartMethod(String);

impl fmt::Display for UnknownStartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no start method is called `{}`: there are `spawn` and `forkserver`", self.0)
    }
}

impl std::error::Error for UnknownStartMethod {}

impl FromStr for StartMethod {
    type Err = UnknownStartMethod;

    fn from_str(name: &str) -> Result<Self, UnknownStartMethod> {
        match name {
            "spawn" => Ok(Self::Spawn),
            "forkserver" => Ok(Self::ForkServer),
            other => Err(UnknownStartMethod(other.to_owned())),
        }
    }
}

static DEFAULT: AtomicU8 = AtomicU8::new(0);

/// Makes `method` the one of this process for all that does not say otherwise. (For a part of a program: a [`Builder`](crate::Builder) that is kept, and
/// cloned for each process.)
pub fn set_start_method(method: StartMethod) {
    DEFAULT.store(u8::from(method == StartMethod::ForkServer), Ordering::Relaxed);
}

/// The method by which this process starts others when nothing else is said.
#[must_use]
pub fn start_method() -> StartMethod {
    if DEFAULT.load(Ordering::Relaxed) == 0 { StartMethod::Spawn } else { StartMethod::ForkServer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a19_names_are_those_of_methods_and_no_others() {
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        let error = "fork-server".parse::<StartMethod>().unwrap_err();
        assert!(error.to_string().contains("`fork-server`"), "{error}");
    }
}
