//! Models of a select: rounds over several sources, with a participant that dies at each step in turn.
//!
//! The steps of a select are those of `select`; the rounds, the rings, their wake-ups and the close of a channel are the shipped text. Here all watch
//! the sentinels of all, since the death of a publisher is told to those who select by nothing else.
#![cfg(loom)]
#![expect(unsafe_code, reason = "the promises of the pending words")]

mod model;

use loom::sync::Arc;
use model::{At, Cells, Model, Tables, at_every_step, check, deadlocks, party, take_part};
use mp_channel::bells::{self, Belled, Round};
use mp_channel::control::{Control, Refused, World};
use mp_channel::ring::{Outlook, Ring};
use mp_shm::death;
use mp_sync::notify::Notify;
use mp_sync::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::backstop::Backstop;
use mp_sys::crash;
use mp_sys::futex;
use mp_sys::robust::{OWNER_DIED, WAITERS};
use std::convert::Infallible;

/// What a negative control takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Nothing,
    /// Sleeps as soon as it is armed.
    Look,
    /// Looks before it is armed, and not again.
    ArmedFirst,
    /// Looks without a barrier.
    Barrier,
    /// Sleepers do not watch sentinels.
    Sentinels,
    /// A round does not note the epoch.
    Epoch,
    /// A ring does not advance the bell.
    Advance,
    /// A ring wakes one.
    WakeAll,
    /// The last one leaves without a ring.
    Close,
    /// A sender that fills a ring does not ring for those who could seal it.
    RingWhenFull,
    /// A publication that rings wakes nobody who sleeps on the channel alone.
    WakeBesideRing,
}

/// A session with some channels.
struct Session {
    tables: Tables,
    rings: Vec<Cells>,
    /// Bits of the participants that hold the sending ends, all of them.
    senders: AtomicU32,
    receivers: AtomicU32,
    bells: [AtomicU32; 2],
    /// All have the first bell, as two threads of a process have the same one, or processes where there are more of them than bells.
    is_one_bell: bool,
    is_rendezvous: bool,
    /// There could be one more ring: who selects for room is content with a full one, which it can seal.
    grows: bool,
    missing: Missing,
    /// What is noted instead of the epoch.
    still: AtomicU32,
    /// Where nobody sleeps.
    elsewhere: Control,
}

impl Session {
    fn new<const N: usize>(capacities: [u32; N], senders: &[u16], receivers: &[u16]) -> Self {
        let bits = |holders: &[u16]| AtomicU32::new(holders.iter().map(|me| 1 << me).sum());
        let tables = Tables::new(model::PARTIES);
        // All take part before anybody sleeps: joining is modelled with `death.rs`.
        for &me in senders.iter().chain(receivers) {
            tables.sentinels[usize::from(me)].store(u32::from(me) | WAITERS, Ordering::Release);
        }
        Self {
            tables,
            rings: capacities.map(Cells::of_cells).into(),
            senders: bits(senders),
            receivers: bits(receivers),
            bells: [AtomicU32::new(0), AtomicU32::new(0)],
            is_one_bell: false,
            is_rendezvous: false,
            grows: false,
            missing: Missing::Nothing,
            still: AtomicU32::new(0),
            elsewhere: Control::new(0),
        }
    }

