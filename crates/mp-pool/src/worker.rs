//! A worker: takes tasks from its channel until the pool lets go of it.
//!
//! ```text
//! pool → worker   tag: task, sealed entry (2 words), 0          payload: what the entry decodes
//! worker → pool   tag: task, worker, what, nanoseconds          payload
//!                      what: READY                                       ()
//!                            RESULT                                      Result<R, Failure>, or ChunkResult<T>
//!                            REFUSED                                     String
//!                            FAILED: the initializer                     Failure
//!                            FINAL: the finalizer                        Result<F, Failure>
//!                            and from bit 8 on KiB of resident memory, if the pool limits it; from bit 40 on KiB of what the task was sent as
//! ```
//!
//! The *entry* is the instance of [`run_one`], [`run_chunk`] and so on for the task's types; it is the same code in pool and worker, so both
//! sides agree on the types of payloads. A pool with an initializer sends it first, one with a finalizer that next; both under no task.
//!
//! Before each input of a chunk the worker writes its place to `progress`, so that its death tells which one it was. Of a part of a shared array it leaves
//! to others what it has not done in time.
//!
//! Owns also what a worker has for all its tasks, its number and what its initializer made: of the threads of a [`ThreadPool`](crate::ThreadPool), too.
//!
//! Death: the pool holds the other ends of both channels; when it is gone, the worker ends after the task it is at.

use crate::trace::TaskSpan;
use mp_channel::SendFailure;
use mp_channel::dynamic::{DynMessage, DynReceiver, DynSender};
use mp_shm::rkyv::{Archive, Deserialize, Serialize};
use mp_shm::value::Value;
use mp_shm::{Array, Message, Session, ShmSafe};
use mp_spawn::code::{CodeRef, FnRef, Pointer, SealedCode};
use mp_spawn::panics::{self, Panic};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::time::Instant;

pub(crate) const READY: u64 = 0;
pub(crate) const RESULT: u64 = 1;
pub(crate) const REFUSED: u64 = 2;
pub(crate) const FAILED: u64 = 3;
pub(crate) const FINAL: u64 = 4;
/// Where the memory begins in the third word.
const MEMORY_SHIFT: u32 = 8;
/// Where the size of the argument begins in the third word.
const ARGUMENT_SHIFT: u32 = 40;

/// The third word taken apart: what it is, KiB of memory, KiB of the argument.
pub(crate) fn parts(word: u64) -> (u64, u64, u64) {
    let from_to = |from: u32, to: u32| word >> from & ((1 << (to - from)) - 1);
    (from_to(0, MEMORY_SHIFT), from_to(MEMORY_SHIFT, ARGUMENT_SHIFT), word >> ARGUMENT_SHIFT)
}

fn word_of(what: u64, memory_kib: u64, argument_kib: u64) -> u64 {
    let most = |bits: u32| (1 << bits) - 1;
    what | memory_kib.min(most(ARGUMENT_SHIFT - MEMORY_SHIFT)) << MEMORY_SHIFT
        | argument_kib.min(most(u64::BITS - ARGUMENT_SHIFT)) << ARGUMENT_SHIFT
}

/// `progress` of a worker that is at no input of a chunk.
pub(crate) const NOWHERE: u64 = 0;

/// What a worker is told at its start.
#[derive(Debug, Archive, Serialize, Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
pub(crate) struct Orders {
    pub(crate) worker: u64,
    /// The initializer and the finalizer come first.
    pub(crate) has_initializer: bool,
    pub(crate) has_finalizer: bool,
    pub(crate) tells_memory: bool,
}

/// Why a task has no value although its worker lives.
#[derive(Debug, Archive, Serialize, Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
pub(crate) enum Failure {
    Panicked(Panic),
    Argument(String),
    Value(String),
}

/// What became of a chunk: of inputs that were sent the values, without those that were passed over or failed, of a range how many inputs were
/// done; and the failures, by the input's place in the chunk.
pub(crate) type ChunkResult<T> = Result<(T, Vec<(u32, Failure)>), Failure>;

/// What an entry is given.
pub(crate) struct Assignment {
    task: u64,
    message: DynMessage,
    desk: Desk,
}

/// What a worker has for all its tasks.
#[derive(Clone)]
struct Desk {
    worker: u64,
    results: DynSender,
    progress: Value<u64>,
    tells_memory: bool,
}

/// The entry's type, as it is sealed.
pub(crate) type Entry = FnRef<Assignment, ()>;

thread_local! {
    /// What the initializer made.
    static STATE: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    static WORKER: Cell<Option<u64>> = const { Cell::new(None) };
}

