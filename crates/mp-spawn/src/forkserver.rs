//! Fork servers: small processes of this program that wait, and copy themselves for each process that is to start.
//!
//! Owns: the clients of each server's zygotes, one for each session, which are started at the first use, and again when they have died. What is copied has the session
//! mapped already, and nothing else that costs time.
//!
//! ```text
//! this process                                the zygote                          the new process
//! starts the zygote, when there is none   →   hook: attaches to the session,
//!                                             runs the preload function
//! rings: it wants a process               →   clones itself                   →   joins the session, waits for its order: the spare
//! has the new process as its child        ←
//! sends an order and descriptors          →   →   →   →   →   →   →   →   →   →   sets up what was ordered, and
//!                                                                                 takes its job, as any other does
//! ```
//!
//! The next process is wanted at the same time, so it is there when the next one starts.
//!
//! Death: of the zygote is found at the next start, which starts another one; processes that run are children of this one and go on. Of this process
//! ends the zygote. Nothing of a job has run when a start fails, so it is safe to try again.

#![expect(unsafe_code, reason = "file descriptors by number, the environment")]

use crate::builder::Builder;
use crate::code::FnRef;
use crate::hook::{self, Errand};
use crate::program;
use mp_shm::Session;
use mp_shm::rkyv::{self, rancor};
use mp_sys::cpu::MASK_WORDS;
use mp_sys::deadline::Deadline;
use mp_sys::process::Child;
use mp_sys::setup::{Limit, Resource, Setup};
use mp_sys::start::above_standard;
use mp_sys::zygote::{self, Client, Request};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How long a zygote may take to answer before it is given up: it was stopped, say.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server without work waits before it ends; the next start makes it anew.
const IDLE: Duration = Duration::from_secs(600);

/// A server that starts processes by copying itself; see [`StartMethod::ForkServer`](crate::StartMethod::ForkServer). A program can have several, with
/// different preload functions. Clones are handles of the same server.
///
/// From its first start on it has two processes: its own, and one that was made ahead and waits for the next start. Both end with this process, and when
/// nobody has started anything for ten minutes.
///
/// # Examples
/// ```
/// use mp_spawn::{ForkServer, Process};
///
/// let server = ForkServer::new();
/// let builder = Process::builder().fork_server(&server);
/// assert_eq!(builder.spawn(|n: u64| n * 2, 21)?.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ForkServer(Arc<Server>);

#[derive(Debug, Default)]
struct Server {
    preload: Option<fn(())>,
    /// One for each session that processes are started in.
    zygotes: Mutex<Vec<Zygote>>,
}

#[derive(Clone, Debug)]
struct Zygote {
    client: Arc<Client>,
    session: Session,
    pid: u32,
}

/// All that are there, and perhaps some that are gone.
static CLIENTS: Mutex<Vec<Weak<Client>>> = Mutex::new(Vec::new());

/// In a copy of the process whose servers they are: closes their sockets here, so that they end with their parent.
pub(crate) fn forsake_all() {
    let clients = std::mem::take(&mut *CLIENTS.lock().unwrap_or_else(PoisonError::into_inner));
    clients.iter().filter_map(Weak::upgrade).for_each(|client| client.forsake());
}

/// Whether there can be fork servers here; asked once.
pub(crate) fn are_supported() -> bool {
    static SUPPORTED: LazyLock<bool> = LazyLock::new(|| zygote::supported().is_ok());
    *SUPPORTED
}

/// The server of those who name none.
pub(crate) fn default_server() -> &'static ForkServer {
    static DEFAULT: LazyLock<ForkServer> = LazyLock::new(ForkServer::new);
    &DEFAULT
}

impl ForkServer {
    /// A server that is started when it is first needed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A server that runs `preload` when it is started, so that all processes have from the beginning what that loads and computes. It must start
    /// no thread, and must not use this library: a server with a second thread refuses to copy itself.
    #[must_use]
    pub fn with_preload(preload: fn(())) -> Self {
        Self(Arc::new(Server { preload: Some(preload), ..Server::default() }))
    }

