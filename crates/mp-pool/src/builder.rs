//! How a pool is to be.

use crate::error::PoolError;
use crate::pool::Pool;

/// Settings of a pool; [`Pool::builder`] makes one.
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    pub(crate) workers: Option<usize>,
    pub(crate) retries: u32,
    pub(crate) chunk_size: Option<usize>,
}

impl PoolBuilder {
    pub(crate) fn new() -> Self {
        Self { workers: None, retries: 0, chunk_size: None }
    }

    /// The number of worker processes. Default: `MULTIPROC_WORKERS` from the environment, otherwise the processors that affinity and
    /// cgroup quota leave this process.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How often a task whose worker died is tried again. Default: 0, the task fails.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How many inputs of a `map` go to a worker at a time, at least 1. Default: measured, about a millisecond's worth.
    #[must_use]
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.chunk_size = Some(items.max(1));
        self
    }

    /// Makes the pool and starts its workers.
    ///
    /// # Errors
    /// [`PoolError`]; workers that were started are ended again.
    pub fn build(self) -> Result<Pool, PoolError> {
        Pool::start(&self)
    }

    pub(crate) fn worker_count(&self) -> usize {
        let from_environment = || {
            std::env::var("MULTIPROC_WORKERS")
                .ok()
                .and_then(|text| text.parse().ok())
                .filter(|&count| count > 0)
        };
        let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.workers.or_else(from_environment).unwrap_or_else(available)
    }
}
