//! A copy of this library that lies in a shared library, and not in the executable.
//!
//! Owns: nothing. Such a copy has statics of its own (sessions, sentinels of threads, children), and what it starts must be done by the same
//! copy. But the hook that runs before `main` is the executable's, so the environment names the library, too:
//!
//! ```text
//! the executable's hook                           the copy in the library
//! finds the library's marker, loads the library,
//! checks its identity, calls `enter` there    →   finds its own marker as the hook does, does what that says, and exits
//! ```
//!
//! The marker and a function without arguments are all that the two copies agree on. They need not be of one version.
//!
//! ```text
//! marker:  address of `enter` − load base : identity in hexadecimal digits : path
//! ```

#![expect(unsafe_code, reason = "calling a function by its address")]

use crate::code;
use crate::hook;
use mp_shm::program::ProgramFile;
use mp_sys::object::{self, Object};
use std::ffi::OsString;
use std::fmt::Write;
use std::sync::LazyLock;

/// Environment variable by which a process is told that its marker is for the copy in a library.
pub(crate) const MARKER: &str = "MULTIPROC_LIBRARY";

/// The library that this copy lies in.
static OWN: LazyLock<Option<Object>> = LazyLock::new(|| {
    let here = enter as extern "C" fn() as usize;
    if object::main_program_holds(here) {
        return None;
    }
    object::loaded().into_iter().find(|object| object.holds_code_at(here))
});

/// The path of the library that this copy lies in; `None` if that is the executable.
pub(crate) fn own_path() -> Option<String> {
    OWN.as_ref().map(Object::path)
}

/// The entry of the environment that leads to this copy, if it takes one.
pub(crate) fn variable() -> Option<OsString> {
    let own = OWN.as_ref()?;
    let file = ProgramFile { path: own.path(), identity: own.identity.clone() };
    let offset = (enter as extern "C" fn() as usize).wrapping_sub(own.base);
    Some(format!("{MARKER}={}", to_text(offset, &file)).into())
}

extern "C" fn enter() {
    hook::init();
}

/// Leaves this process to the copy that the marker leads to; why it could not. Does not return if that copy has a marker of its own.
pub(crate) fn leave_to(marker: &str) -> Result<(), String> {
    // Whoever starts such a program has less rights than it has.
    if mp_sys::process::has_more_rights() {
        return Err(String::from(
            "a program with set-user-id rights loads no library that its environment names",
        ));
    }
    // It would get a second C library, which nobody has set up.
    if object::loaded().first().is_some_and(|program| !program.has_loader) {
        return Err(String::from(
            "a static program cannot do the work of a library's copy of multiproc; name a dynamic one",
        ));
    }
    let (offset, file) =
        parse(marker).ok_or("the library's marker in the environment is not one of multiproc's")?;
    let object = code::find(&file).map_err(|error| error.to_string())?;
    let address = object.base.wrapping_add(offset);
    if !object.holds_code_at(address) {
        return Err(String::from("the library's marker in the environment does not point at code"));
    }
    // SAFETY: the identity shows that it is the file whose copy of this library wrote the marker, with the place of its own `enter`.
    let enter = unsafe { std::mem::transmute::<usize, extern "C" fn()>(address) };
    enter();
    Ok(())
}

fn to_text(offset: usize, file: &ProgramFile) -> String {
    let mut text = format!("{offset}:");
    for byte in &file.identity {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push(':');
    text.push_str(&file.path);
    text
}

fn parse(text: &str) -> Option<(usize, ProgramFile)> {
    let mut parts = text.splitn(3, ':');
    let offset = parts.next()?.parse().ok()?;
    let digits = parts.next()?;
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let identity: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    let path = parts.next()?.to_owned();
    // The executable, which has no path here, is left to nobody.
    (!identity.is_empty() && !path.is_empty()).then_some((offset, ProgramFile { path, identity }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_survives_its_text_and_nonsense_is_none() {
        let file = ProgramFile { path: String::from("/a:b/c d.so"), identity: vec![0, 255, 16] };
        assert_eq!(parse(&to_text(0x1234, &file)), Some((0x1234, file)));
        for text in ["", "1:00", "x:00:/a", "1::/a", "1:00:", "1:0:/a", "1:0g:/a", "1:é:/a", "-1:00:/a"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_copy_in_the_executable_takes_no_marker() {
        assert!(own_path().is_none() && variable().is_none());
    }

    #[test]
    fn another_build_of_a_library_is_not_entered() {
        let library = object::loaded().into_iter().find(|object| object.name.contains("libc.so")).unwrap();
        let marker =
            |identity: &[u8]| to_text(0, &ProgramFile { path: library.path(), identity: identity.to_vec() });
        let refused = leave_to(&marker(&[1; 20])).unwrap_err();
        assert!(refused.contains("built differently"), "{refused}");
        let refused = leave_to(&marker(&library.identity)).unwrap_err();
        assert!(refused.contains("does not point at code"), "{refused}");
    }
}
