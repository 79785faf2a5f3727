//! What a node must know of a template: as `/lodge-template.toml` says, else as its init lets guess.

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::order::TemplateMeta;

use crate::tree::{Kind, Tree};

/// Where a template says it itself.
const FILE: &str = "lodge-template.toml";
/// Bytes of it, at most.
const MOST: u64 = 64 << 10;
/// Where an init is looked for.
const INITS: [&str; 4] = ["sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd"];
/// SIGRTMIN+3: systemd halts. SIGPWR: sysvinit's powerfail line. SIGUSR2: busybox powers off.
const SYSTEMD: i32 = 37;
const SYSVINIT: i32 = 30;
const BUSYBOX: i32 = 12;

/// Find it out, checked.
pub fn of(tree: &Tree) -> Result<TemplateMeta> {
    let meta = match tree.text(FILE, MOST)? {
        Some(text) => toml::from_str(&text).with_context(|| format!("reading /{FILE} of the archive"))?,
        None => guess(tree)?,
    };
    check(&meta).with_context(|| format!("/{FILE} of the archive"))?;
    let program = meta.init.first().map(String::as_str).unwrap_or_default();
    if !is_program(tree, program) {
        bail!("the archive has no {program}{}", hint(tree));
    }
    Ok(meta)
}

fn guess(tree: &Tree) -> Result<TemplateMeta> {
    let Some(init) = INITS.iter().find(|init| is_program(tree, init)) else {
        bail!("the archive has no /sbin/init{}", hint(tree));
    };
    let real = tree.resolve(init.as_bytes()).unwrap_or_default();
    let (stop_signal, name) = match real.rsplit(|byte| *byte == b'/').next() {
        Some(b"systemd") => (SYSTEMD, "systemd"),
        Some(b"busybox") => (BUSYBOX, "busybox"),
        _ => (SYSVINIT, "sysvinit"),
    };
    let environment = if stop_signal == SYSTEMD { vec!["MEMORY_PRESSURE_WATCH=/dev/null".to_owned()] } else { Vec::new() };
    let release = tree.text("etc/os-release", MOST).unwrap_or_default().unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("a system").trim_matches('"');
    let description = format!("{system} with {name}").chars().filter(|letter| !letter.is_control()).take(200).collect();
    Ok(TemplateMeta { init: vec![format!("/{init}")], stop_signal, environment, description, ..TemplateMeta::default() })
}

fn check(meta: &TemplateMeta) -> Result<()> {
    let TemplateMeta { init, stop_signal, stop_seconds, movable: _, environment, description } = meta;
    let has_control = |text: &String| text.chars().any(char::is_control);
    if init.is_empty()
        || !init.iter().take(1).all(|program| program.starts_with('/'))
        || init.iter().any(|word| word.contains('\0'))
    {
        bail!("init must be the absolute name of a program and its arguments");
    }
    if !(1..=64).contains(stop_signal) {
        bail!("stop-signal is {stop_signal}; signals are 1 to 64");
    }
    if !(1..=3600).contains(stop_seconds) {
        bail!("stop-seconds is {stop_seconds}; it may be 1 to 3600");
    }
    for pair in environment {
        let name = pair.split_once('=').map_or("", |(name, _)| name);
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if name.is_empty()
            || name.starts_with(|first: char| first.is_ascii_digit())
            || !name.chars().all(is_name)
            || has_control(pair)
        {
            bail!("environment has {pair:?}, which is not NAME=value");
        }
    }
    if description.chars().count() > 200 || has_control(description) {
        bail!("description must be one line of at most 200 characters");
    }
    Ok(())
}

fn is_program(tree: &Tree, path: &str) -> bool {
    let node = tree.resolve(path.as_bytes()).and_then(|real| tree.get(&real));
    node.is_some_and(|node| matches!(node.kind, Kind::File { .. }) && node.attributes.mode & 0o111 != 0)
}

/// What may be the reason that there is no init.
fn hint(tree: &Tree) -> String {
    let nested = tree.entries().map(|(path, ..)| path).find_map(|path| {
        let path = std::str::from_utf8(path).ok()?;
        let root = path.strip_suffix("/sbin/init").or_else(|| path.strip_suffix("/usr/lib/systemd/systemd"))?;
        (!root.is_empty() && root != "usr").then(|| root.to_owned())
    });
    match nested {
        Some(root) => format!("; there is one below /{root}: pack from inside the root: tar -C {root} -c ."),
        None => {
            ": an environment is a whole system, not one program; install an init in it (on Debian: systemd-sysv or sysvinit-core)".into()
        }
    }
}
