//! Finds the tests that hold promises: functions named after an id, in the text of the Rust files.

use std::fs;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::run::Result;

/// One test that is named after a promise.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Test {
    /// The id that its name starts with, as in the table: `A12`.
    pub(crate) id: String,
    /// The name of the function.
    pub(crate) name: String,
    /// Its file, from the root of the workspace.
    pub(crate) file: PathBuf,
    /// Its line there.
    pub(crate) line: usize,
    /// Whether it carries `#[ignore]`.
    pub(crate) ignored: bool,
}

/// Where tests may lie.
const PLACES: [&str; 3] = ["crates", "benches", "examples"];

/// All such tests of the workspace, in the order of their files.
pub(crate) fn find(root: &Path) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for place in PLACES.map(|place| root.join(place)).iter().filter(|place| place.is_dir()) {
        let wanted = |entry: &DirEntry| {
            let name = entry.file_name().to_string_lossy();
            entry.depth() == 0 || !(name.starts_with('.') || name == "target")
        };
        for entry in WalkDir::new(place).sort_by_file_name().into_iter().filter_entry(wanted) {
            let entry = entry.map_err(|error| error.to_string())?;
            let path = entry.path();
            if entry.file_type().is_file() && path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                tests.extend(in_text(&text, path.strip_prefix(root).unwrap_or(path)));
            }
        }
    }
    Ok(tests)
}

/// The tests in the text of one file.
fn in_text(text: &str, file: &Path) -> Vec<Test> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut tests = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((id, name)) = function(line).and_then(|name| Some((promise_id(name)?, name))) else {
            continue;
        };
        let above = attributes(&lines[..index], line);
        if above.iter().any(|line| is_test(line)) {
            tests.push(Test {
                id,
                name: name.to_owned(),
                file: file.to_owned(),
                line: index + 1,
                ignored: above.iter().any(|line| attribute(line) == Some("ignore")),
            });
        }
    }
    tests
}

/// The name of the function that this line declares.
fn function(line: &str) -> Option<&str> {
    // One line may hold attribute and function.
    let line = if line.starts_with("#[") { line.rsplit_once("] ")?.1 } else { line };
    let mut words = line.split_whitespace();
    let before = |word: &&str| word.starts_with("pub") || ["async", "const", "unsafe"].contains(word);
    if words.find(|word| !before(word))? != "fn" {
        return None;
    }
    words.next()?.split(['(', '<']).next()
}

/// The id that a function's name starts with, in capitals; `a12_join` has `A12`.
fn promise_id(name: &str) -> Option<String> {
    let (id, _) = name.split_once('_')?;
    let number = id.strip_prefix(|c: char| c.is_ascii_lowercase())?;
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    is_number.then(|| id.to_ascii_uppercase())
}

/// The lines that belong to the function on `line`: up to the end of whatever stands before it.
fn attributes<'a>(before: &[&'a str], line: &'a str) -> Vec<&'a str> {
    let ends_other =
        |text: &&&str| !text.starts_with("//") && (text.is_empty() || text.ends_with([';', '}', '{']));
    let above = before.iter().rev().take_while(|text| !ends_other(text)).copied();
    above.chain([line]).filter(|text| text.starts_with("#[")).collect()
}

/// The path of the attribute on this line: `tokio::test` of `#[tokio::test(..)]`.
fn attribute(line: &str) -> Option<&str> {
    line.strip_prefix("#[")?.split(['(', ']', '=', ' ']).next()
}

/// Whether this attribute makes a test, directly or under a condition.
fn is_test(line: &str) -> bool {
    let Some(path) = attribute(line) else {
        return false;
    };
    let last = path.rsplit("::").next().unwrap_or(path);
    last == "test" || last.ends_with("_test") || (last == "cfg_attr" && line.ends_with("test)]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, String, bool)> {
        let tests = in_text(text, Path::new("crates/x/src/lib.rs"));
        tests.into_iter().map(|test| (test.id, test.name, test.ignored)).collect()
    }

    fn test(id: &str, name: &str, ignored: bool) -> (String, String, bool) {
        (id.to_owned(), name.to_owned(), ignored)
    }

    #[test]
    fn the_id_ends_at_the_first_underscore() {
        let text = "#[test]\nfn a1_one() {}\n#[test]\nfn a12_two() {}\n";
        assert_eq!(names(text), [test("A1", "a1_one", false), test("A12", "a12_two", false)]);
        assert_eq!(promise_id("a1"), None);
        assert_eq!(promise_id("a_1"), None);
        assert_eq!(promise_id("ab1_x"), None);
        assert_eq!(promise_id("a1b_x"), None);
    }

    #[test]
    fn file_and_line_are_told() {
        let file = Path::new("crates/x/tests/t.rs");
        let found = in_text("\n#[test]\nfn a1_x() {}\n", file);
        assert_eq!((found[0].file.as_path(), found[0].line), (file, 3));
    }

    #[test]
    fn a_function_without_the_attribute_is_no_test() {
        assert_eq!(names("fn a1_plain() {}\n"), []);
        assert_eq!(names("#[test]\nfn other() {}\nfn a1_plain() {}\n"), []);
        assert_eq!(names("#[test]\nfn other() {\n    run(\n}\n\nfn a1_plain() {}\n"), []);
        assert_eq!(names("#[cfg(test)]\nfn a1_plain() {}\n"), []);
        assert_eq!(names("// #[test]\n// fn a1_gone() {}\n"), []);
        assert_eq!(names("#[test]\nfn other() { a1_plain() }\n"), []);
    }

    #[test]
    fn other_lines_may_stand_between() {
        let text = "
            #[test]
            #[should_panic(
                expected = \"x\"
            )]
            // Waits; twice;
            /// Docs {x}
            pub(crate) async fn b2_x<T>() {}";
        assert_eq!(names(text), [test("B2", "b2_x", false)]);
    }

    #[test]
    fn attributes_like_test_count() {
        let text = "
            #[tokio::test(flavor = \"x\")]
            async fn c1_x() {}
            #[cfg_attr(not(loom), test)]
            fn c2_x() {}
            #[mp_testkit::process_test]
            fn c3_x() {}
            #[test] fn c4_x() {}";
        let found: Vec<_> = names(text).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(found, ["C1", "C2", "C3", "C4"]);
    }

    #[test]
    fn ignored_tests_are_told_apart() {
        let text = "#[test]\n#[ignore = \"takes an hour\"]\nfn d4_x() {}\n#[ignore]\n#[test]\nfn d5_x() {}";
        assert_eq!(names(text), [test("D4", "d4_x", true), test("D5", "d5_x", true)]);
    }
}
