//! An end of an object that only one may use: a part of an array, the writer of a latest-value cell, an end of a channel for two.
//!
//! Owns: a reference. Its holder may use the end while the object's count for that role is 1, that is while no other reference to it exists
//! in any process or message.
//!
//! ```text
//! count   event                                          to   who may use it
//! 1       encoded into a message                         2    nobody
//! 2       the sender drops its own after sending         1    nobody; then who receives the message
//! 2       the message is dropped unread                  1    the sender, as before
//! 2       taken out of the message                       2    nobody, until one of the two is dropped
//! n       a holder dies, or a message is lost with one   n-1  recovery counts again
//! ```
//!
//! Only a holder can raise the count, by encoding, which takes `&self`. What may be done as the only one takes `&mut self`; so a count that was 1
//! stays 1 meanwhile. Holders wait for their turn on the count itself, and on the sentinels of the session: who counts it down from 2 to 1
//! wakes, and a recovery wakes all.
//!
//! Death: a dead holder's reference is one less at the next recovery. It never counts too few: see [`references`](crate::references).

use crate::death::{self, Domain, Slept};
use crate::references::Reference;
use mp_sys::backstop::{self, Backstop};
use mp_sys::deadline::Deadline;
use mp_sys::futex::Watch;
use std::fmt;
use std::sync::atomic::Ordering;

/// What was asked for takes the only handle there is, and this one is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSole {
    /// Another one is on its way in a message, or was taken out of one.
    Shared,
    /// It belongs to the process that this one was forked from.
    Forked,
}

impl fmt::Display for NotSole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => {
                "using what only one may use: another handle to it is in a message, or was taken out of one"
            }
            Self::Forked => {
                "using what only one may use: it belongs to the process that this one was forked from"
            }
        })
    }
}

impl std::error::Error for NotSole {}

/// Whether `reference` is the only one of its role now.
///
/// # Errors
/// [`NotSole`]
#[inline]
pub fn check(reference: &Reference) -> Result<(), NotSole> {
    let ours = reference.session().me().is_ok_and(|me| reference.is_held_by(me.process));
    if !ours {
        return Err(NotSole::Forked);
    }
    // SOLE: Acquire, pairs with the count's change in `release` and `recount`: what the last holder wrote is visible.
    let count = reference.count().map_or(0, |count| count.load(Ordering::Acquire));
    if count == 1 { Ok(()) } else { Err(NotSole::Shared) }
}

/// Waits until `reference` is the only one of its role.
///
/// # Errors
/// [`NotSole`], at the end of the time given.
pub fn wait(reference: &Reference, until: Option<Deadline>) -> Result<(), NotSole> {
    let session = reference.session();
    let mut backstop = Backstop::new();
    loop {
        let Some(count) = reference.count() else { return Err(NotSole::Shared) };
        let seen = count.load(Ordering::Acquire);
        match check(reference) {
            Err(NotSole::Shared) => {}
            other => return other,
        }
        let look = session.before_sleep();
        let own = [Watch::Word(count, seen)];
        if death::sleep(&session, &own, None, backstop.until(until), look) == Slept::Again {
            continue;
        }
        if until.is_some_and(Deadline::passed) {
            return check(reference);
        }
        let now = count.load(Ordering::Acquire);
        if now == 1 && backstop::is_lost(count, now) {
            backstop::found_work();
        }
    }
}
