//! The broker: a process that holds descriptors for those of its session.
//!
//! It is started by the first deposit and adopted by whoever adopts orphans. It maps the session and takes no part in it: no sentinel,
//! no ledger, no entry.
//!
//! ```text
//! what happens                       what it does
//! a deposit                          holds the descriptor if its object is there, or says that it has no room
//! a fetch                            sends a duplicate
//! a nudge, or anything else          closes what is held for objects that are gone
//! a participant dies                 takes back what that held (recovery), looks again, looks who is left
//! nobody uses the session            ends
//! ```
//!
//! *Who is left.* Every process that has the session's file open or mapped has part in a shared lock of it, the kernel's own count
//! of users ([`SharedFile::note_use`](mp_sys::memory::SharedFile::note_use)); a process that is just being started has, too. When
//! the broker can have that lock alone, nobody is left. It tries at each death of a participant, of which it holds a pidfd. Are there users
//! and no participants, somebody starts, or has forked behind our back: it tries again soon, and ends after 10 s.
//!
//! *Shortage.* A broker that ends takes all it holds with it, so it ends for no other reason than that nobody is left. While the system or
//! its limit gives it no descriptor it takes nobody for dead whom it cannot look at, drops who says nothing, and tries again soon: who
//! comes waits in the queue of the socket.
//!
//! Owns: the table of what it holds, by token. Bytes of clients are input: see `frame.rs`. Who is of another user, or does not
//! know the session's secret, is turned away. A client that says nothing is dropped after 5 s, or when
//! there are many such, and nothing is waited for but at the one `poll`.
//!
//! Death: of a client at any point leaves at most a descriptor whose object recovery takes back. Of the broker loses the table: fetches find
//! that out, and the next deposit starts another.

use super::client::words;
use super::frame::{Answer, QUESTION_BYTES, Question, Status, Token};
use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::layout::PROCESS_FREE;
use crate::session::Session;
use mp_sys::deadline::Deadline;
use mp_sys::packet::{PacketListener, Socket};
use mp_sys::poll::{Interest, poll};
use mp_sys::{pidfd, process};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a client may take to ask.
const CLIENT_MAX: Duration = Duration::from_secs(5);
/// Clients that have not asked yet, at most.
const CLIENTS_MAX: usize = 64;
/// Descriptors kept free for the broker's own use, beside clients and participants.
const RESERVE: usize = 32;
/// How long the session may be in use without a participant.
const ALONE_MAX: Duration = Duration::from_secs(10);
/// How long it waits before it tries again what no event tells it the end of, at first and at last.
const PAUSE: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];
/// How often it looks although nothing happens: a participant may have become another program, or lacked a descriptor for a nudge.
const HEARTBEAT: Duration = Duration::from_secs(60);

struct Broker {
    session: Session,
    listener: PacketListener,
    held: HashMap<Token, Held>,
    clients: Vec<Client>,
    watched: Vec<Watched>,
    /// The session's count of members when `watched` was made.
    members: u32,
    /// Descriptors that this process may have.
    limit: usize,
    alone: Option<Alone>,
    /// Since a participant could not be looked at: the pause until the next try.
    blind: Option<Duration>,
    /// Since nobody could be let in: the pause until the next try.
    deaf: Option<Duration>,
}

/// A descriptor, and the object that stands for it.
struct Held {
    fd: OwnedFd,
    handle: Handle,
}

struct Client {
    socket: Socket,
    until: Deadline,
}

/// A participant.
struct Watched {
    pid: u32,
    start_time: u64,
    pidfd: OwnedFd,
}

/// Since when nobody takes part in the session.
struct Alone {
    until: Deadline,
    pause: Duration,
}

/// Serves the session whose file is given at the socket that is given, until nobody uses the session any more. For a process that
/// was started by a [`Starter`](super::Starter) for that alone.
///
/// # Errors
/// The file is no session of this user and this library's version.
pub fn run(session: OwnedFd, listener: OwnedFd) -> Result<(), SessionError> {
    process::stand_apart().map_err(SessionError::Attach)?;
    let limit = process::raise_descriptor_limit();
    let session = Session::observe(session)?;
    let mut broker = Broker {
        session,
        listener: PacketListener::from(listener),
        held: HashMap::new(),
        clients: Vec::new(),
        watched: Vec::new(),
        members: 0,
        limit,
        alone: None,
        blind: None,
        deaf: None,
    };
    broker.look_who_is_left();
    while !broker.is_done() {
        broker.turn();
    }
    Ok(())
}

