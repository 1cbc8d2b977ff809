//! The `select!` macro: a [`Select`](crate::Select) with an operation behind each member.
//!
//! It takes its branches in one by one, waits, and tries the operation of the member that is ready; if somebody else was faster it waits again.
//! What belongs to a branch runs outside of that loop, so `break` and `continue` there mean the caller's.

/// Does one of several operations, whichever can be done first; gives the value of its branch.
///
/// ```text
/// select! {
///     recv(receiver) -> message => …,       message: Result<T, RecvError>
///     send(sender, value) -> result => …,   result: Result<(), SendError<T>>; the value is made once, before the wait
///     wait(waitable) => …,
///     fd(socket, Interest::Read) => …,
///     at(instant) => …,
///     after(duration) => …,
///     default => …,                         if nothing can be done now
/// }
/// ```
///
/// # Panics
/// If this process has no part in one of the channels' sessions, or a file descriptor cannot be waited for.
///
/// # Examples
/// ```
/// use mp_channel::{channel, select};
/// use std::time::Duration;
///
/// let (sender, receiver) = channel::<u32>(1)?;
/// let sent = select! {
///     recv(receiver) -> _message => false,
///     send(sender, 5) -> result => result.is_ok(),
/// };
/// assert!(sent);
/// let received = select! {
///     recv(receiver) -> message => message?,
///     after(Duration::from_secs(60)) => 0,
/// };
/// assert_eq!(received, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! select {
    // Branches are taken in one by one; each gets its number and a place for what comes of it.
    (@take $select:ident $default:tt $done:tt recv($end:expr) -> $result:pat => $body:expr $(, $($rest:tt)*)?) => {{
        let number = $select.end(&$end);
        let mut outcome = None;
        $crate::select!(@more $select $default $done [recv number outcome ($end) ($result) ($body)] $($($rest)*)?)
    }};
    (@take $select:ident $default:tt $done:tt send($end:expr, $value:expr) -> $result:pat => $body:expr $(, $($rest:tt)*)?) => {{
        let number = $select.end(&$end);
        let mut outcome = None;
        let mut value = Some($value);
        $crate::select!(@more $select $default $done [send number outcome ($end, value) ($result) ($body)] $($($rest)*)?)
    }};
    (@take $select:ident $default:tt $done:tt wait($waitable:expr) => $body:expr $(, $($rest:tt)*)?) => {{
        let number = $select.waitable(&$waitable);
        let mut outcome = None;
        $crate::select!(@more $select $default $done [plain number outcome () (()) ($body)] $($($rest)*)?)
    }};
    (@take $select:ident $default:tt $done:tt fd($fd:expr, $interest:expr) => $body:expr $(, $($rest:tt)*)?) => {{
        let number = $select.fd(&$fd, $interest);
        let mut outcome = None;
        $crate::select!(@more $select $default $done [plain number outcome () (()) ($body)] $($($rest)*)?)
    }};
    (@take $select:ident $default:tt $done:tt at($time:expr) => $body:expr $(, $($rest:tt)*)?) => {{
        let number = $select.at($time);
        let mut outcome = None;
        $crate::select!(@more $select $default $done [plain number outcome () (()) ($body)] $($($rest)*)?)
    }};
    (@take $select:ident $default:tt $done:tt after($timeout:expr) => $body:expr $(, $($rest:tt)*)?) => {{
        let number = $select.after($timeout);
        let mut outcome = None;
        $crate::select!(@more $select $default $done [plain number outcome () (()) ($body)] $($($rest)*)?)
    }};
    (@take $select:ident [] $done:tt default => $body:expr $(,)?) => {
        $crate::select!(@take $select [$body] $done)
    };
    (@more $select:ident $default:tt { $($done:tt)* } $branch:tt $($rest:tt)*) => {
        $crate::select!(@take $select $default { $($done)* $branch } $($rest)*)
    };
    // All are taken in: wait, and do what can be done; what belongs to the branch is run outside of the loop.
    (@take $select:ident $default:tt { $($done:tt)* }) => {{
        loop {
            let Some(ready) = $crate::select!(@ready $select $default) else { break };
            $($crate::select!(@try ready $done);)*
        }
        $crate::select!(@finish $default $($done)*)
    }};
    (@ready $select:ident []) => {
        Some($crate::select::found($select.ready()))
    };
    (@ready $select:ident [$body:expr]) => {
        match $select.try_ready() {
            Err(error) if error.is_timeout() => None,
            result => Some($crate::select::found(result)),
        }
    };
    // Somebody else may have been faster: then the wait goes on.
    (@try $ready:ident [recv $number:ident $outcome:ident ($end:expr) $result:tt $body:tt]) => {
        if $ready == $number {
            match $end.try_recv() {
                Err(error) if error.is_empty() => continue,
                result => {
                    $outcome = Some(result);
                    break;
                }
            }
        }
    };
    (@try $ready:ident [send $number:ident $outcome:ident ($end:expr, $value:ident) $result:tt $body:tt]) => {
        if $ready == $number {
            if let Some(value) = $value.take() {
                match $end.try_send(value) {
                    Err(error) if error.is_full() => {
                        $value = Some(error.into_value());
                        continue;
                    }
                    result => {
                        $outcome = Some(result);
                        break;
                    }
                }
            }
        }
    };
    (@try $ready:ident [plain $number:ident $outcome:ident $end:tt $result:tt $body:tt]) => {
        if $ready == $number {
            $outcome = Some(());
            break;
        }
    };
    (@finish $default:tt [$kind:ident $number:ident $outcome:ident $end:tt ($result:pat) ($body:expr)] $($rest:tt)*) => {
        if let Some(outcome) = $outcome {
            let $result = outcome;
            $body
        } else {
            $crate::select!(@finish $default $($rest)*)
        }
    };
    (@finish []) => {
        unreachable!("the loop ends with an outcome")
    };
    (@finish [$body:expr]) => {
        $body
    };
    ($($branches:tt)+) => {{
        let mut select = $crate::Select::new();
        $crate::select!(@take select [] {} $($branches)+)
    }};
}