    /// Its process, if there is one at this moment; the oldest, if it starts processes in [several sessions](Builder::session), for each of which it has
    /// one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.lock().first().map(|zygote| zygote.pid)
    }

    /// Ends its process. Those that it has started go on; the next start makes it anew.
    pub fn end(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Zygote>> {
        self.0.zygotes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process with what `setup` and `builder` say, for `errand`.
    pub(crate) fn start(
        &self,
        builder: &Builder,
        setup: &Setup,
        lifeline: Option<BorrowedFd<'_>>,
        session: Session,
        errand: &Errand,
    ) -> io::Result<Child> {
        let order = Order::new(builder, setup, lifeline.is_some(), errand)?;
        let bytes = rkyv::to_bytes::<rancor::Error>(&order).map_err(io::Error::other)?;
        let standard = setup.standard.iter().flatten().map(AsFd::as_fd);
        let inherit = builder.inherit.iter().map(|fd| fd.as_fd());
        let fds: Vec<_> = standard.chain(lifeline).chain(inherit).collect();
        let asked = |zygote: &Zygote| zygote.client.request(&bytes, &fds, Deadline::after(PATIENCE));
        let zygote = self.zygote(session)?;
        match asked(&zygote) {
            Err(error) if is_of_zygote(&error) => {
                self.give_up(&zygote);
                asked(&self.zygote(session)?)
            }
            started => started,
        }
    }

    /// Its zygote, which is started if there is none for this session.
    fn zygote(&self, session: Session) -> io::Result<Zygote> {
        let mut zygotes = self.lock();
        if let Some(zygote) = zygotes.iter().find(|zygote| zygote.session == session) {
            return Ok(zygote.clone());
        }
        let (ours, its) = zygote::pair()?;
        let file = above_standard(session.fd())?;
        let preload = match self.0.preload {
            Some(preload) => FnRef::new(preload).seal(session).map_err(io::Error::other)?,
            None => [0; 2],
        };
        let marker = Marker {
            socket: its.as_raw_fd(),
            session: file.as_raw_fd(),
            idle_seconds: IDLE.as_secs(),
            preload,
        };
        let marker = format!("{}={}", hook::ZYGOTE, marker.to_text());
        let child = program::start_plain(&marker, &[its.as_fd(), file.as_fd()])?;
        let zygote = Zygote { pid: child.pid(), client: Arc::new(Client::new(ours, child)), session };
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| client.strong_count() != 0);
        clients.push(Arc::downgrade(&zygote.client));
        zygotes.push(zygote.clone());
        Ok(zygote)
    }

    /// Forgets a zygote that is of no use any more, unless somebody has done so already.
    fn give_up(&self, zygote: &Zygote) {
        self.lock().retain(|known| !Arc::ptr_eq(&known.client, &zygote.client));
    }
}

/// Whether a request failed for the zygote's sake, so that another one may do it: it has died, this process was forked, or is in another session
/// of terminals by now.
fn is_of_zygote(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, PermissionDenied, Unsupported};
    matches!(error.kind(), BrokenPipe | PermissionDenied | Unsupported)
}

/// What a new process is told.
#[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
struct Order {
    errand: String,
    clears_environment: bool,
    /// Variables to set, and with `None` to remove.
    environment: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    directory: Option<Vec<u8>>,
    group: Option<u32>,
    niceness: Option<i32>,
    processors: Option<[u64; MASK_WORDS]>,
    /// Places in `Resource::ALL`, soft and hard limits.
    limits: Vec<(u32, u64, u64)>,
    /// Which of the standard descriptors come with it, in this order and first.
    standard: [bool; 3],
    /// Whether one to cling to comes next.
    is_daemon: bool,
    /// The numbers of those that come last.
    inherit: Vec<RawFd>,
}