    fn at(&self, me: u16) -> At<'_, Self> {
        At { shared: self, me }
    }

    fn ring<'a>(&'a self, number: usize, at: &'a At<'a, Self>) -> Ring<'a, Cells, At<'a, Self>> {
        let senders_woken = if self.is_rendezvous { u32::MAX } else { 1 };
        let grows = self.grows && self.missing != Missing::RingWhenFull;
        Ring { senders_woken, grows, ..self.rings[number].ring(at) }
    }

    fn send(&self, me: u16, ring: usize, message: u32, patience: Patience) -> Result<(), Refused> {
        let at = self.at(me);
        let (part, mut ring) = (&self.rings[ring], self.ring(ring, &at));
        let not_empty = &part.control.not_empty.0;
        if self.missing == Missing::WakeBesideRing && not_empty.bells().load(Ordering::Acquire) != 0 {
            not_empty.ring(&at);
            ring.control = &self.elsewhere;
        }
        // SAFETY: the model's threads share the session by reference counts, and it outlives them.
        let claim = unsafe { ring.begin_send(patience, || None) }?;
        part.put(claim.index(), message);
        ring.finish_send(&claim);
        if self.is_rendezvous {
            // The shipped `try_send` gives the receiver, which is asleep there, a moment.
            // SAFETY: as above.
            let taken = unsafe { ring.await_taken(&claim, Patience::Forever, None) };
            return taken.inspect_err(|_| {
                // SAFETY: as above.
                unsafe { ring.abandon(&claim) };
            });
        }
        Ok(())
    }

    fn receive(&self, me: u16, ring: usize, patience: Patience) -> Result<u32, Refused> {
        let at = self.at(me);
        let (part, ring) = (&self.rings[ring], self.ring(ring, &at));
        // SAFETY: as in `send`.
        let claim = unsafe { ring.begin_receive(patience, || None) }?;
        let message = part.take(claim.index());
        ring.finish_receive(&claim);
        Ok(message)
    }

    /// Drops an end, as the drop of a reference does it; the last one says so.
    fn leave(&self, me: u16, holders: &AtomicU32) {
        if holders.fetch_and(!(1 << me), Ordering::AcqRel) == 1 << me {
            crash::point("model.left");
            self.close(&self.at(me));
        }
    }

    fn close(&self, at: &At<'_, Self>) {
        for Cells { control, .. } in &self.rings {
            if self.missing == Missing::Close {
                control.closed.0.fetch_add(1, Ordering::AcqRel);
                futex::wake_all(&control.closed.0);
            } else {
                control.close(at);
            }
        }
    }

    /// What `Source::is_ready` says.
    fn is_ready(&self, me: u16, source: Source) -> bool {
        let at = self.at(me);
        let ring = self.ring(source.ring, &at);
        match source.side {
            Side::Sender if at.receivers() == 0 => true,
            Side::Sender if self.is_rendezvous => {
                self.rings[source.ring].control.not_empty.0.has_sleepers() && ring.can_send()
            }
            Side::Sender => match ring.outlook_send() {
                Outlook::Ready => true,
                Outlook::Full => self.grows,
                Outlook::Waiting | Outlook::Sealed => false,
            },
            Side::Receiver => at.senders() == 0 || ring.outlook_receive() == Outlook::Ready,
        }
    }
}

impl Model for Session {
    fn tables(&self) -> &Tables {
        &self.tables
    }

    fn sentinels<'a>(&'a self, me: u16, watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool {
        if self.missing == Missing::Sentinels {
            return false;
        }
        let mut dead = false;
        for (number, sentinel) in self.tables.sentinels.iter().enumerate() {
            let word = sentinel.load(Ordering::Acquire);
            dead |= word & OWNER_DIED != 0;
            if number != usize::from(me) && word != 0 && word & OWNER_DIED == 0 && !watch(sentinel, word) {
                break;
            }
        }
        dead
    }

    fn sweep(&self, at: &At<'_, Self>, dead: &dyn Fn(u16) -> bool) {
        for number in 0..self.rings.len() {
            self.ring(number, at).sweep(dead, &mut |_| {});
        }
        for (me, sentinel) in (0..).zip(&self.tables.sentinels) {
            if dead(me) {
                for holders in [&self.senders, &self.receivers] {
                    // Also if it had left, and not said so.
                    if holders.fetch_and(!(1 << me), Ordering::AcqRel) & !(1 << me) == 0 {
                        self.close(at);
                    }
                }
                sentinel.store(0, Ordering::Release);
            }
        }
    }

