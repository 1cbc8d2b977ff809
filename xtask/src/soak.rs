//! `cargo xtask soak`: runs a long kill run and keeps a record of it with what it ran on.

use std::fs;
use std::process::{self, ExitCode};
use std::thread;

use lexopt::ValueExt;
use serde_json::{Value, json};

use crate::bench::passed_on;
use crate::run::{Call, Result, root};
use crate::workspace::Workspace;

/// Where records lie, from the root of the workspace.
pub(crate) const RECORDS: &str = "benches/record";

/// How long a run lasts if nobody says.
const MINUTES: u64 = 10;

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    List,
    Run { name: String, minutes: u64, more: Vec<String> },
}

/// The command.
pub(crate) fn command(args: lexopt::Parser) -> Result<ExitCode> {
    let program = Call::cargo(["run", "--release", "-p", "mp-benches", "--bin", "soak", "--"])?;
    let (name, minutes, more) = match parse(args)? {
        Asked::List => return passed_on(program.args(["--list"]).status()?),
        Asked::Run { name, minutes, more } => (name, minutes, more),
    };
    let seconds = minutes.checked_mul(60).ok_or("that many minutes do not fit")?;
    // Asked for before the run, which is what they are to describe.
    let mut facts = facts()?;
    let result = Workspace::read()?.target.join(format!("soak-{name}-{}.json", process::id()));
    let file = result.to_str().ok_or("the target directory's name is not UTF-8")?;
    let seconds = seconds.to_string();
    let status = program.args([&name, "--seconds", &seconds, "--json", file]).args(more).status()?;
    if !status.success() {
        facts["failed"] = json!(status.to_string());
    }
    let text = fs::read_to_string(&result)
        .map_err(|error| format!("the soak program ended ({status}) without a result at {file}: {error}"))?;
    let record = record(&text, &facts)?;
    fs::remove_file(&result).map_err(|error| format!("cannot remove {file}: {error}"))?;

    let dir = root()?.join(RECORDS);
    let date = said(&["date", "-u", "+%Y%m%d-%H%M%S"])?;
    let kept = dir.join(format!("soak-{name}-{date}.json"));
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(&kept, record))
        .map_err(|error| format!("cannot write {}: {error}", kept.display()))?;
    println!("the record is {RECORDS}/soak-{name}-{date}.json");
    passed_on(status)
}

fn parse(mut args: lexopt::Parser) -> Result<Asked> {
    let text = |value: std::result::Result<std::ffi::OsString, lexopt::Error>| {
        value.and_then(ValueExt::string).map_err(|error| error.to_string())
    };
    let mut name = None;
    let mut minutes = MINUTES;
    let mut more = Vec::new();
    while let Some(arg) = args.next().map_err(|error| error.to_string())? {
        match arg {
            lexopt::Arg::Long("list") => return Ok(Asked::List),
            lexopt::Arg::Long("minutes") => minutes = number("--minutes", &text(args.value())?)?,
            lexopt::Arg::Long(option @ ("kills" | "seed")) => {
                let option = format!("--{option}");
                let value = number(&option, &text(args.value())?)?;
                more.extend([option, value.to_string()]);
            }
            lexopt::Arg::Value(value) if name.is_none() => name = Some(text(Ok(value))?),
            other => return Err(other.unexpected().to_string()),
        }
    }
    let name = name.ok_or("which soak run? `cargo xtask soak --list` prints their names")?;
    let fits_a_file_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(fits_a_file_name) {
        return Err(format!("`{name}` is no name of a soak run; `cargo xtask soak --list` prints them"));
    }
    Ok(Asked::Run { name, minutes, more })
}

fn number(option: &str, text: &str) -> Result<u64> {
    text.parse().map_err(|_| format!("{option} takes a whole number, not `{text}`"))
}

/// What a record has to say beside the program's own result.
fn facts() -> Result<Value> {
    // Records of earlier runs lie about uncommitted; they change nothing of what runs.
    let others = format!(":(exclude){RECORDS}");
    let is_dirty = !said(&["git", "status", "--porcelain", "--", ".", &others])?.is_empty();
    let commit = said(&["git", "rev-parse", "HEAD"])?;
    let cpus = thread::available_parallelism().map_err(|error| format!("cannot count the CPUs: {error}"))?;
    Ok(json!({
        "commit": if is_dirty { format!("{commit}-dirty") } else { commit },
        "rustc": said(&["rustc", "--version"])?,
        "kernel": said(&["uname", "-r"])?,
        "cpus": cpus,
    }))
}

/// What a command says, run at the root.
pub(crate) fn said(words: &[&str]) -> Result<String> {
    let (program, args) = words.split_first().ok_or("no command")?;
    Call::new(program).at_root()?.args(args.iter().copied()).output().map(|text| text.trim().to_owned())
}

/// The program's JSON object with the facts added.
fn record(text: &str, facts: &Value) -> Result<String> {
    let mut json: Value = serde_json::from_str(text)
        .map_err(|error| format!("the soak program's result is not JSON: {error}"))?;
    let (Some(object), Some(facts)) = (json.as_object_mut(), facts.as_object()) else {
        return Err("the soak program's result is not a JSON object".to_owned());
    };
    object.extend(facts.clone());
    Ok(format!("{json:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Asked> {
        parse(lexopt::Parser::from_args(words))
    }

    #[test]
    fn options_are_read_in_any_order() {
        let run = |minutes, more: &[&str]| {
            let more = more.iter().map(|word| (*word).to_owned()).collect();
            Ok(Asked::Run { name: "queue".to_owned(), minutes, more })
        };
        assert_eq!(asked(&["queue"]), run(MINUTES, &[]));
        assert_eq!(
            asked(&["--seed", "7", "queue", "--minutes=5", "--kills", "9"]),
            run(5, &["--seed", "7", "--kills", "9"])
        );
        assert_eq!(asked(&["--list"]), Ok(Asked::List));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(asked(&[]).is_err_and(|message| message.contains("soak --list")));
        assert!(asked(&["../queue"]).is_err_and(|message| message.contains("soak --list")));
        assert!(asked(&["queue", "pool"]).is_err());
        assert!(
            asked(&["queue", "--minutes", "long"]).is_err_and(|message| message.contains("whole number"))
        );
    }

    #[test]
    fn a_record_has_the_result_and_the_facts() {
        let facts = json!({"commit": "abc-dirty", "cpus": 2});
        let text = record(r#"{"kills": 400, "lost": 0}"#, &facts).expect("it is an object");
        let json: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(json, json!({"kills": 400, "lost": 0, "commit": "abc-dirty", "cpus": 2}));
        assert!(record("[1]", &facts).is_err());
        assert!(record("", &facts).is_err());
    }
}
