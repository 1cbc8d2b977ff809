//! `map` and its relatives: chunks of measured size.
//!
//! A hand-over to a worker costs some microseconds, so inputs travel in chunks. The first chunks are small; from how long they take
//! follows the size that makes about [`CHUNK_NANOS`] of work, or [`CHUNK_BYTES`] of inputs or values. The end of a known number of inputs is cut finer, so that no worker idles
//! while another works off a large last chunk.

use crate::error::{MapError, PoolError, TaskError, TaskErrorKind};
use crate::meter::Meter;
use crate::pool::Pool;
use crate::state::{Done, Settled};
use crate::task::Task;
use crate::worker::{ChunkResult, OnPanic};
use mp_shm::{Array, Message, ShmSafe};
use mp_spawn::SpawnError;
use mp_spawn::code::Pointer;
use rustc_hash::FxHashMap;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What a chunk should take, in nanoseconds.
const CHUNK_NANOS: u64 = 8_000_000;
/// Bytes that the inputs or the values of a chunk may have. Copying so many takes longer than a hand-over, and larger messages take longer than their parts
/// would.
const CHUNK_BYTES: usize = 1 << 20;
/// Inputs of the first chunks.
const FIRST_CHUNK: usize = 4;
/// How many times larger than those before chunks may become at once: a measurement of a few inputs says little.
const GROWTH: usize = 8;
/// The same for ranges. Nothing travels, so a mistake costs no memory, and each step costs as much as thousands of inputs.
const RANGE_GROWTH: usize = 64;
/// Most inputs of a chunk that are sent to a worker.
const CHUNK_MAX: usize = 1 << 16;
/// How many times smaller than the others chunks may become at the end of the inputs.
const END_CUT: usize = 128;
/// Most inputs of a range, which are not sent.
const RANGE_MAX: usize = 1 << 20;

struct Chunk<R> {
    first: usize,
    len: usize,
    task: Task<Vec<R>>,
}

/// Gives a chunk of inputs to a pool.
type Give<A, R> = Box<dyn Fn(&Pool, Vec<A>, OnPanic) -> Result<Task<Vec<R>>, PoolError> + Send + Sync>;

/// Values of a function for many inputs, as they come: see [`Pool::imap`] and [`Pool::imap_unordered`].
///
/// Dropping it gives up what has not come.
#[must_use = "iterators do nothing unless they are used"]
pub struct Imap<'p, A, R, I> {
    pool: &'p Pool,
    give: Give<A, R>,
    on_panic: OnPanic,
    inputs: I,
    is_ordered: bool,
    in_flight: VecDeque<Chunk<R>>,
    /// What has come and was not given out.
    ready: VecDeque<Result<R, MapError>>,
    /// How many inputs were taken.
    taken: usize,
    sizes: Sizes,
    more: bool,
    /// Why no more inputs can be taken: comes after all that were.
    refused: Option<MapError>,
    panicked: Option<Box<dyn Any + Send>>,
    meter: Meter,
}

impl<'p, A: Message + Send + 'static, R: Message + 'static, I: Iterator<Item = A>> Imap<'p, A, R, I> {
    pub(crate) fn new(
        pool: &'p Pool,
        f: impl Pointer<Argument = A, Value = R>,
        inputs: I,
        is_ordered: bool,
    ) -> Self {
        Self {
            pool,
            give: Box::new(move |pool, chunk, on_panic| pool.submit_chunk(f, chunk, on_panic)),
            on_panic: OnPanic::GoOn,
            inputs,
            is_ordered,
            in_flight: VecDeque::new(),
            ready: VecDeque::new(),
            taken: 0,
            sizes: Sizes::new(pool, GROWTH),
            more: true,
            refused: None,
            panicked: None,
            meter: Meter::default(),
        }
    }