    fn ring_bells(&self, bits: u64) {
        for (_, bell) in (0..).zip(&self.bells).filter(|(number, _)| bits & 1 << number != 0) {
            match self.missing {
                Missing::Advance => {
                    futex::wake_all(bell);
                }
                Missing::WakeAll => {
                    bell.fetch_add(1, Ordering::Release);
                    futex::wake(bell, 1);
                }
                _ => death::advance(bell),
            }
        }
    }

    fn senders(&self) -> u32 {
        self.senders.load(Ordering::Acquire).count_ones()
    }

    fn receivers(&self) -> u32 {
        self.receivers.load(Ordering::Acquire).count_ones()
    }
}

impl<'w> Belled<'w> for At<'w, Session> {
    type Error = Infallible;

    fn bell(self) -> Result<(&'w AtomicU32, u64), Infallible> {
        let number = if self.shared.is_one_bell { 0 } else { usize::from(self.me) % 2 };
        Ok((&self.shared.bells[number], 1 << number))
    }

    fn death_epoch(self) -> &'w AtomicU32 {
        if self.shared.missing == Missing::Epoch { &self.shared.still } else { &self.shared.tables.epoch }
    }
}

/// A side of a channel that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    ring: usize,
    side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Sender,
    Receiver,
}

fn receiver(ring: usize) -> Source {
    Source { ring, side: Side::Receiver }
}

fn sender(ring: usize) -> Source {
    Source { ring, side: Side::Sender }
}

/// One who selects, at sources of one or two sessions.
struct Selector<'a> {
    me: u16,
    sources: Vec<(&'a Session, Source)>,
}

impl<'a> Selector<'a> {
    fn new(session: &'a Session, me: u16, sources: &[Source]) -> Self {
        Self { me, sources: sources.iter().map(|&source| (session, source)).collect() }
    }

    fn begin(&self) -> Round<'a, At<'a, Session>> {
        let places = self.sources.iter().map(|&(session, source)| {
            let control = &session.rings[source.ring].control;
            let notify: &Notify = match source.side {
                Side::Sender => &control.not_full.0,
                Side::Receiver => &control.not_empty.0,
            };
            (session.at(self.me), notify)
        });
        Round::begin(places).unwrap_or_else(|never| match never {})
    }

    fn find(&self) -> Option<usize> {
        self.sources.iter().position(|&(session, source)| session.is_ready(self.me, source))
    }

    fn recover_dead_owners(&self) {
        for &(session, source) in &self.sources {
            let at = session.at(self.me);
            session.ring(source.ring, &at).recover_dead_owners();
        }
    }

    /// Waits until one of the sources is ready.
    fn ready(&self) -> usize {
        let missing = self.sources[0].0.missing;
        let mut backstop = Backstop::new();
        loop {
            let mut found = (missing == Missing::ArmedFirst).then(|| self.find()).flatten();
            let round = self.begin();
            if ![Missing::Look, Missing::ArmedFirst].contains(&missing) {
                if missing != Missing::Barrier {
                    bells::look();
                }
                self.recover_dead_owners();
                found = self.find();
            }
            if let Some(found) = found {
                return found;
            }
            let none = || unreachable!("there are sources");
            let slept = round.sleep(std::iter::empty(), None, &mut backstop, none);
            let _woken = slept.unwrap_or_else(|never: Infallible| match never {});
            if missing == Missing::Look
                && let Some(found) = self.find()
            {
                return found;
            }
        }
    }

    /// Receives from whichever source has a message, until all who send are gone, or it `has_all`.
    fn receive_until(mut self, has_all: impl Fn(&[u32]) -> bool) -> Vec<u32> {
        let mut received = Vec::new();
        while !self.sources.is_empty() && !has_all(&received) {
            let number = self.ready();
            let (session, source) = self.sources[number];
            match session.receive(self.me, source.ring, Patience::None) {
                Ok(message) => received.push(message),
                Err(Refused::Disconnected) => drop(self.sources.remove(number)),
                Err(other) => assert_eq!(other, Refused::Waiting),
            }
        }
        received.sort_unstable();
        received
    }