/// In a worker of a pool, a process or a thread, its number there: from 0 on, never used again in that pool. `None` elsewhere.
#[must_use]
pub fn worker_id() -> Option<u64> {
    WORKER.get()
}

/// Makes this thread the worker with this number.
pub(crate) fn become_worker(number: u64) {
    WORKER.set(Some(number));
}

/// Keeps what the initializer of this worker has made, and drops what was there.
pub(crate) fn keep_state(state: Option<Box<dyn Any>>) {
    drop(STATE.replace(state));
}

/// Takes what the initializer of this worker has made, for the finalizer.
pub(crate) fn take_state<S: 'static>() -> Result<S, String> {
    let state = STATE.take().and_then(|state| state.downcast::<S>().ok());
    state
        .map(|state| *state)
        .ok_or_else(|| format!("the initializer made no `{}`", std::any::type_name::<S>()))
}

/// In a worker, for the task that runs: what the pool's [initializer](crate::PoolBuilder::initializer) has made, for this task alone meanwhile.
///
/// # Panics
/// There is no initializer, its value is of another type, or a task uses it while it uses it.
pub fn with_worker_state<S: 'static, T>(with: impl FnOnce(&mut S) -> T) -> T {
    STATE.with_borrow_mut(|state| {
        let state = state.as_mut().and_then(|state| state.downcast_mut::<S>());
        let name = std::any::type_name::<S>();
        with(state.unwrap_or_else(|| panic!("this worker's initializer made no `{name}`")))
    })
}

/// What a worker process runs.
pub(crate) fn main((orders, tasks, results, progress): (Orders, DynReceiver, DynSender, Value<u64>)) {
    let Ok(session) = Session::current() else { return };
    become_worker(orders.worker);
    let desk = Desk { worker: orders.worker, results, progress, tells_memory: orders.tells_memory };
    let carry_out = |message: DynMessage| {
        let [task, code, seal, _] = message.tag();
        match Entry::unseal(session, [code, seal]) {
            Ok(entry) => {
                entry.call(Assignment { task, message, desk: desk.clone() });
                Ok(())
            }
            Err(error) => desk.send((task, REFUSED), 0, 0, &error.to_string()),
        }
    };
    if orders.has_initializer {
        let Ok(message) = tasks.recv() else { return };
        if carry_out(message).is_err() || STATE.with_borrow(Option::is_none) {
            // It has told why.
            std::process::exit(1);
        }
    }
    let finalizer = if orders.has_finalizer { tasks.recv().ok() } else { None };
    // A pool that is gone cannot be told anything; its workers just end.
    if desk.send((0, READY), 0, 0, &()).is_err() {
        return;
    }
    while let Ok(message) = tasks.recv() {
        if carry_out(message).is_err() {
            return;
        }
    }
    if let Some(message) = finalizer {
        // Nobody is left to be told.
        let _ = carry_out(message);
    }
}

impl Desk {
    /// Tells the pool of a task, which took so long, and whose argument had so many bytes.
    fn send<T: Message>(
        &self,
        (task, what): (u64, u64),
        nanos: u64,
        argument: usize,
        value: &T,
    ) -> Result<(), SendFailure> {
        let memory = if self.tells_memory { mp_sys::memory::resident_bytes() >> 10 } else { 0 };
        let tag = [task, self.worker, word_of(what, memory, argument as u64 >> 10), nanos];
        // The value's own serialisation may panic.
        panics::catch(|| self.results.send(tag, value)).unwrap_or_else(|panic| {
            Err(SendFailure::Encode(mp_shm::codec::EncodeError::Value(panic.to_string())))
        })
    }
}

impl Assignment {
    /// Decodes the argument, runs `body` on it, sends what comes of it.
    fn carry_out<A: Message, R: Message>(
        self,
        what: u64,
        body: impl FnOnce(A, &Value<u64>) -> Result<R, Failure>,
    ) {
        let start = Instant::now();
        let Self { task, message, desk } = self;
        // A finalizer is no task.
        let _span = (what == RESULT).then(|| TaskSpan::enter(task, Some(desk.worker)));
        let message = message.into_payload();
        let bytes = message.bytes().len();
        let result = match panics::catch(|| message.decode::<A>()) {
            Ok(Ok(argument)) => body(argument, &desk.progress),
            Ok(Err(error)) => Err(Failure::Argument(error.to_string())),
            Err(panic) => Err(Failure::Panicked(panic)),
        };
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Err(SendFailure::Encode(error)) = desk.send((task, what), nanos, bytes, &result) {
            let instead: Result<R, Failure> = Err(Failure::Value(error.to_string()));
            // If that fails too, the pool is gone or out of memory; the loop in `main` finds out which.
            let _ = desk.send((task, what), nanos, bytes, &instead);
        }
        // The value has been sent: if its destructor panics, no task is to blame any more. The panic hook has said what there is to say.
        let _ = panics::catch(|| drop(result));
    }
}

