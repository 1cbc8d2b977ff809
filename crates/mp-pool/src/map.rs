//! `map` and its relatives: chunks of measured size.
//!
//! A hand-over to a worker costs some microseconds, so inputs travel in chunks. The first chunks are small; from how long they take
//! follows the size that makes about [`CHUNK_NANOS`] of work, or [`CHUNK_BYTES`] of inputs or values. The end of a known number of inputs is cut finer, so that no worker idles
//! while another works off a large last chunk.
//!
//! Inputs in shared memory do not travel. So a chunk of them is a share of all that are left, whatever they cost, and the worker gives back what it has
//! not done after [`CHUNK_NANOS`].

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
use std::ops::Range;
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
/// Most inputs of a chunk that are sent to a worker.
const CHUNK_MAX: usize = 1 << 16;
/// How many times smaller than the others chunks may become at the end of the inputs.
const END_CUT: usize = 128;
/// What a chunk of a shared array takes at least, in nanoseconds: several times as long as handing it over.
const HAND_OVER_NANOS: u64 = 200_000;
/// Most inputs of a range, which are not sent.
const RANGE_MAX: usize = 1 << 20;

/// Inputs on their way, and what will come of them.
struct Chunk<T> {
    first: usize,
    len: usize,
    task: Task<T>,
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
    in_flight: VecDeque<Chunk<Vec<R>>>,
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
            sizes: Sizes::of(pool.shared().settings.chunk_size),
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
        let (values, mut failures) = match unpack::<Vec<R>>(settled) {
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

/// What came of a chunk, and its failures by place.
fn unpack<T: Message>(settled: Settled) -> Result<(T, FxHashMap<u32, TaskError>), TaskError> {
    let Done { payload, task, pid, attempts, lost, .. } = settled?;
    let failed = |kind| TaskError { kind, task, pid: Some(pid), attempts };
    match payload.decode::<ChunkResult<T>>() {
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
        match unpack::<Vec<R>>(settled) {
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
    assert_eq!(inputs.len(), outputs.len(), "inputs and outputs have different lengths");
    let fixed = pool.shared().settings.chunk_size;
    let nanos = fixed.map_or(CHUNK_NANOS, |_| u64::MAX);
    let mut left = Left::new(inputs.len(), fixed);
    let mut in_flight: Vec<Chunk<u32>> = Vec::new();
    let mut first_error: Option<MapError> = None;
    let mut note = |error: MapError| {
        if first_error.as_ref().is_none_or(|known| error.items.start < known.items.start) {
            first_error = Some(error);
        }
    };
    loop {
        let (workers, ahead) = pool.workers_and_ahead(fixed.unwrap_or(RANGE_MAX));
        while in_flight.len() < ahead
            && let Some(range) = left.cut(workers)
        {
            let (first, len) = (range.start, range.len());
            #[expect(clippy::cast_possible_truncation, reason = "at most RANGE_MAX")]
            let span = (first as u64, len as u32);
            match pool.submit_range(f, (inputs, outputs), span, nanos) {
                Ok(task) => in_flight.push(Chunk { first, len, task }),
                Err(error) => {
                    left.give_back(range);
                    let error = TaskError::new(TaskErrorKind::Pool(error), 0);
                    note(MapError { items: left.give_up(), error });
                }
            }
        }
        let tasks: Vec<&Task<u32>> = in_flight.iter().map(|chunk| &chunk.task).collect();
        let Some(place) = crate::task::wait_any(&tasks) else { break };
        let Chunk { first, len, task } = in_flight.swap_remove(place);
        let settled = task.settle();
        let nanos = settled.as_ref().map_or(0, |done| done.nanos);
        match unpack::<u32>(settled) {
            Ok((done, failures)) => {
                let done = len.min(done as usize);
                left.learn(done, nanos);
                left.give_back(first + done..first + len);
                meter.advance(done);
                for (place, error) in failures {
                    let item = first + place as usize;
                    note(MapError { items: item..item + 1, error });
                }
            }
            Err(error) => {
                meter.advance(len);
                note(MapError { items: first..first + len, error });
            }
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

/// The inputs in shared memory that no worker has.
struct Left {
    ranges: Vec<Range<usize>>,
    count: usize,
    /// How many a chunk has, if that was said.
    fixed: Option<usize>,
    /// So many take longer than to hand them over.
    least: usize,
}

impl Left {
    fn new(total: usize, fixed: Option<usize>) -> Self {
        let mut left = Self { ranges: Vec::new(), count: 0, fixed, least: 1 };
        left.give_back(0..total);
        left
    }

    /// The next chunk for one of so many workers: half of its share, as long as that is worth it.
    fn cut(&mut self, workers: usize) -> Option<Range<usize>> {
        let share = self.count / (workers * 2);
        let len = self.fixed.unwrap_or(share.max(self.least)).min(RANGE_MAX);
        let next = self.ranges.last_mut()?;
        let chunk = next.start..next.end.min(next.start + len);
        next.start = chunk.end;
        if next.start == next.end {
            self.ranges.pop();
        }
        self.count -= chunk.len();
        Some(chunk)
    }

    /// A worker has not done these.
    fn give_back(&mut self, range: Range<usize>) {
        self.count += range.len();
        self.ranges.extend((!range.is_empty()).then_some(range));
    }

    /// Nobody will do those that are left; gives where they begin and end.
    fn give_up(&mut self) -> Range<usize> {
        self.count = 0;
        let given_up =
            self.ranges.drain(..).reduce(|all, range| all.start.min(range.start)..all.end.max(range.end));
        given_up.unwrap_or_default()
    }

    /// So many inputs took `nanos`.
    fn learn(&mut self, count: usize, nanos: u64) {
        self.least =
            usize::try_from(HAND_OVER_NANOS * count as u64 / nanos.max(1)).unwrap_or(usize::MAX).max(1);
    }
}

/// How large chunks are.
struct Sizes {
    /// Inputs of the next chunk.
    size: usize,
    is_fixed: bool,
    /// What chunks should have is not known yet.
    grows: bool,
}

impl Sizes {
    fn of(fixed: Option<usize>) -> Self {
        Self { size: fixed.unwrap_or(FIRST_CHUNK), is_fixed: fixed.is_some(), grows: fixed.is_none() }
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
        let reached = self.size.saturating_mul(GROWTH);
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
        let mut sizes = Sizes { size, is_fixed: false, grows: true };
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
        let mut fixed = Sizes::of(Some(7));
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
    fn a_chunk_of_an_array_is_half_a_share_of_what_is_left() {
        let mut left = Left::new(1000, None);
        let cut = |left: &mut Left| left.cut(2).unwrap_or_default();
        assert_eq!((cut(&mut left), cut(&mut left)), (0..250, 250..437));
        left.give_back(10..250);
        assert_eq!(left.count, 563 + 240);
        assert_eq!((cut(&mut left), cut(&mut left)), (10..210, 210..250), "no chunk has a gap");
        left.learn(40, 1_000);
        assert_eq!(left.least, 8000);
        assert_eq!((cut(&mut left), left.cut(2)), (437..1000, None), "less is not worth a hand-over");
        left.learn(1, 10_000_000);
        left.give_back(5..9);
        left.give_back(2..3);
        assert_eq!((left.least, cut(&mut left)), (1, 2..3));
        left.give_back(0..1);
        assert_eq!((left.give_up(), left.cut(2)), (0..9, None));
        assert_eq!(Left::new(100, Some(30)).cut(1), Some(0..30));
        assert_eq!(Left::new(RANGE_MAX * 8, None).cut(1), Some(0..RANGE_MAX));
        assert_eq!(Left::new(0, None).cut(1), None);
    }

    #[test]
    fn chunks_become_smaller_towards_the_end_but_not_tiny() {
        let cut = |size, is_fixed, left| Sizes { size, is_fixed, grows: false }.cut(left, 2);
        assert_eq!(cut(1000, false, 1_000_000), 1000);
        assert_eq!(cut(1000, false, 2000), 500, "half of each worker's share");
        assert_eq!(cut(1000, false, 8), 7, "a hand-over would take longer than this saves");
        assert_eq!(cut(4, false, 10), 2);
        assert_eq!(cut(1000, true, 10), 1000, "of a fixed size");
    }
}
