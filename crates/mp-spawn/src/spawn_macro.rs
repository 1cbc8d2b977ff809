//! `spawn!`: starting a process with a function of several arguments, or with an expression and what it captures.

/// Starts a process: `spawn!(f(a, b, c))` calls a function of up to six arguments there, `spawn!([a, b] expression)` evaluates an
/// expression that may use what is listed, by value. Gives what [`Process::spawn`](crate::Process::spawn) gives.
///
/// # Examples
/// ```
/// use mp_spawn::spawn;
/// fn add(a: u32, b: u32) -> u32 { a + b }
/// assert_eq!(spawn!(add(2, 3))?.join()?, 5);
/// let (a, b) = (String::from("x"), 3_usize);
/// assert_eq!(spawn!([a, b] a.repeat(b))?.join()?, "xxx");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! spawn {
    ([$($name:ident),* $(,)?] $body:expr) => {
        $crate::Process::spawn(|($($name,)*)| $body, ($($name,)*))
    };
    ($($f:ident)::+ ()) => {
        $crate::Process::spawn(|()| $($f)::+(), ())
    };
    ($($f:ident)::+ ($a:expr $(,)?)) => {
        $crate::Process::spawn(|(a,)| $($f)::+(a), ($a,))
    };
    ($($f:ident)::+ ($a:expr, $b:expr $(,)?)) => {
        $crate::Process::spawn(|(a, b)| $($f)::+(a, b), ($a, $b))
    };
    ($($f:ident)::+ ($a:expr, $b:expr, $c:expr $(,)?)) => {
        $crate::Process::spawn(|(a, b, c)| $($f)::+(a, b, c), ($a, $b, $c))
    };
    ($($f:ident)::+ ($a:expr, $b:expr, $c:expr, $d:expr $(,)?)) => {
        $crate::Process::spawn(|(a, b, c, d)| $($f)::+(a, b, c, d), ($a, $b, $c, $d))
    };
    ($($f:ident)::+ ($a:expr, $b:expr, $c:expr, $d:expr, $e:expr $(,)?)) => {
        $crate::Process::spawn(|(a, b, c, d, e)| $($f)::+(a, b, c, d, e), ($a, $b, $c, $d, $e))
    };
    ($($f:ident)::+ ($a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $g:expr $(,)?)) => {
        $crate::Process::spawn(|(a, b, c, d, e, g)| $($f)::+(a, b, c, d, e, g), ($a, $b, $c, $d, $e, $g))
    };
}
