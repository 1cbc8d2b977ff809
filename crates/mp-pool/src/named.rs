//! Tasks by name: what an executor that reaches beyond this build sends, and how the other build does it.
//!
//! ```text
//! submitter                                                       other build
//! Call::new(area, &2.0) ── a message, of whatever transport ──► call.run() ── finds "shapes.area", runs it
//! answer.value()        ◄─────────────────────────────────────── Answer
//! ```
//!
//! [`Call`] and [`Answer`] are values that rkyv can archive by itself, so they travel through a
//! [`Connection`](mp_channel::connection::Connection) as they are. In them argument and value are bytes, which are validated where they are
//! read: what another build sends is input.
//!
//! Names are registered before `main` by [`#[task]`](macro@crate::task). A name that is unknown, that two functions
//! have, or whose function was written with other types, is told in the answer; nothing is run then. The types are compared
//! as they are written, so two builds that mean different types by one name are found out only if the bytes are none of the other's.
//!
//! What it does not do: finding who could run a task, moving code, trying again. Whoever can send a `Call` can run every marked function of the
//! build that runs it: talk to strangers by other means.

#[doc(hidden)]
pub use inventory;

use crate::error::TaskError;
use crate::failure;
use mp_channel::connection::{self, Plain};
use mp_shm::codec::{DecodeError, EncodeError};
use mp_shm::{Message, rkyv};
use mp_spawn::panics::{self, Panic};
use std::collections::BTreeMap;
use std::fmt;

/// A function with a name. [`#[multiproc::task]`](macro@crate::task) makes it one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no name by which another build of this program could find it",
    label = "not marked `#[multiproc::task]`",
    note = "put `#[multiproc::task]` on the function, and name it here as it is: closures and function pointers have no name"
)]
pub trait NamedTask: Copy + Send + Sync + 'static {
    /// What it is given: a tuple if it has several parameters, `()` if it has none.
    type Argument: Message + Plain + Send + 'static;
    /// What it gives.
    type Value: Message + Plain + Send + 'static;
    /// Its name.
    const NAME: &'static str;
    /// Its parameters and value, as they are written.
    const SIGNATURE: &'static str;
    /// The function.
    const FUNCTION: fn(Self::Argument) -> Self::Value;
}

/// An entry of the registry, which `#[task]` makes.
#[doc(hidden)]
pub struct Registered {
    name: &'static str,
    signature: &'static str,
    /// File and line.
    place: &'static str,
    run: fn(&[u8]) -> Outcome,
}

inventory::collect!(Registered);

impl Registered {
    #[must_use]
    pub const fn of<T: NamedTask>(place: &'static str) -> Self {
        Self { name: T::NAME, signature: T::SIGNATURE, place, run: run::<T> }
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at {}", self.name, self.signature, self.place)
    }
}

fn run<T: NamedTask>(argument: &[u8]) -> Outcome {
    let argument = match connection::from_bytes::<T::Argument>(argument) {
        Ok(argument) => argument,
        Err(error) => return Outcome::Argument(error.to_string()),
    };
    let value = (T::FUNCTION)(argument);
    match connection::to_bytes(&value) {
        Ok(bytes) => Outcome::Value(bytes),
        Err(error) => Outcome::Unencodable(error.to_string()),
    }
}

/// A name does not stand for one task of this build.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// No task of this build has it.
    Unknown {
        /// The name.
        name: String,
        /// How many tasks this build has.
        known: usize,
    },
    /// Two tasks have it.
    Twice {
        /// The name.
        name: String,
        /// Where they are: file and line.
        places: [&'static str; 2],
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, known } => write!(
                f,
                "no task of this build is called `{name}` ({known} have names): \
                 mark it with #[multiproc::task], and see to it that its crate is linked"
            ),
            Self::Twice { name, places: [one, other] } => write!(
                f,
                "two tasks are called `{name}`, at {one} and at {other}: \
                 give one another name, #[multiproc::task(name = \"…\")]"
            ),
        }
    }
}

impl std::error::Error for NameError {}

