//! `cargo xtask behaviours --require`: runs the tests of some promises, each build of the tests once.

use std::path::Path;

use crate::behaviours::Behaviours;
use crate::builds::Build;
use crate::finder::Test;
use crate::run::Result;
use crate::workspace::Workspace;

/// Runs the tests of these promises. A promise whose tests are all missing or ignored, a test that is not in
/// the build and a test that fails are errors.
pub(crate) fn run(behaviours: &Behaviours, ids: &[String]) -> Result<()> {
    let missing: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !behaviours.is_held(id)).collect();
    if !missing.is_empty() {
        return Err(format!(
            "no test runs for {}: write one named after the id, not an ignored one",
            missing.join(", ")
        ));
    }
    let workspace = Workspace::read()?;
    let mut failed = Vec::new();
    let mut count = 0;
    for build in Build::ALL {
        let tests = wanted(&behaviours.tests, ids, build);
        if tests.is_empty() {
            continue;
        }
        count += tests.len();
        let Some((mut call, own)) = build.cargo_test(&workspace)? else {
            return Err(format!("cargo knows no test file for {}", tests[0].file.display()));
        };
        if tests.iter().any(|test| is_in_examples(&test.file)) {
            call = call.args(["--examples"]);
        }
        // Filters match parts of names, so a few more tests may run; which are there is asked for before.
        let names = || tests.iter().map(|test| test.name.as_str());
        println!("building: {call}");
        let listed = call.clone().args(["--quiet", "--", "--list"]).args(names()).output()?;
        let absent = absent(&tests, &listed);
        if !absent.is_empty() {
            return Err(format!("not in the build, by a cfg or for want of a `mod`: {}", absent.join(", ")));
        }
        let call = call.args(["--no-fail-fast", "--"]).args(own.iter().copied()).args(names());
        if let Err(message) = call.run() {
            failed.push(message);
        }
    }
    if !failed.is_empty() {
        return Err(failed.join("\n"));
    }
    println!("{count} tests passed, they hold {}", ids.join(", "));
    Ok(())
}

/// The tests of these promises that belong to one build, without the ignored ones.
fn wanted<'a>(tests: &'a [Test], ids: &[String], build: Build) -> Vec<&'a Test> {
    let is_wanted =
        |test: &&Test| !test.ignored && ids.contains(&test.id) && Build::of_file(&test.file) == build;
    tests.iter().filter(is_wanted).collect()
}

/// The tests that the list of the test programs lacks; its lines read `module::name: test`.
fn absent<'a>(tests: &[&'a Test], listed: &str) -> Vec<&'a str> {
    let there = |name: &str| {
        let paths = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        paths.into_iter().any(|path| path.rsplit("::").next() == Some(name))
    };
    tests.iter().map(|test| test.name.as_str()).filter(|name| !there(name)).collect()
}

fn is_in_examples(file: &Path) -> bool {
    file.iter().any(|part| part == "examples")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(id: &str, name: &str, file: &str, ignored: bool) -> Test {
        Test { id: id.to_owned(), name: name.to_owned(), file: file.into(), line: 1, ignored }
    }

    #[test]
    fn tests_are_sorted_by_promise_and_build() {
        let tests = [
            test("A1", "a1_x", "crates/m/tests/plain.rs", false),
            test("A1", "a1_y", "crates/m/tests/crash_a.rs", false),
            test("A1", "a1_z", "crates/m/tests/plain.rs", true),
            test("A12", "a12_x", "crates/m/tests/plain.rs", false),
        ];
        let names = |build| {
            let ids = ["A1".to_owned()];
            wanted(&tests, &ids, build).iter().map(|test| test.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(names(Build::Plain), ["a1_x"]);
        assert_eq!(names(Build::Crash), ["a1_y"]);
        assert!(names(Build::Loom).is_empty());
    }

    #[test]
    fn a_test_counts_as_built_by_its_whole_name_only() {
        let tests = [test("A1", "a1_x", "f.rs", false), test("A1", "a1_xy", "f.rs", false)];
        let tests: Vec<&Test> = tests.iter().collect();
        assert_eq!(absent(&tests, "inner::a1_xy: test\n"), ["a1_x"]);
        assert!(absent(&tests, "a1_x: test\ninner::a1_xy: test\n").is_empty());
    }
}
