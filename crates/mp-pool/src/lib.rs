//! A pool of worker processes that loses at most the task that killed its worker.
