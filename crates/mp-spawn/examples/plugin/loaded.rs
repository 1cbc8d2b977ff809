//! The library `plugin`, loaded by a program while it runs.

use std::ffi::{CString, c_char, c_int, c_void};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// Its functions.
pub(crate) struct Plugin {
    /// A function that knows nothing of processes.
    #[allow(dead_code, reason = "a program without multiproc starts no process that could call it")]
    pub(crate) triple: fn(u64) -> u64,
    check: extern "C" fn(*const c_char),
}

impl Plugin {
    pub(crate) fn load(path: &str) -> Self {
        let path = CString::new(path).unwrap();
        // SAFETY: a path that ends with a null byte; the library's constructors expect nothing.
        let library = unsafe { dlopen(path.as_ptr(), 2) };
        assert!(!library.is_null(), "{path:?} was not loaded");
        // SAFETY: a library that is loaded, and a name that ends with a null byte.
        let triple = unsafe { dlsym(library, c"plugin_triple".as_ptr()) };
        // SAFETY: as above.
        let check = unsafe { dlsym(library, c"plugin_check".as_ptr()) };
        assert!(!triple.is_null() && !check.is_null());
        // SAFETY: the library has this function of this type, and is from the same compiler.
        let triple = unsafe { std::mem::transmute::<*mut c_void, fn(u64) -> u64>(triple) };
        // SAFETY: as above.
        let check = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char)>(check) };
        Self { triple, check }
    }

    /// Has the library start processes, which run this program if one is given.
    pub(crate) fn check(&self, program: Option<&str>) {
        let program = program.map(|path| CString::new(path).unwrap());
        (self.check)(program.as_ref().map_or(std::ptr::null(), |path| path.as_ptr()));
    }
}
