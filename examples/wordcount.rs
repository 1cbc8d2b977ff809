//! Counts the words in all text files below a directory, with a pool of processes.
//!
//! `wordcount [DIR] [--workers N] [--top N] [--check] [--chaos] [--no-progress]`. Without DIR it
//! reads the sources of this project's own dependencies, as cargo keeps them.
//!
//! A word is a maximal run of alphanumeric characters (as Unicode has them) or `_`, in lower case. A
//! file with a NUL byte in its first 8 KiB, or that is not UTF-8, is binary and skipped; so is one that
//! cannot be read. Symbolic links are not followed.
//!
//! Exit status 0: counted; 1: a comparison failed or the pool did; 2: wrong arguments or no input.

use indicatif::{ProgressBar, ProgressStyle};
use lexopt::prelude::*;
use multiproc::{Pool, Task};
use rkyv::{Archive, Deserialize, Serialize};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, str, thread};
use walkdir::WalkDir;

const USAGE: &str = "\
Usage: wordcount [DIR] [--workers N] [--top N] [--check] [--chaos] [--no-progress]

  DIR            count below this directory; else the sources of the project's dependencies
  --workers N    worker processes; else one for each CPU
  --top N        how many words the table has; else 20
  --check        count again in one process and compare
  --chaos        kill workers at random while counting, and compare
  --no-progress  show no progress bar";

/// A batch ends at this many bytes or files: large enough that handing it over costs little, small
/// enough that all workers end at about the same time.
const BATCH_BYTES: u64 = 256 * 1024;
const BATCH_FILES: usize = 64;
/// A NUL byte in this much of a file's front makes it binary.
const FRONT: usize = 8 * 1024;
/// What `--chaos` does at least, how often, and how long it tries.
const KILLS: u32 = 20;
const KILL_EVERY: Duration = Duration::from_millis(20);
const CHAOS_TIME: Duration = Duration::from_secs(120);

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The task: paths, as bytes, because a path need not be UTF-8.
#[derive(Archive, Serialize, Deserialize, Clone, Default)]
struct Batch {
    paths: Vec<Vec<u8>>,
}

/// The numbers beside the words themselves.
#[derive(Archive, Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
struct Totals {
    files: u64,
    words: u64,
    bytes: u64,
    unreadable: u64,
    binary: u64,
}

/// The result of a task.
#[derive(Archive, Serialize, Deserialize)]
struct Counts {
    words: Vec<(String, u64)>,
    totals: Totals,
}

/// Counts of many files.
#[derive(Default, PartialEq, Eq, Debug)]
struct Tally {
    words: HashMap<String, u64>,
    totals: Totals,
}

impl Tally {
    /// Adds the result of a task.
    fn merge(&mut self, counts: Counts) {
        for (word, count) in counts.words {
            *self.words.entry(word).or_default() += count;
        }
        let (all, more) = (&mut self.totals, counts.totals);
        all.files += more.files;
        all.words += more.words;
        all.bytes += more.bytes;
        all.unreadable += more.unreadable;
        all.binary += more.binary;
    }

    /// Adds a word; copies it only the first time.
    fn word(&mut self, word: &str) {
        self.totals.words += 1;
        if let Some(count) = self.words.get_mut(word) {
            *count += 1;
        } else {
            self.words.insert(word.to_owned(), 1);
        }
    }

    /// Adds all words of `text`, a character at a time.
    fn text(&mut self, text: &str) {
        let mut start = None;
        let mut plain = true;
        for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
            if letter.is_alphanumeric() || letter == '_' {
                start.get_or_insert(at);
                plain &= letter.is_ascii() && !letter.is_ascii_uppercase();
            } else if let Some(start) = start.take() {
                let word = &text[start..at];
                if plain {
                    self.word(word)
                } else {
                    self.word(&word.to_lowercase())
                }
                plain = true;
            }
        }
    }

    /// Adds a file, or notes why not.
    fn file(&mut self, path: &Path) {
        let Ok(bytes) = fs::read(path) else {
            self.totals.unreadable += 1;
            return;
        };
        match str::from_utf8(&bytes) {
            Ok(text) if !bytes[..bytes.len().min(FRONT)].contains(&0) => {
                self.totals.files += 1;
                self.totals.bytes += bytes.len() as u64;
                self.text(text);
            }
            _ => self.totals.binary += 1,
        }
    }
}

