//! The parent's side: starting a process and waiting for what its function returns.

use crate::builder::{Builder, Pipes, Way};
use crate::child::{self, Child};
use crate::code::FnRef;
use crate::error::{JoinError, SpawnError};
use crate::forkserver;
use crate::handle::ProcessHandle;
use crate::hook::{self, Errand, Marker};
use crate::job::{self, Call, Failure, Job, Outcome};
use crate::panics::Panic;
use crate::program::start_self;
use crate::starting;
use mp_shm::block::Block;
use mp_shm::codec::{Encoded, Payload, encode};
use mp_shm::fds::FdError;
use mp_shm::handle::Kind;
use mp_shm::{Message, Session};
use mp_sys::lifeline::{Lifeline, lifeline};
use mp_sys::poll::Interest;
use mp_sys::poller;
use mp_sys::process::Ended;
use mp_sys::setup::Setup;
use mp_sys::start::above_standard;
use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// A process that runs a function returning `R`. What can be done without knowing `R` is in [`Child`], which it dereferences to: waiting for
/// its end, signalling it.
///
/// Dropping it lets the process run on; it is reaped when it has ended and the next process is started or dropped. When `main` returns, the
/// program still waits for it, unless it is [detached](Child::detach) or a [daemon](Builder::daemon).
pub struct Process<R> {
    /// This process's end of the pipe to the child's standard input, if there is one. Joining closes it.
    pub stdin: Option<PipeWriter>,
    /// This process's end of the pipe from the child's standard output, if there is one. A child that nobody reads from waits once the pipe
    /// is full (64 KiB).
    pub stdout: Option<PipeReader>,
    /// As [`stdout`](Self::stdout), of standard error.
    pub stderr: Option<PipeReader>,
    child: Child,
    /// `None` once its value was given to whoever asked.
    running: Option<Running>,
    kills_on_drop: bool,
    returns: PhantomData<fn() -> R>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    session: Session,
    record: Block,
}

/// Processes whose handle was dropped while they ran.
static DROPPED: Mutex<Vec<Running>> = Mutex::new(Vec::new());
static NONCE: AtomicU64 = AtomicU64::new(1);

impl Process<()> {
    /// For processes that are to differ from this one in more than what they run: see [`Builder`].
    pub fn builder() -> Builder {
        Builder::new()
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
        Self::start(&Builder::new(), f, argument)
    }

    pub(crate) fn start<A: Message + 'static>(
        builder: &Builder,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<Self, SpawnError> {
        hook::check()?;
        reap_dropped();
        let session = builder.session.map_or_else(Session::current, Ok).map_err(SpawnError::Session)?;
        child::arrange_exit().map_err(SpawnError::Start)?;
        let trampoline = FnRef::<Call, Outcome>::new(job::trampoline::<A, R>);
        let trampoline = trampoline.seal(session).map_err(SpawnError::Code)?;
        let function = FnRef::new(f).seal(session).map_err(SpawnError::Code)?;
        let record = session.allocate(Kind::JOB, size_of::<Job>()).map_err(SpawnError::Session)?;
        let job = job_in(session, &record);
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        job.state.store(job::NEW, Ordering::Relaxed);
        job.nonce.store(nonce, Ordering::Relaxed);
        job.unwanted.store(0, Ordering::Relaxed);
        job.address_space.store(builder.address_space().unwrap_or(u64::MAX), Ordering::Relaxed);
        job.value.clear();
        job.argument.clear();
        for (place, word) in job.trampoline.iter().zip(trampoline).chain(job.function.iter().zip(function)) {
            place.store(word, Ordering::Relaxed);
        }
        let block =
            encode(session, &argument, 0).and_then(Encoded::into_block).map_err(SpawnError::Encode)?;
        session.put(&job.argument, block);
        match start_child(builder, session, &record, nonce) {
            Ok((child, Pipes { stdin, stdout, stderr })) => {
                starting::watch(child.clone(), session, job);
                let running = Some(Running { child: child.clone(), session, record });
                let kills_on_drop = builder.kills_on_drop;
                Ok(Self { stdin, stdout, stderr, child, running, kills_on_drop, returns: PhantomData })
            }
            Err(error) => {
                starting::take_back(session, job);
                Err(SpawnError::Start(error))
            }
        }
    }

    /// Waits until the process has ended; gives what its function returned.
    ///
    /// # Errors
    /// [`JoinError`] tells how it ended otherwise.
    pub fn join(mut self) -> Result<R, JoinError> {
        self.stdin = None;
        self.collect()
    }

