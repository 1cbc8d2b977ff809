//! `cargo xtask ci --only linking`: a program that checks itself, `crates/mp-spawn/examples/linked`, built in the ways in which users build
//! theirs, and run; and a library with multiproc in it (`examples/plugin`), loaded by programs with and without. And one with a pool whose
//! tasks panic (`crates/mp-pool/examples/panics.rs`), which aborts.
//!
//! Most variants differ in the last step alone, so what it links is built few times: see [`Base`]. Each program is looked at, too, so that a
//! flag without effect is noticed.

use std::time::Instant;

use crate::elf::Elf;
use crate::run::{Call, Result, lasting, root};
use crate::workspace::Workspace;

/// How what is linked was built.
#[derive(Clone, Copy)]
enum Base {
    /// As it comes.
    Plain,
    /// With `panic = "abort"`.
    Abort,
    /// As in a release, for link-time optimisation of all of it, which is left to the last step.
    Release,
}

impl Base {
    /// Changes of the profile. Each has its own files in the same directory, so what runs at build time is built once. Debug information would
    /// take most of the time of optimising a whole program.
    fn profile(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Base::Plain => &[("CARGO_PROFILE_DEV_DEBUG", "0")],
            Base::Abort => &[("CARGO_PROFILE_DEV_DEBUG", "0"), ("CARGO_PROFILE_DEV_PANIC", "abort")],
            Base::Release => &[
                ("CARGO_PROFILE_DEV_DEBUG", "0"),
                ("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false"),
                ("CARGO_PROFILE_DEV_OVERFLOW_CHECKS", "false"),
                ("CARGO_PROFILE_DEV_LTO", "fat"),
            ],
        }
    }
}

/// A way to link a program.
struct Variant {
    name: &'static str,
    base: Base,
    /// For the compiler, at the last step.
    flags: &'static [&'static str],
    expected: Elf,
    /// What the program has to say about itself.
    says: &'static [&'static str],
}

const PLAIN: Elf = Elf { is_pie: true, is_static: false, has_build_id: true, has_symbols: true };
const STATIC: Elf = Elf { is_static: true, ..PLAIN };

const VARIANTS: [Variant; 13] = [
    Variant {
        name: "as it comes",
        base: Base::Plain,
        flags: &[],
        expected: PLAIN,
        says: &["panic=unwind", "messages=kept", "folded=false", "std=own", "constructors=1"],
    },
    Variant {
        name: "not position-independent",
        base: Base::Plain,
        flags: &["-Crelocation-model=static"],
        expected: Elf { is_pie: false, ..PLAIN },
        says: &[],
    },
    Variant { name: "static", base: Base::Plain, flags: &[WITH_STATIC_C], expected: STATIC, says: &[] },
    Variant {
        name: "static, not position-independent",
        base: Base::Plain,
        flags: &[WITH_STATIC_C, "-Crelocation-model=static"],
        expected: Elf { is_pie: false, ..STATIC },
        says: &[],
    },
    Variant {
        name: "stripped",
        base: Base::Plain,
        flags: &["-Cstrip=symbols"],
        expected: Elf { has_symbols: false, ..PLAIN },
        says: &[],
    },
    Variant {
        name: "without a build id",
        base: Base::Plain,
        flags: &["-Clink-arg=-Wl,--build-id=none"],
        expected: Elf { has_build_id: false, ..PLAIN },
        says: &[],
    },
    Variant {
        name: "static, not position-independent, stripped, without a build id",
        base: Base::Plain,
        flags: &[
            WITH_STATIC_C,
            "-Crelocation-model=static",
            "-Cstrip=symbols",
            "-Clink-arg=-Wl,--build-id=none",
        ],
        expected: Elf { is_pie: false, is_static: true, has_build_id: false, has_symbols: false },
        says: &[],
    },
    Variant {
        name: "equal functions folded",
        base: Base::Plain,
        flags: &[FOLD],
        expected: PLAIN,
        says: &["folded=true"],
    },
    Variant { name: "linked by GNU ld", base: Base::Plain, flags: &[GNU_LD], expected: PLAIN, says: &[] },
    Variant {
        name: "the standard library shared",
        base: Base::Plain,
        flags: &["-Cprefer-dynamic", "-Crpath"],
        expected: PLAIN,
        says: &["std=shared"],
    },
    Variant {
        name: "panic=abort",
        base: Base::Abort,
        flags: &[],
        expected: PLAIN,
        says: &["panic=abort", "messages=kept"],
    },
    Variant {
        name: "optimised, also at link time",
        base: Base::Release,
        flags: &["-Copt-level=3"],
        expected: PLAIN,
        says: &["panic=unwind", "messages=kept"],
    },
    Variant {
        name: "all at once",
        base: Base::Release,
        flags: &[
            "-Copt-level=3",
            WITH_STATIC_C,
            "-Crelocation-model=static",
            "-Cstrip=symbols",
            "-Clink-arg=-Wl,--build-id=none",
            "-Cpanic=abort",
        ],
        expected: Elf { is_pie: false, is_static: true, has_build_id: false, has_symbols: false },
        // Of its crates only the last one knows that panics abort.
        says: &["panic=abort", "messages=lost"],
    },
];