    #[cfg(feature = "progress")]
    pub(crate) fn with_meter(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// Takes inputs until workers have enough to do.
    fn fill(&mut self) {
        let (workers, ahead) = self.sizes.workers_and_ahead(self.pool);
        while self.more && self.in_flight.len() < ahead {
            let len = self.sizes.cut(self.inputs.size_hint().0, workers);
            let mut chunk = Vec::with_capacity(len);
            // What the inputs' own code panics with comes when all before it have come.
            let taken = catch_unwind(AssertUnwindSafe(|| chunk.extend(self.inputs.by_ref().take(len))));
            self.panicked = taken.err();
            self.more = chunk.len() == len && self.panicked.is_none();
            if chunk.is_empty() {
                return;
            }
            let (first, len) = (self.taken, chunk.len());
            self.taken += len;
            match (self.give)(self.pool, chunk, self.on_panic) {
                Ok(task) => self.in_flight.push_back(Chunk { first, len, task }),
                Err(error) => {
                    self.more = false;
                    let error = TaskError::new(TaskErrorKind::Pool(error), 0);
                    self.refused = Some(MapError { items: first..first + len, error });
                }
            }
        }
    }

    /// Waits for the next chunk.
    fn next_chunk(&mut self) -> Option<(usize, usize, Settled)> {
        let place = if self.is_ordered {
            0
        } else {
            let tasks: Vec<&Task<Vec<R>>> = self.in_flight.iter().map(|chunk| &chunk.task).collect();
            crate::task::wait_any(&tasks)?
        };
        let Chunk { first, len, task } = self.in_flight.remove(place)?;
        let settled = task.settle();
        if let Ok(done) = &settled {
            self.sizes.learn(len, done.nanos, most_of(len, bytes_of(done)));
        }
        self.meter.advance(len);
        Some((first, len, settled))
    }

    /// All that was taken has come.
    ///
    /// # Errors
    /// Why not all inputs were taken; once.
    fn end(&mut self) -> Result<(), MapError> {
        if let Some(panicked) = self.panicked.take() {
            self.meter.fail();
            resume_unwind(panicked);
        }
        if let Some(refused) = self.refused.take() {
            self.meter.fail();
            return Err(refused);
        }
        self.meter.finish();
        Ok(())
    }

    /// Puts what came of a chunk behind what is ready.
    fn spread(&mut self, first: usize, len: usize, settled: Settled) {
        let (values, mut failures) = match unpack::<R>(settled) {
            Ok(unpacked) => unpacked,
            Err(error) => {
                // Nobody knows which of them it was. The first one has the error itself.
                let text = error.kind.to_string();
                let mut error = Some(error);
                self.ready.extend((0..len).map(|_| {
                    let again = || TaskError::new(TaskErrorKind::Lost(text.clone()), 0);
                    Err(MapError { items: first..first + len, error: error.take().unwrap_or_else(again) })
                }));
                return;
            }
        };
        let mut values = values.into_iter();
        for place in 0..len {
            let item = first + place;
            let failure = u32::try_from(place).ok().and_then(|place| failures.remove(&place));
            match failure {
                Some(error) => self.ready.push_back(Err(MapError { items: item..item + 1, error })),
                None => self.ready.extend(values.next().map(Ok)),
            }
        }
    }
}

type Unpacked<R> = (Vec<R>, FxHashMap<u32, TaskError>);

/// The values of a chunk and its failures, by place.
fn unpack<R: Message>(settled: Settled) -> Result<Unpacked<R>, TaskError> {
    let Done { payload, task, pid, attempts, lost, .. } = settled?;
    let failed = |kind| TaskError { kind, task, pid: Some(pid), attempts };
    match payload.decode::<ChunkResult<R>>() {
        Ok(Ok((values, failures))) if failures.is_empty() && lost.is_empty() => {
            Ok((values, FxHashMap::default()))
        }
        Ok(Ok((values, failures))) => {
            let failures = failures.into_iter().map(|(place, failure)| (place, failed(failure.into())));
            Ok((values, failures.chain(lost).collect()))
        }
        Ok(Err(failure)) => Err(failed(failure.into())),
        Err(error) => Err(failed(TaskErrorKind::Decode(error))),
    }
}

impl<A: Message + Send + 'static, R: Message + 'static, I: Iterator<Item = A>> Iterator
    for Imap<'_, A, R, I>
{
    type Item = Result<R, MapError>;

    /// # Panics
    /// With what the inputs' own code panicked with.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(result) = self.ready.pop_front() {
                if result.is_err() {
                    self.meter.fail();
                }
                return Some(result);
            }
            self.fill();
            let Some((first, len, settled)) = self.next_chunk() else {
                return self.end().err().map(Err);
            };
            self.spread(first, len, settled);
        }
    }
}

impl<A, R, I> fmt::Debug for Imap<'_, A, R, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("taken", &self.taken).finish_non_exhaustive()
    }
}

pub(crate) fn map<A: Message + Send + 'static, R: Message + 'static>(
    pool: &Pool,
    f: impl Pointer<Argument = A, Value = R>,
    inputs: impl Iterator<Item = A>,
) -> Result<Vec<R>, MapError> {
    collect(Imap::new(pool, f, inputs, true))
}

