//! Waiting for several things at once: receivers, senders, what is [`Waitable`], file descriptors, times.
//!
//! [`select!`](crate::select!) does one operation of several, whichever can be done first. [`Select`] tells which can be done, for sets
//! that are made while the program runs. Both wait by sleeping, and as futures: [`Select::ready_async`].
//!
//! To be *ready* means that the operation would not wait: it succeeds, or the other end is gone. Somebody else may be faster; then the
//! operation says so, and one waits again.
//!
//! Costs: nothing but one word of the session for any number of channels. When a file descriptor takes part, a thread of the process
//! sleeps on that word and rings an event descriptor; only then.
//!
//! Death: as with each operation by itself: the end of the other side is an event that ends the wait.

use crate::bells::{self, Round};
use crate::dynamic::{DynReceiver, DynSender};
pub use crate::source::Source;
use crate::{Receiver, Sender, reactor, spsc};
use mp_shm::Session;
use mp_shm::death::Slept;
use mp_shm::error::SessionError;
use mp_sync::patience::Patience;
use mp_sync::spin::Spin;
use mp_sync::{Armed, Waitable};
use mp_sys::atomic::AtomicU32;
use mp_sys::backstop::Backstop;
use mp_sys::deadline::Deadline;
use mp_sys::futex::Watch;
pub use mp_sys::poll::Interest;
use mp_sys::poll::{EventFd, poll};
use mp_sys::poller;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Why nothing became ready.
#[derive(Debug)]
pub enum SelectError {
    /// Nothing was ready (`try_ready`), or became so until the time was over.
    TimedOut,
    /// There is nothing to wait for: it would be for ever.
    Nothing,
    /// A file descriptor cannot be waited for.
    Fd(io::Error),
    /// This process has no part in a channel's session.
    Session(SessionError),
}

impl SelectError {
    /// Whether nothing was ready in the time given.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut)
    }
}

impl fmt::Display for SelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("waiting for one of several: none was ready in time"),
            Self::Nothing => f.write_str("waiting for one of several: there is none"),
            Self::Fd(error) => write!(f, "waiting for one of several: a file descriptor: {error}"),
            Self::Session(error) => write!(f, "waiting for one of several: {error}"),
        }
    }
}

impl std::error::Error for SelectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TimedOut | Self::Nothing => None,
            Self::Fd(error) => Some(error),
            Self::Session(error) => Some(error),
        }
    }
}

/// An end of a channel that one can wait for: all senders and receivers are, and references to them.
pub trait Selectable {
    /// The end as something that becomes ready.
    fn selected(&self) -> Source;
}

impl<E: Selectable + ?Sized> Selectable for &E {
    fn selected(&self) -> Source {
        (**self).selected()
    }
}

impl<E: Selectable + ?Sized> Selectable for &mut E {
    fn selected(&self) -> Source {
        (**self).selected()
    }
}

macro_rules! selectable {
    ($([$($param:ident)?] $end:ty),* $(,)?) => {$(
        impl<$($param)?> Selectable for $end {
            fn selected(&self) -> Source {
                self.source()
            }
        }
    )*};
}

selectable!([T] Sender<T>, [T] Receiver<T>, [T] spsc::Sender<T>, [T] spsc::Receiver<T>, [] DynSender, [] DynReceiver);

enum Member<'a> {
    End(Source),
    /// With its turn as it was when it was last told.
    Waitable(&'a dyn Waitable, Cell<u32>),
    Fd(BorrowedFd<'a>, Interest),
    At(Deadline),
}

/// A set of things to wait for. Members can be added and removed between waits; each has a number, which is told when it is ready.
///
/// If several are ready they take turns.
///
/// # Examples
/// ```
/// use mp_channel::{Select, channel};
///
/// let (words, words_out) = channel::<String>(4)?;
/// let (numbers, numbers_out) = channel::<u64>(4)?;
/// let mut select = Select::new();
/// let (word, number) = (select.end(&words_out), select.end(&numbers_out));
/// numbers.send(7).map_err(|error| error.failure)?;
/// assert_eq!(select.ready()?, number);
/// assert_eq!(numbers_out.try_recv()?, 7);
/// drop(words);
/// assert_eq!(select.ready()?, word);
/// assert!(words_out.try_recv().unwrap_err().is_disconnected());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Select<'a> {
    members: Vec<Option<Member<'a>>>,
    spin: Spin,
    /// Where the next look begins.
    turn: Cell<usize>,
}

