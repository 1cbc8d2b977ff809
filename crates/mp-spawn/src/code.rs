//! Code references: naming a function to another process of the same build.
//!
//! ```text
//! code reference:  63..48 number of the program file in the session | 47..0 address − load base
//! ```
//!
//! The receiving process finds the file among those it has loaded (loading it if need be), compares the build id, checks that the
//! address lies in a code segment, and adds its own load base. An address only selects code: linkers fold equal functions, so it
//! never tells two functions apart.
//!
//! A reference in a message is *sealed*: a keyed hash, with the session's secret, of the reference and of the function's type.
//! Without the seal, bytes that merely look like a reference could be decoded into a function by safe code.
//!
//! Owns: the list of program files that this process knows by number, and in each thread the last functions that it sealed or found.

#![expect(unsafe_code, reason = "turning addresses into functions")]

use mp_shm::Session;
use mp_shm::codec::{Attach, Detach};
use mp_shm::error::SessionError;
use mp_shm::program::ProgramFile;
use mp_shm::rkyv::rancor::Source;
use mp_shm::rkyv::rend::u64_le;
use mp_shm::rkyv::{Archive, Deserialize, Place, Serialize};
use mp_sys::object::{self, Object};
use std::any::TypeId;
use std::cell::RefCell;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// A function could not be named, or found.
#[derive(Debug)]
pub enum CodeError {
    /// The address lies in no loaded program file: code made at run time.
    NoFile,
    /// The session could not take the file up.
    Session(SessionError),
    /// The file the reference points into is not known here and could not be loaded.
    NotLoaded(String),
    /// The file was built differently here.
    OtherBuild(String),
    /// The reference does not point at code, or is none.
    NotCode,
}

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => {
                f.write_str("the function lies in no program file, so other processes cannot find it")
            }
            Self::Session(error) => error.fmt(f),
            Self::NotLoaded(path) => write!(
                f,
                "the function lies in {path}, which this process has not loaded and cannot load; \
                 load it before the function is used, or keep the file where it was"
            ),
            Self::OtherBuild(path) => {
                let path = if path.is_empty() { "the program" } else { path };
                write!(f, "{path} was built differently in the two processes; run both from one build")
            }
            Self::NotCode => f.write_str("the reference does not point at a function of this build"),
        }
    }
}

impl std::error::Error for CodeError {}

/// A program file as this process has it loaded, under its number in a session.
#[derive(Debug)]
struct Known {
    session: Session,
    number: u16,
    object: Object,
}

static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

const OFFSET_BITS: u32 = 48;

/// Names the function at `address` for processes of `session`.
pub(crate) fn reference(session: Session, address: usize) -> Result<u64, CodeError> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let at = known.iter().position(|one| one.session == session && one.object.holds_code_at(address));
    let at = match at {
        Some(at) => at,
        None => {
            let object = object::loaded()
                .into_iter()
                .find(|object| object.holds_code_at(address))
                .ok_or(CodeError::NoFile)?;
            let file = ProgramFile { path: object.path(), identity: object.identity.clone() };
            let number = session.number_of_program(&file).map_err(CodeError::Session)?;
            known.push(Known { session, number, object });
            known.len() - 1
        }
    };
    let one = &known[at];
    Ok(u64::from(one.number) << OFFSET_BITS | (address - one.object.base) as u64)
}

/// The address in this process of the function that `reference` names.
pub(crate) fn resolve(session: Session, reference: u64) -> Result<usize, CodeError> {
    let number = u16::try_from(reference >> OFFSET_BITS).map_err(|_| CodeError::NotCode)?;
    let offset = usize::try_from(reference & ((1 << OFFSET_BITS) - 1)).map_err(|_| CodeError::NotCode)?;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let at = known.iter().position(|one| one.session == session && one.number == number);
    let at = match at {
        Some(at) => at,
        None => {
            let file = session.program(number).ok_or(CodeError::NotCode)?;
            let object = find(&file)?;
            known.push(Known { session, number, object });
            known.len() - 1
        }
    };
    let object = &known[at].object;
    let address = object.base.wrapping_add(offset);
    if object.holds_code_at(address) { Ok(address) } else { Err(CodeError::NotCode) }
}