/// All values in the order of their inputs, a chunk at a time. Nothing behind a failure is wanted.
pub(crate) fn collect<A: Message + Send + 'static, R: Message + 'static, I: Iterator<Item = A>>(
    mut chunks: Imap<'_, A, R, I>,
) -> Result<Vec<R>, MapError> {
    chunks.on_panic = OnPanic::EndChunk;
    let mut results = Vec::with_capacity(chunks.inputs.size_hint().0.min(1 << 24));
    loop {
        chunks.fill();
        let Some((first, len, settled)) = chunks.next_chunk() else { break };
        match unpack::<R>(settled) {
            Ok((mut values, failures)) if failures.is_empty() => results.append(&mut values),
            Ok((_, failures)) => {
                let (place, error) = failures.into_iter().min_by_key(|(place, _)| *place).unzip();
                let item = first + place.and_then(|place| usize::try_from(place).ok()).unwrap_or(0);
                let error =
                    error.unwrap_or_else(|| TaskError::new(TaskErrorKind::Pool(PoolError::Closed), 0));
                return Err(MapError { items: item..item + 1, error });
            }
            Err(error) => return Err(MapError { items: first..first + len, error }),
        }
    }
    chunks.end().map(|()| results)
}

pub(crate) fn map_into<A: ShmSafe + Copy, R: ShmSafe + Copy>(
    pool: &Pool,
    f: fn(A) -> R,
    (inputs, outputs): (&Array<A>, &Array<R>),
    mut meter: Meter,
) -> Result<(), MapError> {
    let total = inputs.len();
    assert_eq!(total, outputs.len(), "inputs and outputs have different lengths");
    let (mut sizes, mut taken) = (Sizes::new(pool, RANGE_GROWTH), 0);
    let mut in_flight: VecDeque<Chunk<()>> = VecDeque::new();
    let mut first_error: Option<MapError> = None;
    let mut note = |error: MapError| {
        if first_error.as_ref().is_none_or(|known| error.items.start < known.items.start) {
            first_error = Some(error);
        }
    };
    loop {
        let (workers, ahead) = sizes.workers_and_ahead(pool);
        while taken < total && in_flight.len() < ahead {
            let len = sizes.cut(total - taken, workers).min(total - taken).min(RANGE_MAX);
            #[expect(clippy::cast_possible_truncation, reason = "at most RANGE_MAX")]
            let range = (taken as u64, len as u32);
            match pool.submit_range(f, (inputs, outputs), range) {
                Ok(task) => in_flight.push_back(Chunk { first: taken, len, task }),
                Err(error) => {
                    let error = TaskError::new(TaskErrorKind::Pool(error), 0);
                    note(MapError { items: taken..total, error });
                    taken = total;
                    break;
                }
            }
            taken += len;
        }
        let Some(Chunk { first, len, task }) = in_flight.pop_front() else { break };
        let settled = task.settle();
        if let Ok(done) = &settled {
            sizes.learn(len, done.nanos, RANGE_MAX);
        }
        meter.advance(len);
        match unpack::<()>(settled) {
            Ok((_, failures)) => {
                for (place, error) in failures {
                    let item = first + usize::try_from(place).unwrap_or(0);
                    note(MapError { items: item..item + 1, error });
                }
            }
            Err(error) => note(MapError { items: first..first + len, error }),
        }
    }
    match first_error {
        None => {
            meter.finish();
            Ok(())
        }
        Some(error) => Err(error),
    }
}

pub(crate) fn map_slice<A: ShmSafe + Copy, R: ShmSafe + Copy>(
    pool: &Pool,
    f: fn(A) -> R,
    inputs: &[A],
    meter: Meter,
) -> Result<Vec<R>, MapError> {
    let session = pool.shared().session();
    let arrays = Array::from_slice_in(session, inputs)
        .and_then(|shared| Ok((shared, Array::new_in(session, inputs.len())?)));
    let (shared, outputs) = arrays.map_err(|error| MapError {
        items: 0..inputs.len(),
        error: TaskError::new(TaskErrorKind::Pool(PoolError::Spawn(SpawnError::Session(error))), 0),
    })?;
    map_into(pool, f, (&shared, &outputs), meter)?;
    Ok(outputs.to_vec())
}

/// `par_map` for iterators.
pub trait ParMap: Iterator + Sized {
    /// [`Pool::imap`] of this iterator's items.
    fn par_map<R: Message + 'static>(
        self,
        pool: &Pool,
        f: fn(Self::Item) -> R,
    ) -> Imap<'_, Self::Item, R, Self>
    where
        Self::Item: Message + Send + 'static,
    {
        pool.imap(f, self)
    }
}

impl<I: Iterator> ParMap for I {}