/// The task's function; runs in a worker.
fn count_batch(batch: Batch) -> Counts {
    let mut tally = Tally::default();
    for path in &batch.paths {
        tally.file(Path::new(OsStr::from_bytes(path)));
    }
    Counts { words: tally.words.into_iter().collect(), totals: tally.totals }
}

/// The same again, in the plainest way: what `--check` and `--chaos` compare with.
fn count_plainly(input: &Input) -> Tally {
    let mut words = BTreeMap::<String, u64>::new();
    let mut totals = Totals { unreadable: input.unreadable, ..Totals::default() };
    for path in input.batches.iter().flat_map(|batch| &batch.paths) {
        match fs::read(OsString::from_vec(path.clone())) {
            Err(_) => totals.unreadable += 1,
            Ok(bytes) if bytes.iter().take(FRONT).any(|&byte| byte == 0) => totals.binary += 1,
            Ok(bytes) => match String::from_utf8(bytes) {
                Err(_) => totals.binary += 1,
                Ok(text) => {
                    totals.files += 1;
                    totals.bytes += text.len() as u64;
                    for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
                        if !word.is_empty() {
                            totals.words += 1;
                            *words.entry(word.to_lowercase()).or_default() += 1;
                        }
                    }
                }
            },
        }
    }
    Tally { words: words.into_iter().collect(), totals }
}

/// What there is to count.
#[derive(Default)]
struct Input {
    batches: Vec<Batch>,
    files: u64,
    /// Directories that could not be read.
    unreadable: u64,
}

impl Input {
    /// Finds all files below `roots`, in a fixed order, without following links.
    fn find(roots: &[PathBuf]) -> Self {
        let mut input = Self::default();
        let (mut batch, mut bytes) = (Batch::default(), 0);
        for entry in roots.iter().flat_map(|root| WalkDir::new(root).sort_by_file_name()) {
            let Ok(entry) = entry else {
                input.unreadable += 1;
                continue;
            };
            if entry.file_type().is_file() {
                input.files += 1;
                bytes += entry.metadata().map_or(0, |data| data.len());
                batch.paths.push(entry.into_path().into_os_string().into_vec());
                if bytes >= BATCH_BYTES || batch.paths.len() == BATCH_FILES {
                    input.batches.push(std::mem::take(&mut batch));
                    bytes = 0;
                }
            }
        }
        input.batches.extend((!batch.paths.is_empty()).then_some(batch));
        input
    }
}

/// Counts all input on the pool, with a bounded number of tasks under way.
fn count(pool: &Pool, input: &Input, bar: &ProgressBar) -> Outcome<Tally> {
    let mut tally = Tally::default();
    tally.totals.unreadable = input.unreadable;
    let mut waiting: VecDeque<(usize, Task<Counts>)> = VecDeque::new();
    let mut batches = input.batches.iter();
    bar.set_position(0);
    loop {
        let next = if waiting.len() < 4 * pool.workers() { batches.next() } else { None };
        if let Some(batch) = next {
            waiting.push_back((batch.paths.len(), pool.submit(count_batch, batch.clone())?));
        } else if let Some((files, task)) = waiting.pop_front() {
            tally.merge(task.get()?);
            bar.inc(files as u64);
        } else {
            return Ok(tally);
        }
    }
}