/// Finds a file among the loaded ones, loading it if it is not the main program.
pub(crate) fn find(file: &ProgramFile) -> Result<Object, CodeError> {
    let at_path = || object::loaded().into_iter().find(|object| object.path() == file.path);
    // What was loaded by another path before keeps that one.
    let of_build = || object::loaded().into_iter().find(|object| object.identity == file.identity);
    let found = match at_path() {
        None if object::load(&file.path) => at_path().or_else(of_build),
        found => found,
    };
    let object = found.ok_or_else(|| CodeError::NotLoaded(file.path.clone()))?;
    if object.identity.is_empty() || object.identity != file.identity {
        return Err(CodeError::OtherBuild(file.path.clone()));
    }
    Ok(object)
}

/// Pointers to functions that can be sent: of one argument, or of two, which then come as a pair.
///
/// # Safety
/// [`address`](Self::address) is that of a function which [`at`](Self::at) gives back, from its address in any process of this build.
pub unsafe trait Pointer: Copy + Send + Sync + 'static {
    /// What it is called with.
    type Argument;
    /// What that gives.
    type Value;

    /// Calls it.
    fn call(self, argument: Self::Argument) -> Self::Value;

    /// Where the function is in this process.
    fn address(self) -> usize;

    /// The pointer to the function at `address`.
    ///
    /// # Safety
    /// A function of exactly this type is there.
    unsafe fn at(address: usize) -> Self;
}

