//! `map`: chunks of measured size, in the order of the inputs.
//!
//! A hand-over to a worker costs some microseconds, so inputs travel in chunks. The first chunks are small; from how long they take
//! follows the size that makes about [`CHUNK_NANOS`] of work. The end of a known number of inputs is cut finer, so that no worker idles
//! while another works off a large last chunk.

use crate::dispatcher::WINDOW;
use crate::error::{MapError, TaskError};
use crate::pool::Pool;
use crate::task::Task;
use crate::worker::ChunkFailure;
use mp_shm::Message;
use std::collections::VecDeque;

/// What a chunk should take, in nanoseconds.
const CHUNK_NANOS: u64 = 1_000_000;
/// Inputs of the first chunks.
const FIRST_CHUNK: usize = 16;
/// Most inputs of a chunk.
const CHUNK_MAX: usize = 1 << 16;

struct Chunk<R> {
    first: usize,
    len: usize,
    task: Task<Vec<R>>,
}

pub(crate) fn map<A: Message + Send + 'static, R: Message + 'static>(
    pool: &Pool,
    f: fn(A) -> R,
    mut inputs: impl Iterator<Item = A>,
    fixed_size: Option<usize>,
) -> Result<Vec<R>, MapError> {
    let in_flight_max = pool.workers() * (WINDOW + 1);
    let mut in_flight: VecDeque<Chunk<R>> = VecDeque::new();
    let mut results = Vec::with_capacity(inputs.size_hint().0.min(1 << 24));
    let mut taken = 0;
    let mut size = fixed_size.unwrap_or(FIRST_CHUNK);
    let mut more = true;
    loop {
        while more && in_flight.len() < in_flight_max {
            let share = inputs.size_hint().0 / (pool.workers() * 2);
            let len = if fixed_size.is_some() || share == 0 { size } else { size.min(share) };
            let chunk: Vec<A> = inputs.by_ref().take(len).collect();
            more = chunk.len() == len;
            if chunk.is_empty() {
                break;
            }
            let (first, len) = (taken, chunk.len());
            taken += len;
            let failed = |error| MapError { items: first..first + len, error: TaskError::Pool(error) };
            let task = pool.submit_chunk(f, chunk).map_err(failed)?;
            in_flight.push_back(Chunk { first, len, task });
        }
        let Some(Chunk { first, len, task }) = in_flight.pop_front() else { return Ok(results) };
        let failed = |error| MapError { items: first..first + len, error };
        let (message, nanos) = task.settle().map_err(failed)?;
        match message.decode::<Result<Vec<R>, ChunkFailure>>() {
            Ok(Ok(mut values)) => results.append(&mut values),
            Ok(Err((at, failure))) => {
                let item = first + usize::try_from(at).unwrap_or(0).min(len - 1);
                return Err(MapError { items: item..item + 1, error: failure.into() });
            }
            Err(error) => return Err(failed(TaskError::Decode(error))),
        }
        if fixed_size.is_none() {
            size = next_size(size, len, nanos);
        }
    }
}

/// The size for the next chunks, after one of `len` inputs took `nanos`. At most eight times the one before: a measurement of a few
/// inputs says little.
fn next_size(size: usize, len: usize, nanos: u64) -> usize {
    let per_item = (nanos / len as u64).max(1);
    let wanted = usize::try_from(CHUNK_NANOS / per_item).unwrap_or(CHUNK_MAX);
    wanted.clamp(1, size.saturating_mul(8).min(CHUNK_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunk_size_follows_the_measured_cost() {
        assert_eq!(next_size(16, 16, 16 * 1_000), 128, "cheap tasks: eight times as many");
        assert_eq!(next_size(1 << 16, 1 << 16, 1 << 16), CHUNK_MAX, "never above the limit");
        assert_eq!(next_size(16, 16, 16 * 2_000_000), 1, "tasks of 2 ms go one by one");
        assert_eq!(next_size(100, 100, 100 * 100_000), 10);
        assert_eq!(next_size(4, 4, 0), 32);
    }
}
