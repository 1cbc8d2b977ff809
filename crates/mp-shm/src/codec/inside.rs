//! Handles in types that serde knows: they work while a [`Serde`](super::Serde) is encoded or decoded, and nowhere else.
//!
//! Serde's serializers are anybody's, and one of them gives no way to the message around it. So the adapter says here, for its thread, what
//! is being done; a handle that is serialised meanwhile notes itself and gives its index to whatever serializer it is given.
//!
//! ```text
//! this thread's stack      event                                                   to
//! …                        a Serde is encoded: first index of its handles          … | Encoding, no handles
//! … | Encoding             a handle is serialised                                  … | Encoding, one more
//! … | Encoding             done: the adapter attaches the handles to the message   …
//! … | Encoding             error or panic: they were only noted                    …
//! …                        a Serde is decoded: lent the decoder's part             … | Decoding
//! … | Decoding             a handle is deserialised: taken out of the message      … | Decoding, one more handed out
//! … | Decoding             done: given back to the decoder                         …
//! … | Decoding             error or panic: the same, without what was taken here   …
//! ```
//!
//! The decoder releases by force what was taken out for a value that came to nothing, since rkyv forgets elements of slices. Serde's types drop
//! theirs, so that is not done here: a type's own `Deserialize` may have kept a handle for itself, and may go on using it.
//!
//! Owns: that stack. Only its top is looked at, so a message that is sent or received by a type's own `Serialize` or `Deserialize` is kept
//! apart. A frame lives as long as the guard that has pushed it, also when user code panics: nothing is left for a later message.
//!
//! Death: nothing here is shared.

use super::decode::Taking;
use crate::handle::{Handle, Kind};
use crate::references::{HandleError, Reference};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;

/// What is being done to one value.
enum Frame {
    Encoding {
        /// The index in the message of the first of `handles`.
        first: u32,
        handles: Vec<Handle>,
    },
    Decoding {
        taking: Taking,
        /// How many handles it had handed out before.
        before: usize,
    },
}

thread_local! {
    static STACK: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// A frame on this thread's stack; its end takes it off.
struct Pushed(());

impl Pushed {
    /// `Err` with the frame where the thread ends and has no stack any more: no handles there.
    fn push(frame: Frame) -> Result<Self, Frame> {
        let mut frame = Some(frame);
        // Where that fails, the frame is still here.
        let _ = STACK.try_with(|stack| stack.borrow_mut().extend(frame.take()));
        frame.map_or(Ok(Self(())), Err)
    }

    fn pop(self) -> Option<Frame> {
        std::mem::forget(self);
        Self::take()
    }

    fn take() -> Option<Frame> {
        STACK.try_with(|stack| stack.borrow_mut().pop()).ok().flatten()
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        // User code panicked. What the frame holds is dropped when the stack is not borrowed any more.
        if let Some(Frame::Decoding { mut taking, before }) = Self::take() {
            taking.let_go_after(before);
        }
    }
}

/// Calls `use_top` with what is being done to the innermost value, if anything is. It runs no user code.
fn top<R>(use_top: impl FnOnce(&mut Frame) -> Option<R>) -> Option<R> {
    STACK.try_with(|stack| stack.borrow_mut().last_mut().and_then(use_top)).ok().flatten()
}

/// Runs `body`, which serialises a value; gives what it gives, and the handles that were serialised. Those count from index `first`.
pub(super) fn encoding<R>(first: u32, body: impl FnOnce() -> R) -> (R, Vec<Handle>) {
    let Ok(pushed) = Pushed::push(Frame::Encoding { first, handles: Vec::new() }) else {
        return (body(), Vec::new());
    };
    let result = body();
    match pushed.pop() {
        Some(Frame::Encoding { handles, .. }) => (result, handles),
        _ => unreachable!("guards are taken off in the reverse order of their making"),
    }
}

/// Runs `body`, which deserialises a value and may take handles; gives what it gives, and `taking` back.
pub(super) fn decoding<T, E>(taking: Taking, body: impl FnOnce() -> Result<T, E>) -> (Result<T, E>, Taking) {
    let before = taking.handed_out();
    let pushed = match Pushed::push(Frame::Decoding { taking, before }) {
        Ok(pushed) => pushed,
        Err(Frame::Decoding { taking, .. }) => return (body(), taking),
        Err(Frame::Encoding { .. }) => unreachable!("the frame that was to be pushed comes back"),
    };
    let result = body();
    match pushed.pop() {
        Some(Frame::Decoding { mut taking, .. }) => {
            if result.is_err() {
                taking.let_go_after(before);
            }
            (result, taking)
        }
        _ => unreachable!("guards are taken off in the reverse order of their making"),
    }
}

/// A handle to be serialised: its index among the handles of its message.
#[derive(Debug)]
pub struct InMessage<'a>(pub &'a Reference);

impl Serialize for InMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let index = top(|frame| match frame {
            Frame::Encoding { first, handles } => {
                let index = u32::try_from(handles.len()).ok().and_then(|count| first.checked_add(count))?;
                handles.push(self.0.handle());
                Some(index)
            }
            Frame::Decoding { .. } => None,
        });
        match index {
            Some(index) => serializer.serialize_u32(index),
            None => Err(S::Error::custom("a handle can be serialised only inside of a message")),
        }
    }
}

/// In place of a kind's number: whichever it is. No end has this one.
pub const ANY_KIND: u16 = Kind::FREE.0;

/// A handle that was deserialised: a reference of kind `KIND`, which may be [`ANY_KIND`].
#[derive(Debug)]
pub struct OutOfMessage<const KIND: u16>(pub Reference);

impl<'de, const KIND: u16> Deserialize<'de> for OutOfMessage<KIND> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let index = u32::deserialize(deserializer)?;
        let kind = (KIND != ANY_KIND).then_some(Kind(KIND));
        let taken = top(|frame| match frame {
            Frame::Decoding { taking, .. } => Some(taking.take(index, kind)),
            Frame::Encoding { .. } => None,
        });
        let taken =
            taken.ok_or_else(|| D::Error::custom("a handle can be deserialised only inside of a message"))?;
        taken.map(Self).map_err(D::Error::custom)
    }
}

/// The error for a handle that turned out not to fit; the message's own error will say so, too.
pub fn refuse<E: serde::de::Error>(error: HandleError) -> E {
    top(|frame| {
        if let Frame::Decoding { taking, .. } = frame {
            taking.note(error);
        }
        Some(())
    });
    E::custom(error)
}
