//! What cargo knows of the workspace: packages, their dependencies, their test targets.

use std::path::PathBuf;

use serde_json::Value;

use crate::run::{Call, Result, root};

/// The workspace as `cargo metadata` describes it.
pub(crate) struct Workspace {
    /// Its packages.
    pub(crate) packages: Vec<Package>,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
}

/// One package of the workspace.
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// The directory of its `Cargo.toml`.
    pub(crate) dir: PathBuf,
    /// All its direct dependencies.
    pub(crate) dependencies: Vec<Dependency>,
    /// The names of its integration tests.
    pub(crate) tests: Vec<String>,
}

/// One line of a `[dependencies]` table.
pub(crate) struct Dependency {
    /// The package it names, whatever the line renames it to.
    pub(crate) name: String,
    /// Whether only tests, examples and benchmarks see it.
    pub(crate) dev: bool,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn read() -> Result<Workspace> {
        let text = Call::cargo(["metadata", "--format-version", "1", "--no-deps"])?.output()?;
        parse(&text)
            .ok_or_else(|| "cargo metadata printed something these tools do not understand".to_owned())
    }

    /// A directory for a build with other flags, beside the usual ones so that neither rebuilds the other;
    /// relative to the root where it can be.
    pub(crate) fn target_beside(&self, name: &str) -> Result<String> {
        let root = root()?;
        let path = self.target.join(name);
        let path = path.strip_prefix(&root).unwrap_or(&path);
        path.to_str().map(str::to_owned).ok_or_else(|| "the target directory's name is not UTF-8".to_owned())
    }

    /// The packages with an integration test whose name starts with `prefix`.
    pub(crate) fn with_tests(&self, prefix: &str) -> Vec<&str> {
        let has = |package: &&Package| package.tests.iter().any(|test| test.starts_with(prefix));
        self.packages.iter().filter(has).map(|package| package.name.as_str()).collect()
    }
}

fn parse(text: &str) -> Option<Workspace> {
    let json: Value = serde_json::from_str(text).ok()?;
    let packages = json["packages"].as_array()?.iter().map(package).collect::<Option<_>>()?;
    Some(Workspace { packages, target: json["target_directory"].as_str()?.into() })
}

fn package(json: &Value) -> Option<Package> {
    let is_test = |target: &&Value| target["kind"].as_array().is_some_and(|k| k.iter().any(|k| k == "test"));
    let name = |json: &Value| json["name"].as_str().map(str::to_owned);
    let mut dir = PathBuf::from(json["manifest_path"].as_str()?);
    dir.pop();
    Some(Package {
        name: name(json)?,
        dir,
        dependencies: json["dependencies"]
            .as_array()?
            .iter()
            .map(|line| Some(Dependency { name: name(line)?, dev: line["kind"] == "dev" }))
            .collect::<Option<_>>()?,
        tests: json["targets"].as_array()?.iter().filter(is_test).map(name).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_understood() {
        let text = r#"{
            "target_directory": "/w/target",
            "packages": [
                {"name": "mp-x", "manifest_path": "/w/crates/mp-x/Cargo.toml",
                 "dependencies": [
                    {"name": "libc", "kind": null, "rename": "c"},
                    {"name": "mp-testkit", "kind": "dev"},
                    {"name": "cc", "kind": "build"}],
                 "targets": [
                    {"name": "mp_x", "kind": ["lib"]},
                    {"name": "loom_ring", "kind": ["test"]},
                    {"name": "plain", "kind": ["test"]}]},
                {"name": "mp-y", "manifest_path": "/w/crates/mp-y/Cargo.toml",
                 "dependencies": [],
                 "targets": [{"name": "loom_bin", "kind": ["bin"]}]}
            ]}"#;
        let workspace = parse(text).expect("it is well formed");
        let package = &workspace.packages[0];
        assert_eq!(package.dir, PathBuf::from("/w/crates/mp-x"));
        let seen: Vec<_> = package.dependencies.iter().map(|d| (d.name.as_str(), d.dev)).collect();
        assert_eq!(seen, [("libc", false), ("mp-testkit", true), ("cc", false)]);
        assert_eq!(package.tests, ["loom_ring", "plain"]);
        assert_eq!(workspace.with_tests("loom"), ["mp-x"]);
        assert!(workspace.with_tests("crash").is_empty());
    }

    #[test]
    fn other_json_is_refused() {
        assert!(parse("{}").is_none());
        assert!(parse("not json").is_none());
    }
}
