//! What this node can do about processes of environments: found once per start of the agent, beside everything else. criu's first run also
//! leaves it notes about this kernel (`/run/criu.kdat`), which every later one would take its time for.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lodge_model::live::Capability;
use lodge_sys::program::Program;

const CPU: &str = "/proc/cpuinfo";
const KERNEL: &str = "/proc/sys/kernel/osrelease";
/// How long criu may take to try this kernel.
const LIMIT: Duration = Duration::from_secs(120);

/// Find out. What cannot be found out is a problem of its own.
pub fn capability() -> Capability {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let looked = || -> Result<Capability> {
        let problem = match Program::Criu.call(["check"]).deadline(LIMIT).run() {
            Ok(_) => String::new(),
            Err(error) => format!("criu does not work with this kernel: {error:#}"),
        };
        Ok(Capability { problem, kernel: read(KERNEL)?.trim().to_owned(), cpu: flags(&read(CPU)?) })
    };
    looked().unwrap_or_else(|error| Capability { problem: format!("{error:#}"), ..Capability::default() })
}

/// Of the first processor; they are all the same.
fn flags(text: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':').map(|(_, flags)| flags));
    let mut flags: Vec<String> = line.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    flags.sort();
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processors_can_do_is_read_of_the_first() {
        let text = "processor\t: 0\nflags\t\t: sse2 fpu avx\nbugs\t\t: spectre\n\nprocessor\t: 1\nflags\t\t: fpu\n";
        assert_eq!(flags(text), ["avx", "fpu", "sse2"]);
        assert_eq!(flags("processor\t: 0\n"), [""; 0]);
    }
}