    /// What the process's function returned, if the process has ended; `None` while it runs. The value is given once:
    /// afterwards this is [`JoinError::Taken`].
    pub fn try_join(&mut self) -> Option<Result<R, JoinError>> {
        (self.running.is_none() || self.child.is_finished()).then(|| self.collect())
    }

    /// [`try_join`](Self::try_join) after waiting for the end of the process for at most `timeout`.
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<Result<R, JoinError>> {
        if self.running.is_some() {
            self.stdin = None;
            match self.child.wait_timeout(timeout) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(JoinError::Wait(error))),
            }
        }
        Some(self.collect())
    }

    /// Waits for its end, and takes what it left.
    fn collect(&mut self) -> Result<R, JoinError> {
        let Some(running) = self.running.take() else { return Err(JoinError::Taken) };
        let ended = running.child.wait();
        let failed = |ended| match ended {
            Ok(Ended::Exited(code)) => JoinError::Exited(code),
            Ok(Ended::Killed { signal, core_dumped }) => {
                let out_of_memory = signal == 9 && running.child.saw_out_of_memory();
                JoinError::Killed { signal, core_dumped, out_of_memory }
            }
            Err(_) => JoinError::Lost,
        };
        match running.finish() {
            Left::Value(payload) => {
                match payload.decode::<Result<R, Failure>>().map_err(JoinError::Decode)? {
                    // A process that delivered its value and then crashed on its way out did not end well.
                    Ok(value) if matches!(ended, Ok(Ended::Exited(0)) | Err(_)) => Ok(value),
                    Ok(_) => Err(failed(ended)),
                    Err(Failure::Panicked(panic)) => Err(JoinError::Panicked(panic)),
                    Err(Failure::Argument(text)) => Err(JoinError::Argument(text)),
                    Err(Failure::Value(text)) => Err(JoinError::Value(text)),
                }
            }
            Left::Refusal(payload) => {
                Err(JoinError::Refused(payload.decode::<String>().unwrap_or_else(|error| error.to_string())))
            }
            Left::LastWords(payload) => {
                Err(payload.decode::<Panic>().map_or_else(JoinError::Decode, JoinError::Panicked))
            }
            Left::Nothing => Err(failed(ended)),
            Left::Untouched => match ended {
                Ok(ended) => Err(JoinError::NotStarted(ended)),
                Err(_) => Err(JoinError::Lost),
            },
        }
    }
}

/// Awaits its end, and gives what [`join`](Process::join) gives. Any runtime will do: one thread of this process waits for all that are awaited.
impl<R: Message + 'static> IntoFuture for Process<R> {
    type Output = Result<R, JoinError>;
    type IntoFuture = JoinFuture<R>;

    fn into_future(mut self) -> JoinFuture<R> {
        self.stdin = None;
        JoinFuture { process: self, registration: None }
    }
}

/// The end of a process to come: see `Process`, which it dereferences to (to kill it, say). Dropping it is as dropping that.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct JoinFuture<R> {
    process: Process<R>,
    registration: Option<poller::Registration>,
}

impl<R> Deref for JoinFuture<R> {
    type Target = Process<R>;

    fn deref(&self) -> &Process<R> {
        &self.process
    }
}

impl<R: Message + 'static> Future for JoinFuture<R> {
    type Output = Result<R, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { process, registration } = self.get_mut();
        *registration = None;
        if let Some(result) = process.try_join() {
            return Poll::Ready(result);
        }
        let fds = [(process.as_fd(), Interest::Read)];
        match poller::register(&fds, None, context.waker().clone()) {
            Ok(registered) => *registration = Some(registered),
            Err(error) => return Poll::Ready(Err(JoinError::Wait(error))),
        }
        Poll::Pending
    }
}

impl<R> Process<R> {
    /// The process without its value, for a list of children of different kinds.
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// A handle of the process, for other processes: it can be sent, nested anywhere in a message.
    ///
    /// # Errors
    /// [`FdError`]: the session's broker cannot hold the process's descriptor.
    pub fn handle(&self) -> Result<ProcessHandle, FdError> {
        ProcessHandle::of(self.child.process())
    }
}

impl<R> Deref for Process<R> {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

/// The process's pidfd: readable once the process has ended, so that a `select` can wait for it beside channels, sockets and times.
impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("pid", &self.pid())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        if self.kills_on_drop && self.child.kill().is_ok() {
            // Nobody asks for its status any more.
            let _ = self.child.wait();
        }
        let job = job_in(running.session, &running.record);
        running.session.set(&job.unwanted, 1);
        // What it has delivered already is unwanted, too.
        drop(running.session.take_back(&job.value).map(Payload::in_block));
        DROPPED.lock().unwrap_or_else(PoisonError::into_inner).push(running);
        reap_dropped();
    }
}

