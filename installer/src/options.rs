//! The command line. init starts the installer without any of it; people use it to look before they leap.

use std::path::PathBuf;

use clap::Parser;

/// Turns this machine into a Lodge node.
///
/// Started by init, it learns from the kernel command line, a medium labelled LODGE, SMBIOS, the place it was booted from and DHCP
/// where its center is, asks it what to do, and does it. It writes to no disk without the center's ticket or a [disk] section on
/// the medium.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "installer", version, after_help = EXAMPLES)]
pub struct Options {
    /// Print the plan, write nothing, and leave the network as it is.
    #[arg(long)]
    pub dry_run: bool,
    /// Take this answer before all others, as if it were lodge.toml on a medium.
    #[arg(long, value_name = "FILE")]
    pub answer: Option<PathBuf>,
    /// Take the bundle from this file instead of the medium.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  installer --dry-run                        what would be done here, and why not if not
  installer --dry-run --answer lodge.toml    the same with this answer

Exit status: 0 installed (restart), 10 installed (switch off), 1 --dry-run found that it would fail, 2 wrong usage.
Without --dry-run a failure is told on every console and tried again when something changes.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }
}
