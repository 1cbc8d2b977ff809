//! Runs other programs: prints each command before it starts, and names the command in every error.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// Bytes of the errors of tests that are shown.
const ERRORS_SHOWN: u64 = 16 << 10;

/// Every failure of the tools is a sentence for the person who called them.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn root() -> Result<PathBuf> {
    let own = env::var_os("CARGO_MANIFEST_DIR").ok_or("start the tools as `cargo xtask <command>`")?;
    let mut path = PathBuf::from(own);
    if path.pop() { Ok(path) } else { Err("the xtask crate lies in no workspace".to_owned()) }
}

/// The arguments not parsed yet, as they are.
pub(crate) fn rest(args: &mut lexopt::Parser) -> Result<Vec<String>> {
    let raw = args.raw_args().map_err(|error| error.to_string())?;
    raw.map(|word| word.into_string().map_err(|word| format!("{} is not UTF-8", word.display()))).collect()
}

/// A duration as people read it: `7.3 s`, `2 min 05 s`.
pub(crate) fn lasting(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

/// One command line, with what it adds to the environment.
#[derive(Clone)]
pub(crate) struct Call {
    words: Vec<String>,
    env: Vec<(&'static str, String)>,
    dir: Option<PathBuf>,
}

impl Call {
    /// A command of this program, run where the user stands.
    pub(crate) fn new(program: &str) -> Call {
        Call { words: vec![program.to_owned()], env: Vec::new(), dir: None }
    }

    /// A cargo command, run at the root of the workspace.
    pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Call> {
        Ok(Call::new("cargo").at_root()?.args(args))
    }

    /// Lets it run at the root of the workspace.
    pub(crate) fn at_root(self) -> Result<Call> {
        Ok(Call { dir: Some(root()?), ..self })
    }

    /// Adds arguments.
    pub(crate) fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Call {
        self.words.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Call {
        self.env.push((name, value.to_owned()));
        self
    }

    /// Adds flags to a variable that may have some from the user already, `RUSTFLAGS` for example.
    pub(crate) fn flags(self, name: &'static str, more: &str) -> Call {
        match env::var(name) {
            Ok(before) if !before.trim().is_empty() => self.env(name, &format!("{before} {more}")),
            _ => self.env(name, more),
        }
    }

    /// Runs it with its output on ours; the status is the caller's to judge.
    pub(crate) fn status(&self) -> Result<ExitStatus> {
        println!("$ {self}");
        self.command().status().map_err(|error| self.cannot_start(&error))
    }

    /// Runs it with its output on ours; an error if it fails.
    pub(crate) fn run(&self) -> Result<()> {
        let status = self.status()?;
        if status.success() { Ok(()) } else { Err(format!("`{self}` failed ({status})")) }
    }

    /// Runs tests of processes under `cargo test`, which keeps back what a test prints but not what its children do: panics on purpose by the thousand. What went to
    /// stderr is shown only if it fails, in the error, and of that the end.
    pub(crate) fn run_tests(&self) -> Result<()> {
        println!("$ {self}");
        let failed = |error: std::io::Error| format!("`{self}`: keeping its errors: {error}");
        let path = env::temp_dir().join(format!("xtask-errors-{}", std::process::id()));
        let options = File::options().read(true).write(true).create_new(true).open(&path);
        let mut errors = options.map_err(failed)?;
        // The file lives on without its name until the last process that writes to it has ended.
        std::fs::remove_file(&path).map_err(failed)?;
        let own = errors.try_clone().map_err(failed)?;
        let status = self.command().stderr(own).status().map_err(|error| self.cannot_start(&error))?;
        if status.success() {
            return Ok(());
        }
        let length = errors.seek(SeekFrom::End(0)).map_err(failed)?;
        errors.seek(SeekFrom::Start(length.saturating_sub(ERRORS_SHOWN))).map_err(failed)?;
        let mut end = Vec::new();
        errors.read_to_end(&mut end).map_err(failed)?;
        Err(format!("`{self}` failed ({status}); its errors end with\n{}", String::from_utf8_lossy(&end)))
    }

    /// Runs it without printing the command and gives what it wrote to stdout; an error if it fails.
    pub(crate) fn output(&self) -> Result<String> {
        let output =
            self.command().stderr(Stdio::inherit()).output().map_err(|error| self.cannot_start(&error))?;
        if !output.status.success() {
            return Err(format!("`{self}` failed ({})", output.status));
        }
        String::from_utf8(output.stdout).map_err(|_| format!("`{self}` printed something that is not UTF-8"))
    }

    /// Whether it runs and succeeds, all output thrown away.
    pub(crate) fn works(&self) -> bool {
        self.command().stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    }

    fn command(&self) -> Command {
        let mut command = if self.words[0] == "cargo" {
            // The cargo that built this program, so that one toolchain does everything.
            Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        } else {
            Command::new(&self.words[0])
        };
        command.args(&self.words[1..]).envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    fn cannot_start(&self, error: &std::io::Error) -> String {
        format!("`{self}` did not start ({error}): is {} installed and on PATH?", self.words[0])
    }
}

/// As one would type it in a shell.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={} ", quoted(value))?;
        }
        for (i, word) in self.words.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { " " }, quoted(word))?;
        }
        Ok(())
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_prints_as_typed_in_a_shell() {
        let call = Call::new("cargo").args(["test", "--test", "loom*"]).env("RUSTFLAGS", "--cfg loom");
        assert_eq!(call.to_string(), "RUSTFLAGS='--cfg loom' cargo test --test 'loom*'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(lasting(Duration::from_millis(7_300)), "7.3 s");
        assert_eq!(lasting(Duration::from_secs(125)), "2 min 05 s");
    }

    #[test]
    fn errors_of_tests_are_kept_back() {
        let quiet = Call::new("sh").args(["-c", "echo kept >&2"]);
        assert_eq!(quiet.run_tests(), Ok(()));
        let message =
            Call::new("sh").args(["-c", "echo shown >&2; exit 3"]).run_tests().expect_err("it fails");
        assert!(message.ends_with("failed (exit status: 3); its errors end with\nshown\n"), "{message}");
        let long = format!("yes line | head -c {} >&2; echo last >&2; exit 1", 5 * ERRORS_SHOWN);
        let message = Call::new("sh").args(["-c", &long]).run_tests().expect_err("it fails");
        assert!(message.ends_with("line\nlast\n") && message.len() < 17 << 10, "{}", message.len());
    }

    #[test]
    fn a_failing_command_is_named() {
        let message = Call::new("false").run().expect_err("false fails");
        assert!(message.starts_with("`false` failed"), "{message}");
        let message = Call::new("no-such-program-here").run().expect_err("it does not exist");
        assert!(message.contains("is no-such-program-here installed"), "{message}");
        assert!(Call::new("true").works());
        assert!(!Call::new("false").works());
    }
}
