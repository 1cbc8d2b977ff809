//! What a new process runs: its program file, arguments and environment.

use crate::broker;
use crate::builder::Builder;
use crate::hook::{self, Marker};
use crate::library;
use mp_sys::process::Child;
use mp_sys::setup::Setup;
use mp_sys::start::{Program, start};
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

static EXECUTABLE: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Makes children run another executable than this process's own: for a library inside a program that is not ours. A relative path is one from
/// the directory that this process works in now.
///
/// That executable must have multiproc's hook. What children run must lie in the same build of the executable, or in a shared library, which
/// the child loads; it is checked there. A library with multiproc linked into it, which a program loads while it runs, must call this before it starts
/// processes: with `/proc/self/exe` if the program itself has the hook, with a program of its own that has it if not, and that is not static. The
/// library must stay loaded, and the copies of multiproc in a process share nothing: handles of one are of no use to the other.
pub fn set_executable(path: impl Into<PathBuf>) {
    let path = path.into();
    let path = std::path::absolute(&path).unwrap_or(path);
    mp_shm::fds::set_starter(broker::start);
    *EXECUTABLE.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
}

/// Starts this program again, for a job.
pub(crate) fn start_self(
    builder: &Builder,
    setup: &Setup,
    inherit: &[BorrowedFd<'_>],
    marker: &Marker,
) -> io::Result<Child> {
    let arguments = strings(std::env::args_os())?;
    let environment = builder.environment(own_environment());
    let environment = entries(environment.into_iter(), &format!("{}={}", hook::MARKER, marker.to_text()))?;
    start(&Program {
        path: &executable()?,
        arguments: &borrowed(&arguments),
        environment: &borrowed(&environment),
        inherit,
        setup,
    })
}

/// Starts this program again with another marker, and nothing else changed.
pub(crate) fn start_plain(marker: &str, inherit: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let arguments = strings(std::env::args_os())?;
    start(&Program {
        path: &executable()?,
        arguments: &borrowed(&arguments),
        environment: &borrowed(&environment(marker)?),
        inherit,
        setup: &Setup::default(),
    })
}

/// The program that children run.
pub(crate) fn executable() -> io::Result<CString> {
    let executable = EXECUTABLE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(match executable {
        Some(path) => CString::new(path.into_os_string().into_vec())?,
        None => c"/proc/self/exe".to_owned(),
    })
}

/// Whether children run another executable, one that was said to have the hook.
pub(crate) fn is_set() -> bool {
    EXECUTABLE.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// The environment of this process, and a marker.
pub(crate) fn environment(marker: &str) -> io::Result<Vec<CString>> {
    entries(own_environment(), marker)
}

fn own_environment() -> impl Iterator<Item = (OsString, OsString)> {
    const OURS: [&str; 4] = [hook::MARKER, hook::ZYGOTE, broker::MARKER, library::MARKER];
    std::env::vars_os().filter(|(name, _)| OURS.iter().all(|ours| name != ours))
}

fn entries(
    environment: impl Iterator<Item = (OsString, OsString)>,
    marker: &str,
) -> io::Result<Vec<CString>> {
    let entries = environment.map(|(name, value)| {
        let mut entry = name;
        entry.push("=");
        entry.push(value);
        entry
    });
    strings(entries.chain([OsString::from(marker)]).chain(library::variable()))
}

fn strings(from: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    from.map(|one| CString::new(one.as_bytes()).map_err(Into::into)).collect()
}

pub(crate) fn borrowed(strings: &[CString]) -> Vec<&CStr> {
    strings.iter().map(CString::as_c_str).collect()
}
