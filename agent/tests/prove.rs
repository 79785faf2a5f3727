//! The agent's proof of a share, as the agent starts it: a program that says how it went, in words and by its exit status.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn prove(dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_agent")).arg("prove").arg(dir).output().unwrap()
}

#[test]
fn what_can_be_written_is_proved_and_nothing_is_left() {
    let share = tempfile::tempdir().unwrap();
    let dir = share.path().join("nodes/n");
    let said = prove(&dir);
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    assert_eq!(dir.read_dir().unwrap().count(), 0);
}

#[test]
fn a_failure_is_told_in_words() {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), "").unwrap();
    let said = prove(&share.path().join("file/n"));
    assert_eq!(said.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&said.stderr).starts_with("making "), "{said:?}");
}