impl Broker {
    /// Waits until something happens, and does what it asks for.
    fn turn(&mut self) {
        let until = self.next_look();
        let read = |fd| (fd, Interest::Read);
        let mut fds: Vec<_> = self.watched.iter().map(|one| read(one.pidfd.as_fd())).collect();
        fds.extend(self.clients.iter().map(|one| read(one.socket.as_fd())));
        if self.deaf.is_none() {
            fds.push(read(self.listener.as_fd()));
        }
        let (ready, has_failed) = match poll(&fds, Some(until)) {
            Ok(ready) => (ready, false),
            // No memory for it, or its limit was set below what it watches: looks at all of them, now and then.
            Err(_) => {
                std::thread::sleep(PAUSE[1]);
                ([vec![false; self.watched.len()], vec![true; fds.len() - self.watched.len()]].concat(), true)
            }
        };
        let (dead, asking) = ready.split_at(self.watched.len());
        let somebody_died = has_failed || dead.contains(&true);
        let mut dead = dead.iter();
        self.watched.retain(|_| dead.next() == Some(&false));
        let members = self.session.header().members.0.load(Ordering::Acquire);
        if somebody_died {
            // Others may sleep where no sentinel wakes them.
            self.session.recover_dead();
        }
        if somebody_died || self.alone.is_some() || members != self.members || until.passed() {
            self.look_who_is_left();
        }
        self.serve(asking);
        self.accept();
        // Last: a nudge may have been among those who came.
        self.close_what_is_gone();
    }

    fn close_what_is_gone(&mut self) {
        let session = self.session;
        self.held.retain(|_, held| session.object_of(held.handle).is_some());
        mp_sys::crash::point("fds.closed");
    }

    fn next_look(&self) -> Deadline {
        let pauses = [self.alone.as_ref().map(|alone| alone.pause), self.blind, self.deaf];
        let look = Deadline::after(pauses.into_iter().flatten().min().unwrap_or(HEARTBEAT));
        self.clients.iter().map(|client| client.until).fold(look, Deadline::min)
    }

    /// Serves the clients that have asked, and drops those that take too long.
    fn serve(&mut self, ready: &[bool]) {
        let clients = std::mem::take(&mut self.clients);
        for (number, client) in clients.into_iter().enumerate() {
            let is_done = ready.get(number) == Some(&true) && self.answer(&client.socket);
            if !is_done && !client.until.passed() {
                self.clients.push(client);
            }
        }
    }

    /// Lets in who has come; so many at a time, lest the dead be forgotten over it. Of too many that say nothing the first is
    /// dropped: if it was about to ask, it comes again.
    fn accept(&mut self) {
        for _ in 0..CLIENTS_MAX {
            let (socket, peer) = match self.listener.accept() {
                Ok(Some(one)) => one,
                Ok(None) => break,
                Err(_) if self.clients.is_empty() => {
                    self.deaf = Some(longer(self.deaf));
                    return;
                }
                // Makes room by one who says nothing.
                Err(_) => {
                    self.clients.remove(0);
                    continue;
                }
            };
            mp_sys::crash::point("fds.accepted");
            if peer.user == process::user() && !self.answer(&socket) {
                if self.clients.len() == CLIENTS_MAX {
                    self.clients.remove(0);
                }
                self.clients.push(Client { socket, until: Deadline::after(CLIENT_MAX) });
            }
        }
        self.deaf = None;
    }

    /// Answers a client if it has asked; says whether it is done with. Whoever breaks the rules gets no answer.
    fn answer(&mut self, socket: &Socket) -> bool {
        let mut buffer = [0; QUESTION_BYTES + 1];
        let packet = match socket.try_receive(&mut buffer) {
            Ok(Some(packet)) => packet,
            Ok(None) => return false,
            Err(_) => return true,
        };
        let secret = words(&self.session.header().broker_secret);
        let Some(question) = Question::parse(&buffer[..packet.len], secret) else { return true };
        let mut fds = packet.fds;
        let plain = Answer::plain;
        let (answer, fd) = match (question, fds.pop(), fds.is_empty()) {
            (Question::Deposit { token, offset, generation }, Some(fd), true) => {
                let session = self.session.number();
                let handle = Handle { session, kind: Kind::FD.0, generation, offset };
                (plain(self.hold(token, Held { fd, handle })), None)
            }
            // It came with one that this process could not take.
            (Question::Deposit { .. }, None, true) if packet.is_cut => (plain(Status::Full), None),
            (Question::Fetch { token }, None, true) => match self.held.get(&token) {
                Some(held) => (plain(Status::Done), Some(held.fd.as_fd())),
                None => (plain(Status::Unknown), None),
            },
            (Question::Status, None, true) => {
                self.close_what_is_gone();
                let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
                (Answer { status: Status::Done, pid: std::process::id(), held }, None)
            }
            _ => return true,
        };
        // An answer fits into an empty socket at once; who has gone does not want it.
        let _ = socket.send(&answer.to_bytes(), fd, Deadline::now());
        mp_sys::crash::point("fds.answered");
        true
    }