    /// Does `operation` on the only source when it is ready, until it succeeds or the other side is gone.
    fn until_done<T>(&self, mut operation: impl FnMut(&Session) -> Result<T, Refused>) -> Option<T> {
        loop {
            let number = self.ready();
            match operation(self.sources[number].0) {
                Ok(value) => return Some(value),
                Err(Refused::Disconnected) => return None,
                Err(other) => assert_eq!(other, Refused::Waiting),
            }
        }
    }
}

fn select_one(session: &Session, me: u16) -> Option<u32> {
    Selector::new(session, me, &[receiver(0)]).until_done(|session| session.receive(me, 0, Patience::None))
}

/// Two channels of a sender that may die, and of one who selects: nobody but the sender tells that one anything.
fn one_sender(die_at: Option<usize>, missing: Missing) {
    check(move || {
        let shared = Arc::new(Session { missing, ..Session::new([1, 1], &[1], &[3]) });
        let sender = party(&shared, 1, die_at, |shared| {
            shared.send(1, 0, 1, Patience::Forever).unwrap();
            shared.send(1, 1, 2, Patience::Forever).unwrap();
            shared.leave(1, &shared.senders);
        });
        let selector = party(&shared, 3, None, |shared| {
            Selector::new(shared, 3, &[receiver(0), receiver(1)]).receive_until(|_| false)
        });
        let lived = sender.join().unwrap().is_some();
        let received = selector.join().unwrap().unwrap();
        assert!(received == [1, 2] || !lived && [&[][..], &[1]].contains(&&*received), "{received:?}");
    });
}

/// Two channels, two senders of which one dies, and one who selects until it has what the other sent.
fn two_senders(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Session::new([1, 1], &[1, 2], &[3]));
        let send = |me: u16, die_at| {
            party(&shared, me, die_at, move |shared| {
                shared.send(me, usize::from(me) - 1, me.into(), Patience::Forever).unwrap();
            })
        };
        let senders = [send(1, die_at), send(2, None)];
        let selector = party(&shared, 3, None, |shared| {
            Selector::new(shared, 3, &[receiver(0), receiver(1)])
                .receive_until(|received| received.contains(&2))
        });
        let [_, second] = senders.map(|sender| sender.join().unwrap());
        assert_eq!(second, Some(()));
        let received = selector.join().unwrap().unwrap();
        assert!(received == [1, 2] || received == [2], "whole messages, each once: {received:?}");
    });
}

/// Channels of two sessions, each with a bell and an epoch of its own; nobody dies.
fn two_sessions() {
    check(|| {
        let sessions = [1, 2].map(|me| Arc::new(Session::new([1], &[me], &[3])));
        let senders = [1, 2].map(|me: u16| {
            party(&sessions[usize::from(me) - 1], me, None, move |shared| {
                shared.send(me, 0, me.into(), Patience::Forever).unwrap();
                shared.leave(me, &shared.senders);
            })
        });
        let [first, second] = sessions;
        let selector = party(&first, 3, None, move |first| {
            Selector { me: 3, sources: vec![(first, receiver(0)), (&*second, receiver(0))] }
                .receive_until(|_| false)
        });
        for sender in senders {
            assert_eq!(sender.join().unwrap(), Some(()));
        }
        assert_eq!(selector.join().unwrap(), Some(vec![1, 2]));
    });
}

/// A sender of two messages that may die, one who sleeps on the channel alone, and one who selects.
fn beside_a_sleeper(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Session::new([2], &[1], &[2, 3]));
        let sender = party(&shared, 1, die_at, |shared| {
            (1..=2).for_each(|message| shared.send(1, 0, message, Patience::Forever).unwrap());
        });
        let sleeper = party(&shared, 2, None, |shared| shared.receive(2, 0, Patience::Forever).ok());
        let selector = party(&shared, 3, None, |shared| select_one(shared, 3));
        let lived = sender.join().unwrap().is_some();
        let mut received = [sleeper, selector].map(|receiver| receiver.join().unwrap().unwrap());
        received.sort_unstable();
        match received {
            [Some(1), Some(2)] => {}
            [None, None | Some(1)] => assert!(!lived, "{received:?}"),
            _ => panic!("{received:?}"),
        }
    });
}