/// The names of all tasks of this build, sorted. A program that runs tasks for others does well to ask when it starts.
///
/// # Errors
/// [`NameError::Twice`].
pub fn names() -> Result<Vec<&'static str>, NameError> {
    let mut found = BTreeMap::new();
    for registered in inventory::iter::<Registered> {
        if let Some(other) = found.insert(registered.name, registered.place) {
            return Err(twice(registered.name, other, registered.place));
        }
    }
    Ok(found.into_keys().collect())
}

/// Looks at all entries: a library that is loaded later brings more.
fn find(name: &str) -> Result<&'static Registered, NameError> {
    let mut known = 0;
    let mut found: Option<&Registered> = None;
    for registered in inventory::iter::<Registered> {
        known += 1;
        if registered.name == name
            && let Some(other) = found.replace(registered)
        {
            return Err(twice(name, other.place, registered.place));
        }
    }
    found.ok_or_else(|| NameError::Unknown { name: name.to_owned(), known })
}

fn twice(name: &str, one: &'static str, other: &'static str) -> NameError {
    let mut places = [one, other];
    // The order of registration is the linker's.
    places.sort_unstable();
    NameError::Twice { name: name.to_owned(), places }
}

/// A task to be run by another build: name, types as written, argument as bytes.
///
/// # Examples
/// ```
/// use mp_pool::named::Call;
/// use mp_pool::task;
///
/// #[task(name = "shapes.area")]
/// fn area(side: f64) -> f64 { side * side }
///
/// let call = Call::new(area, &2.0)?;         // where it is submitted
/// let answer = call.run();                   // where it is run
/// assert_eq!(answer.value::<f64>()?, 4.0);   // where it is waited for
/// # Ok::<(), mp_pool::TaskError>(())
/// ```
#[derive(Clone, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
pub struct Call {
    name: String,
    signature: String,
    argument: Vec<u8>,
}

impl Call {
    /// A call of `task`.
    ///
    /// # Errors
    /// [`TaskError`]: the argument cannot be encoded; two tasks of this build have the name.
    pub fn new<T: NamedTask>(_: T, argument: &T::Argument) -> Result<Self, TaskError> {
        let failed = |text| failure::unsendable(EncodeError::Value(text));
        find(T::NAME).map_err(|error| failure::refused(error.to_string()))?;
        let argument = panics::catch(|| connection::to_bytes(argument))
            .map_err(|panic| failed(panic.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { name: T::NAME.to_owned(), signature: T::SIGNATURE.to_owned(), argument })
    }

    /// The task's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs the task of this build that has the name, here and now. A panic in it is told in the answer.
    #[must_use = "the submitter waits for it"]
    pub fn run(&self) -> Answer {
        let registered = match find(&self.name) {
            Ok(registered) if registered.signature == self.signature => registered,
            Ok(registered) => {
                return Answer::refused(format!(
                    "the task `{}` is `{}` in the build that was to run it, and `{}` where it was submitted",
                    self.name, registered.signature, self.signature
                ));
            }
            Err(error) => return Answer::refused(error.to_string()),
        };
        Answer(panics::catch(|| (registered.run)(&self.argument)).unwrap_or_else(Outcome::Panicked))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call of `{}`, {} bytes", self.name, self.argument.len())
    }
}

/// What came of a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
#[must_use = "the submitter waits for it"]
pub struct Answer(Outcome);

#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
enum Outcome {
    Value(Vec<u8>),
    Panicked(Panic),
    /// The argument's bytes are none of its type.
    Argument(String),
    Unencodable(String),
    Refused(String),
}

impl Answer {
    /// The answer to a call that is not run, or was lost on its way; `reason` says why.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self(Outcome::Refused(reason.into()))
    }

    /// The value of the task.
    ///
    /// # Errors
    /// [`TaskError`] tells why it has none.
    pub fn value<R: Plain>(self) -> Result<R, TaskError> {
        match self.0 {
            Outcome::Value(bytes) => connection::from_bytes(&bytes)
                .map_err(|error| failure::undecodable(DecodeError::Invalid(error.to_string()))),
            Outcome::Panicked(panic) => Err(failure::panicked(panic)),
            Outcome::Argument(text) => Err(failure::argument(text)),
            Outcome::Unencodable(text) => Err(failure::value(text)),
            Outcome::Refused(text) => Err(failure::refused(text)),
        }
    }
}