/// Entry of a single task.
pub(crate) fn run_one<A: Message + 'static, R: Message + 'static>(assignment: Assignment) {
    assignment.carry_out::<(FnRef<A, R>, A), R>(RESULT, |(function, argument), _| {
        panics::catch(|| function.call(argument)).map_err(Failure::Panicked)
    });
}

/// What a chunk is sent as: its inputs, and the places of those to pass over.
pub(crate) type Chunk<F> = (CodeRef<F>, Vec<<F as Pointer>::Argument>, Vec<u32>);

/// What becomes of the inputs of a chunk behind one that panics.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnPanic {
    /// They are run: it is no harm to them.
    GoOn,
    /// They are not run: nobody wants their values any more.
    EndChunk,
}

/// Entry of a chunk of tasks, of which all are run.
pub(crate) fn run_chunk<F: Pointer<Argument: Message + 'static, Value: Message + 'static>>(
    assignment: Assignment,
) {
    carry_out_chunk::<F>(assignment, OnPanic::GoOn);
}

/// Entry of a chunk of tasks that ends with the first one that panics.
pub(crate) fn run_chunk_to_panic<F: Pointer<Argument: Message + 'static, Value: Message + 'static>>(
    assignment: Assignment,
) {
    carry_out_chunk::<F>(assignment, OnPanic::EndChunk);
}

fn carry_out_chunk<F: Pointer<Argument: Message + 'static, Value: Message + 'static>>(
    assignment: Assignment,
    on_panic: OnPanic,
) {
    assignment.carry_out::<Chunk<F>, (Vec<F::Value>, Vec<(u32, Failure)>)>(
        RESULT,
        |(function, arguments, skips), progress| {
            let mut values = Vec::with_capacity(arguments.len());
            let inputs = (0..).zip(arguments);
            let run = |_, argument| values.push(function.call(argument));
            let failures = one_by_one(progress, inputs, (&skips, on_panic), run);
            Ok((values, failures))
        },
    );
}

/// Calls `run` with each input of a chunk and its place, but for those at `skips`; gives those that panic.
fn one_by_one<A>(
    progress: &Value<u64>,
    mut inputs: impl Iterator<Item = (u32, A)>,
    (skips, on_panic): (&[u32], OnPanic),
    mut run: impl FnMut(u32, A),
) -> Vec<(u32, Failure)> {
    let mut failures = Vec::new();
    let mut go = |(place, input): (u32, A)| {
        progress.set(u64::from(place) + 1);
        run(place, input);
    };
    loop {
        // One catch around all that go well, and one loop for the usual case that none is to be passed over.
        let ended = if skips.is_empty() {
            panics::catch(|| inputs.by_ref().for_each(&mut go))
        } else {
            panics::catch(|| inputs.by_ref().filter(|(place, _)| !skips.contains(place)).for_each(&mut go))
        };
        match ended {
            Ok(()) => break,
            Err(panic) => {
                // It is at least the place of the first.
                let at = u32::try_from(progress.get().saturating_sub(1)).unwrap_or(u32::MAX);
                failures.push((at, Failure::Panicked(panic)));
                if on_panic == OnPanic::EndChunk {
                    break;
                }
            }
        }
    }
    progress.set(NOWHERE);
    failures
}

/// A part of a shared array.
#[derive(Clone, Copy, Debug, Archive, Serialize, Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
pub(crate) struct Span {
    /// Where it begins.
    pub(crate) from: u64,
    /// How many inputs it has.
    pub(crate) len: u32,
    /// After how many nanoseconds the worker leaves the rest of them to others.
    pub(crate) nanos: u64,
    /// But not before so many are done.
    pub(crate) at_least: u32,
}

/// What a part of a shared array is sent as, and the places of those inputs to pass over.
pub(crate) type Part<A, R> = (FnRef<A, R>, Array<A>, Array<R>, Span, Vec<u32>);

/// Into how many pieces a worker cuts its time, at least, to look at the clock between them.
const LOOKS: u64 = 8;

/// Bytes of values that get their memory at once.
const PREFAULT: usize = 1 << 18;