/// Has the linker fold functions of equal code, which GNU ld cannot.
const FOLD: &str = "-Clink-arg=-Wl,--icf=all";
const GNU_LD: &str = "-Clink-arg=-fuse-ld=bfd";
/// With a static C library, which some systems have in a package of its own.
const WITH_STATIC_C: &str = "-Ctarget-feature=+crt-static";
/// Whether there is one depends on the machine; here it is the same everywhere.
const BUILD_ID: &str = "-Clink-arg=-Wl,--build-id=sha1";

/// The builds, and where they are.
struct Linking {
    target: String,
}

/// All of it.
pub(crate) fn check() -> Result<()> {
    let linking = Linking { target: Workspace::read()?.target_beside("linking")? };
    for variant in &VARIANTS {
        if let Some(flag) = linking.missing(variant.flags)? {
            println!("-- {}: skipped, nothing can be linked with {flag} here", variant.name);
            continue;
        }
        timed(variant.name, || linking.check(variant))?;
    }
    timed("a constructor that comes last", || linking.check_constructors())?;
    timed("a pool's panics that abort", || linking.check_pool())?;
    timed("code in a library", || linking.check_libraries())
}

impl Linking {
    fn path(&self, name: &str) -> String {
        format!("{}/debug/examples/{name}", self.target)
    }

    /// The flag among these that not even an empty program can be linked with on this machine.
    fn missing<'a>(&self, flags: &[&'a str]) -> Result<Option<&'a str>> {
        let root = root()?;
        let (source, program) = (format!("{}/empty.rs", self.target), format!("{}/empty", self.target));
        std::fs::create_dir_all(root.join(&self.target)).map_err(|error| error.to_string())?;
        std::fs::write(root.join(&source), "fn main() {}\n").map_err(|error| error.to_string())?;
        for &flag in flags.iter().filter(|flag| [FOLD, GNU_LD, WITH_STATIC_C].contains(flag)) {
            if !Call::new("rustc").at_root()?.args([source.as_str(), "-o", &program, flag]).works() {
                return Ok(Some(flag));
            }
        }
        Ok(None)
    }

    /// Builds the program that checks itself.
    fn build(&self, base: Base, flags: &[&str]) -> Result<()> {
        let call = Call::cargo(["rustc", "--quiet", "-p", "mp-spawn", "--example", "linked"])?;
        self.with_profile(call, base).args(["--", BUILD_ID]).args(flags.iter().copied()).run()
    }

    fn with_profile(&self, call: Call, base: Base) -> Call {
        let call = call.args(["--target-dir", &self.target]);
        base.profile().iter().fold(call, |call, (name, value)| call.env(name, value))
    }

    fn check(&self, variant: &Variant) -> Result<()> {
        self.build(variant.base, variant.flags)?;
        let path = self.path("linked");
        let file = std::fs::read(root()?.join(&path)).map_err(|error| error.to_string())?;
        let found = Elf::read(&file).ok_or_else(|| format!("{path} is no program for this machine"))?;
        if found != variant.expected {
            return Err(format!("the program is {found:?}, and was to be {:?}", variant.expected));
        }
        says(&output(&path, &[])?, variant.says)
    }

    /// A child's job begins in a constructor, and those behind it have to run, too.
    fn check_constructors(&self) -> Result<()> {
        let object = format!("{}/late.o", self.target);
        let source = ["crates/mp-spawn/examples/linked/late.rs", "--edition=2024", "--crate-type=lib"];
        Call::new("rustc")
            .at_root()?
            .args(source)
            .args(["--emit=obj", "-Cpanic=abort", "-o", &object])
            .run()?;
        self.build(Base::Plain, &[&format!("-Clink-arg={object}")])?;
        says(&output(&self.path("linked"), &[])?, &["constructors=2"])
    }

    /// Panics of a pool's tasks where they abort. (Where they do not, the pool's tests see to them.)
    fn check_pool(&self) -> Result<()> {
        let build = Call::cargo(["build", "--quiet", "-p", "mp-pool", "--example", "panics"])?;
        self.with_profile(build, Base::Abort).run()?;
        says(&output(&self.path("panics"), &[])?, &["panic=abort"])
    }

    /// Functions of a library that a program loads, and a library that starts processes itself.
    fn check_libraries(&self) -> Result<()> {
        let build = ["build", "--quiet", "-p", "mp-spawn", "--example", "plugin", "--example", "host"];
        self.with_profile(Call::cargo(build)?, Base::Plain).run()?;
        self.build(Base::Plain, &[])?;
        let (linked, host, plugin) = (self.path("linked"), self.path("host"), self.path("libplugin.so"));

        // Loaded by a program without multiproc: children cannot be that program, and it is not started again and again.
        expect(&output(&host, &[&plugin])?, &[MAIN, REFUSED, NO_BROKER])?;
        let once_more = [MAIN, MAIN, REFUSED, NO_BROKER, NOT_STARTED, NO_BROKER];
        expect(&output(&host, &[&plugin, &host])?, &once_more)?;
        expect(&output(&host, &[&plugin, &linked])?, &[MAIN, BY_LIBRARY])?;
        if self.missing(&[WITH_STATIC_C])?.is_none() {
            self.build(Base::Plain, &[WITH_STATIC_C])?;
            expect(&output(&host, &[&plugin, &linked])?, &[MAIN, NO_JOB, NO_BROKER])?;
            self.build(Base::Plain, &[])?;
        }
        // By a program with a copy of its own: while it runs, and when it starts.
        let with_a_copy = [FROM_INSIDE, IN_CHILD, REFUSED, NO_BROKER, BY_LIBRARY];
        expect(&output(&linked, &[&plugin])?, &with_a_copy)?;
        let directory = format!("-Clink-arg=-L{}", self.path(""));
        self.build(Base::Plain, &[&directory, "-Clink-arg=-Wl,--no-as-needed,-lplugin,-rpath,$ORIGIN"])?;
        expect(&output(&linked, &[&plugin])?, &with_a_copy)
    }
}