/// How large chunks are.
struct Sizes {
    /// Inputs of the next chunk.
    size: usize,
    is_fixed: bool,
    growth: usize,
    /// What chunks should have is not known yet.
    grows: bool,
}

impl Sizes {
    fn new(pool: &Pool, growth: usize) -> Self {
        Self::of(pool.shared().settings.chunk_size, growth)
    }

    fn of(fixed: Option<usize>, growth: usize) -> Self {
        Self { size: fixed.unwrap_or(FIRST_CHUNK), is_fixed: fixed.is_some(), growth, grows: fixed.is_none() }
    }

    /// How many workers there are, and how many chunks may be on their way: one for each of them as long as chunks are too small, since all that are on their
    /// way have to come back before a larger one is begun.
    fn workers_and_ahead(&self, pool: &Pool) -> (usize, usize) {
        let (workers, ahead) = pool.workers_and_ahead(self.size);
        (workers, if self.grows { ahead.min(workers) } else { ahead })
    }

    /// The length of a chunk when so many inputs are left, as far as that is known: towards the end they are smaller, unless their size is fixed.
    /// Not so small that handing them over takes longer than a worker would idle.
    fn cut(&self, left: usize, workers: usize) -> usize {
        let share = left / (workers * 2);
        if self.is_fixed || share == 0 { self.size } else { self.size.min(share.max(self.size / END_CUT)) }
    }

    /// A chunk of `len` inputs took `nanos`; the next ones may have `most`.
    fn learn(&mut self, len: usize, nanos: u64, most: usize) {
        if self.is_fixed {
            return;
        }
        let per_item = (nanos / len as u64).max(1);
        let wanted = usize::try_from(CHUNK_NANOS / per_item).unwrap_or(most).clamp(1, most);
        let reached = self.size.saturating_mul(self.growth);
        self.grows = wanted > reached;
        self.size = wanted.min(reached);
    }
}

/// Bytes of a chunk's inputs or values, whichever have more.
fn bytes_of(done: &Done) -> usize {
    let inputs = usize::try_from(done.argument_kib << 10).unwrap_or(usize::MAX);
    done.payload.bytes().len().max(inputs)
}

/// Most inputs of the next chunks, after the inputs or the values of one of `len` inputs had so many bytes.
fn most_of(len: usize, bytes: usize) -> usize {
    (CHUNK_BYTES / (bytes / len).max(1)).clamp(1, CHUNK_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(size: usize, len: usize, nanos: u64) -> usize {
        let mut sizes = Sizes { size, is_fixed: false, growth: GROWTH, grows: true };
        sizes.learn(len, nanos, CHUNK_MAX);
        assert_eq!(sizes.grows, sizes.size == size * GROWTH && sizes.size < CHUNK_MAX);
        sizes.size
    }

    #[test]
    fn the_chunk_size_follows_the_measured_cost() {
        assert_eq!(next(16, 16, 16 * 1_000), 128, "cheap tasks: eight times as many");
        assert_eq!(next(1 << 16, 1 << 16, 1 << 16), CHUNK_MAX, "never above the limit");
        assert_eq!(next(16, 16, 16 * 8_000_000), 1, "tasks of 8 ms go one by one");
        assert_eq!(next(100, 100, 100 * 800_000), 10);
        assert_eq!(next(4, 4, 0), 32);
        let mut fixed = Sizes::of(Some(7), GROWTH);
        fixed.learn(7, 7, CHUNK_MAX);
        assert_eq!((fixed.size, fixed.grows), (7, false));
    }

    #[test]
    fn large_inputs_and_values_go_one_by_one() {
        assert_eq!(most_of(4, 4 << 20), 1);
        assert_eq!(most_of(4, 40 << 20), 1);
        assert_eq!(most_of(16, 1 << 20), 16);
        assert_eq!(most_of(1000, 8000), CHUNK_MAX);
        assert_eq!(most_of(1000, 0), CHUNK_MAX);
    }

    #[test]
    fn chunks_become_smaller_towards_the_end_but_not_tiny() {
        let cut = |size, is_fixed, left| Sizes { size, is_fixed, growth: GROWTH, grows: false }.cut(left, 2);
        assert_eq!(cut(1000, false, 1_000_000), 1000);
        assert_eq!(cut(1000, false, 2000), 500, "half of each worker's share");
        assert_eq!(cut(1000, false, 8), 7, "a hand-over would take longer than this saves");
        assert_eq!(cut(4, false, 10), 2);
        assert_eq!(cut(1000, true, 10), 1000, "of a fixed size");
    }
}
