//! A count of things that are not finished, which comes down by itself when their holders die.
//!
//! Owns: an object whose role 0 are the [`Tickets`] that wait, and whose role 1 are the [`Ticket`]s themselves: references, kept in ledgers and
//! messages, counted anew after a death. See [`references`](crate::references).
//!
//! ```text
//! tickets  event                                              who
//! n + 1    issued into a message                              encoder, under the domain's lock
//! n        dropped, or its message is dropped                 holder, under the domain's lock
//! n        its holder, or the message's, is dead              recovery
//! 0        zeros + 1, wakes all who wait                      whoever counted down
//! ```
//!
//! Who waits watches `zeros`, so that a count that was zero for a moment is noticed by all who waited then.

use crate::ShmSafe;
use crate::block::Block;
use crate::codec::{ArchivedHandle, Attach, Detach};
use crate::death::{self, Slept};
use crate::error::SessionError;
use crate::handle::Kind;
use crate::kinds::{self, ObjectKind};
use crate::layout::BLOCK_HEADER_BYTES;
use crate::message_of_handle;
use crate::references::{HandleError, Reference};
use crate::session::Session;
use mp_sys::backstop::{self, Backstop};
use mp_sys::deadline::Deadline;
use mp_sys::futex::{self, Watch};
use rkyv::Place;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[repr(C)]
#[derive(ShmSafe, Debug)]
struct Zeros(AtomicU32);

/// What tells this object from others in a handle's check.
const TYPE_HASH: u32 = u32::from_le_bytes(*b"tick");

/// A count of tickets that one can wait for. Cloned and sent like any handle.
#[derive(Clone, Debug)]
pub struct Tickets(Arc<Reference>);

/// One thing that is not finished. A ticket that came in a message says by being dropped that it is; one that was made here counts only in
/// the messages that it is encoded into.
#[derive(Debug)]
pub struct Ticket(Stage);

#[derive(Debug)]
enum Stage {
    /// To be counted when it is encoded.
    Blank(Tickets),
    /// Counted as long as this is held.
    Counted { _by: Reference },
}

impl Tickets {
    /// None are issued yet.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn new_in(session: Session) -> Result<Self, SessionError> {
        kinds::register(Kind::TICKETS, &TicketsKind);
        let block = session.allocate(Kind::MESSAGE, size_of::<Zeros>())?;
        if let Some(Zeros(zeros)) = zeros(session, block.offset()) {
            zeros.store(0, Ordering::Relaxed);
        }
        let [tickets, first] = Self::publish(session, block)?;
        drop(first);
        Ok(Self(Arc::new(tickets)))
    }

    fn publish(session: Session, block: Block) -> Result<[Reference; 2], SessionError> {
        session.publish_object(block, [Kind::TICKETS, Kind::TICKET], TYPE_HASH)
    }

    fn open(reference: Reference) -> Result<Self, HandleError> {
        kinds::register(Kind::TICKETS, &TicketsKind);
        if reference.type_hash() != TYPE_HASH {
            return Err(HandleError::OtherType);
        }
        Ok(Self(Arc::new(reference)))
    }

    /// A ticket to be sent: each message that it is encoded into counts one.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(Stage::Blank(self.clone()))
    }

    /// How many tickets are not finished, a moment ago.
    #[must_use]
    pub fn unfinished(&self) -> u32 {
        let holders = self.0.session().holders(self.0.handle().offset);
        holders.map_or(0, |holders| holders.of(1))
    }

    /// Waits until no ticket is unfinished; `false` if `until` passed before.
    ///
    /// # Errors
    /// This process has no part in the session.
    pub fn wait(&self, until: Option<Deadline>) -> Result<bool, SessionError> {
        let session = self.0.session();
        let Some(Zeros(zeros)) = zeros(session, self.0.handle().offset) else {
            return Err(SessionError::NotASession);
        };
        // ZEROS: Acquire, pairs with the Release in `closed`; read before the count.
        let seen = zeros.load(Ordering::Acquire);
        let mut backstop = Backstop::new();
        loop {
            if self.unfinished() == 0 || zeros.load(Ordering::Acquire) != seen {
                return Ok(true);
            }
            if until.is_some_and(Deadline::passed) {
                // Who never sleeps must not overlook a death for ever.
                return Ok(death::find(&session) && self.unfinished() == 0);
            }
            session.me()?;
            let look = crate::death::Domain::before_sleep(&session);
            let own = [Watch::Word(zeros, seen)];
            let slept = death::sleep(&session, &own, None, backstop.until(until), look);
            if slept == Slept::TimedOut
                && !until.is_some_and(Deadline::passed)
                && self.unfinished() == 0
                && backstop::is_lost(zeros, seen)
            {
                backstop::found_work();
            }
        }
    }
}

fn zeros(session: Session, object: u64) -> Option<&'static Zeros> {
    session.at(object + BLOCK_HEADER_BYTES)
}

message_of_handle!([] Tickets, Kind::TICKETS, |tickets| &tickets.0, Tickets::open);

impl rkyv::Archive for Ticket {
    type Archived = ArchivedHandle;
    type Resolver = u32;

    fn resolve(&self, index: u32, out: Place<ArchivedHandle>) {
        rkyv::munge::munge!(let ArchivedHandle { index: place } = out);
        rkyv::Archive::resolve(&index, (), place);
    }
}

impl<S: Attach + ?Sized> rkyv::Serialize<S> for Ticket {
    fn serialize(&self, serializer: &mut S) -> Result<u32, S::Error> {
        match &self.0 {
            Stage::Blank(tickets) => serializer.attach_end(&tickets.0, Kind::TICKET),
            Stage::Counted { _by: reference } => serializer.attach(reference),
        }
    }
}

impl<D: Detach + ?Sized> rkyv::Deserialize<Ticket, D> for ArchivedHandle {
    fn deserialize(&self, deserializer: &mut D) -> Result<Ticket, D::Error> {
        kinds::register(Kind::TICKETS, &TicketsKind);
        let reference = deserializer.detach(self.index.to_native(), Kind::TICKET)?;
        Ok(Ticket(Stage::Counted { _by: reference }))
    }
}

/// What recovery and the last drop do with the object.
struct TicketsKind;

impl ObjectKind for TicketsKind {
    fn closed(&self, session: Session, object: u64, role: usize) {
        if role == 1
            && let Some(Zeros(zeros)) = zeros(session, object)
        {
            // ZEROS: Release, pairs with the Acquire in `wait`.
            zeros.fetch_add(1, Ordering::Release);
            mp_sys::crash::point("tickets.before_wake");
            futex::wake_all(zeros);
        }
    }

    fn blocks(&self, _: Session, _: u64, _: &mut dyn FnMut(u64)) {}

    fn sweep(&self, _: Session, _: u64, _: &dyn Fn(u16) -> bool, _: &mut dyn FnMut(u64)) {}
}