/// What a process left in its record.
enum Left {
    Value(Payload),
    Refusal(Payload),
    /// Of the panic that aborted it.
    LastWords(Payload),
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
        starting::forget(job);
        let state = job.state.load(Ordering::Acquire);
        starting::take_back(self.session, job);
        let value = self.session.take_back(&job.value).map(Payload::in_block);
        match (state, value) {
            (job::DONE, Some(payload)) => Left::Value(payload),
            (job::REFUSED, Some(payload)) => Left::Refusal(payload),
            (job::PANICKED, Some(payload)) => Left::LastWords(payload),
            (job::NEW, _) => Left::Untouched,
            _ => Left::Nothing,
        }
    }
}

fn job_in(session: Session, record: &Block) -> &'static Job {
    job::at(session, record.offset()).unwrap_or_else(|| unreachable!("a block allocated for a job holds one"))
}

/// Reaps the processes whose handle was dropped and which have ended since.
fn reap_dropped() {
    let mut dropped = DROPPED.lock().unwrap_or_else(PoisonError::into_inner);
    dropped.retain(|running| {
        let ended = running.child.is_finished();
        if ended {
            // Nobody asks for its status any more.
            let _ = running.child.wait();
            drop(running.finish());
        }
        !ended
    });
}

/// Starts the process of a job, and puts it into the list of children.
fn start_child(
    builder: &Builder,
    session: Session,
    record: &Block,
    nonce: u64,
) -> io::Result<(Child, Pipes)> {
    let (setup, mut pipes) = builder.setup()?;
    let (mut line, end): (Option<Lifeline>, Option<OwnedFd>) =
        if builder.is_daemon { lifeline().map(|(line, end)| (Some(line), Some(end)))? } else { (None, None) };
    let errand = Errand {
        record: session.record(record),
        nonce,
        parent: std::process::id(),
        name: builder.name.clone().unwrap_or_default(),
    };
    let name = errand.full_name();
    let process = match builder.way() {
        Way::Serve(server) => {
            server.start(builder, &setup, end.as_ref().map(AsFd::as_fd), session, &errand)?
        }
        Way::Execute => execute(builder, &setup, end.as_ref(), session, errand)?,
        Way::Copy => mp_sys::in_place::fork(|| {
            // The parent's ends, of which the copy has copies.
            (line, pipes) = (None, Pipes::default());
            forked(builder, &setup, end, session, &errand)
        })?,
    };
    Ok((Child::new(process, nonce, name, line), pipes))
}

/// In a copy of this process: does its job; the code to exit with.
fn forked(
    builder: &Builder,
    setup: &Setup,
    lifeline: Option<OwnedFd>,
    session: Session,
    errand: &Errand,
) -> i32 {
    hook::guarded(|| {
        child::forsake_all();
        starting::forsake_all();
        forkserver::forsake_all();
        // Their records are the parent's blocks.
        std::mem::take(&mut *DROPPED.lock().unwrap_or_else(PoisonError::into_inner))
            .into_iter()
            .for_each(std::mem::forget);
        forkserver::change_environment(builder.clears_environment, builder.environment.iter().cloned());
        let prepared = mp_sys::setup::apply_here(setup).map_err(|error| error.to_string());
        let is_daemon = lifeline.is_some();
        let session = || session.attach_forked().map_err(|error| error.to_string());
        hook::work(session, errand, is_daemon, lifeline, prepared)
    })
}

fn execute(
    builder: &Builder,
    setup: &Setup,
    lifeline: Option<&OwnedFd>,
    session: Session,
    errand: Errand,
) -> io::Result<mp_sys::process::Child> {
    let file = session.fd();
    // A program without standard descriptors may have it there.
    let above = if file.as_raw_fd() <= 2 { Some(above_standard(file)?) } else { None };
    let file = above.as_ref().map_or(file, AsFd::as_fd);
    let marker = Marker { fd: file.as_raw_fd(), lifeline: lifeline.map(AsRawFd::as_raw_fd), errand };
    let inherit = [Some(file), lifeline.map(AsFd::as_fd)].into_iter().flatten();
    let inherit: Vec<_> = inherit.chain(builder.inherit.iter().map(|fd| fd.as_fd())).collect();
    start_self(builder, setup, &inherit, &marker)
}
