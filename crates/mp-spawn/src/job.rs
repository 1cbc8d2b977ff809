//! The record by which a parent gives a child its job and gets the value back.
//!
//! ```text
//! state     who writes it                          argument            value
//! NEW       parent, before the start               message block       –
//! TAKEN     child, once it is attached             it has it           –
//! DONE      child, the function has returned or    –                   archive of Result<R, Failure>
//!           panicked
//! REFUSED   child, it cannot run the function      –                   archive of String: why
//! PANICKED  child, a panic is about to abort it    –                   archive of Panic
//! ```
//!
//! From when it has taken its job until it gives something back a child's job is *open*. Where panics abort, one in any thread closes it with
//! its last words. They are told under the domain's lock, too; so a thread that panics while it holds that, or has anything else pending,
//! ends without.
//!
//! The record is the parent's block. The child changes it only under the domain's lock, after checking that it is still there, so a
//! parent that dies meanwhile takes the record with it and the child writes nowhere. Blocks that change hands are re-stamped in the
//! same step: see [`mp_shm::deliver`].

#![expect(unsafe_code, reason = "the layout of a record in shared memory; calling a trampoline")]

use crate::code::FnRef;
use crate::panics::{self, Panic};
use mp_shm::ShmSafe;
use mp_shm::block::Block;
use mp_shm::codec::{Payload, encode};
use mp_shm::deliver::{Place, Record};
use mp_shm::layout::BLOCK_HEADER_BYTES;
use mp_shm::{Message, Session, rkyv};
use mp_sys::setup::{Limit, Resource};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

pub(crate) const NEW: u32 = 0;
pub(crate) const TAKEN: u32 = 1;
pub(crate) const DONE: u32 = 2;
pub(crate) const REFUSED: u32 = 3;
pub(crate) const PANICKED: u32 = 4;

/// The job of this process while it is open. Who takes it out gives what comes of it.
static OPEN: Mutex<Option<(Session, Record)>> = Mutex::new(None);

/// The record.
#[repr(C)]
#[derive(ShmSafe, Debug, Default)]
pub(crate) struct Job {
    pub(crate) state: AtomicU32,
    /// Set when the parent no longer wants the value.
    pub(crate) unwanted: AtomicU32,
    /// Bytes of address space that the process may use besides the session's; `u64::MAX` for any number.
    pub(crate) address_space: AtomicU64,
    /// Shows a child that it found the right record.
    pub(crate) nonce: AtomicU64,
    pub(crate) trampoline: [AtomicU64; 2],
    pub(crate) function: [AtomicU64; 2],
    pub(crate) argument: Place,
    pub(crate) value: Place,
}

/// The job in the record at `offset`.
pub(crate) fn at(session: Session, offset: u64) -> Option<&'static Job> {
    // SAFETY: the parent made the block a job before it passed the offset on; while the record is checked to be there it is one, and all
    // of it is atomics.
    unsafe { session.shared(offset.checked_add(BLOCK_HEADER_BYTES)?) }
}

/// Why a function has no value.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
pub(crate) enum Failure {
    Panicked(Panic),
    Argument(String),
    Value(String),
}

/// What a trampoline is given: the sealed function, and its argument.
#[derive(Debug)]
pub(crate) struct Call {
    session: Session,
    function: [u64; 2],
    argument: Payload,
}

/// What comes of it: the encoded value, and whether all went well; or why the function could not be run.
pub(crate) type Outcome = Result<(Block, bool), String>;

/// Runs a function of exactly these types; the parent names this instance of it.
pub(crate) fn trampoline<A: Message + 'static, R: Message + 'static>(call: Call) -> Outcome {
    let session = call.session;
    let function = FnRef::<A, R>::unseal(session, call.function).map_err(|error| error.to_string())?;
    let result: Result<R, Failure> = match call.argument.decode::<A>() {
        Ok(argument) => panics::catch(|| function.call(argument)).map_err(Failure::Panicked),
        Err(error) => Err(Failure::Argument(error.to_string())),
    };
    let went_well = result.is_ok();
    // Encoding runs user code, too, and may panic.
    let encoded = panics::catch(|| encode(session, &result, 0).and_then(mp_shm::codec::Encoded::into_block));
    let failure = match encoded {
        Ok(Ok(block)) => return Ok((block, went_well)),
        Ok(Err(error)) => Failure::Value(error.to_string()),
        Err(panic) => Failure::Panicked(panic),
    };
    let block = encode::<Result<R, Failure>>(session, &Err(failure), 0)
        .and_then(mp_shm::codec::Encoded::into_block)
        .map_err(|error| error.to_string())?;
    Ok((block, false))
}

