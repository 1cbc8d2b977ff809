//! The parent's side: starting a process and waiting for what its function returns.

use crate::broker;
use crate::code::FnRef;
use crate::error::{JoinError, SpawnError};
use crate::handle::ProcessHandle;
use crate::hook::{self, MARKER, Marker};
use crate::job::{self, Call, Failure, Job, Outcome};
use mp_shm::block::Block;
use mp_shm::codec::{Encoded, Payload, encode};
use mp_shm::fds::FdError;
use mp_shm::handle::Kind;
use mp_shm::{Message, Session};
use mp_sys::deadline::Deadline;
use mp_sys::process::{Child, Ended};
use mp_sys::start::{Program, start};
use std::ffi::{CStr, CString, OsString};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A process that runs a function returning `R`.
///
/// Dropping it lets the process run on; it is reaped when it has ended and the next process is started or dropped.
pub struct Process<R> {
    running: Option<Running>,
    returns: PhantomData<fn() -> R>,
}

#[derive(Debug)]
struct Running {
    child: Arc<Child>,
    session: Session,
    record: Block,
}

/// A process that has not taken its job yet. Should it end before that, no sentinel tells, and what its argument holds must come back:
/// sleepers of this process look after it.
#[derive(Debug)]
struct Start {
    child: Arc<Child>,
    session: Session,
    job: &'static Job,
}

static STARTING: Mutex<Vec<Start>> = Mutex::new(Vec::new());
/// Entries of `STARTING`, to be read without its lock.
static STARTS: AtomicUsize = AtomicUsize::new(0);
/// How soon a sleeper looks at starting processes again; a start takes about a millisecond.
const START_LOOK: Duration = Duration::from_millis(2);

/// Processes whose handle was dropped while they ran.
static DETACHED: Mutex<Vec<Running>> = Mutex::new(Vec::new());
static EXECUTABLE: Mutex<Option<PathBuf>> = Mutex::new(None);
static NONCE: AtomicU64 = AtomicU64::new(1);

/// Makes children run another executable than this process's own: for a library inside a program that is not ours. It must be the same
/// build of the code that is called; that is checked in the child.
pub fn set_executable(path: impl Into<PathBuf>) {
    *EXECUTABLE.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.into());
}

/// The process's pidfd: readable once the process has ended, so that a `select` can wait for it beside channels, sockets and times.
impl<R: Message + 'static> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running().child.pidfd()
    }
}