// How the lines begin that the programs print.
const MAIN: &str = "main runs";
const FROM_INSIDE: &str = "panic=unwind";
const IN_CHILD: &str = "the library's function ran in a child";
const REFUSED: &str = "refused: starting a process: the library /";
const NOT_STARTED: &str = "failed: the process exited with code 0 before it took its job";
const NO_JOB: &str = "failed: the process exited with code 125 before it took its job";
const NO_BROKER: &str = "no broker: ";
const BY_LIBRARY: &str = "in the library: panic=unwind";

/// Names a check, before it and in its error, and tells how long it took.
fn timed(name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("-- {name}");
    let start = Instant::now();
    check().map_err(|message| format!("{name}: {message}"))?;
    println!("-- {name}: {}", lasting(start.elapsed()));
    Ok(())
}

/// What a program prints.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let path = root()?.join(program);
    let path = path.to_str().ok_or("the target directory's name is not UTF-8")?;
    // Its children panic on purpose.
    let call = Call::new(path).at_root()?.args(arguments.iter().copied()).env("RUST_BACKTRACE", "0");
    println!("$ {call}");
    call.output()
}

/// Looks for these words in what was printed.
fn says(said: &str, words: &[&str]) -> Result<()> {
    match words.iter().find(|words| !said.contains(**words)) {
        Some(words) => Err(format!("the program was to say {words}, and said {said}")),
        None => Ok(()),
    }
}

/// Compares what was printed with how its lines have to begin.
fn expect(said: &str, lines: &[&str]) -> Result<()> {
    let as_expected = said.lines().count() == lines.len()
        && said.lines().zip(lines).all(|(line, beginning)| line.starts_with(beginning));
    if as_expected { Ok(()) } else { Err(format!("expected lines that begin with {lines:?}, got\n{said}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_by_their_beginnings_and_number() {
        assert_eq!(expect("main runs\nrefused\n", &["main", "ref"]), Ok(()));
        for said in ["main runs\n", "main runs\nmain runs\nrefused\n", "refused\nmain runs\n", ""] {
            assert!(expect(said, &["main", "ref"]).is_err(), "{said}");
        }
    }
}
