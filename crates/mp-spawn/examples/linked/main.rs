//! A program that checks whether its children find their code, however it was linked; `xtask/src/linking.rs` builds it in many ways.
//!
//! Given the path of a library (the example `plugin`), it loads that and checks the same for functions of it.

#![expect(unsafe_code, reason = "a constructor, and functions of a library by name")]
#![expect(clippy::unwrap_used, reason = "a program that checks itself")]

mod checks;
#[path = "../plugin/loaded.rs"]
mod loaded;

/// For `late.rs`.
#[unsafe(no_mangle)]
extern "C" fn linked_construct() {
    checks::construct();
}

use loaded::Plugin;
use mp_spawn::{ForkServer, Process};
use std::time::Duration;

fn main() {
    let _watchdog = mp_testkit::watchdog(Duration::from_secs(60));
    println!("{}", checks::check());
    if let Some(path) = std::env::args().nth(1) {
        let plugin = Plugin::load(&path);
        let server = ForkServer::new();
        for builder in [Process::builder(), Process::builder().fork_server(&server)] {
            // Wherever it works, although the path may be a relative one.
            let builder = builder.current_dir("/");
            assert_eq!(builder.spawn(plugin.triple, 14).unwrap().join().unwrap(), 42);
        }
        println!("the library's function ran in a child");
        plugin.check(None);
        plugin.check(Some("/proc/self/exe"));
    }
}