macro_rules! pointer {
    ($($argument:ident),+ => $argument_type:ty, $pattern:pat) => {
        // SAFETY: the address of a pointer, and the same address as one.
        unsafe impl<$($argument: 'static,)+ R: 'static> Pointer for fn($($argument),+) -> R {
            type Argument = $argument_type;
            type Value = R;

            #[expect(non_snake_case, reason = "arguments are named as their types")]
            fn call(self, $pattern: $argument_type) -> R {
                self($($argument),+)
            }

            fn address(self) -> usize {
                self as usize
            }

            unsafe fn at(address: usize) -> Self {
                // SAFETY: the caller vouches for the function.
                unsafe { std::mem::transmute::<usize, Self>(address) }
            }
        }
    };
}

pointer!(A => A, A);
pointer!(A, B => (A, B), (A, B));

/// A function that can be sent to other processes of the same build; of one argument it is an [`FnRef`].
pub struct CodeRef<F> {
    function: F,
}

/// A function of one argument that can be sent to other processes of the same build.
///
/// # Examples
/// ```
/// use mp_spawn::code::FnRef;
/// let double = FnRef::new(|n: u64| n * 2);
/// assert_eq!(double.call(4), 8);
/// ```
pub type FnRef<A, R> = CodeRef<fn(A) -> R>;

impl<A, R> FnRef<A, R> {
    /// Wraps a function, or a closure that captures nothing.
    pub fn new(function: fn(A) -> R) -> Self {
        Self { function }
    }
}

impl<F: Pointer> CodeRef<F> {
    /// Wraps a pointer to a function.
    pub fn of(function: F) -> Self {
        Self { function }
    }

    /// Calls it.
    pub fn call(&self, argument: F::Argument) -> F::Value {
        self.function.call(argument)
    }
}

impl<F: Copy> Clone for CodeRef<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Copy> Copy for CodeRef<F> {}

impl<F> fmt::Debug for CodeRef<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

/// A sealed code reference: the function's place and its seal.
pub type SealedCode = [u64; 2];

impl<F: Pointer> CodeRef<F> {
    /// Names the function for processes of `session`.
    ///
    /// # Errors
    /// [`CodeError`]: it lies in no program file, or the session's table of files is full.
    pub fn seal(self, session: Session) -> Result<SealedCode, CodeError> {
        let (kind, address) = (TypeId::of::<F>(), self.function.address());
        if let Some(seen) = seen(|one| one.address == address && one.kind == kind && one.session == session) {
            return Ok(seen.sealed);
        }
        let code = reference(session, address)?;
        let sealed = [code, seal::<F>(session, code)];
        note(Seen { session, kind, address, sealed });
        Ok(sealed)
    }

    /// Finds the function that was sealed in another process of `session`.
    ///
    /// # Errors
    /// [`CodeError`]: another build, a file that cannot be found, or no sealed function of this type.
    pub fn unseal(session: Session, sealed: SealedCode) -> Result<Self, CodeError> {
        let kind = TypeId::of::<F>();
        let seen = seen(|one| one.sealed == sealed && one.kind == kind && one.session == session);
        let address = match seen {
            Some(seen) => seen.address,
            None => {
                if sealed[1] != seal::<F>(session, sealed[0]) {
                    return Err(CodeError::NotCode);
                }
                let address = resolve(session, sealed[0])?;
                note(Seen { session, kind, address, sealed });
                address
            }
        };
        // SAFETY: the seal shows, now or when it was noted, that some process of the session named a function of exactly this type by this
        // reference; the build id shows that the code there is the same here.
        let function = unsafe { F::at(address) };
        Ok(Self { function })
    }
}

/// A function that this thread has sealed, or found by its seal.
#[derive(Clone, Copy)]
struct Seen {
    session: Session,
    /// Its type.
    kind: TypeId,
    address: usize,
    sealed: SealedCode,
}

/// How many of them a thread remembers: a pool has two for each function, its own and the user's.
const SEEN_MAX: usize = 8;

thread_local! {
    /// The last ones, and where the next goes. Hashing and looking a function up are a tenth of what handing a task over takes.
    static SEEN: RefCell<(Vec<Seen>, usize)> = const { RefCell::new((Vec::new(), 0)) };
}

fn seen(is_it: impl Fn(&Seen) -> bool) -> Option<Seen> {
    SEEN.try_with(|seen| seen.borrow().0.iter().find(|one| is_it(one)).copied()).ok().flatten()
}

fn note(one: Seen) {
    // A thread that ends may have none any more.
    let _ = SEEN.try_with(|seen| {
        let (seen, next) = &mut *seen.borrow_mut();
        if seen.len() < SEEN_MAX {
            seen.push(one);
        } else {
            seen[*next] = one;
            *next = (*next + 1) % SEEN_MAX;
        }
    });
}

/// The keyed hash (SipHash of the standard library, fixed keys, the secret first) of a reference and its type. `TypeId` is the
/// same in all processes of one build.
fn seal<F: Pointer>(session: Session, code: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    // SAFETY: the secret goes into this hash alone.
    unsafe { session.secret() }.hash(&mut hasher);
    TypeId::of::<F>().hash(&mut hasher);
    code.hash(&mut hasher);
    hasher.finish()
}

/// A function in a message.
#[derive(Clone, Copy, Debug, mp_shm::rkyv::Portable, mp_shm::rkyv::bytecheck::CheckBytes)]
#[rkyv(crate = mp_shm::rkyv)]
#[bytecheck(crate = mp_shm::rkyv::bytecheck)]
#[repr(C)]
pub struct ArchivedFn {
    code: u64_le,
    seal: u64_le,
}

impl<F> Archive for CodeRef<F> {
    type Archived = ArchivedFn;
    type Resolver = SealedCode;

    fn resolve(&self, [code, seal]: SealedCode, out: Place<ArchivedFn>) {
        mp_shm::rkyv::munge::munge!(let ArchivedFn { code: code_place, seal: seal_place } = out);
        code.resolve((), code_place);
        seal.resolve((), seal_place);
    }
}

impl<F: Pointer, S> Serialize<S> for CodeRef<F>
where
    S: Attach<Error: Source> + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<SealedCode, S::Error> {
        self.seal(serializer.session()).map_err(Source::new)
    }
}