/// Two receivers, of which the first selects and may die, the second sleeps on the channel alone or selects, too. There is a message for each.
fn selector_dies(die_at: Option<usize>, second_selects: bool, is_one_bell: bool, missing: Missing) {
    check(move || {
        let shared = Arc::new(Session { missing, is_one_bell, ..Session::new([2], &[3], &[1, 2]) });
        let first = party(&shared, 1, die_at, |shared| select_one(shared, 1));
        let second = party(&shared, 2, None, move |shared| {
            if second_selects { select_one(shared, 2) } else { shared.receive(2, 0, Patience::Forever).ok() }
        });
        let sender = party(&shared, 3, None, |shared| {
            (1..=2).for_each(|message| shared.send(3, 0, message, Patience::Forever).unwrap());
        });
        assert_eq!(sender.join().unwrap(), Some(()));
        let first = first.join().unwrap();
        let second = second.join().unwrap().unwrap();
        assert!(second.is_some(), "it gets its message");
        if let Some(first) = first {
            assert!(first.is_some() && first != second, "each once");
        }
    });
}

/// One who selects over two channels, takes nothing from the first and may die; and one who sleeps on the first alone. The bits that the
/// select leaves behind take nothing from that one, and are gone with the next message.
fn gives_up(die_at: Option<usize>, missing: Missing) {
    check(move || {
        let shared = Arc::new(Session { missing, ..Session::new([1, 1], &[3], &[1, 2]) });
        let selector = party(&shared, 1, die_at, |shared| {
            let selector = Selector::new(shared, 1, &[receiver(1), receiver(0)]);
            let _round = selector.begin();
            bells::look();
            selector.recover_dead_owners();
            (selector.find() == Some(0)).then(|| shared.receive(1, 1, Patience::None))
        });
        let sleeper = party(&shared, 2, None, |shared| shared.receive(2, 0, Patience::Forever));
        let sender = party(&shared, 3, None, |shared| {
            shared.send(3, 1, 7, Patience::Forever).unwrap();
            shared.send(3, 0, 1, Patience::Forever).unwrap();
        });
        assert_eq!(sender.join().unwrap(), Some(()));
        if let Some(Some(received)) = selector.join().unwrap() {
            assert_eq!(received, Ok(7));
        }
        assert_eq!(sleeper.join().unwrap(), Some(Ok(1)));
        take_part(&*shared, 3, None, |shared| shared.send(3, 0, 2, Patience::None).unwrap());
        assert_eq!(shared.rings[0].control.not_empty.0.bells().load(Ordering::Acquire), 0);
    });
}

/// A full channel, a receiver that takes one message, and may die, and then goes; one who selects for room, and, if there `is_sleeper`, one who sleeps
/// until there is some.
fn for_room(die_at: Option<usize>, is_sleeper: bool) {
    check(move || {
        let senders: &[u16] = if is_sleeper { &[2, 3] } else { &[3] };
        let shared = Arc::new(Session::new([1], senders, &[1]));
        take_part(&*shared, 3, None, |shared| shared.send(3, 0, 9, Patience::Forever).unwrap());
        let receives = 1 + u32::from(is_sleeper);
        let receiver = party(&shared, 1, die_at, move |shared| {
            let received: Vec<u32> =
                (0..receives).map(|_| shared.receive(1, 0, Patience::Forever).unwrap()).collect();
            shared.leave(1, &shared.receivers);
            received
        });
        let sleeper = is_sleeper
            .then(|| party(&shared, 2, None, |shared| shared.send(2, 0, 2, Patience::Forever).is_ok()));
        let selector = party(&shared, 3, None, |shared| {
            let selector = Selector::new(shared, 3, &[sender(0)]);
            selector.until_done(|session| session.send(3, 0, 3, Patience::None)).is_some()
        });
        let received = receiver.join().unwrap();
        let selected = selector.join().unwrap().unwrap();
        let slept = sleeper.is_some_and(|sleeper| sleeper.join().unwrap().unwrap());
        if let Some(received) = received {
            assert_eq!(received[0], 9);
            assert!(received.len() == 1 || received[1] == 2 && slept || received[1] == 3 && selected);
        }
    });
}

