//! Named points after the steps of a protocol at which a test can kill the process.
//!
//! In a normal build [`point`] is nothing. With `--cfg mp_crash` the environment variable `MP_CRASH=name:n` makes the
//! n-th pass (from 1) through the point `name` end the process with SIGKILL. Under `--cfg loom` a model counts the points and ends the participant at the chosen one.

/// Passes the point `name`.
#[inline(always)]
pub fn point(name: &'static str) {
    #[cfg(loom)]
    {
        let _ = name;
        crate::model::step();
    }
    #[cfg(all(mp_crash, not(loom)))]
    armed::pass(name);
    #[cfg(not(any(mp_crash, loom)))]
    let _ = name;
}

#[cfg(all(mp_crash, not(loom)))]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        nth: u64,
        passes: AtomicU64,
    }

    fn read() -> Option<Armed> {
        let text = std::env::var("MP_CRASH").ok()?;
        let (name, nth) = text.rsplit_once(':')?;
        Some(Armed { name: name.to_owned(), nth: nth.parse().ok()?, passes: AtomicU64::new(0) })
    }

    pub(super) fn pass(name: &'static str) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let Some(armed) = ARMED.get_or_init(read) else { return };
        if armed.name == name && armed.passes.fetch_add(1, Ordering::Relaxed) + 1 == armed.nth {
            // The signal is to this very process; it cannot fail and does not return.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
