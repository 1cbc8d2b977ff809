//! Processes for tests: this test program again, running only its test `child`, which plays a role. Shared by the test files.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "a module of each test file")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

const MARK: &str = "said: ";

/// A process that plays a role; killed when it is dropped.
pub struct Child {
    process: std::process::Child,
    ears: Option<ChildStdin>,
    mouth: BufReader<ChildStdout>,
}

/// The command that plays `role`.
pub fn command(role: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env("MP_TEST_ROLE", role).env("MP_TEST_ARGUMENTS", arguments.join("\n"));
    command
}

/// Starts a process that plays `role`.
pub fn start(role: &str, arguments: &[&str]) -> Child {
    run(command(role, arguments))
}

/// Starts what [`command`] made, perhaps changed.
pub fn run(mut command: Command) -> Child {
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let ears = process.stdin.take();
    let mouth = BufReader::new(process.stdout.take().unwrap());
    Child { process, ears, mouth }
}

impl Child {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the next thing it [says](say).
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.mouth.read_line(&mut line).unwrap(), 0, "the child ended without a word");
            // The harness may have begun the line.
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
            }
        }
    }

    pub fn tell(&mut self, text: &str) {
        writeln!(self.ears.as_mut().unwrap(), "{text}").unwrap();
    }

    /// Ends what it [listens](listen) to, and waits for its end.
    pub fn finish(mut self) -> ExitStatus {
        drop(self.ears.take());
        self.process.wait().unwrap()
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In the child: its role and arguments.
pub fn role() -> Option<(String, Vec<String>)> {
    let role = std::env::var("MP_TEST_ROLE").ok()?;
    let arguments = std::env::var("MP_TEST_ARGUMENTS").unwrap_or_default();
    Some((role, arguments.lines().map(str::to_owned).collect()))
}

/// In the child: says something to the test.
pub fn say(text: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{MARK}{text}").unwrap();
    out.flush().unwrap();
}

/// In the child: waits for what the test tells; empty when it has nothing more to tell.
pub fn listen() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// A name that no other test uses at this time.
pub fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("mp-test-{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