impl<R: Message + 'static> Process<R> {
    /// Starts a process that runs `f(argument)`.
    ///
    /// `f` is a function or a closure that captures nothing. It runs before the program's `main`, in a process of its own with the
    /// same arguments and environment; the descriptors it inherits are the standard ones alone.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing is left behind.
    ///
    /// # Examples
    /// ```
    /// use mp_spawn::Process;
    /// let child = Process::spawn(|n: u64| n * 2, 21)?;
    /// assert_eq!(child.join()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn<A: Message + 'static>(f: fn(A) -> R, argument: A) -> Result<Self, SpawnError> {
        if !hook::has_run() {
            return Err(SpawnError::NoHook);
        }
        reap_detached();
        let session = Session::current().map_err(SpawnError::Session)?;
        let trampoline = FnRef::<Call, Outcome>::new(job::trampoline::<A, R>);
        let trampoline = trampoline.seal(session).map_err(SpawnError::Code)?;
        let function = FnRef::new(f).seal(session).map_err(SpawnError::Code)?;
        let record = session.allocate(Kind::JOB, size_of::<Job>()).map_err(SpawnError::Session)?;
        let job = job_in(session, &record);
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        job.state.store(job::NEW, Ordering::Relaxed);
        job.nonce.store(nonce, Ordering::Relaxed);
        job.unwanted.store(0, Ordering::Relaxed);
        job.value.clear();
        job.argument.clear();
        for (place, word) in job.trampoline.iter().zip(trampoline).chain(job.function.iter().zip(function)) {
            place.store(word, Ordering::Relaxed);
        }
        let block =
            encode(session, &argument, 0).and_then(Encoded::into_block).map_err(SpawnError::Encode)?;
        session.put(&job.argument, block);
        let marker = Marker { fd: session.fd().as_raw_fd(), record: session.record(&record), nonce };
        match start_self(session, marker) {
            Ok(child) => {
                let child = Arc::new(child);
                watch_start(Start { child: child.clone(), session, job });
                let running = Running { child, session, record };
                Ok(Self { running: Some(running), returns: PhantomData })
            }
            Err(error) => {
                take_back(session, job);
                Err(SpawnError::Start(error))
            }
        }
    }

    /// Waits until the process has ended; gives what its function returned.
    ///
    /// # Errors
    /// [`JoinError`] tells how it ended otherwise.
    pub fn join(mut self) -> Result<R, JoinError> {
        let Some(running) = self.running.take() else { unreachable!("only `join` and `drop` take it") };
        let ended = running.child.reap();
        let value = running.finish();
        let failed = || match ended {
            Ok(Ended::Exited(code)) => JoinError::Exited(code),
            Ok(Ended::Killed { signal, core_dumped }) => JoinError::Killed { signal, core_dumped },
            Err(_) => JoinError::Lost,
        };
        match value {
            Left::Value(payload) => {
                match payload.decode::<Result<R, Failure>>().map_err(JoinError::Decode)? {
                    // A process that delivered its value and then crashed on its way out did not end well.
                    Ok(value) if matches!(ended, Ok(Ended::Exited(0)) | Err(_)) => Ok(value),
                    Ok(_) => Err(failed()),
                    Err(Failure::Panicked(panic)) => Err(JoinError::Panicked(panic)),
                    Err(Failure::Argument(text)) => Err(JoinError::Argument(text)),
                    Err(Failure::Value(text)) => Err(JoinError::Value(text)),
                }
            }
            Left::Refusal(payload) => {
                Err(JoinError::Refused(payload.decode::<String>().unwrap_or_else(|error| error.to_string())))
            }
            Left::Nothing => Err(failed()),
            Left::Untouched => match ended {
                Ok(ended) => Err(JoinError::NotStarted(ended)),
                Err(_) => Err(JoinError::Lost),
            },
        }
    }
}

impl<R> Process<R> {
    fn running(&self) -> &Running {
        self.running
            .as_ref()
            .unwrap_or_else(|| unreachable!("only `join` and `drop` take it, and both consume"))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running().child.pid()
    }

    /// A handle of the process, for other processes: it can be sent, nested anywhere in a message.
    ///
    /// # Errors
    /// [`FdError`]: the session's broker cannot hold the process's descriptor.
    pub fn handle(&self) -> Result<ProcessHandle, FdError> {
        ProcessHandle::of(&self.running().child)
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.running().child.has_ended().unwrap_or(true)
    }

    /// Waits for the end of the process for at most `timeout`; says whether it has ended. [`join`](Self::join) then does not block.
    ///
    /// # Errors
    /// [`JoinError::Wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, JoinError> {
        self.running().child.wait_ended(Some(Deadline::after(timeout))).map_err(JoinError::Wait)
    }

    /// Asks the process to end (SIGTERM). Nothing happens if it has ended; the signal never reaches another process.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn terminate(&self) -> std::io::Result<()> {
        self.running().child.terminate()
    }

    /// Ends the process (SIGKILL). Nothing happens if it has ended; the signal never reaches another process.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kill(&self) -> std::io::Result<()> {
        self.running().child.kill()
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let job = job_in(running.session, &running.record);
            running.session.set(&job.unwanted, 1);
            // What it has delivered already is unwanted, too.
            drop(running.session.take_back(&job.value).map(Payload::in_block));
            DETACHED.lock().unwrap_or_else(PoisonError::into_inner).push(running);
            reap_detached();
        }
    }
}

/// What a process left in its record.
enum Left {
    Value(Payload),
    Refusal(Payload),
    /// It took its job and left nothing.
    Nothing,
    /// It never took its job.
    Untouched,
}