impl fmt::Debug for Select<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select").field("members", &self.len()).finish_non_exhaustive()
    }
}

/// What a look found: a member that is ready, or nothing.
type Found = Result<Option<usize>, SelectError>;

impl<'a> Select<'a> {
    /// Without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, member: Member<'a>) -> usize {
        self.members.push(Some(member));
        self.members.len() - 1
    }

    /// Adds an end of a channel: a receiver is ready when there is a message, a sender when there is room, both when the other end is gone.
    /// Gives its number.
    ///
    /// As long as it is a member the end counts as held, also when what it was made of is dropped: the other side is not told that all are gone
    /// before it is removed, or the `Select` is dropped.
    ///
    /// The sender of a rendezvous (capacity 0) is ready when a receiver is asleep in `recv` or one of its forms. One that waits by select, or as a
    /// future, is not seen: two selects never meet.
    pub fn end(&mut self, end: &impl Selectable) -> usize {
        self.add(Member::End(end.selected()))
    }

    /// Adds an event, a latch, or what else can be waited for. Gives its number.
    pub fn waitable(&mut self, waitable: &'a dyn Waitable) -> usize {
        let turn = Cell::new(waitable.turn());
        self.add(Member::Waitable(waitable, turn))
    }

    /// Adds a file descriptor: a socket, a process's pidfd. Gives its number.
    pub fn fd(&mut self, fd: &'a impl AsFd, interest: Interest) -> usize {
        self.add(Member::Fd(fd.as_fd(), interest))
    }

    /// Adds a time, at which the member is ready. Gives its number.
    pub fn at(&mut self, time: Instant) -> usize {
        self.add(Member::At(time.into()))
    }

    /// Adds the time `timeout` from now. Gives its number.
    pub fn after(&mut self, timeout: Duration) -> usize {
        self.add(Member::At(Deadline::after(timeout)))
    }

    /// Removes the member of this number; says whether it was there. Numbers are not used again.
    pub fn remove(&mut self, number: usize) -> bool {
        self.members.get_mut(number).is_some_and(|member| member.take().is_some())
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.iter().flatten().count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until a member is ready, as long as it takes; gives its number.
    ///
    /// # Errors
    /// [`SelectError`]
    pub fn ready(&mut self) -> Result<usize, SelectError> {
        self.ready_patiently(Patience::Forever)
    }

    /// The number of a member that is ready now.
    ///
    /// # Errors
    /// [`SelectError`]
    pub fn try_ready(&mut self) -> Result<usize, SelectError> {
        self.ready_patiently(Patience::None)
    }

    /// [`ready`](Self::ready) for at most `timeout`.
    ///
    /// # Errors
    /// [`SelectError`]
    pub fn ready_timeout(&mut self, timeout: Duration) -> Result<usize, SelectError> {
        self.ready_patiently(Patience::Until(Deadline::after(timeout)))
    }

    /// [`ready`](Self::ready) until `deadline`.
    ///
    /// # Errors
    /// [`SelectError`]
    pub fn ready_deadline(&mut self, deadline: Instant) -> Result<usize, SelectError> {
        self.ready_patiently(deadline.into())
    }

    /// Waits as a future until a member is ready; gives its number. Needs no particular runtime. Dropping the future undoes nothing: nothing
    /// was done.
    pub fn ready_async(&mut self) -> Ready<'_, 'a> {
        Ready { select: self, waiting: None }
    }

    fn ready_patiently(&mut self, patience: Patience) -> Result<usize, SelectError> {
        if let Some(number) = self.find()? {
            return Ok(number);
        }
        match patience {
            Patience::None => {
                self.ends().for_each(Source::recover_dead_owners);
                return self.find()?.ok_or(SelectError::TimedOut);
            }
            Patience::Forever if self.is_empty() => return Err(SelectError::Nothing),
            Patience::Forever | Patience::Until(_) => {}
        }
        if self.ends().next().is_some_and(|end| end.session().has_other_processors()) {
            let found = self.spin.spin(|| self.find().transpose());
            if let Some(found) = found {
                return found;
            }
        }
        let until = patience.deadline();
        let number =
            if self.fds().next().is_some() { self.sleep_beside_fds(until) } else { self.sleep(until) };
        number?.ok_or(SelectError::TimedOut)
    }

    fn ends(&self) -> impl Iterator<Item = &Source> {
        self.members.iter().flatten().filter_map(|member| match member {
            Member::End(source) => Some(source),
            _ => None,
        })
    }

    fn waitables(&self) -> impl Iterator<Item = &'a dyn Waitable> {
        self.members.iter().flatten().filter_map(|member| match member {
            Member::Waitable(waitable, _) => Some(*waitable),
            _ => None,
        })
    }

    fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'a>, Interest)> {
        self.members.iter().flatten().filter_map(|member| match member {
            Member::Fd(fd, interest) => Some((*fd, *interest)),
            _ => None,
        })
    }

    /// The first time at which a wait must end: a member's, or the caller's.
    fn first_time(&self, until: Option<Deadline>) -> Option<Deadline> {
        let times = self.members.iter().flatten().filter_map(|member| match member {
            Member::At(time) => Some(*time),
            _ => None,
        });
        times.chain(until).min()
    }

    /// A member that is ready; they take turns.
    fn find(&self) -> Found {
        let fds: Vec<_> = self.fds().collect();
        let mut ready_fds = if fds.is_empty() {
            Vec::new()
        } else {
            poll(&fds, Some(Deadline::now())).map_err(SelectError::Fd)?
        }
        .into_iter();
        let ready: Vec<usize> = (0..self.members.len())
            .filter(|&number| match &self.members[number] {
                None => false,
                Some(Member::End(source)) => source.is_ready(),
                Some(Member::Waitable(one, turn)) => one.is_ready() || one.turn() != turn.get(),
                Some(Member::Fd(..)) => ready_fds.next().unwrap_or(false),
                Some(Member::At(time)) => time.passed(),
            })
            .collect();
        let turn = self.turn.get();
        let number = ready.iter().find(|&&number| number >= turn).or(ready.first()).copied();
        if let Some(number) = number {
            self.turn.set(number + 1);
            if let Some(Member::Waitable(one, turn)) = &self.members[number] {
                turn.set(one.turn());
            }
        }
        Ok(number)
    }

    /// Sleeps on words until a member is ready or `until` has passed.
    fn sleep(&self, until: Option<Deadline>) -> Found {
        let mut backstop = Backstop::new();
        let first = self.first_time(until);
        loop {
            let round = Round::begin(self.ends().map(Source::place)).map_err(SelectError::Session)?;
            let armed: Vec<Armed<'_>> = self.waitables().map(Waitable::arm).collect();
            bells::look();
            self.ends().for_each(Source::recover_dead_owners);
            if let Some(number) = self.find()? {
                return Ok(Some(number));
            }
            if until.is_some_and(Deadline::passed) {
                return Ok(None);
            }
            let words = || armed.iter().flat_map(Armed::words);
            let slept =
                round.sleep(words(), first, &mut backstop, Session::current).map_err(SelectError::Session)?;
            let is_late = first.is_some_and(Deadline::passed);
            if slept == Slept::TimedOut && !is_late && self.find()?.is_some() {
                round.count_if_lost(words());
            }
        }
    }

    /// Sleeps in `poll` until a member is ready or `until` has passed; the reactor rings for channels and waitables.
    fn sleep_beside_fds(&self, until: Option<Deadline>) -> Found {
        let event = Arc::new(EventFd::new().map_err(SelectError::Fd)?);
        let first = self.first_time(until);
        loop {
            event.quiet();
            let armed: Vec<Armed<'_>> = self.waitables().map(Waitable::arm).collect();
            let registration = self.register(&armed, Waker::from(event.clone()))?;
            if let Some(number) = self.find()? {
                return Ok(Some(number));
            }
            if until.is_some_and(Deadline::passed) {
                return Ok(None);
            }
            let mut polled: Vec<_> = self.fds().collect();
            polled.push((event.as_fd(), Interest::Read));
            poll(&polled, first).map_err(SelectError::Fd)?;
            drop(registration);
        }
    }

    /// Registers all ends and armed waitables with the reactor, and arms them: the caller looks afterwards.
    fn register(
        &self,
        armed: &[Armed<'_>],
        waker: Waker,
    ) -> Result<Option<reactor::Registration>, SelectError> {
        let sources: Vec<Source> = self.ends().cloned().collect();
        let words: Vec<(&'static AtomicU32, u32)> =
            armed.iter().flat_map(Armed::words).filter_map(lasting).collect();
        if sources.is_empty() && words.is_empty() {
            return Ok(None);
        }
        let registration = reactor::register(sources, words, waker).map_err(SelectError::Fd)?;
        // Not to sleep on: the reactor does. What comes from here on rings a bell.
        Round::begin(self.ends().map(Source::place)).map_err(SelectError::Session)?;
        bells::look();
        self.ends().for_each(Source::recover_dead_owners);
        Ok(Some(registration))
    }
}

/// A word that a waitable is watched by, for somebody who may watch it for longer than the waitable lives.
fn lasting(watch: Watch<'_>) -> Option<(&'static AtomicU32, u32)> {
    match watch {
        Watch::Word(word, seen) => mp_shm::place::lasting(word).map(|word| (word, seen)),
        Watch::Low(..) => None,
    }
}

/// The future of [`Select::ready_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Ready<'s, 'a> {
    select: &'s mut Select<'a>,
    waiting: Option<Waiting<'a>>,
}

