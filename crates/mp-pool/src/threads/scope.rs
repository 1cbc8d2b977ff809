//! Tasks of threads that are done when a block of code has ended.

use crate::error::PoolError;
use crate::slot::AnySlot;
use crate::threads::{ThreadPool, ThreadTask};
use mp_shm::Message;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// Where tasks are submitted that end with it: see [`ThreadPool::scope`].
pub struct ThreadScope<'a> {
    pool: &'a ThreadPool,
    tasks: RefCell<Vec<(u64, Arc<dyn AnySlot>)>>,
}

impl<'a> ThreadScope<'a> {
    pub(super) fn new(pool: &'a ThreadPool) -> Self {
        Self { pool, tasks: RefCell::new(Vec::new()) }
    }

    /// As [`ThreadPool::submit`]. A task whose handle is dropped is run all the same.
    ///
    /// # Errors
    /// As there.
    pub fn submit<A: Message + Send + 'static, R: Message + Send + 'static>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<ThreadTask<R>, PoolError> {
        let task = self.pool.enter(f, argument, true)?;
        self.tasks.borrow_mut().push((task.id, task.slot.clone()));
        Ok(task)
    }
}

impl fmt::Debug for ThreadScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadScope").field("pool", self.pool).finish_non_exhaustive()
    }
}

impl Drop for ThreadScope<'_> {
    fn drop(&mut self) {
        for (id, slot) in self.tasks.take() {
            self.pool.shared.run_here(id);
            slot.wait_until(None);
        }
    }
}