impl Running {
    /// Takes what the process left; it has ended.
    fn finish(&self) -> Left {
        // What it held comes back now, not at the next wait.
        self.session.recover_dead();
        let job = job_in(self.session, &self.record);
        forget_start(job);
        let state = job.state.load(Ordering::Acquire);
        take_back(self.session, job);
        let value = self.session.take_back(&job.value).map(Payload::in_block);
        match (state, value) {
            (job::DONE, Some(payload)) => Left::Value(payload),
            (job::REFUSED, Some(payload)) => Left::Refusal(payload),
            (job::NEW, _) => Left::Untouched,
            _ => Left::Nothing,
        }
    }
}

fn job_in(session: Session, record: &Block) -> &'static Job {
    job::at(session, record.offset()).unwrap_or_else(|| unreachable!("a block allocated for a job holds one"))
}

fn watch_start(start: Start) {
    mp_shm::starts::set_look(look_after_starts);
    let session = start.session;
    let mut starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    starting.push(start);
    STARTS.store(starting.len(), Ordering::Release);
    drop(starting);
    // Who sleeps now does not look after it yet.
    session.wake_sleepers();
}

/// Takes back the arguments of processes that ended without taking them; says when to look again.
fn look_after_starts() -> Option<Duration> {
    if STARTS.load(Ordering::Acquire) == 0 {
        return None;
    }
    // Another thread looks: enough to look again later.
    let Ok(mut starting) = STARTING.try_lock() else { return Some(START_LOOK) };
    starting.retain(|start| {
        if start.job.state.load(Ordering::Acquire) != job::NEW {
            return false;
        }
        let ended = start.child.has_ended().unwrap_or(true);
        if ended {
            take_back(start.session, start.job);
        }
        !ended
    });
    STARTS.store(starting.len(), Ordering::Release);
    (!starting.is_empty()).then_some(START_LOOK)
}

/// Before the record of a process is used for something else.
fn forget_start(job: &Job) {
    let mut starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    starting.retain(|start| !std::ptr::eq(start.job, job));
    STARTS.store(starting.len(), Ordering::Release);
}

/// Drops the argument that no child will take any more.
fn take_back(session: Session, job: &Job) {
    drop(session.take_back(&job.argument).map(Payload::in_block));
}

/// Reaps the processes whose handle was dropped and which have ended since.
fn reap_detached() {
    let mut detached = DETACHED.lock().unwrap_or_else(PoisonError::into_inner);
    detached.retain(|running| {
        let ended = running.child.has_ended().unwrap_or(true);
        if ended {
            // Nobody asks for its status any more.
            let _ = running.child.reap();
            drop(running.finish());
        }
        !ended
    });
}

fn start_self(session: Session, marker: Marker) -> std::io::Result<Child> {
    let arguments = strings(std::env::args_os())?;
    let environment = environment(&format!("{MARKER}={}", marker.to_text()))?;
    start(&Program {
        path: &executable()?,
        arguments: &borrowed(&arguments),
        environment: &borrowed(&environment),
        inherit: &[session.fd()],
    })
}

/// The program that children run.
pub(crate) fn executable() -> std::io::Result<CString> {
    let executable = EXECUTABLE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(match executable {
        Some(path) => CString::new(path.into_os_string().into_vec())?,
        None => c"/proc/self/exe".to_owned(),
    })
}

/// The environment of this process, and a marker.
pub(crate) fn environment(marker: &str) -> std::io::Result<Vec<CString>> {
    let ours = |name: &OsString| name == MARKER || name == broker::MARKER;
    let environment = std::env::vars_os().filter(|(name, _)| !ours(name)).map(|(name, value)| {
        let mut entry = name;
        entry.push("=");
        entry.push(value);
        entry
    });
    strings(environment.chain([OsString::from(marker)]))
}

fn strings(from: impl Iterator<Item = OsString>) -> std::io::Result<Vec<CString>> {
    from.map(|one| CString::new(one.as_bytes()).map_err(Into::into)).collect()
}

pub(crate) fn borrowed(strings: &[CString]) -> Vec<&CStr> {
    strings.iter().map(CString::as_c_str).collect()
}
