//! Names of one build: found, missing, there twice. Marking a function asks no unsafe code of its crate.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::connection::{from_bytes, to_bytes};
use mp_pool::named::{self, Answer, Call, NameError};
use mp_pool::{NamedTask, task};
use mp_testkit::watchdog;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

#[task]
fn ordinary(n: u32) -> u32 {
    n + 1
}

#[task]
fn flag(set: bool) -> u8 {
    u8::from(set)
}

#[task(name = "registry.same")]
fn same(n: u32) -> u32 {
    n
}

mod inner {
    #[mp_pool::task]
    pub(crate) fn ordinary(n: u32) -> u32 {
        n + 2
    }

    #[mp_pool::task(name = "registry.same")]
    pub(crate) fn same(n: u32) -> u32 {
        n
    }
}

#[test]
fn e26_a_task_is_called_by_its_path() {
    let _watchdog = watchdog(LIMIT);
    assert_eq!(<ordinary as NamedTask>::NAME, "registry::ordinary");
    assert_eq!(<inner::ordinary as NamedTask>::NAME, "registry::inner::ordinary");
    assert_eq!(<flag as NamedTask>::SIGNATURE, "fn(bool)->u8");
    let run = |call: Call| call.run().value::<u32>().unwrap();
    assert_eq!(run(Call::new(ordinary, &1).unwrap()), 2);
    assert_eq!(run(Call::new(inner::ordinary, &1).unwrap()), 3);
    assert_eq!((ordinary(1), inner::ordinary(1)), (2, 3));
}

#[test]
fn e26_two_tasks_of_one_name_are_an_error_that_says_where() {
    let _watchdog = watchdog(LIMIT);
    let error = named::names().unwrap_err();
    let NameError::Twice { name, places } = &error else { panic!("{error}") };
    assert_eq!(name, "registry.same");
    assert_ne!(places[0], places[1]);
    assert!(places.iter().all(|place| place.contains("registry.rs:")), "{places:?}");
    let text = Call::new(same, &1).unwrap_err().to_string();
    assert!(text.contains(&error.to_string()), "{text}");
    assert_eq!(same(1), inner::same(1));
}

/// As a program of another build would send it.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Forged {
    name: String,
    signature: String,
    argument: Vec<u8>,
}

fn forged(name: &str, signature: &str, argument: &[u8]) -> Answer {
    let forged =
        Forged { name: name.to_owned(), signature: signature.to_owned(), argument: argument.to_owned() };
    from_bytes::<Call>(&to_bytes(&forged).unwrap()).unwrap().run()
}

#[test]
fn e26_what_another_build_sends_is_checked() {
    let _watchdog = watchdog(LIMIT);
    let failed = |answer: Answer| answer.value::<u8>().unwrap_err().to_string();
    let call = |argument: &[u8]| forged("registry::flag", "fn(bool)->u8", argument);
    assert_eq!(call(&[1]).value::<u8>().unwrap(), 1);
    let text = failed(call(&[2]));
    assert!(text.contains("argument") && text.contains("not"), "2 is no bool: {text}");
    assert!(failed(call(&[])).contains("argument"));
    let text = failed(forged("registry::missing", "fn(bool)->u8", &[1]));
    assert!(text.contains("no task of this build is called `registry::missing` (5 have names)"), "{text}");
    let text = failed(forged("registry::flag", "fn(u8)->u8", &[1]));
    assert!(text.contains("`fn(bool)->u8`") && text.contains("`fn(u8)->u8`"), "{text}");
    // The bytes of the answer are input, too.
    let error = call(&[1]).value::<String>().unwrap_err().to_string();
    assert!(error.contains("value"), "{error}");
    let error = Answer::refused("nobody home").value::<u8>().unwrap_err().to_string();
    assert!(error.contains("nobody home"), "{error}");
}
