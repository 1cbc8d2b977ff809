//! How a process is to be started, beyond its function and argument.

use crate::error::SpawnError;
use crate::forkserver::{self, ForkServer};
use crate::method::{self, StartMethod};
use crate::process::Process;
use mp_shm::{Message, Session};
use mp_sys::cpu::MASK_WORDS;
pub use mp_sys::setup::Resource;
use mp_sys::setup::{Limit, Setup};
use mp_sys::start::above_standard;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

/// What a standard descriptor of a new process is.
#[derive(Clone, Debug, Default)]
pub enum Stdio {
    /// That of this process.
    #[default]
    Inherit,
    /// The null device: empty, and swallowing all.
    Null,
    /// A pipe whose other end is here; see [`Process::stdin`](field@Process::stdin).
    Piped,
    /// This file, or what else the descriptor stands for.
    File(Arc<OwnedFd>),
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        Self::File(Arc::new(file.into()))
    }
}

impl From<OwnedFd> for Stdio {
    fn from(descriptor: OwnedFd) -> Self {
        Self::File(Arc::new(descriptor))
    }
}

/// Starts processes that are to differ from this one in something. Each setting is made by the child itself before its program starts, or by the
/// kernel; no code of this program runs in between.
///
/// # Examples
/// ```
/// use mp_spawn::{Process, Stdio};
/// use std::io::Read;
///
/// let mut child = Process::<()>::builder()
///     .name("greeter")
///     .env("NAME", "Ada")
///     .stdout(Stdio::Piped)
///     .niceness(10)
///     .daemon(true)
///     .spawn(|()| println!("hello {}", std::env::var("NAME").unwrap()), ())?;
/// let mut said = String::new();
/// child.stdout.take().unwrap().read_to_string(&mut said)?;
/// child.join()?;
/// assert!(said.contains("hello Ada"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is started before `spawn`"]
pub struct Builder {
    pub(crate) name: Option<String>,
    pub(crate) is_daemon: bool,
    pub(crate) kills_on_drop: bool,
    pub(crate) clears_environment: bool,
    /// With `None` for those to remove.
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    directory: Option<PathBuf>,
    standard: [Stdio; 3],
    pub(crate) inherit: Vec<Arc<OwnedFd>>,
    group: Option<u32>,
    niceness: Option<i32>,
    processors: Option<Vec<usize>>,
    limits: Vec<(Resource, u64)>,
    pub(crate) session: Option<Session>,
    method: Option<StartMethod>,
    server: Option<ForkServer>,
}

/// Who makes a process.
pub(crate) enum Way<'a> {
    Execute,
    Serve(&'a ForkServer),
    Copy,
}

/// This process's ends of the pipes to a child's standard descriptors.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<PipeWriter>,
    pub(crate) stdout: Option<PipeReader>,
    pub(crate) stderr: Option<PipeReader>,
}

impl Builder {
    /// Nothing but what [`Process::spawn`] does.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its name: what [`Child::name`](crate::Child::name) tells here and [`current`](crate::current) there, and how its main thread is called in
    /// the system's lists (the first 15 bytes). A null byte in it is an error at the start.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether it is a daemon: killed when this process ends, however that comes about. Others are waited for when `main` returns, and outlive a
    /// parent that is killed.
    pub fn daemon(mut self, yes: bool) -> Self {
        self.is_daemon = yes;
        self
    }

    /// Whether it is killed and reaped when its [`Process`] is dropped without having been joined.
    pub fn kill_on_drop(mut self, yes: bool) -> Self {
        self.kills_on_drop = yes;
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Leaves a variable out of its environment.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    /// Leaves all of this process's environment out of its own. What [`env`](Self::env) sets, before or after this, stays.
    pub fn env_clear(mut self) -> Self {
        self.clears_environment = true;
        self
    }

    /// Its working directory.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Its standard input.
    pub fn stdin(self, stdio: impl Into<Stdio>) -> Self {
        self.standard(0, stdio.into())
    }

    /// Its standard output.
    pub fn stdout(self, stdio: impl Into<Stdio>) -> Self {
        self.standard(1, stdio.into())
    }

    /// Its standard error.
    pub fn stderr(self, stdio: impl Into<Stdio>) -> Self {
        self.standard(2, stdio.into())
    }

    fn standard(mut self, number: usize, stdio: Stdio) -> Self {
        self.standard[number] = stdio;
        self
    }

    /// A descriptor that it has, too, under the same number; above 2. (Descriptors inside of messages need none of this: see [`mp_shm::Fd`].)
    pub fn inherit(mut self, descriptor: OwnedFd) -> Self {
        self.inherit.push(Arc::new(descriptor));
        self
    }

    /// The process group that it joins; 0 for a new one, which it leads: signals from the terminal do not reach it then.
    pub fn process_group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// How much it gives way to others: −20 (goes first; takes a privilege) to 19.
    pub fn niceness(mut self, niceness: i32) -> Self {
        self.niceness = Some(niceness);
        self
    }

    /// The processors that it may run on, 0 to 1023.
    pub fn processors(mut self, processors: impl IntoIterator<Item = usize>) -> Self {
        self.processors = Some(processors.into_iter().collect());
        self
    }

    /// Limits its use of something, soft and hard. A limit of [`AddressSpace`](Resource::AddressSpace) is what it may use besides the session's
    /// memory, which takes much address space and hardly any memory; it holds from when the child has joined the session.
    pub fn limit(mut self, resource: Resource, most: u64) -> Self {
        self.limits.push((resource, most));
        self
    }

    /// The session that its argument and its value travel in, and that is its [current](Session::current) one; without this, the current one of this
    /// process. It is attached to no other, so a process that is trusted less can be given one with nothing in it but what it needs: make
    /// the channels of its argument there. (Should it have a further one, too, send it that session's descriptor as an [`mp_shm::Fd`].)
    pub fn session(mut self, session: Session) -> Self {
        self.session = Some(session);
        self
    }

    /// How it is started; without this, as [`set_start_method`](crate::set_start_method) says.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = Some(method);
        self
    }

