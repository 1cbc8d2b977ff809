//! The forms that every blocking operation has.

/// Makes the blocking, time-out and deadline form of an operation from one that takes a `Patience`.
macro_rules! forms {
    (
        $(#[$meta:meta])*
        $name:ident, $timeout:ident, $deadline:ident
        $(<$T:ident>)? ($self:ident => $target:expr $(, $arg:ident: $type:ty)*) -> Result<$out:ty, $error:ty>
        = $patiently:ident
    ) => {
        $(#[$meta])*
        pub fn $name $(<$T: Plain>)? (&mut $self $(, $arg: $type)*) -> Result<$out, $error> {
            $target.$patiently($($arg,)* Patience::Forever)
        }

        #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), ") within `timeout`.")]
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($name), "`](Self::", stringify!($name), "), and if the time is over.")]
        pub fn $timeout $(<$T: Plain>)? (
            &mut $self $(, $arg: $type)*, timeout: Duration,
        ) -> Result<$out, $error> {
            $target.$patiently($($arg,)* timeout.into())
        }

        #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), ") until `deadline` at the latest.")]
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($timeout), "`](Self::", stringify!($timeout), ").")]
        pub fn $deadline $(<$T: Plain>)? (
            &mut $self $(, $arg: $type)*, deadline: Instant,
        ) -> Result<$out, $error> {
            $target.$patiently($($arg,)* deadline.into())
        }
    };
}

/// Makes the form of an operation that does not wait.
macro_rules! try_form {
    (
        $name:ident, $blocking:ident
        $(<$T:ident>)? ($self:ident => $target:expr $(, $arg:ident: $type:ty)*) -> Result<$out:ty, $error:ty>
        = $patiently:ident
    ) => {
        #[doc = concat!("[`", stringify!($blocking), "`](Self::", stringify!($blocking), ") without waiting.")]
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "`](Self::", stringify!($blocking), "), and if nothing is whole yet.")]
        pub fn $name $(<$T: Plain>)? (&mut $self $(, $arg: $type)*) -> Result<$out, $error> {
            $target.$patiently($($arg,)* Patience::None)
        }
    };
}

pub(super) use {forms, try_form};
