//! Tasks that are done when a block of code has ended.

use crate::error::PoolError;
use crate::pool::Pool;
use crate::task::Task;
use mp_shm::Message;
use std::cell::RefCell;

/// Where tasks are submitted that end with it: see [`Pool::scope`].
#[derive(Debug)]
pub struct Scope<'a> {
    pool: &'a Pool,
    tasks: RefCell<Vec<u64>>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(pool: &'a Pool) -> Self {
        Self { pool, tasks: RefCell::new(Vec::new()) }
    }

    /// As [`Pool::submit`]. A task whose handle is dropped is run all the same.
    ///
    /// # Errors
    /// As there.
    pub fn submit<A: Message + Send + 'static, R: Message + 'static>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<Task<R>, PoolError> {
        let task = self.pool.submit(f, argument)?;
        self.pool.shared().keep(task.id());
        self.tasks.borrow_mut().push(task.id());
        Ok(task)
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        let tasks = self.tasks.take();
        self.pool
            .shared()
            .wait_for(None, |state| tasks.iter().all(|&task| state.is_settled(task)).then_some(()));
    }
}