    fn hold(&mut self, token: Token, held: Held) -> Status {
        if self.session.object_of(held.handle).is_none() {
            return Status::Unknown;
        }
        let room = self.limit.saturating_sub(self.watched.len() + CLIENTS_MAX + RESERVE);
        if self.held.len() >= room {
            self.close_what_is_gone();
        }
        if self.held.len() >= room {
            return Status::Full;
        }
        // A second one under a token is the same deposit, asked again after a broken connection.
        self.held.insert(token, held);
        mp_sys::crash::point("fds.held");
        Status::Done
    }

    /// Watches every participant there is now.
    fn look_who_is_left(&mut self) {
        // MEMBERS: Acquire, pairs with the Release of `advance`. Read before the table: who joins later is found by the next look.
        self.members = self.session.header().members.0.load(Ordering::Acquire);
        let mut known = std::mem::take(&mut self.watched);
        let mut is_blind = false;
        for entry in self.session.process_ids().iter().filter_map(|id| self.session.process(id)) {
            if entry.state.load(Ordering::Acquire) == PROCESS_FREE {
                continue;
            }
            let (pid, start_time) =
                (entry.pid.load(Ordering::Relaxed), entry.start_time.load(Ordering::Relaxed));
            if is_alive(pid, start_time) == Some(false) {
                continue;
            }
            let is_it = |one: &Watched| (one.pid, one.start_time) == (pid, start_time);
            if let Some(at) = known.iter().position(is_it) {
                self.watched.push(known.swap_remove(at));
                continue;
            }
            // The id may have been given to another process in between.
            match (pidfd::open(pid), is_alive(pid, start_time)) {
                (_, Some(false)) => {}
                (Ok(pidfd), Some(true)) => self.watched.push(Watched { pid, start_time, pidfd }),
                (_, None) | (Err(_), _) => is_blind = true,
            }
        }
        mp_sys::crash::point("fds.looked");
        self.blind = is_blind.then(|| longer(self.blind));
        self.alone = match self.alone.take() {
            _ if is_blind || !self.watched.is_empty() => None,
            None => Some(Alone { until: Deadline::after(ALONE_MAX), pause: PAUSE[0] }),
            Some(alone) => Some(Alone { pause: longer(Some(alone.pause)), ..alone }),
        };
    }

    /// Whether nobody is left, or nobody who takes part has been for too long.
    fn is_done(&self) -> bool {
        self.session.inner().file.is_unused() || self.alone.as_ref().is_some_and(|alone| alone.until.passed())
    }
}

/// The pause before a further try, after this one.
fn longer(pause: Option<Duration>) -> Duration {
    pause.map_or(PAUSE[0], |pause| (pause * 2).min(PAUSE[1]))
}

/// Whether the process of that pid and start time still runs its program; `None` if it cannot be told now. One that could not read its own
/// start time has 0, and is alive while there is a process of its pid.
fn is_alive(pid: u32, start_time: u64) -> Option<bool> {
    let is_it = |status: &process::Status| start_time == 0 || status.start_time == start_time;
    let runs = |status: process::Status| {
        !status.leader_ended || process::runs_without_leader(pid, status.start_time)
    };
    Some(process::status(pid).ok()?.filter(is_it).is_some_and(runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participant_lives_while_its_process_does() {
        let (pid, start_time) = (std::process::id(), process::own_start_time());
        assert_eq!(is_alive(pid, start_time), Some(true));
        assert_eq!(is_alive(pid, start_time + 1), Some(false), "another process had this id");
        assert_eq!(is_alive(pid, 0), Some(true), "it could not tell when it started");
        assert_eq!(is_alive(u32::MAX, 0), Some(false));
    }
}
