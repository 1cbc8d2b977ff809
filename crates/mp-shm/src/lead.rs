//! The thread that stands for this process in its domains: one that ends only with the process.
//!
//! Owns: one parked thread a process, started when a thread other than the main one comes first. A sentinel is linked into the list of the
//! thread that links it, so whatever links a *lead* sentinel is run here.

use mp_sys::{fork, robust};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};

type Work = Box<dyn FnOnce() + Send>;

/// The parked thread, and the process it was started in: a fork leaves it behind.
static PARKED: Mutex<Option<(u32, Sender<Work>)>> = Mutex::new(None);

/// Runs `work` on a thread that lives as long as the process: on the main thread if this is it, or on the parked one.
///
/// # Errors
/// The parked thread could not be started, or `work` panicked on it.
pub(crate) fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if robust::tid() == fork::pid() {
        return Ok(work());
    }
    let (tell, told) = mpsc::channel();
    let mut parked = PARKED.lock().unwrap_or_else(PoisonError::into_inner);
    let queue = match &*parked {
        Some((pid, queue)) if *pid == fork::pid() => queue.clone(),
        _ => {
            let queue = start()?;
            *parked = Some((fork::pid(), queue.clone()));
            queue
        }
    };
    drop(parked);
    let ended = || io::Error::other("the thread that stands for this process panicked");
    // Whoever asked may be gone by then; the work was done all the same.
    queue.send(Box::new(move || drop(tell.send(work())))).map_err(|_| ended())?;
    told.recv().map_err(|_| ended())
}

fn start() -> io::Result<Sender<Work>> {
    let (queue, works) = mpsc::channel::<Work>();
    let park = move || {
        // `PARKED` keeps a sender for ever: this does not end.
        for work in works {
            // The thread must not end, whatever happens; who asked finds that there is no answer.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(work));
        }
    };
    mp_sys::process::with_signals_blocked(|| {
        std::thread::Builder::new().name("mp-sentinel".to_owned()).stack_size(128 << 10).spawn(park)
    })?;
    Ok(queue)
}