/// What a future that waits has registered.
#[derive(Debug)]
struct Waiting<'a> {
    _armed: Vec<Armed<'a>>,
    _ends: Option<reactor::Registration>,
    _fds: Option<poller::Registration>,
}

impl Future for Ready<'_, '_> {
    type Output = Result<usize, SelectError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.waiting = None;
        let select = &*this.select;
        if let Some(number) = select.find()? {
            return Poll::Ready(Ok(number));
        }
        if select.is_empty() {
            return Poll::Ready(Err(SelectError::Nothing));
        }
        let armed: Vec<Armed<'_>> = select.waitables().map(Waitable::arm).collect();
        let ends = select.register(&armed, context.waker().clone())?;
        let fds: Vec<_> = select.fds().collect();
        let time = select.first_time(None);
        let fds = if fds.is_empty() && time.is_none() {
            None
        } else {
            Some(poller::register(&fds, time, context.waker().clone()).map_err(SelectError::Fd)?)
        };
        if let Some(number) = select.find()? {
            return Poll::Ready(Ok(number));
        }
        this.waiting = Some(Waiting { _armed: armed, _ends: ends, _fds: fds });
        Poll::Pending
    }
}

/// For [`select!`](crate::select!).
///
/// # Panics
/// As there.
#[doc(hidden)]
#[must_use]
pub fn found(result: Result<usize, SelectError>) -> usize {
    result.unwrap_or_else(|error| panic!("{error}"))
}
