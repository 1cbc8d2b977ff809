//! `cargo xtask behaviours`: which promise is held by which test.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::ValueExt;
use serde_json::{Value, json};

use crate::finder::{self, Test};
use crate::promises::{self, KINDS, Promise};
use crate::require;
use crate::run::{Result, root};

/// How much of a promise the table shows.
const SHOWN: usize = 60;

/// Promises and tests of this workspace.
pub(crate) struct Behaviours {
    /// The rows of `BEHAVIOURS.md`.
    pub(crate) promises: Vec<Promise>,
    /// The tests named after an id, whether the file knows it or not.
    pub(crate) tests: Vec<Test>,
}

/// The command.
pub(crate) fn command(mut args: lexopt::Parser) -> Result<ExitCode> {
    let mut required: Vec<String> = Vec::new();
    let mut file: Option<PathBuf> = None;
    while let Some(arg) = args.next().map_err(|error| error.to_string())? {
        match arg {
            lexopt::Arg::Long("require") => {
                let ids = args.value().and_then(ValueExt::string).map_err(|error| error.to_string())?;
                required.extend(ids.split(',').map(|id| id.trim().to_ascii_uppercase()));
            }
            lexopt::Arg::Long("json") => {
                file = Some(args.value().map_err(|error| error.to_string())?.into());
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    let behaviours = Behaviours::read()?;
    if let Some(id) = required.iter().find(|id| behaviours.promises.iter().all(|known| known.id != **id)) {
        return Err(format!("BEHAVIOURS.md has no promise `{id}`"));
    }
    print!("{}", behaviours.table());
    if let Some(file) = file {
        let text = format!("{:#}\n", behaviours.json());
        fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    if !required.is_empty() {
        require::run(&behaviours, &required)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the table; an error only if the file is malformed.
pub(crate) fn report() -> Result<()> {
    print!("{}", Behaviours::read()?.table());
    Ok(())
}

impl Behaviours {
    fn read() -> Result<Behaviours> {
        let root = root()?;
        let file = root.join("BEHAVIOURS.md");
        let text =
            fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok(Behaviours { promises: promises::parse(&text)?, tests: finder::find(&root)? })
    }

    /// The tests of one promise.
    fn tests_of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Test> {
        self.tests.iter().filter(move |test| test.id == id)
    }

    /// Whether a test of it runs; an ignored one shows nothing.
    pub(crate) fn is_held(&self, id: &str) -> bool {
        self.tests_of(id).any(|test| !test.ignored)
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for promise in &self.promises {
            let start = format!("{:<4} {}  {}", promise.id, promise.kind, shortened(&promise.text));
            let tests: Vec<String> = self.tests_of(&promise.id).map(shown).collect();
            if tests.is_empty() {
                text += &format!("{start}  missing\n");
            } else {
                text +=
                    &format!("{start}  {}\n", tests.join(&format!("\n{:width$}  ", "", width = SHOWN + 8)));
            }
        }
        text + "\n" + &self.counts() + "\n"
    }

    fn counts(&self) -> String {
        let count = |kind: Option<char>| {
            let of_kind = |promise: &&Promise| kind.is_none_or(|kind| promise.kind == kind);
            let all = self.promises.iter().filter(of_kind).count();
            let held =
                self.promises.iter().filter(of_kind).filter(|promise| self.is_held(&promise.id)).count();
            format!("{held} of {all}")
        };
        let kinds = KINDS.map(|kind| format!("{kind} {}", count(Some(kind)))).join(", ");
        format!("{} promises have tests that run ({kinds}); {} tests", count(None), self.known_tests())
    }

    fn known_tests(&self) -> usize {
        self.promises.iter().map(|promise| self.tests_of(&promise.id).count()).sum()
    }

    fn json(&self) -> Value {
        let test = |test: &Test| {
            json!({
                "name": test.name,
                "file": test.file.to_string_lossy(),
                "line": test.line,
                "ignored": test.ignored,
            })
        };
        let promise = |promise: &Promise| {
            json!({
                "id": promise.id,
                "kind": promise.kind.to_string(),
                "promise": promise.text,
                "origin": promise.origin,
                "tests": self.tests_of(&promise.id).map(test).collect::<Vec<_>>(),
            })
        };
        let held = self.promises.iter().filter(|promise| self.is_held(&promise.id)).count();
        json!({
            "promises": self.promises.iter().map(promise).collect::<Vec<_>>(),
            "counts": {
                "promises": self.promises.len(),
                "held": held,
                "missing": self.promises.len() - held,
                "tests": self.known_tests(),
            },
        })
    }
}

/// One test as the table shows it.
fn shown(test: &Test) -> String {
    let mark = if test.ignored { " (ignored)" } else { "" };
    format!("{}{mark}  {}", test.name, test.file.display())
}

/// A text of exactly [`SHOWN`] characters, cut or filled.
fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        format!("{text:<SHOWN$}")
    } else {
        text.chars().take(SHOWN - 1).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behaviours() -> Behaviours {
        let text = "| id | kind | promise | origin |\n|-|-|-|-|\n| A1 | P | one | |\n| A12 | X | two | |\n\
                    | B1 | N | six | |\n";
        let test = |id: &str, name: &str| Test {
            id: id.to_owned(),
            name: name.to_owned(),
            file: "crates/x/tests/t.rs".into(),
            line: 7,
            ignored: name.ends_with("_long"),
        };
        Behaviours {
            promises: promises::parse(text).expect("it is well formed"),
            tests: vec![
                test("A12", "a12_x"),
                test("A12", "a12_y"),
                test("B1", "b1_long"),
                test("F64", "f64_is_rounded"),
            ],
        }
    }

    #[test]
    fn the_table_tells_tests_and_gaps() {
        let pad = " ".repeat(SHOWN - 3);
        let under = " ".repeat(SHOWN + 10);
        let expected = format!(
            "A1   P  one{pad}  missing\n\
             A12  X  two{pad}  a12_x  crates/x/tests/t.rs\n\
             {under}a12_y  crates/x/tests/t.rs\n\
             B1   N  six{pad}  b1_long (ignored)  crates/x/tests/t.rs\n\
             \n1 of 3 promises have tests that run (P 0 of 1, X 1 of 1, N 0 of 1); 3 tests\n"
        );
        assert_eq!(behaviours().table(), expected);
    }

    #[test]
    fn json_has_the_same_counts() {
        let json = behaviours().json();
        assert_eq!(json["counts"], json!({"promises": 3, "held": 1, "missing": 2, "tests": 3}));
        assert_eq!(json["promises"][1]["tests"][1]["name"], "a12_y");
        assert_eq!(json["promises"][0]["tests"], json!([]));
    }

    #[test]
    fn long_promises_are_cut_by_characters() {
        assert_eq!(shortened(&"ü".repeat(SHOWN + 1)), "ü".repeat(SHOWN - 1) + "…");
        assert_eq!(shortened(&"ü".repeat(SHOWN)), "ü".repeat(SHOWN));
    }
}