/// A rendezvous with a receiver, which may die, and one who selects for somebody to send to.
fn rendezvous(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Session { is_rendezvous: true, ..Session::new([1], &[3], &[1]) });
        let receiver = party(&shared, 1, die_at, |shared| {
            let received = shared.receive(1, 0, Patience::Forever);
            shared.leave(1, &shared.receivers);
            received
        });
        let selector = party(&shared, 3, None, |shared| {
            let selector = Selector::new(shared, 3, &[sender(0)]);
            selector.until_done(|session| session.send(3, 0, 3, Patience::None)).is_some()
        });
        let received = receiver.join().unwrap();
        let sent = selector.join().unwrap().unwrap();
        if let Some(received) = received {
            assert_eq!((received, sent), (Ok(3), true));
        }
    });
}

/// Two who select for a receiver of a rendezvous, of which the first may die; the receiver takes what comes until it has what the second sent.
fn two_at_a_rendezvous(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Session { is_rendezvous: true, ..Session::new([1], &[1, 2], &[3]) });
        let select = |me: u16, die_at| {
            party(&shared, me, die_at, move |shared| {
                let selector = Selector::new(shared, me, &[sender(0)]);
                selector.until_done(|session| session.send(me, 0, me.into(), Patience::None))
            })
        };
        let selectors = [select(1, die_at), select(2, None)];
        let receiver = party(&shared, 3, None, move |shared| {
            let mut received = Vec::new();
            while !received.contains(&2) || die_at.is_none() && received.len() < 2 {
                received.push(shared.receive(3, 0, Patience::Forever).unwrap());
            }
            // Who still offers something is told that nobody will take it.
            shared.leave(3, &shared.receivers);
            received
        });
        let [_, second] = selectors.map(|selector| selector.join().unwrap());
        let received = receiver.join().unwrap().unwrap();
        assert_eq!(second, Some(Some(())));
        assert!([&[2][..], &[1, 2], &[2, 1]].contains(&&*received), "each once: {received:?}");
    });
}

/// A channel that could grow, a sender that fills its ring, and may die, and one who selects for room. Nobody receives.
fn for_growth(die_at: Option<usize>, missing: Missing) {
    check(move || {
        let shared = Arc::new(Session { grows: true, missing, ..Session::new([1], &[1, 3], &[2]) });
        let filler = party(&shared, 1, die_at, |shared| shared.send(1, 0, 1, Patience::Forever));
        let selector = party(&shared, 3, None, |shared| Selector::new(shared, 3, &[sender(0)]).ready());
        let filled = filler.join().unwrap();
        assert!([None, Some(Ok(()))].contains(&filled));
        assert_eq!(selector.join().unwrap(), Some(0));
    });
}

/// A sender of one message that may die, and two who select: who is woken by the death tells the other.
fn two_wait(die_at: Option<usize>, missing: Missing) {
    check(move || {
        let shared = Arc::new(Session { missing, ..Session::new([1], &[1], &[2, 3]) });
        let sender = party(&shared, 1, die_at, |shared| {
            shared.send(1, 0, 1, Patience::Forever).unwrap();
            shared.leave(1, &shared.senders);
        });
        let selectors = [2, 3].map(|me| party(&shared, me, None, move |shared| select_one(shared, me)));
        let lived = sender.join().unwrap().is_some();
        let [one, other] = selectors.map(|selector| selector.join().unwrap().unwrap());
        assert!(one.xor(other) == Some(1) || !lived && one.is_none() && other.is_none());
    });
}

#[test]
fn select_the_sender_of_two_channels_dies_at_each_step() {
    assert!(at_every_step(|step| one_sender(step, Missing::Nothing)) >= 21);
}

