//! Named points after the steps of a protocol at which a test can kill the process, or stop it.
//!
//! In a normal build [`point`] is nothing. With `--cfg mp_crash` the environment variable `MP_CRASH=name:n` makes the
//! n-th pass (from 1) through the point `name` end the process with SIGKILL, `MP_CRASH=name:n:stop` makes it stop with SIGSTOP. Under `--cfg loom` a model counts the points and ends the participant at the chosen one.

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
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        nth: u64,
        signal: Signal,
        passes: AtomicU64,
    }

    fn read() -> Option<Armed> {
        let text = std::env::var("MP_CRASH").ok()?;
        let (text, signal) =
            text.strip_suffix(":stop").map_or((text.as_str(), Signal::KILL), |text| (text, Signal::STOP));
        let (name, nth) = text.rsplit_once(':')?;
        Some(Armed { name: name.to_owned(), nth: nth.parse().ok()?, signal, passes: AtomicU64::new(0) })
    }

    pub(super) fn pass(name: &'static str) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let Some(armed) = ARMED.get_or_init(read) else { return };
        if armed.name == name && armed.passes.fetch_add(1, Ordering::Relaxed) + 1 == armed.nth {
            // The signal is to this very process, and cannot fail: a kill does not return, a stop returns when the process is continued.
            let _ = kill_process(getpid(), armed.signal);
        }
    }
}
