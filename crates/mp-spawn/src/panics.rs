//! Catching panics with all that is known of them: message, location, backtrace.
//!
//! The panic hook runs where the panic happens and alone sees the location, so the first use of [`catch`] puts a hook in front of
//! the program's own. It keeps a report for the thread that is inside `catch` and then calls the one before it, which prints.
//!
//! Where panics abort (`panic = "abort"` in the profile) nothing is caught: there the hook, once it has printed, tells the parent of a child
//! process, which is the last that the child does. A program that puts another hook in its place (without calling ours) is told of
//! SIGABRT instead, and so is one whose crates were not all built so.

use mp_shm::rkyv;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

/// A panic in another process.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
pub struct Panic {
    /// What it said.
    pub message: String,
    /// Where it happened: `file:line:column`.
    pub location: String,
    /// The backtrace, if `RUST_BACKTRACE` asked for one; empty otherwise.
    pub backtrace: String,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.message, self.location)?;
        if !self.backtrace.is_empty() {
            write!(f, "\n{}", self.backtrace)?;
        }
        Ok(())
    }
}

impl std::error::Error for Panic {}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Runs `body`; a panic in it is an error.
///
/// # Errors
/// [`Panic`].
pub fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Panic> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if cfg!(panic = "abort") {
                before(info);
                return crate::job::last_words(&report(info));
            }
            if DEPTH.get() > 0 {
                // In a destructor of the thread there may be no place for it any more.
                let _ = LAST.try_with(|last| *last.borrow_mut() = Some(report(info)));
            }
            before(info);
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|payload| {
        LAST.try_with(RefCell::take).ok().flatten().unwrap_or_else(|| Panic {
            // `resume_unwind` passes no hook.
            message: text(payload.as_ref()),
            location: String::from("an unknown place"),
            backtrace: String::new(),
        })
    })
}

fn report(info: &PanicHookInfo<'_>) -> Panic {
    use std::backtrace::{Backtrace, BacktraceStatus};
    let backtrace = Backtrace::capture();
    Panic {
        message: text(info.payload()),
        location: info.location().map_or_else(|| String::from("an unknown place"), ToString::to_string),
        backtrace: match backtrace.status() {
            BacktraceStatus::Captured => backtrace.to_string(),
            _ => String::new(),
        },
    }
}

fn text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| String::from("a panic without a text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_keeps_message_and_location() {
        let panic = catch(|| panic!("number {}", 7)).unwrap_err();
        assert_eq!(panic.message, "number 7");
        assert!(panic.location.contains("panics.rs:"), "{}", panic.location);
        assert_eq!(catch(|| 5), Ok(5));
    }

    #[test]
    fn a_payload_without_a_hook_is_told() {
        let panic = catch(|| std::panic::resume_unwind(Box::new("silent"))).unwrap_err();
        assert_eq!(panic.message, "silent");
    }
}
