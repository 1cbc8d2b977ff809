//! Values of a function for many inputs, from threads, as they come.
//!
//! Inputs are handed over one by one: to a thread that costs little, and chunks would keep values back.

use crate::error::{MapError, TaskError};
use crate::executor::Executor;
use crate::failure;
use crate::meter::Meter;
use crate::threads::{ThreadPool, ThreadTask};
use mp_shm::Message;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::iter::Fuse;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Values of a function for many inputs, as they come: see [`ThreadPool::imap`] and [`ThreadPool::imap_unordered`].
///
/// Dropping it gives up what has not come.
#[must_use = "iterators do nothing unless they are used"]
pub struct ThreadImap<'p, A, R, I> {
    pool: &'p ThreadPool,
    f: fn(A) -> R,
    inputs: Fuse<I>,
    is_ordered: bool,
    /// With the place of their input.
    in_flight: VecDeque<(usize, ThreadTask<R>)>,
    /// How many inputs were taken.
    taken: usize,
    /// Why no more inputs are taken: comes after all that were.
    end: Option<End>,
    meter: Meter,
}

enum End {
    Refused(TaskError),
    /// The inputs' own code.
    Panicked(Box<dyn Any + Send>),
    Told,
}

impl<'p, A: Message + Send + 'static, R: Message + Send + 'static, I: Iterator<Item = A>>
    ThreadImap<'p, A, R, I>
{
    pub(super) fn new(pool: &'p ThreadPool, f: fn(A) -> R, inputs: I, is_ordered: bool) -> Self {
        Self {
            pool,
            f,
            inputs: inputs.fuse(),
            is_ordered,
            in_flight: VecDeque::new(),
            taken: 0,
            end: None,
            meter: Meter::default(),
        }
    }

    #[cfg(feature = "progress")]
    pub(crate) fn with_meter(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// Takes inputs until threads have enough to do.
    fn fill(&mut self) {
        while self.end.is_none() && self.in_flight.len() < self.pool.in_flight_max() {
            match catch_unwind(AssertUnwindSafe(|| self.inputs.next())) {
                Ok(None) => return,
                Ok(Some(input)) => match self.pool.submit(self.f, input) {
                    Ok(task) => {
                        self.in_flight.push_back((self.taken, task));
                        self.taken += 1;
                    }
                    Err(error) => self.end = Some(End::Refused(failure::of_pool(error))),
                },
                Err(panic) => self.end = Some(End::Panicked(panic)),
            }
        }
    }
}

impl<A: Message + Send + 'static, R: Message + Send + 'static, I: Iterator<Item = A>> Iterator
    for ThreadImap<'_, A, R, I>
{
    type Item = Result<R, MapError>;

    /// # Panics
    /// With what the inputs' own code panicked with.
    fn next(&mut self) -> Option<Self::Item> {
        self.fill();
        let place = if self.is_ordered {
            0
        } else {
            let tasks: Vec<&ThreadTask<R>> = self.in_flight.iter().map(|(_, task)| task).collect();
            crate::task::wait_any(&tasks).unwrap_or(0)
        };
        let failed = |at: usize| move |error| MapError { items: at..at + 1, error };
        if let Some((at, task)) = self.in_flight.remove(place) {
            let value = task.get();
            if value.is_err() {
                self.meter.fail();
            }
            self.meter.advance(1);
            return Some(value.map_err(failed(at)));
        }
        let Some(end) = self.end.replace(End::Told) else {
            self.meter.finish();
            return None;
        };
        match end {
            End::Refused(error) => Some(Err(failed(self.taken)(error))),
            End::Panicked(panic) => resume_unwind(panic),
            End::Told => None,
        }
    }
}

impl<A, R, I> fmt::Debug for ThreadImap<'_, A, R, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadImap").field("taken", &self.taken).finish_non_exhaustive()
    }
}