/// Entry of a range of inputs that lie in shared memory, whose values go into shared memory, too.
pub(crate) fn run_range<A: ShmSafe + Copy, R: ShmSafe + Copy>(assignment: Assignment) {
    assignment.carry_out::<Part<A, R>, (u32, Vec<(u32, Failure)>)>(
        RESULT,
        |(function, inputs, outputs, span, skips), progress| {
            let from = usize::try_from(span.from).unwrap_or(usize::MAX);
            let index = |place: u32| from.saturating_add(place as usize).min(outputs.len());
            let (mut done, mut stride, mut failures, mut has_memory) = (0_u32, 1_u32, Vec::new(), index(0));
            let (start, mut before) = (Instant::now(), 0);
            while done < span.len {
                let until = done.saturating_add(stride).min(span.len);
                if has_memory < index(until) {
                    let more = has_memory.saturating_add(PREFAULT / size_of::<R>());
                    let more = more.clamp(index(until), index(span.len));
                    // Should that be too much for this process, it was for this input.
                    progress.set(u64::from(done) + 1);
                    // Page by page takes longer than a cheap function does. Without memory for that the first access fails.
                    let _ = outputs.prefault(has_memory..more);
                    has_memory = more;
                }
                while done < until {
                    let skip = skips.iter().copied().filter(|skip| (done..until).contains(skip)).min();
                    let stop = skip.unwrap_or(until);
                    let run = || run_places(function, &inputs, &outputs, progress, (from, done..stop));
                    done = match panics::catch(run) {
                        Ok(()) => skip.map_or(until, |skip| skip + 1),
                        Err(panic) => {
                            // It is at least the place of the first.
                            let at = u32::try_from(progress.get().saturating_sub(1)).unwrap_or(until);
                            failures.push((at, Failure::Panicked(panic)));
                            at.saturating_add(1)
                        }
                    };
                }
                let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                if nanos >= span.nanos && done >= span.at_least {
                    break;
                }
                if nanos - before < span.nanos / LOOKS {
                    stride = stride.saturating_mul(2);
                }
                before = nanos;
            }
            progress.set(NOWHERE);
            Ok((done, failures))
        },
    );
}

/// Calls a function with the inputs at these places of a span that begins at `from`. It is no part of its caller, so that what it goes by can stay in
/// registers, whatever the function does.
#[inline(never)]
fn run_places<A: ShmSafe + Copy, R: ShmSafe + Copy>(
    function: FnRef<A, R>,
    inputs: &Array<A>,
    outputs: &Array<R>,
    progress: &Value<u64>,
    (from, places): (usize, Range<u32>),
) {
    for place in places {
        let index = from.wrapping_add(place as usize);
        if let Some(input) = inputs.get(index) {
            progress.set(u64::from(place) + 1);
            outputs.set(index, function.call(input));
        }
    }
}

/// Entry of an initializer.
pub(crate) fn run_initializer<A: Message + 'static, S: 'static>(assignment: Assignment) {
    let Assignment { message, desk, .. } = assignment;
    let made = match panics::catch(|| message.decode::<(FnRef<A, S>, A)>()) {
        Ok(Ok((function, argument))) => panics::catch(|| function.call(argument)).map_err(Failure::Panicked),
        Ok(Err(error)) => Err(Failure::Argument(error.to_string())),
        Err(panic) => Err(Failure::Panicked(panic)),
    };
    match made {
        Ok(state) => keep_state(Some(Box::new(state))),
        Err(failure) => {
            // `main` sees that there is no state.
            let _ = desk.send((0, FAILED), 0, 0, &failure);
        }
    }
}

/// Entry of a finalizer.
pub(crate) fn run_finalizer<S: 'static, F: Message + 'static>(assignment: Assignment) {
    assignment.carry_out::<FnRef<S, F>, F>(FINAL, |function, _| {
        let state = take_state().map_err(Failure::Argument)?;
        panics::catch(|| function.call(state)).map_err(Failure::Panicked)
    });
}

/// Seals an entry.
pub(crate) fn seal(session: Session, entry: fn(Assignment)) -> Result<SealedCode, mp_spawn::code::CodeError> {
    Entry::new(entry).seal(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_word_keeps_its_parts_apart() {
        assert_eq!(parts(word_of(RESULT, 0, 0)), (RESULT, 0, 0));
        assert_eq!(parts(word_of(FINAL, 123, 456)), (FINAL, 123, 456));
        assert_eq!(parts(word_of(FINAL, u64::MAX, 0)), (FINAL, u32::MAX.into(), 0));
        assert_eq!(parts(word_of(FINAL, 0, u64::MAX)), (FINAL, 0, (1 << 24) - 1));
    }
}
