//! The rule of the crates' dependencies: arrows point downward only, one crate speaks to the operating system, and
//! the upper crates hold no unsafe code.

use std::fs;

use crate::run::Result;
use crate::workspace::{Dependency, Package, Workspace};

/// The layers of the library, from the system calls up. A crate may use those of a lower number only.
const LAYERS: [(&str, u32); 10] = [
    ("mp-sys", 0),
    ("mp-derive", 0),
    ("mp-shm", 1),
    ("mp-sync", 2),
    ("mp-inspect", 2),
    ("mp-channel", 3),
    ("mp-spawn", 3),
    ("mp-pool", 4),
    ("mp-manager", 4),
    ("multiproc", 5),
];

/// Packages outside the layers: they serve the library and may use any of it.
const BESIDE: [&str; 3] = [TESTKIT, BENCHES, "xtask"];
const TESTKIT: &str = "mp-testkit";
const BENCHES: &str = "mp-benches";

/// The one crate that may use libc, and outside of tests rustix.
const SYSTEM: &str = "mp-sys";

/// Crates that must forbid unsafe code, and the line that does it.
const SAFE: [&str; 3] = ["mp-pool", "mp-manager", "multiproc"];
const FORBID: &str = "#![forbid(unsafe_code)]";

/// Checks the workspace on disk; the error lists every breach.
pub(crate) fn check() -> Result<()> {
    let workspace = Workspace::read()?;
    let mut found = breaches(&workspace.packages);
    for name in SAFE {
        let package = workspace.packages.iter().find(|package| package.name == name);
        let package = package.ok_or_else(|| {
            format!("there is no crate {name} any more: remove it from SAFE in xtask/src/arrows.rs")
        })?;
        let file = package.dir.join("src/lib.rs");
        let text =
            fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        if !forbids_unsafe(&text) {
            found.push(format!("{name} may hold no unsafe code: put `{FORBID}` into its src/lib.rs"));
        }
    }
    if found.is_empty() {
        println!("{} packages, all arrows point downward", workspace.packages.len());
        Ok(())
    } else {
        Err(format!("the layers are broken:\n  {}", found.join("\n  ")))
    }
}

/// Every breach of the layering among these packages, each as a sentence.
fn breaches(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        if layer(&package.name).is_none() && !BESIDE.contains(&package.name.as_str()) {
            found.push(format!("{} has no layer: give it one in xtask/src/arrows.rs", package.name));
        }
        found.extend(package.dependencies.iter().filter_map(|line| breach(&package.name, line)));
    }
    found
}

/// What is wrong with one arrow, if anything.
fn breach(from: &str, line: &Dependency) -> Option<String> {
    let to = line.name.as_str();
    // The benchmarks measure the C library's mutex as a peer.
    if to == "libc" && from != SYSTEM && from != BENCHES {
        return Some(format!("{from} depends on libc: only {SYSTEM} may, use what it offers or add to it"));
    }
    if line.dev {
        return None;
    }
    if to == "rustix" && from != SYSTEM && !BESIDE.contains(&from) {
        return Some(format!(
            "{from} depends on rustix: only {SYSTEM} may outside of tests, use what it offers or add to it"
        ));
    }
    if to == TESTKIT && from != BENCHES {
        return Some(format!("{from} depends on {TESTKIT}: move the line to [dev-dependencies]"));
    }
    match (layer(from), layer(to)) {
        (Some(above), Some(below)) if below >= above => Some(format!(
            "{from} (layer {above}) depends on {to} (layer {below}): only lower layers may be used"
        )),
        _ => None,
    }
}

fn layer(name: &str) -> Option<u32> {
    LAYERS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, layer)| *layer)
}

