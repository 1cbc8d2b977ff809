//! A worker: takes tasks from its channel until the pool lets go of it.
//!
//! ```text
//! pool → worker   tag: task, sealed entry (2 words), 0          payload: (FnRef<A, R>, A) or (FnRef<A, R>, Vec<A>)
//! worker → pool   tag: task, worker, READY | RESULT | REFUSED,  payload: (), Result<_, Failure>, String
//!                      nanoseconds the task took
//! ```
//!
//! The *entry* is the instance of [`run_one`] or [`run_chunk`] for the task's types; it is the same code in pool and worker, so both
//! sides agree on the types of payloads.
//!
//! Death: the pool holds the other ends of both channels; when it is gone, the worker ends after the task it is at.

use mp_channel::SendFailure;
use mp_channel::dynamic::{DynMessage, DynReceiver, DynSender};
use mp_shm::{Message, Session, rkyv};
use mp_spawn::code::FnRef;
use mp_spawn::panics::{self, Panic};
use std::time::Instant;

pub(crate) const READY: u64 = 0;
pub(crate) const RESULT: u64 = 1;
pub(crate) const REFUSED: u64 = 2;

/// Why a task has no value although its worker lives.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
pub(crate) enum Failure {
    Panicked(Panic),
    Argument(String),
    Value(String),
}

/// A failure in a chunk, and the position in the chunk where it happened.
pub(crate) type ChunkFailure = (u64, Failure);

/// What an entry is given.
pub(crate) struct Assignment {
    task: u64,
    worker: u64,
    message: DynMessage,
    results: DynSender,
}

/// The entry's type, as it is sealed.
pub(crate) type Entry = FnRef<Assignment, ()>;

/// What a worker process runs.
pub(crate) fn main((worker, tasks, results): (u64, DynReceiver, DynSender)) {
    let Ok(session) = Session::current() else { return };
    // A pool that is gone cannot be told anything; its workers just end.
    if results.send([0, worker, READY, 0], &()).is_err() {
        return;
    }
    while let Ok(message) = tasks.recv() {
        let [task, code, seal, _] = message.tag();
        match Entry::unseal(session, [code, seal]) {
            Ok(entry) => entry.call(Assignment { task, worker, message, results: results.clone() }),
            Err(error) => {
                if results.send([task, worker, REFUSED, 0], &error.to_string()).is_err() {
                    return;
                }
            }
        }
    }
}

impl Assignment {
    fn answer<T: Message>(results: &DynSender, tag: [u64; 4], result: &T) -> Result<(), SendFailure> {
        // The value's own serialisation may panic.
        panics::catch(|| results.send(tag, result)).unwrap_or_else(|panic| {
            Err(SendFailure::Encode(mp_shm::codec::EncodeError::Value(panic.to_string())))
        })
    }

    /// Decodes the argument, runs `body` on it, sends what comes of it.
    fn carry_out<A: Message, R: Message, E: Message>(
        self,
        body: impl FnOnce(A) -> Result<R, E>,
        failed: impl Fn(Failure) -> E,
    ) {
        let start = Instant::now();
        let Self { task, worker, message, results } = self;
        let result = match panics::catch(|| message.decode::<A>()) {
            Ok(Ok(argument)) => body(argument),
            Ok(Err(error)) => Err(failed(Failure::Argument(error.to_string()))),
            Err(panic) => Err(failed(Failure::Panicked(panic))),
        };
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let tag = [task, worker, RESULT, nanos];
        if let Err(SendFailure::Encode(error)) = Self::answer(&results, tag, &result) {
            let instead: Result<R, E> = Err(failed(Failure::Value(error.to_string())));
            // If that fails too, the pool is gone or out of memory; the loop in `main` finds out which.
            let _ = Self::answer(&results, tag, &instead);
        }
    }
}

/// Entry of a single task.
pub(crate) fn run_one<A: Message + 'static, R: Message + 'static>(assignment: Assignment) {
    assignment.carry_out::<(FnRef<A, R>, A), R, Failure>(
        |(function, argument)| panics::catch(|| function.call(argument)).map_err(Failure::Panicked),
        |failure| failure,
    );
}

/// Entry of a chunk of tasks; ends at the first that fails.
pub(crate) fn run_chunk<A: Message + 'static, R: Message + 'static>(assignment: Assignment) {
    assignment.carry_out::<(FnRef<A, R>, Vec<A>), Vec<R>, ChunkFailure>(
        |(function, arguments)| {
            let mut results = Vec::with_capacity(arguments.len());
            // One catch around all: what was pushed tells where it happened.
            panics::catch(|| results.extend(arguments.into_iter().map(|argument| function.call(argument))))
                .map_err(|panic| (results.len() as u64, Failure::Panicked(panic)))?;
            Ok(results)
        },
        |failure| (0, failure),
    );
}