    /// Has it started by this fork server.
    pub fn fork_server(mut self, server: &ForkServer) -> Self {
        self.server = Some(server.clone());
        self.start_method(StartMethod::ForkServer)
    }

    /// How it is started here and now.
    pub(crate) fn way(&self) -> Way<'_> {
        match self.method.unwrap_or_else(method::start_method) {
            StartMethod::ForkServer if forkserver::are_supported() => {
                Way::Serve(self.server.as_ref().unwrap_or_else(|| forkserver::default_server()))
            }
            StartMethod::Spawn | StartMethod::ForkServer => Way::Execute,
            StartMethod::Fork => Way::Copy,
        }
    }

    /// Starts a process that runs `f(argument)`; see [`Process::spawn`].
    ///
    /// # Errors
    /// [`SpawnError`]; nothing is left behind. A setting that cannot be made (no such directory, no privilege) is a
    /// [`SpawnError::Start`], which names it.
    pub fn spawn<A: Message + 'static, R: Message + 'static>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<Process<R>, SpawnError> {
        Process::start(self, f, argument)
    }

    /// The limit of address space, if there is one.
    pub(crate) fn address_space(&self) -> Option<u64> {
        let last = self.limits.iter().rfind(|(resource, _)| *resource == Resource::AddressSpace);
        last.map(|&(_, most)| most)
    }

    /// Its environment, given that of this process.
    pub(crate) fn environment(
        &self,
        inherited: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        let mut result: Vec<_> = if self.clears_environment { Vec::new() } else { inherited.collect() };
        for (name, value) in &self.environment {
            result.retain(|(known, _)| known != name);
            result.extend(value.iter().map(|value| (name.clone(), value.clone())));
        }
        result
    }

    /// Refuses what cannot be a name of a process, or a name or value of a variable, whatever the start method would make of it.
    fn check_texts(&self) -> io::Result<()> {
        let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if self.name.as_ref().is_some_and(|name| name.contains('\0')) {
            return refused("a name with a null byte");
        }
        let has = |text: &OsString, byte| text.as_bytes().contains(&byte);
        for (name, value) in &self.environment {
            if name.is_empty()
                || has(name, 0)
                || has(name, b'=')
                || value.as_ref().is_some_and(|value| has(value, 0))
            {
                return refused("no name or value of a variable");
            }
        }
        Ok(())
    }

    /// What the child does to itself, and this process's ends of its pipes.
    pub(crate) fn setup(&self) -> io::Result<(Setup, Pipes)> {
        self.check_texts()?;
        let mut setup = Setup {
            directory: match &self.directory {
                Some(directory) => Some(CString::new(directory.clone().into_os_string().into_vec())?),
                None => None,
            },
            group: self.group,
            niceness: self.niceness,
            processors: self.processors.as_deref().map(mask).transpose()?,
            ..Setup::default()
        };
        let now = self.limits.iter().filter(|(resource, _)| *resource != Resource::AddressSpace);
        setup.limits = now.map(|&(resource, most)| Limit { resource, soft: most, hard: most }).collect();
        let mut pipes = Pipes::default();
        for (number, stdio) in self.standard.iter().enumerate() {
            setup.standard[number] = match stdio {
                Stdio::Inherit => None,
                Stdio::Null => {
                    let null = File::options().read(true).write(true).open("/dev/null")?;
                    Some(above_standard(null)?)
                }
                Stdio::File(file) => Some(above_standard(file.as_fd())?),
                Stdio::Piped => Some(pipes.pipe(number)?),
            };
        }
        for descriptor in &self.inherit {
            if descriptor.as_raw_fd() <= 2 {
                let text = "a standard descriptor is passed by `stdin`, `stdout` or `stderr`";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        Ok((setup, pipes))
    }
}

impl Pipes {
    /// Makes the pipe of a standard descriptor; gives the child's end.
    fn pipe(&mut self, number: usize) -> io::Result<OwnedFd> {
        let (reader, writer) = io::pipe()?;
        let theirs = if number == 0 {
            self.stdin = Some(writer);
            above_standard(reader)?
        } else {
            let ours = if number == 1 { &mut self.stdout } else { &mut self.stderr };
            *ours = Some(reader);
            above_standard(writer)?
        };
        Ok(theirs)
    }
}

fn mask(processors: &[usize]) -> io::Result<[u64; MASK_WORDS]> {
    let mut mask = [0; MASK_WORDS];
    for &processor in processors {
        let word = mask.get_mut(processor / 64);
        let word = word.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no such processor"))?;
        *word |= 1 << (processor % 64);
    }
    Ok(mask)
}
