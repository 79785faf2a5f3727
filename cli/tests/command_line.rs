//! The built program, as a script would call it: exit status, what it says and where.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn lodge(home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lodge"));
    command.env_clear().env("HOME", home).envs(environment.iter().copied()).args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn who_is_not_logged_in_is_told_how() {
    let home = tempfile::tempdir().unwrap();
    let output = lodge(home.path(), &["node", "ls"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("lodge login https://"), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_wrong_line_is_a_usage_error() {
    let home = tempfile::tempdir().unwrap();
    for line in [
        &["node", "format"][..],
        &["login", "https://x", "--ca", "md5:1", "--token", "t"],
        &["env", "repair", "web1", "--rollback"],
        &["env", "repair", "web1", "--finish", "--template", "tiny"],
        &["env", "repair", "web1", "--address", "here"],
        &[],
    ] {
        assert_eq!(lodge(home.path(), line, &[]).status.code(), Some(2), "{line:?}");
    }
}

#[test]
fn a_center_that_is_not_there_is_named_and_nothing_is_stored() {
    let home = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (url, ca) = (format!("https://{free}"), format!("sha256:{}", "ab".repeat(32)));
    let output = lodge(home.path(), &["login", &url, "--ca", &ca, "--token", "t0k"], &[]);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains(&url) && stderr(&output).contains("Connection refused"), "{}", stderr(&output));
    assert!(!home.path().join(".config").exists());
    let output = lodge(home.path(), &["cluster", "show"], &[("LODGE_URL", &url), ("LODGE_CA", &ca), ("LODGE_TOKEN", "t0k")]);
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn completions_are_printed_for_every_shell() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = lodge(home.path(), &["completions", shell], &[]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("console-log"), "{shell}");
    }
}

#[test]
fn a_program_that_could_not_be_run_ends_as_with_ssh_and_a_wrong_file_is_named() {
    let home = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (url, ca) = (format!("https://{free}"), format!("sha256:{}", "ab".repeat(32)));
    let environment = [("LODGE_URL", url.as_str()), ("LODGE_CA", &ca), ("LODGE_TOKEN", "t0k")];
    let output = lodge(home.path(), &["env", "exec", "web1", "--", "true"], &environment);
    assert_eq!(output.status.code(), Some(255));
    assert!(stderr(&output).contains("running true in web1"), "{}", stderr(&output));
    let file = home.path().join("env.toml");
    std::fs::write(&file, "[[environment]]\nname = 'web1'\ncolour = 'red'\n").unwrap();
    let output = lodge(home.path(), &["apply", "-f", file.to_str().unwrap(), "--yes"], &environment);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("env.toml") && stderr(&output).contains("colour"), "{}", stderr(&output));
}
