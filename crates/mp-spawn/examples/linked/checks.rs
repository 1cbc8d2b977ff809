//! What a program's children have to find, however the program was linked. An assertion fails if something is not as it should be.

use mp_channel::{Sender, channel};
use mp_shm::{Fd, Shared};
use mp_spawn::code::FnRef;
use mp_spawn::{ForkServer, JoinError, Process};
use mp_sys::robust;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether panics do in this program.
const UNWINDS: bool = cfg!(panic = "unwind");

/// How many constructors have run: the one beside these functions, and what else calls [`construct`].
static CONSTRUCTED: AtomicU32 = AtomicU32::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

pub(crate) extern "C" fn construct() {
    CONSTRUCTED.fetch_add(1, Ordering::Relaxed);
}

/// Sends to its parent, and returns.
fn greet((name, greetings): (String, Sender<String>)) -> usize {
    greetings.send(format!("hello from {name}")).unwrap();
    name.len()
}

// Equal code, which a linker may fold into one function.
fn signed(n: i64) -> i64 {
    n.wrapping_mul(3) ^ 5
}

fn unsigned(n: u64) -> u64 {
    n.wrapping_mul(3) ^ 5
}

fn call_both((signed, unsigned): (FnRef<i64, i64>, FnRef<u64, u64>)) -> (i64, u64) {
    (signed.call(-1), unsigned.call(1))
}

fn fail(code: u32) -> u32 {
    panic!("failure {code}")
}

/// Whether a thread of it panicked, which is the end of the process where panics abort.
fn fail_beside((): ()) -> bool {
    std::thread::spawn(|| panic!("failure beside")).join().is_err()
}

/// Panics while it holds a word that nobody but the kernel may let go of for it.
fn fail_holding(word: Shared<AtomicU32>) {
    word.store(robust::tid(), Ordering::Relaxed);
    // SAFETY: the handle is not dropped before the thread ends.
    unsafe { robust::set_pending(&word) };
    panic!("failure with a word pending")
}

fn leave(code: i32) {
    std::process::exit(code)
}

fn constructed((): ()) -> u32 {
    CONSTRUCTED.load(Ordering::Relaxed)
}

/// What the file says.
fn read(file: Fd) -> String {
    let mut text = String::new();
    std::fs::File::from(file.open().unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// Starts processes in all ways; says what can be told only from inside.
pub(crate) fn check() -> String {
    let count = constructed(());
    let mut messages = "";
    let server = ForkServer::new();
    for builder in [Process::builder(), Process::builder().fork_server(&server)] {
        let (sender, receiver) = channel(1).unwrap();
        let child = builder.spawn(greet, (String::from("Ada"), sender)).unwrap();
        assert_eq!(receiver.recv().unwrap(), "hello from Ada");
        assert_eq!(child.join().unwrap(), 3);

        let both = (FnRef::new(signed), FnRef::new(unsigned));
        assert_eq!(builder.spawn(call_both, both).unwrap().join().unwrap(), (-8, 6));
        assert_eq!(builder.spawn(signed, -2).unwrap().join().unwrap(), -1);

        messages = match builder.spawn(fail, 7).unwrap().join().unwrap_err() {
            JoinError::Panicked(panic) => {
                assert_eq!(panic.message, "failure 7");
                assert!(panic.location.contains("checks.rs"), "{}", panic.location);
                "kept"
            }
            JoinError::Killed { signal: 6, .. } if !UNWINDS => "lost",
            error => panic!("{error:?}"),
        };
        match builder.spawn(fail_beside, ()).unwrap().join() {
            Ok(panicked) => assert!(panicked && UNWINDS),
            Err(JoinError::Panicked(panic)) => assert_eq!(panic.message, "failure beside"),
            Err(error) => assert!(error.signal() == Some(6) && messages == "lost", "{error:?}"),
        }
        if !UNWINDS {
            let word = Shared::<AtomicU32>::zeroed().unwrap();
            let error = builder.spawn(fail_holding, word.clone()).unwrap().join().unwrap_err();
            assert_eq!(error.signal(), Some(6), "it has no last words: {error:?}");
            assert!(word.load(Ordering::Relaxed) & robust::OWNER_DIED != 0, "the kernel has let go of it");
        }
        let left: JoinError = builder.spawn(leave, 9).unwrap().join().unwrap_err();
        assert!(matches!(left, JoinError::Exited(9)), "{left:?}");
        let child = builder.spawn(constructed, ()).unwrap();
        assert_eq!(child.join().unwrap(), count, "a child runs all constructors, and each once");

        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = Fd::new(reader).unwrap();
        writer.write_all(b"through the broker").unwrap();
        drop(writer);
        assert_eq!(builder.spawn(read, reader).unwrap().join().unwrap(), "through the broker");
    }
    assert_eq!(server.pid().is_some(), mp_sys::zygote::supported().is_ok(), "the fork server was at work");
    let panics = if UNWINDS { "unwind" } else { "abort" };
    let folded = signed as fn(i64) -> i64 as usize == unsigned as fn(u64) -> u64 as usize;
    let std = match mp_sys::object::main_program_holds(std::process::abort as fn() -> ! as usize) {
        true => "own",
        false => "shared",
    };
    format!("panic={panics} messages={messages} folded={folded} std={std} constructors={count}")
}