impl<F: Pointer, D> Deserialize<CodeRef<F>, D> for ArchivedFn
where
    D: Detach<Error: Source> + ?Sized,
{
    fn deserialize(&self, deserializer: &mut D) -> Result<CodeRef<F>, D::Error> {
        let sealed = [self.code.to_native(), self.seal.to_native()];
        CodeRef::unseal(deserializer.session(), sealed).map_err(Source::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twice(n: u32) -> u32 {
        n * 2
    }

    #[test]
    fn a_sealed_function_is_found_and_only_as_its_own_type() {
        let session = Session::current().unwrap();
        let sealed = FnRef::new(twice).seal(session).unwrap();
        assert_eq!(FnRef::<u32, u32>::unseal(session, sealed).unwrap().call(21), 42);
        assert!(matches!(FnRef::<u64, u32>::unseal(session, sealed), Err(CodeError::NotCode)));
        assert!(matches!(
            FnRef::<u32, u32>::unseal(session, [sealed[0] + 1, sealed[1]]),
            Err(CodeError::NotCode)
        ));
    }

    #[test]
    fn functions_are_found_again_among_many() {
        let session = Session::current().unwrap();
        macro_rules! functions {
            ($($number:literal)*) => { [$((|n: u32| n + $number) as fn(u32) -> u32),*] };
        }
        let functions = functions![0 1 2 3 4 5 6 7 8 9 10 11];
        let sealed = functions.map(|function| FnRef::new(function).seal(session).unwrap());
        // Twice in an order in which the later ones push the earlier out; other types are refused all the same.
        for (place, sealed) in sealed.iter().chain(&sealed).enumerate() {
            let found = FnRef::<u32, u32>::unseal(session, *sealed).unwrap();
            assert_eq!(found.call(100), 100 + u32::try_from(place % 12).unwrap());
            assert_eq!(found.seal(session).unwrap(), *sealed);
            assert!(FnRef::<u32, i32>::unseal(session, *sealed).is_err());
            assert!(FnRef::<u32, u32>::unseal(session, [sealed[0], sealed[1] ^ 1]).is_err());
        }
    }

    fn minus(a: u32, b: u32) -> u32 {
        a - b
    }

    #[test]
    fn a_function_of_two_is_not_one_of_a_pair() {
        let session = Session::current().unwrap();
        let sealed = CodeRef::of(minus as fn(u32, u32) -> u32).seal(session).unwrap();
        assert_eq!(CodeRef::<fn(u32, u32) -> u32>::unseal(session, sealed).unwrap().call((44, 2)), 42);
        assert!(matches!(FnRef::<(u32, u32), u32>::unseal(session, sealed), Err(CodeError::NotCode)));
    }

    #[test]
    fn a_reference_outside_of_code_is_refused() {
        let session = Session::current().unwrap();
        let code = reference(session, twice as fn(u32) -> u32 as usize).unwrap();
        let number = code >> OFFSET_BITS << OFFSET_BITS;
        assert!(matches!(resolve(session, number | ((1 << OFFSET_BITS) - 1)), Err(CodeError::NotCode)));
        assert!(matches!(resolve(session, 63 << OFFSET_BITS), Err(CodeError::NotCode)));
        let on_the_heap = Box::new(0_u8);
        let address = std::ptr::from_ref(&*on_the_heap) as usize;
        assert!(matches!(reference(session, address), Err(CodeError::NoFile)));
    }

    #[test]
    fn another_build_of_a_file_and_a_missing_file_are_told_apart() {
        let other_build = ProgramFile { path: String::new(), identity: vec![1; 20] };
        assert!(matches!(find(&other_build), Err(CodeError::OtherBuild(_))));
        let missing = ProgramFile { path: String::from("/nonexistent/libgone.so"), identity: vec![1; 20] };
        let error = find(&missing).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/libgone.so"), "{error}");
    }

    #[test]
    fn a_function_of_a_shared_library_is_found() {
        let session = Session::current().unwrap();
        let address = mp_sys::object::loaded()
            .into_iter()
            .find(|object| object.name.contains("libc.so"))
            .map(|object| object.code[0].start);
        let address = address.unwrap();
        let code = reference(session, address).unwrap();
        assert_eq!(resolve(session, code).unwrap(), address);
    }
}
