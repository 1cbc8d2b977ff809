//! A program without the constructor that forgot to call `init`.
//!
//! The program is the example `forgotten_init`, built here without default features: features are united over one build, so no
//! part of the build of this very test can be without them.

use mp_testkit::watchdog;
use std::process::Command;
use std::time::Duration;

#[test]
fn a11_a_program_that_forgot_init_gets_a_clear_error_and_no_child() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let Some(cargo) = std::env::var_os("CARGO") else {
        eprintln!("skipped: not started by cargo");
        return;
    };
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).unwrap().join("without-constructor");
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--offline", "-p", "mp-spawn", "--no-default-features"])
        .args(["--example", "forgotten_init", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let run = |arguments: &[&str]| {
        let ran =
            Command::new(target.join("debug/examples/forgotten_init")).args(arguments).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };

    let said = run(&[]);
    assert_eq!(said.matches("main\n").count(), 1, "no child ran main: {said}");
    assert_eq!(
        said.matches("NoHook").count(),
        2,
        "for the process, and for the broker of descriptors: {said}"
    );
    assert!(said.contains("multiproc::init()"), "the text says what to do: {said}");
    assert!(said.contains("children: []"), "{said}");

    let said = run(&["init"]);
    assert_eq!(said.matches("main\n").count(), 1, "the child found its job in init: {said}");
    assert!(said.contains("Ok(42)"), "{said}");
    assert!(said.contains("opened again: true"), "the broker found its task in init: {said}");
}
