//! The three ways the tests are built: as they are, with loom's model of memory, and with crash points.

use std::path::Path;

use crate::run::{Call, Result};
use crate::workspace::Workspace;

/// A way to build tests. Integration tests whose file starts with `loom` or `crash` are empty in a plain build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// As users build it.
    Plain,
    /// `--cfg loom`: the protocols run under loom, which tries every order of events.
    Loom,
    /// `--cfg mp_crash`: the library's crash points are compiled in.
    Crash,
}

impl Build {
    /// All of them.
    pub(crate) const ALL: [Build; 3] = [Build::Plain, Build::Loom, Build::Crash];

    /// The build that holds the tests of this file.
    pub(crate) fn of_file(file: &Path) -> Build {
        let mut parts = file.iter().filter_map(|part| part.to_str());
        match parts.find(|part| *part == "tests").and(parts.next()) {
            Some(name) if name.starts_with("loom") => Build::Loom,
            Some(name) if name.starts_with("crash") => Build::Crash,
            _ => Build::Plain,
        }
    }

    /// The `cargo test` that builds it, ready for more arguments, and the arguments its test programs need;
    /// `None` if no crate has such tests.
    pub(crate) fn cargo_test(self, workspace: &Workspace) -> Result<Option<(Call, &'static [&'static str])>> {
        Ok(match self {
            Build::Plain => {
                let call = Call::cargo(["test", "--workspace", "--lib", "--bins", "--tests"])?;
                Some((call, &[]))
            }
            Build::Loom => {
                // Short by default; `LOOM_MAX_PREEMPTIONS=2` in the environment makes it the long run, a quarter of an hour.
                let bound = std::env::var("LOOM_MAX_PREEMPTIONS").unwrap_or_else(|_| "1".to_owned());
                special(workspace, "loom", "--cfg loom")?
                    .map(|call| (call.env("LOOM_MAX_PREEMPTIONS", &bound), ["--test-threads=2"].as_slice()))
            }
            Build::Crash => special(workspace, "crash", "--cfg mp_crash")?.map(|call| (call, [].as_slice())),
        })
    }

    /// Runs all its tests; false if there are none.
    pub(crate) fn run(self) -> Result<bool> {
        let workspace = Workspace::read()?;
        let Some((call, own)) = self.cargo_test(&workspace)? else {
            return Ok(false);
        };
        call.args(["--"]).args(own.iter().copied()).run()?;
        Ok(true)
    }
}

/// A release build, in a directory of its own, of the tests that start with `prefix`, where there are any.
fn special(workspace: &Workspace, prefix: &str, flags: &str) -> Result<Option<Call>> {
    let packages = workspace.with_tests(prefix);
    if packages.is_empty() {
        return Ok(None);
    }
    let mut call = Call::cargo(["test", "--release", "--target-dir"])?
        .args([workspace.target_beside(prefix)?])
        .flags("RUSTFLAGS", flags);
    for package in packages {
        call = call.args(["-p", package]);
    }
    Ok(Some(call.args(["--test".to_owned(), format!("{prefix}*")])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Package;

    fn package(name: &str, tests: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            dir: "/w".into(),
            dependencies: Vec::new(),
            tests: tests.iter().map(|test| (*test).to_owned()).collect(),
        }
    }

    #[test]
    fn the_file_name_tells_the_build() {
        let build = |file: &str| Build::of_file(Path::new(file));
        assert_eq!(build("crates/mp-sync/tests/loom_event.rs"), Build::Loom);
        assert_eq!(build("crates/mp-sync/tests/crash/main.rs"), Build::Crash);
        assert_eq!(build("crates/mp-sync/tests/event.rs"), Build::Plain);
        assert_eq!(build("crates/mp-sync/src/loom.rs"), Build::Plain);
    }

    #[test]
    fn loom_builds_just_the_crates_with_loom_tests() {
        let workspace = Workspace {
            packages: vec![
                package("mp-shm", &["loom_ring", "codec"]),
                package("mp-pool", &["map"]),
                package("mp-sync", &["loom"]),
            ],
            target: "/elsewhere/target".into(),
        };
        let (call, own) = Build::Loom.cargo_test(&workspace).expect("no error").expect("there are tests");
        let text = call.to_string();
        let tail =
            "cargo test --release --target-dir /elsewhere/target/loom -p mp-shm -p mp-sync --test 'loom*'";
        assert!(text.ends_with(tail), "{text}");
        assert!(text.contains("--cfg loom' LOOM_MAX_PREEMPTIONS="), "{text}");
        assert_eq!(own, ["--test-threads=2"]);
        assert!(Build::Crash.cargo_test(&workspace).expect("no error").is_none());
    }
}
