//! Reads the promises from the tables of `BEHAVIOURS.md`.

use crate::run::Result;

/// One row: a thing that a user may rely on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Section letter and number: `A12`.
    pub(crate) id: String,
    /// `P`, `X` or `N`, explained at the head of the file.
    pub(crate) kind: char,
    /// The promise itself.
    pub(crate) text: String,
    /// Where it comes from, may be empty.
    pub(crate) origin: String,
}

/// The kinds a promise may have.
pub(crate) const KINDS: [char; 3] = ['P', 'X', 'N'];

const COLUMNS: [&str; 4] = ["id", "kind", "promise", "origin"];

/// All promises in the order of the file. The error lists every line that is not as it should be.
pub(crate) fn parse(text: &str) -> Result<Vec<Promise>> {
    let mut promises: Vec<Promise> = Vec::new();
    let mut wrong = Vec::new();
    let mut in_table = false;
    for (number, line) in (1..).zip(text.lines()) {
        let Some(cells) = cells(line) else {
            in_table = false;
            continue;
        };
        let is_rule = cells.iter().all(|cell| !cell.is_empty() && cell.chars().all(|c| "-:".contains(c)));
        if cells == COLUMNS {
            in_table = true;
        } else if is_rule {
            // The line under the head.
        } else if !in_table {
            wrong.push(format!("line {number}: this row stands in no table with the head {COLUMNS:?}"));
        } else {
            match row(&cells) {
                Ok(promise) if promises.iter().any(|other| other.id == promise.id) => {
                    wrong.push(format!("line {number}: {} is there twice", promise.id));
                }
                Ok(promise) => promises.push(promise),
                Err(message) => wrong.push(format!("line {number}: {message}")),
            }
        }
    }
    if wrong.is_empty() && promises.is_empty() {
        wrong.push("it has no promise at all".to_owned());
    }
    if wrong.is_empty() { Ok(promises) } else { Err(format!("BEHAVIOURS.md: {}", wrong.join("\n  "))) }
}

/// The cells of a table line; `None` for any other line. A `\|` is part of its cell.
fn cells(line: &str) -> Option<Vec<String>> {
    let line = line.trim().strip_prefix('|')?;
    let mut cells = vec![String::new()];
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next_if_eq(&'|').is_some() {
            cells.last_mut()?.push('|');
        } else if c == '|' {
            cells.push(String::new());
        } else {
            cells.last_mut()?.push(c);
        }
    }
    // What follows the closing bar is no cell, unless the bar was forgotten.
    if cells.last().is_some_and(|last| last.trim().is_empty()) {
        cells.pop();
    }
    Some(cells.iter().map(|cell| cell.trim().to_owned()).collect())
}

fn row(cells: &[String]) -> Result<Promise> {
    let [id, kind, text, origin] = cells else {
        return Err(format!("a row has {} cells ({COLUMNS:?}), this one has {}", COLUMNS.len(), cells.len()));
    };
    if !is_id(id) {
        return Err(format!("`{id}` is no id: it has to be a capital letter and a number"));
    }
    let kind = KINDS.into_iter().find(|known| kind.chars().eq([*known]));
    let kind = kind.ok_or_else(|| format!("the kind of {id} has to be one of {KINDS:?}"))?;
    if text.is_empty() {
        return Err(format!("{id} promises nothing"));
    }
    Ok(Promise { id: id.clone(), kind, text: text.clone(), origin: origin.clone() })
}

fn is_id(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_uppercase())
        && chars.next().is_some_and(|c| ('1'..='9').contains(&c))
        && chars.all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "| id | kind | promise | origin |\n|---|:-:|---|---|\n";

    fn message(rows: &str) -> String {
        parse(&format!("{HEAD}{rows}")).expect_err("there is a malformed row")
    }

    #[test]
    fn rows_of_all_tables_are_read() {
        let text = format!(
            "# Head\n\ntext | with a bar\n\n{HEAD}| A1 | P | does `x` | gh-1 |\n\n## B\n\n{HEAD}\
             | B12 | N | zero \\| one | |\n"
        );
        let promise = |id: &str, kind, text: &str, origin: &str| Promise {
            id: id.to_owned(),
            kind,
            text: text.to_owned(),
            origin: origin.to_owned(),
        };
        let expected = vec![promise("A1", 'P', "does `x`", "gh-1"), promise("B12", 'N', "zero | one", "")];
        assert_eq!(parse(&text), Ok(expected));
    }

    #[test]
    fn a_malformed_row_is_named_by_its_line() {
        assert!(message("| A1 | P | promise |\n").contains("line 3: a row has 4 cells"));
        assert!(message("| A1 | P | one | two | three |\n").contains("this one has 5"));
        assert!(message("| a1 | P | promise | x |\n").contains("`a1` is no id"));
        assert!(message("| A01 | P | promise | x |\n").contains("`A01` is no id"));
        assert!(message("| A1 | Q | promise | x |\n").contains("the kind of A1"));
        assert!(message("| A1 | PX | promise | x |\n").contains("the kind of A1"));
        assert!(message("| A1 | P |  | x |\n").contains("A1 promises nothing"));
    }

    #[test]
    fn every_malformed_row_is_told() {
        let message = message("| A1 | P | x |\n| A2 | P | fine | x |\n| A2 | P | again | x |\n");
        assert!(message.contains("line 3") && message.contains("line 5: A2 is there twice"), "{message}");
    }

    #[test]
    fn a_row_cut_off_from_its_table_is_not_lost() {
        assert!(message("| A1 | P | x | y |\n\n| A2 | P | x | y |\n").contains("line 5: this row stands in"));
    }

    #[test]
    fn a_file_without_promises_is_an_error() {
        assert!(parse("# What a user may rely on\n").is_err());
    }
}
