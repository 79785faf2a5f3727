//! Every scenario below `scenarios/` goes as its golden log says. A golden log is one that somebody has read and found right;
//! `UPDATE_GOLDEN=1` writes them anew, and whoever does that reads what has changed.

#![expect(clippy::expect_used, reason = "a test that cannot read its own files has nothing better to say")]

use std::path::{Path, PathBuf};

use lodge_simulator::scenario;

/// There are at least so many.
const LEAST: usize = 40;

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("listing scenarios") {
        let path = entry.expect("reading a directory entry").path();
        match path.extension() {
            None => found.extend(files(&path)),
            Some(extension) if extension == "txt" => found.push(path),
            Some(_) => {}
        }
    }
    found.sort();
    found
}

/// The first line that differs, with what was expected.
fn difference(expected: &str, log: &str) -> String {
    let mut lines = expected.lines().zip(log.lines()).enumerate();
    match lines.find(|(_, (was, is))| was != is) {
        Some((at, (was, is))) => format!("line {}\n  golden: {was}\n  now:    {is}", at + 1),
        None => format!("{} lines became {}", expected.lines().count(), log.lines().count()),
    }
}

#[test]
fn every_scenario_goes_as_its_golden_log_says() {
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios"));
    assert!(files.len() >= LEAST, "only {} scenarios", files.len());
    let renew = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for path in &files {
        let name = path.display();
        let text = std::fs::read_to_string(path).expect("reading a scenario");
        let log = match scenario::play(&text, 1) {
            Ok(Ok(log)) => log,
            Ok(Err(broken)) => {
                wrong.push(format!("{name}: {}\n{}", broken.what, broken.log));
                continue;
            }
            Err(error) => {
                wrong.push(format!("{name}: {error:#}"));
                continue;
            }
        };
        let golden = path.with_extension("log");
        if renew {
            std::fs::write(&golden, &log).expect("writing a golden log");
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if expected != log {
            wrong.push(format!("{name}: {}", difference(&expected, &log)));
        }
    }
    println!("{} scenarios, {} wrong", files.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let text =
        "workers 1G 1G\nweather lost=100 late=200 repeated=200 latest=3000\nenv web1\nenv web2\nwait 20\ndrain n1\nwait 30";
    let log = |seed| scenario::play(text, seed).expect("playing").expect("nothing breaks");
    assert_eq!(log(7), log(7));
    assert_ne!(log(7), log(8));
}