/// Does what a job does with its argument and its value, for what else that does. That it fails is no harm.
pub(crate) fn rehearse(session: Session) {
    let encoded = panics::catch(|| {
        encode::<Result<u64, Failure>>(session, &Ok(0), 0).and_then(mp_shm::codec::Encoded::into_block)
    });
    if let Ok(Ok(block)) = encoded {
        let _ = Payload::in_block(block).decode::<Result<u64, Failure>>();
    }
}

fn limit_address_space(session: Session, most: u64) -> Result<(), String> {
    if most == u64::MAX {
        return Ok(());
    }
    let most = most.saturating_add(session.mapped_bytes());
    let limit = Limit { resource: Resource::AddressSpace, soft: most, hard: most };
    mp_sys::setup::limit(limit).map_err(|error| format!("limiting the address space: {error}"))
}

/// Takes the job of this process, runs it if that is `prepared`, and delivers what came of it. Returns the code to exit with.
pub(crate) fn run(
    session: Session,
    record: Record,
    nonce: u64,
    prepared: Result<(), String>,
) -> Result<i32, String> {
    let job = at(session, record.offset).ok_or("the job's record is outside of the session")?;
    let argument = session.take(record, &job.argument, (&job.nonce, nonce), (&job.state, NEW, TAKEN));
    let argument = argument.ok_or("the job is gone: the parent died")?;
    *OPEN.lock().unwrap_or_else(PoisonError::into_inner) = Some((session, record));
    let words = |pair: &[AtomicU64; 2]| [pair[0].load(Ordering::Relaxed), pair[1].load(Ordering::Relaxed)];
    let (sealed, function) = (words(&job.trampoline), words(&job.function));
    let call = Call { session, function, argument: Payload::in_block(argument) };
    // Only now: the session must fit in.
    let most = job.address_space.load(Ordering::Relaxed);
    let outcome = prepared
        .and_then(|()| limit_address_space(session, most))
        .and_then(|()| FnRef::<Call, Outcome>::unseal(session, sealed).map_err(|error| error.to_string()))
        .and_then(|trampoline| trampoline.call(call));
    if OPEN.lock().unwrap_or_else(PoisonError::into_inner).take().is_none() {
        // Another thread's panic has closed it, and is about to end this process.
        return Ok(101);
    }
    let (block, state, code) = match outcome {
        Ok((block, went_well)) => (block, DONE, if went_well { 0 } else { 101 }),
        Err(text) => {
            let block = encode(session, &text, 0)
                .and_then(mp_shm::codec::Encoded::into_block)
                .map_err(|error| error.to_string())?;
            (block, REFUSED, 125)
        }
    };
    let delivered = session.give(record, &job.value, block, &job.unwanted, (&job.state, state));
    match delivered {
        Ok(()) => Ok(code),
        Err(value) => {
            // Releases the handles in it.
            drop(Payload::in_block(value));
            // The parent died, or dropped its handle: nobody is there to be told.
            Ok(code)
        }
    }
}

/// Where panics abort: tells the parent of one that is about to end this process, if its job is open.
pub(crate) fn last_words(panic: &Panic) {
    // What this thread has begun would be nobody's to finish, and what it holds would keep it waiting for itself.
    if mp_sys::robust::has_pending() {
        return;
    }
    // Held to the end: a thread that has done the job meanwhile must not end the process before the words are told.
    let Ok(mut open) = OPEN.try_lock() else { return };
    let Some((session, record)) = open.take() else { return };
    // In a copy of the process, whose job it is not, there is no block to be had.
    let encoded = encode(session, panic, 0).and_then(mp_shm::codec::Encoded::into_block);
    if let (Some(job), Ok(block)) = (at(session, record.offset), encoded) {
        // If the parent is gone, or wants nothing, nobody is there to be told.
        let _ = session.give(record, &job.value, block, &job.unwanted, (&job.state, PANICKED));
    }
}
