//! A function in a program file that the child cannot find: an error that names the file, no hang.
#![expect(unsafe_code, reason = "a function of a foreign program file, which is never called")]

use mp_spawn::{JoinError, Process};

#[test]
fn a17_a_function_in_a_file_that_is_gone_is_refused_by_name() {
    let original =
        mp_sys::object::loaded().into_iter().find(|object| object.name.contains("libc.so")).unwrap();
    let path = std::env::temp_dir().join(format!("mp-test-{}.so", std::process::id()));
    let path = path.to_str().unwrap();
    std::fs::copy(&original.name, path).unwrap();
    assert!(mp_sys::object::load(path));
    std::fs::remove_file(path).unwrap();
    let code =
        mp_sys::object::loaded().into_iter().find(|object| object.name == path).unwrap().code[0].clone();
    // SAFETY: the pointer is not null; it is only named to a child, which refuses it before it would call it.
    let function = unsafe { std::mem::transmute::<usize, fn(u64) -> u64>(code.start) };
    let error = Process::spawn(function, 1).unwrap().join().unwrap_err();
    assert!(matches!(&error, JoinError::Refused(text) if text.contains(path)), "{error}");
    assert!(error.to_string().contains("load it before"), "{error}");
}