impl Order {
    fn new(builder: &Builder, setup: &Setup, is_daemon: bool, errand: &Errand) -> io::Result<Self> {
        let bytes = |text: &OsString| text.as_bytes().to_vec();
        let place = |resource| Resource::ALL.iter().position(|&one| one == resource);
        let limits = setup
            .limits
            .iter()
            .filter_map(|limit| Some((u32::try_from(place(limit.resource)?).ok()?, limit.soft, limit.hard)));
        Ok(Self {
            errand: errand.to_text(),
            clears_environment: builder.clears_environment,
            environment: builder
                .environment
                .iter()
                .map(|(name, value)| (bytes(name), value.as_ref().map(bytes)))
                .collect(),
            directory: setup.directory.as_ref().map(|directory| directory.as_bytes().to_vec()),
            group: setup.group,
            niceness: setup.niceness,
            processors: setup.processors,
            limits: limits.collect(),
            standard: setup.standard.each_ref().map(Option::is_some),
            is_daemon,
            inherit: builder.inherit.iter().map(AsRawFd::as_raw_fd).collect(),
        })
    }

    /// Does what it says, with the descriptors that came with it; gives the one to cling to.
    fn obey(self, fds: Vec<OwnedFd>) -> io::Result<Option<OwnedFd>> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "a descriptor is missing");
        let mut fds = above(fds, self.inherit.iter().copied().max().unwrap_or(2).max(2))?.into_iter();
        let mut setup = Setup {
            directory: self.directory.map(CString::new).transpose()?,
            group: self.group,
            niceness: self.niceness,
            processors: self.processors,
            ..Setup::default()
        };
        for (place, is_there) in setup.standard.iter_mut().zip(self.standard) {
            *place = if is_there { Some(fds.next().ok_or_else(missing)?) } else { None };
        }
        let lifeline = if self.is_daemon { Some(fds.next().ok_or_else(missing)?) } else { None };
        for number in self.inherit {
            mp_sys::start::place(&fds.next().ok_or_else(missing)?, number)?;
        }
        let resource = |place: u32| Resource::ALL.get(place as usize).copied();
        let limits = self.limits.into_iter();
        setup.limits = limits
            .filter_map(|(place, soft, hard)| Some(Limit { resource: resource(place)?, soft, hard }))
            .collect();
        let environment = self.environment.into_iter();
        let environment =
            environment.map(|(name, value)| (OsString::from_vec(name), value.map(OsString::from_vec)));
        change_environment(self.clears_environment, environment);
        mp_sys::setup::apply_here(&setup)?;
        Ok(lifeline)
    }
}

/// Changes the environment of this process as a builder says, which has checked the names and values.
pub(crate) fn change_environment(
    clears: bool,
    changes: impl IntoIterator<Item = (OsString, Option<OsString>)>,
) {
    if clears {
        for (name, _) in std::env::vars_os() {
            // SAFETY: a copy of a process has one thread; nobody else reads the environment.
            unsafe { std::env::remove_var(name) };
        }
    }
    for (name, value) in changes {
        match value {
            // SAFETY: as above.
            Some(value) => unsafe { std::env::set_var(name, value) },
            // SAFETY: as above.
            None => unsafe { std::env::remove_var(name) },
        }
    }
}

/// The descriptors again, all with numbers above `most`.
fn above(fds: Vec<OwnedFd>, most: RawFd) -> io::Result<Vec<OwnedFd>> {
    fds.into_iter()
        .map(|fd| if fd.as_raw_fd() > most { Ok(fd) } else { mp_sys::start::above(fd, most) })
        .collect()
}

/// What a zygote is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marker {
    socket: RawFd,
    session: RawFd,
    idle_seconds: u64,
    /// Zeros for none.
    preload: [u64; 2],
}