/// Kills a random worker now and then until `stop`; counts in `kills`. It takes only a pid that the pool
/// named just before, never an older one, which might be another process by now.
fn kill_workers(pool: &Pool, stop: &AtomicBool, kills: &AtomicU32) {
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(KILL_EVERY);
        let pids = pool.worker_pids();
        let chosen = fastrand::choice(&pids).and_then(|&pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if chosen.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()) {
            kills.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts again and again while a thread kills workers, until there were enough kills. Every pass must
/// give `expected`; gives the last one, and tells whether all was well.
fn chaos(pool: &Pool, input: &Input, bar: &ProgressBar, expected: &Tally) -> Outcome<(Tally, bool)> {
    let (stop, kills, start) = (AtomicBool::new(false), AtomicU32::new(0), Instant::now());
    let mut passes = 0;
    let last = thread::scope(|scope| {
        scope.spawn(|| kill_workers(pool, &stop, &kills));
        let last = loop {
            let pass = count(pool, input, bar);
            passes += 1;
            let right = pass.as_ref().is_ok_and(|tally| tally == expected);
            let enough = kills.load(Ordering::Relaxed) >= KILLS || start.elapsed() > CHAOS_TIME;
            if !right || enough {
                break pass;
            }
        };
        stop.store(true, Ordering::Relaxed);
        last
    })?;
    let (kills, stats) = (kills.into_inner(), pool.stats());
    let difference = difference(&last, expected);
    bar.finish_and_clear();
    println!(
        "chaos: {kills} kills in {passes} passes, {} workers lost, {} tasks retried; {}",
        stats.workers_lost,
        stats.tasks_retried,
        difference.as_deref().unwrap_or("every pass equal"),
    );
    Ok((last, difference.is_none() && kills >= KILLS))
}

/// What differs between two counts, if anything does.
fn difference(found: &Tally, expected: &Tally) -> Option<String> {
    if found.totals != expected.totals {
        return Some(format!("totals differ: {:?}, expected {:?}", found.totals, expected.totals));
    }
    let mut words: Vec<&String> = found.words.keys().chain(expected.words.keys()).collect();
    words.sort_unstable();
    words.dedup();
    words.retain(|word| found.words.get(*word) != expected.words.get(*word));
    let first = words.first()?;
    let (one, other) = (found.words.get(*first), expected.words.get(*first));
    Some(format!("{} words differ, the first is {first:?}: {one:?}, expected {other:?}", words.len()))
}

/// `part` of `all` in per cent, with two places.
fn share(part: u64, all: u64) -> String {
    let parts = u128::from(part) * 10_000 / u128::from(all.max(1));
    format!("{}.{:02} %", parts / 100, parts % 100)
}

/// The table of the `top` most frequent words, and the totals; `time` is that of all passes.
fn report(tally: &Tally, top: usize, time: Duration) -> String {
    let mut words: Vec<(&String, &u64)> = tally.words.iter().collect();
    words.sort_unstable_by(|(word, count), (other, than)| than.cmp(count).then(word.cmp(other)));
    let Totals { files, words: all, bytes, unreadable, binary } = &tally.totals;
    let mut text = String::new();
    for (word, count) in words.iter().take(top) {
        text += &format!("{word:<24} {count:>12} {:>9}\n", share(**count, *all));
    }
    text + &format!(
        "files {files}, words {all}, bytes {bytes}, distinct words {}, skipped unreadable {unreadable}, \
         skipped binary {binary}, seconds {:.2}",
        words.len(),
        time.as_secs_f64()
    )
}

/// The `name-version` of all packages from a registry in the text of a `Cargo.lock`.
fn locked(text: &str) -> Vec<String> {
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        line.strip_suffix('"').map(str::to_owned)
    };
    let packages = text
        .split("[[package]]")
        .filter(|package| value(package, "source").is_some_and(|source| source.starts_with("registry+")));
    packages.filter_map(|one| Some(format!("{}-{}", value(one, "name")?, value(one, "version")?))).collect()
}

/// The source directories of the project's dependencies.
fn dependencies() -> Result<Vec<PathBuf>, String> {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let text = fs::read_to_string(&lock)
        .map_err(|error| format!("{}: {error}: name a directory to count", lock.display()))?;
    let home = env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    let registry = home.ok_or("neither CARGO_HOME nor HOME is set: name a directory")?.join("registry/src");
    let indexes: Vec<PathBuf> =
        fs::read_dir(&registry).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let places = locked(&text).into_iter().flat_map(|name| indexes.iter().map(move |at| at.join(&name)));
    let found: Vec<PathBuf> = places.filter(|place| place.is_dir()).collect();
    if found.is_empty() {
        let place = registry.display();
        return Err(format!(
            "no dependency has its sources in {place}: run `cargo fetch`, or name a directory"
        ));
    }
    Ok(found)
}

/// The command line.
#[derive(Default)]
struct Options {
    roots: Vec<PathBuf>,
    workers: Option<usize>,
    top: usize,
    check: bool,
    chaos: bool,
    no_progress: bool,
    help: bool,
}

impl Options {
    /// Reads the command line, and looks whether the directory is there.
    fn parse() -> Outcome<Self> {
        let mut options = Self { top: 20, ..Self::default() };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("workers") => options.workers = Some(parser.value()?.parse()?),
                Long("top") => options.top = parser.value()?.parse()?,
                Long("check") => options.check = true,
                Long("chaos") => options.chaos = true,
                Long("no-progress") => options.no_progress = true,
                Short('h') | Long("help") => options.help = true,
                Value(root) if options.roots.is_empty() => options.roots.push(root.into()),
                _ => return Err(argument.unexpected().into()),
            }
        }
        if options.workers == Some(0) {
            return Err("--workers must be at least 1".into());
        }
        if let Some(root) = options.roots.first() {
            // Reading it tells a missing directory, a file, and one that is closed to us, each by name.
            let told = |error: io::Error| format!("{}: {error}: name a readable directory", root.display());
            fs::read_dir(root).map_err(told)?;
        } else if !options.help {
            options.roots = dependencies()?;
        }
        Ok(options)
    }
}