fn forbids_unsafe(text: &str) -> bool {
    text.lines().any(|line| line.trim() == FORBID)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package with `normal` and `dev` dependencies.
    fn package(name: &str, normal: &[&str], dev: &[&str]) -> Package {
        let line = |dev| move |name: &&str| Dependency { name: (*name).to_owned(), dev };
        Package {
            name: name.to_owned(),
            dir: "/nowhere".into(),
            dependencies: normal.iter().map(line(false)).chain(dev.iter().map(line(true))).collect(),
            tests: Vec::new(),
        }
    }

    /// The one breach of a graph of one package.
    fn only_breach(name: &str, normal: &[&str], dev: &[&str]) -> String {
        let mut found = breaches(&[package(name, normal, dev)]);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn a_downward_graph_is_fine() {
        let graph = [
            package("mp-sys", &["libc", "rustix"], &[TESTKIT]),
            package("mp-shm", &["mp-sys", "rkyv"], &[TESTKIT, "rustix"]),
            package("mp-sync", &["mp-sys", "mp-shm"], &[]),
            package("mp-channel", &["mp-sync"], &["mp-spawn"]),
            package("mp-spawn", &["mp-shm"], &["multiproc"]),
            package("mp-pool", &["mp-channel", "mp-spawn"], &[]),
            package("mp-manager", &["mp-channel", "mp-spawn"], &[]),
            package("multiproc", &["mp-pool", "mp-manager", "mp-sys"], &[]),
            package(TESTKIT, &["mp-sys", "mp-shm", "rustix"], &[]),
            package(BENCHES, &["multiproc", TESTKIT, "rayon"], &[]),
            package("xtask", &["lexopt"], &[]),
        ];
        assert_eq!(breaches(&graph), Vec::<String>::new());
    }

    #[test]
    fn an_upward_arrow_is_a_breach() {
        let breach = only_breach("mp-sys", &["mp-shm"], &[]);
        assert!(breach.starts_with("mp-sys (layer 0) depends on mp-shm (layer 1)"), "{breach}");
        only_breach("mp-sync", &["mp-sys", "mp-channel"], &[]);
        only_breach("mp-manager", &["multiproc"], &[]);
    }

    #[test]
    fn an_arrow_within_a_layer_is_a_breach() {
        only_breach("mp-channel", &["mp-spawn"], &[]);
        only_breach("mp-pool", &["mp-manager"], &[]);
    }

    #[test]
    fn the_test_kit_is_for_tests_and_benchmarks() {
        let breach = only_breach("mp-spawn", &[TESTKIT], &[]);
        assert!(breach.contains("[dev-dependencies]"), "{breach}");
        only_breach("xtask", &[TESTKIT], &[]);
    }

    #[test]
    fn only_the_system_crate_uses_libc() {
        only_breach("mp-shm", &["libc"], &[]);
        only_breach("mp-shm", &[], &["libc"]);
        only_breach(TESTKIT, &["libc"], &[]);
        // The benchmarks alone may: the C library's mutex is a peer.
        assert_eq!(breaches(&[package(BENCHES, &["libc"], &[])]), Vec::<String>::new());
    }

    #[test]
    fn only_the_system_crate_makes_system_calls() {
        let breach = only_breach("mp-channel", &["rustix"], &[]);
        assert!(breach.contains("outside of tests"), "{breach}");
        assert_eq!(breaches(&[package("mp-channel", &[], &["rustix"])]), Vec::<String>::new());
    }

    #[test]
    fn a_crate_without_a_layer_is_a_breach() {
        let breach = only_breach("mp-new", &[], &[]);
        assert!(breach.contains("has no layer"), "{breach}");
    }

    #[test]
    fn every_breach_is_told() {
        let graph =
            [package("mp-shm", &["mp-pool", "libc"], &[]), package("mp-sync", &["multiproc"], &["libc"])];
        assert_eq!(breaches(&graph).len(), 4);
    }

    #[test]
    fn the_forbid_line_counts_only_as_a_line_of_code() {
        assert!(forbids_unsafe("//! Docs.\n#![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("//! Docs.\n// #![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("#![deny(unsafe_code)]\n"));
    }
}
