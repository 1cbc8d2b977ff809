//! Processes that were started and have not attached yet: the one kind of death that no sentinel announces.
//!
//! The crate that starts processes sets a function that looks after them. While there are any, sleepers of this process call it before
//! each sleep and sleep only for a while.

use std::sync::OnceLock;
use std::time::Duration;

static LOOK: OnceLock<fn() -> Option<Duration>> = OnceLock::new();

/// Sets the function: it looks after processes that are starting, and says when to look again, `None` if there are none.
pub fn set_look(look: fn() -> Option<Duration>) {
    // The same function, from the one crate that starts processes.
    let _ = LOOK.set(look);
}

pub(crate) fn look() -> Option<Duration> {
    LOOK.get().and_then(|look| look())
}
