//! The rules of ARCHITECTURE.md that a machine can check: arrows between crates, where `unsafe` may stand, file sizes, module
//! docs, and that every dependency has its reason written down.

#![expect(clippy::expect_used, reason = "a test that cannot read its own repository has nothing better to say")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which crates of ours each crate may use. Everything else is a forbidden arrow.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("sys", &["model"]),
    ("network", &["model", "sys"]),
    ("client", &["model"]),
    ("init", &["model", "sys"]),
    ("installer", &["model", "sys", "network", "client"]),
    ("template", &["model", "sys"]),
    ("agent", &["model", "sys", "network", "client", "template"]),
    ("bench", &["model", "sys"]),
    ("center", &["model"]),
    ("cli", &["model", "client"]),
    ("protocol", &[]),
    ("simulator", &["model", "client", "agent", "center"]),
    ("qemu-tests", &["model"]),
    ("xtask", &["model", "qemu-tests"]),
];

/// Lines above which a file must be split.
const TOO_LONG: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent").to_owned()
}

fn manifest(path: &Path) -> toml::Table {
    std::fs::read_to_string(path).expect("reading a manifest").parse().expect("parsing a manifest")
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = ARROWS.iter().map(|(name, _)| root().join(name)).collect();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("listing a source directory") {
            let path = entry.expect("reading a directory entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("reading a source file");
                found.push((path.strip_prefix(root()).expect("below the root").to_owned(), text));
            }
        }
    }
    found
}

#[test]
fn arrows_between_crates_are_those_of_the_architecture() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let members = manifest(&root().join("Cargo.toml"))["workspace"]["members"].as_array().expect("members").clone();
    let mut wrong = Vec::new();
    for member in members.iter().filter_map(|member| member.as_str()) {
        let Some(allowed) = allowed.get(member) else {
            wrong.push(format!("{member} is not in the table of arrows"));
            continue;
        };
        let manifest = manifest(&root().join(member).join("Cargo.toml"));
        let Some(dependencies) = manifest.get("dependencies").and_then(|table| table.as_table()) else { continue };
        for ours in dependencies.keys().filter_map(|name| name.strip_prefix("lodge-")) {
            if !allowed.contains(&ours) {
                wrong.push(format!("{member} may not use {ours}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_plan_never_imports_what_applies_it() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| path.components().any(|part| part.as_os_str().to_string_lossy().trim_end_matches(".rs") == "plan"))
        .filter(|(_, text)| text.contains("crate::apply") || text.contains("super::apply"))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn unsafe_code_is_only_in_sys() {
    let opt_in = ["allow(unsafe_code", "expect(unsafe_code"];
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| !path.starts_with("sys") && *path != Path::new("xtask/tests/tidy.rs"))
        .filter(|(_, text)| opt_in.iter().any(|words| text.contains(words)))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn no_file_is_too_long() {
    let wrong: Vec<_> =
        sources().into_iter().map(|(path, text)| (text.lines().count(), path)).filter(|(lines, _)| *lines > TOO_LONG).collect();
    assert!(wrong.is_empty(), "split these: {wrong:?}");
}

#[test]
fn every_module_says_why_it_exists() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| !path.ends_with("tests.rs") && !text.trim_start().starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = std::fs::read_to_string(root().join("docs/dependencies.md")).expect("reading docs/dependencies.md");
    let workspace = manifest(&root().join("Cargo.toml"));
    let dependencies = workspace["workspace"]["dependencies"].as_table().expect("dependencies").clone();
    let wrong: Vec<_> =
        dependencies.keys().filter(|name| !name.starts_with("lodge-") && !reasons.contains(&format!("`{name}`"))).collect();
    assert!(wrong.is_empty(), "without a reason in docs/dependencies.md: {wrong:?}");
}

#[test]
fn every_dependency_of_the_workspace_is_used() {
    let used: String = ARROWS
        .iter()
        .map(|(name, _)| std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("reading a manifest"))
        .collect();
    let workspace = manifest(&root().join("Cargo.toml"));
    let dependencies = workspace["workspace"]["dependencies"].as_table().expect("dependencies").clone();
    let wrong: Vec<_> = dependencies.keys().filter(|name| !used.contains(&format!("\n{name}"))).collect();
    assert!(wrong.is_empty(), "unused: {wrong:?}");
}