#[test]
fn select_one_of_two_senders_dies_at_each_step() {
    assert!(at_every_step(two_senders) >= 7);
}

#[test]
fn select_over_two_sessions() {
    two_sessions();
}

#[test]
fn select_beside_a_sleeper_the_sender_dies_at_each_step() {
    assert!(at_every_step(beside_a_sleeper) >= 17);
}

#[test]
fn select_one_who_selects_dies_at_each_step_beside_a_sleeper() {
    assert!(at_every_step(|step| selector_dies(step, false, false, Missing::Nothing)) >= 12);
}

#[test]
fn select_one_of_two_who_select_dies_at_each_step() {
    assert!(at_every_step(|step| selector_dies(step, true, false, Missing::Nothing)) >= 12);
}

#[test]
fn select_one_of_two_with_one_bell_dies_at_each_step() {
    assert!(at_every_step(|step| selector_dies(step, true, true, Missing::Nothing)) >= 12);
}

#[test]
fn select_gives_up_or_dies_at_each_step_beside_a_sleeper() {
    assert!(at_every_step(|step| gives_up(step, Missing::Nothing)) >= 9);
}

#[test]
fn select_for_room_the_receiver_dies_at_each_step() {
    assert!(at_every_step(|step| for_room(step, false)) >= 11);
}

#[test]
fn select_for_room_beside_a_sleeper() {
    for_room(None, true);
}

#[test]
#[ignore = "takes a minute: for a long run by hand"]
fn select_for_room_beside_a_sleeper_the_receiver_dies_at_each_step() {
    assert!(at_every_step(|step| for_room(step, true)) >= 20);
}

#[test]
fn select_for_growth_one_who_fills_the_ring_dies_at_each_step() {
    assert!(at_every_step(|step| for_growth(step, Missing::Nothing)) >= 8);
}

#[test]
fn select_for_a_receiver_one_of_two_dies_at_each_step() {
    assert!(at_every_step(two_at_a_rendezvous) >= 20);
}

#[test]
fn select_for_a_receiver_of_two() {
    two_at_a_rendezvous(None);
}

#[test]
fn select_for_a_receiver_that_dies_at_each_step() {
    assert!(at_every_step(rendezvous) >= 15);
}

#[test]
fn select_both_who_wait_learn_of_a_death_at_each_step() {
    assert!(at_every_step(|step| two_wait(step, Missing::Nothing)) >= 11);
}

/// A test that fails on purpose, and the one that runs it in a process of its own.
macro_rules! controls {
    ($($control:ident $inner:ident: $model:expr;)*) => {$(
        #[test]
        #[ignore = "fails on purpose; the control of the same name runs it"]
        fn $inner() {
            $model;
        }

        #[test]
        fn $control() {
            assert!(deadlocks(stringify!($inner)));
        }
    )*};
}

controls! {
    select_control_without_a_look control_without_a_look: one_sender(None, Missing::Look);
    select_control_armed_after_the_look control_armed_after_the_look: one_sender(None, Missing::ArmedFirst);
    select_control_without_barrier control_without_barrier:
        selector_dies(None, false, false, Missing::Barrier);
    select_control_without_sentinels control_without_sentinels:
        at_every_step(|step| one_sender(step, Missing::Sentinels));
    select_control_without_advance control_without_advance: one_sender(None, Missing::Advance);
    select_control_without_close control_without_close: one_sender(None, Missing::Close);
    select_control_without_wake_of_all control_without_wake_of_all:
        selector_dies(None, true, true, Missing::WakeAll);
    select_control_without_wake_beside_ring control_without_wake_beside_ring:
        gives_up(None, Missing::WakeBesideRing);
    select_control_without_ring_when_full control_without_ring_when_full:
        for_growth(None, Missing::RingWhenFull);
    select_control_without_epoch control_without_epoch:
        at_every_step(|step| two_wait(step, Missing::Epoch));
}