impl Marker {
    fn to_text(self) -> String {
        let Self { socket, session, idle_seconds, preload: [first, second] } = self;
        format!("{socket}:{session}:{idle_seconds}:{first}:{second}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let descriptor = |text: &str| text.parse().ok().filter(|&fd: &RawFd| fd > 2);
        let (socket, session) = (descriptor(parts.next()?)?, descriptor(parts.next()?)?);
        let idle_seconds = parts.next()?.parse().ok()?;
        let preload = [parts.next()?.parse().ok()?, parts.next()?.parse().ok()?];
        let marker = Self { socket, session, idle_seconds, preload };
        (parts.next().is_none() && socket != session).then_some(marker)
    }
}

/// Is a zygote until nobody asks any more; why it could not be one. In a process that it makes this does not return.
pub(crate) fn run(marker: &str) -> Result<(), String> {
    let marker = Marker::parse(marker).ok_or("the marker in the environment is not one of multiproc's")?;
    // SAFETY: whoever started this process passed this descriptor for this alone; nothing else here has opened any yet, or knows of it.
    let socket = unsafe { OwnedFd::from_raw_fd(marker.socket) };
    // SAFETY: as above; it is another one.
    let file = unsafe { OwnedFd::from_raw_fd(marker.session) };
    let text = |error: io::Error| error.to_string();
    mp_sys::process::open_standard().map_err(text)?;
    mp_sys::process::ignore_sigpipe();
    mp_sys::process::close_on_exec(&socket).map_err(text)?;
    mp_sys::process::close_on_exec(&file).map_err(text)?;
    mp_sys::process::name_thread("forkserver");
    let session = Session::attach(file).map_err(|error| error.to_string())?;
    let preload = (marker.preload != [0; 2]).then(|| FnRef::<(), ()>::unseal(session, marker.preload));
    let preload = preload.transpose().map_err(|error| error.to_string())?;
    // Also with nothing to load: the first catching of panics sets things up, which need not be done anew in each process.
    crate::panics::catch(|| preload.map_or((), |preload| preload.call(())))
        .map_err(|panic| format!("the preload function: {panic}"))?;
    zygote::end_when_idle(&socket, Duration::from_secs(marker.idle_seconds)).map_err(text)?;
    rehearse(session);
    // A spare is a participant of the session already. If it cannot be one yet, its job tries again.
    let prepare = || {
        if session.me().is_ok() {
            rehearse(session);
            crate::job::rehearse(session);
        }
    };
    zygote::serve(socket, prepare, |request| born(session, request)).map_err(text)
}

/// Calls a function as a job does. A zygote that has done so has what that looks up, and so have its copies; a copy that has done so has the pages of code in its
/// memory, one by one: with those of [`job::rehearse`](crate::job::rehearse) a third of what a start takes.
fn rehearse(session: Session) {
    fn nothing((): ()) {}
    let sealed = FnRef::<(), ()>::new(nothing).seal(session);
    // If this fails, a job fails, too, and tells.
    if let Ok(Ok(nothing)) = sealed.map(|sealed| FnRef::<(), ()>::unseal(session, sealed)) {
        nothing.call(());
    }
}

/// In a new process: does its job; the code to exit with.
fn born(session: Session, request: io::Result<Request>) -> i32 {
    hook::guarded(|| {
        let request = request.map_err(|error| format!("receiving the order: {error}"))?;
        let order = rkyv::from_bytes::<Order, rancor::Error>(&aligned(&request.bytes));
        let mut order = order.map_err(|error| error.to_string())?;
        let errand = std::mem::take(&mut order.errand);
        let errand = Errand::parse(&errand).ok_or("the order has no errand")?;
        let is_daemon = order.is_daemon;
        let (lifeline, prepared) = match order.obey(request.fds) {
            Ok(lifeline) => (lifeline, Ok(())),
            Err(error) => (None, Err(error.to_string())),
        };
        hook::work(|| Ok(session), &errand, is_daemon, lifeline, prepared)
    })
}

fn aligned(bytes: &[u8]) -> rkyv::util::AlignedVec {
    let mut aligned = rkyv::util::AlignedVec::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    aligned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_survives_its_text_and_nonsense_is_none() {
        let marker = Marker { socket: 3, session: 4, idle_seconds: 600, preload: [u64::MAX, 1] };
        assert_eq!(Marker::parse(&marker.to_text()), Some(marker));
        for text in ["", "3:4:1:2", "3:3:1:2:3", "2:3:1:2:3", "3:4:1:2:3:4", "3:4:-1:2:3"] {
            assert_eq!(Marker::parse(text), None, "{text}");
        }
    }
}