/// Counts, reports and compares; whether all comparisons were well.
fn run(options: &Options) -> Outcome<bool> {
    let input = Input::find(&options.roots);
    let expected = (options.check || options.chaos).then(|| count_plainly(&input));
    let mut builder = Pool::builder();
    if let Some(workers) = options.workers {
        builder = builder.workers(workers);
    }
    if options.chaos {
        builder = builder.retries(1000);
    }
    let pool = builder.build()?;
    // The bar hides itself when standard error is no terminal.
    let bar = if options.no_progress { ProgressBar::hidden() } else { ProgressBar::new(input.files) };
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} files, {eta} left")?);
    let start = Instant::now();
    let (tally, mut well) = match &expected {
        Some(expected) if options.chaos => chaos(&pool, &input, &bar, expected)?,
        _ => (count(&pool, &input, &bar)?, true),
    };
    let time = start.elapsed();
    bar.finish_and_clear();
    println!("{}", report(&tally, options.top, time));
    if let Some(expected) = expected.filter(|_| options.check) {
        let difference = difference(&tally, &expected);
        println!("check: {}", difference.as_deref().unwrap_or("equal"));
        well &= difference.is_none();
    }
    Ok(well)
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("wordcount: {error}");
            return ExitCode::from(2);
        }
    };
    if options.help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("wordcount: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str) -> Vec<(String, u64)> {
        let mut tally = Tally::default();
        tally.text(text);
        let mut words: Vec<_> = tally.words.into_iter().collect();
        words.sort();
        words
    }

    #[test]
    fn words_are_runs_of_letters_digits_and_underscores_in_lower_case() {
        let expected = [("_x1".to_owned(), 1), ("don".into(), 1), ("t".into(), 1), ("the".into(), 3)];
        assert_eq!(counted("The the,THE don't\n_x1"), expected);
        assert_eq!(counted("ÄRGER ärger"), [("ärger".to_owned(), 2)]);
        assert_eq!(counted(" .\n"), []);
    }

    #[test]
    fn both_ways_of_counting_agree_and_skip_the_same_files() -> Outcome<()> {
        let root = env::temp_dir().join(format!("wordcount-test-{}", std::process::id()));
        fs::create_dir_all(&root)?;
        for (name, bytes) in [("a", "Ὀδυσσεύς ΟΔΟΣ b_1 B_1".as_bytes()), ("b", b"x\0y"), ("c", b"\xff\xfe")]
        {
            fs::write(root.join(name), bytes)?;
        }
        std::os::unix::fs::symlink(&root, root.join("loop"))?;
        let mut input = Input::find(std::slice::from_ref(&root));
        assert_eq!((input.files, input.unreadable), (3, 0));
        input.batches[0].paths.push(root.join("gone").into_os_string().into_vec());
        let mut tally = Tally::default();
        tally.merge(count_batch(input.batches[0].clone()));
        let plain = count_plainly(&input);
        fs::remove_dir_all(&root)?;
        assert_eq!(difference(&tally, &plain), None);
        assert_eq!(tally, plain);
        let Totals { files, words, unreadable, binary, .. } = tally.totals;
        assert_eq!((files, words, unreadable, binary), (1, 4, 1, 2));
        Ok(())
    }

    #[test]
    fn a_difference_is_named() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.text("a b");
        other.text("a c");
        let told = difference(&one, &other).unwrap_or_default();
        assert!(told.starts_with("2 words differ, the first is \"b\": Some(1), expected None"), "{told}");
        other.text("a");
        assert!(difference(&one, &other).is_some_and(|told| told.starts_with("totals differ")));
    }

    #[test]
    fn locked_packages_are_those_of_a_registry() {
        let text = "version = 4\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\n[[package]]\n\
                    name = \"far\"\nversion = \"1.2.3\"\nsource = \"registry+https://example\"\n";
        assert_eq!(locked(text), ["far-1.2.3"]);
    }

    #[test]
    fn shares_have_two_places() {
        assert_eq!(share(1, 3), "33.33 %");
        assert_eq!(share(0, 0), "0.00 %");
    }
}
