//! A program without multiproc that loads a library with it (the example `plugin`), which starts processes: see `xtask/src/linking.rs`.
//!
//! Its arguments: the library's path, and the program that is to be the children's.

#![expect(unsafe_code, reason = "functions of a library by name")]
#![expect(clippy::unwrap_used, reason = "a program that checks itself")]

#[path = "../plugin/loaded.rs"]
mod loaded;

fn main() {
    let _watchdog = mp_testkit::watchdog(std::time::Duration::from_secs(60));
    println!("main runs");
    let mut arguments = std::env::args().skip(1);
    let plugin = loaded::Plugin::load(&arguments.next().unwrap());
    plugin.check(arguments.next().as_deref());
}
