//! `lodge env repair`.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;

use super::Confirm;
use super::environment::Wait;
use crate::amount::parse_seconds;

/// How a repair goes, for `--help`.
pub const EXAMPLES: &str = "A clean system takes the place of web1, with the same address and keys, on any node. The files of web1 are at /repair in it: \
    change them there, or `chroot /repair`. web1 cannot run meanwhile, and a snapshot of before is kept. A damaged file system is mended \
    first; `lodge env show web1` says what was changed.\n\nExample:\n  lodge env repair web1 --wait\n  ssh root@ADDRESS\n    vi /repair/etc/fstab    \
    (or: chroot /repair passwd, rm /repair/var/log/huge)\n  lodge env repair web1 --finish --wait\n\nTo give up, and have everything as it \
    was before: lodge env repair web1 --finish --rollback";

/// `lodge env repair`.
#[derive(Debug, Args)]
pub struct Repair {
    /// Name of the broken environment.
    pub name: String,
    /// What the clean system is made from; its own template where it is left out.
    #[arg(long, short)]
    pub template: Option<String>,
    /// The only node for the repair. Any one where it is left out, even where the environment itself is bound to one.
    #[arg(long)]
    pub node: Option<String>,
    /// Its address: the `same` one, a `new` one of the pools, or this one. May be given several times, as one of each family.
    #[arg(long, value_name = "same|new|IP", default_value = "same")]
    pub address: Vec<Choice>,
    /// A file with public keys, or one public key: who may log in besides those who may already. May be given several times.
    #[arg(long, value_name = "FILE|KEY")]
    pub ssh_key: Vec<String>,
    /// Keep no snapshot first, as where the share has no room for one. Then there is no way back.
    #[arg(long)]
    pub no_snapshot: bool,
    /// End the repair: the environment gets its disk and address back, and is started.
    #[arg(long, conflicts_with_all = ["template", "node", "address", "ssh_key", "no_snapshot", "force"])]
    pub finish: bool,
    /// With --finish: put the disk back to the snapshot that was taken before. What was done in the repair is lost.
    #[arg(long, requires = "finish")]
    pub rollback: bool,
    /// Even if no node could die any more then without loss, where it does not run now (lodge cluster capacity). For operators.
    #[arg(long)]
    pub force: bool,
    /// What is asked before a rollback.
    #[command(flatten)]
    pub confirm: Confirm,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `lodge env reinstall`.
#[derive(Debug, Args)]
pub struct Reinstall {
    /// Name of the environment.
    pub name: String,
    /// What the new system is made from; the template that has the name of its own now, where it is left out.
    #[arg(long, short)]
    pub template: Option<String>,
    /// Keep no snapshot first, as where the share has no room for one. Then there is no way back.
    #[arg(long)]
    pub no_snapshot: bool,
    /// Even if no node could die any more then without loss, where it does not run now (lodge cluster capacity). For operators.
    #[arg(long)]
    pub force: bool,
    /// What is asked before it is done.
    #[command(flatten)]
    pub confirm: Confirm,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `lodge env fsck`.
#[derive(Debug, Args)]
pub struct Fsck {
    /// Name of the environment.
    pub name: String,
    /// Mend what is wrong. Without it nothing is written: what is found is told.
    #[arg(long)]
    pub yes: bool,
    /// How long to wait, in seconds; or 90s, 5m, 1h. It goes on afterwards, without being waited for.
    #[arg(long, default_value = "1h", value_parser = parse_seconds)]
    pub timeout: u64,
}

/// `--address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The environment's.
    Same,
    /// The next free ones.
    New,
    /// This one.
    This(IpAddr),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "same" => Ok(Self::Same),
            "new" => Ok(Self::New),
            ip => {
                ip.parse().map(Self::This).map_err(|_| format!("{ip:?} is no address; give same, new or an address of a pool"))
            }
        }
    }
}

/// As the center is told: nothing for the same, an empty list for new ones.
pub fn addresses(choices: &[Choice]) -> Result<Option<Vec<IpAddr>>, String> {
    let these: Vec<IpAddr> =
        choices.iter().filter_map(|choice| if let Choice::This(ip) = choice { Some(*ip) } else { None }).collect();
    match choices {
        [] | [Choice::Same] => Ok(None),
        [Choice::New] => Ok(Some(Vec::new())),
        _ if these.len() == choices.len() => Ok(Some(these)),
        _ => Err("--address: give same, new, or addresses, not several of these".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_a_new_one_or_named() {
        let asked = |words: &[&str]| addresses(&words.iter().map(|word| word.parse().unwrap()).collect::<Vec<_>>());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!((asked(&["same"]), asked(&["new"])), (Ok(None), Ok(Some(vec![]))));
        assert_eq!(asked(&["192.0.2.7", "2001:db8::7"]), Ok(Some(vec![ip("192.0.2.7"), ip("2001:db8::7")])));
        assert!(asked(&["same", "192.0.2.7"]).unwrap_err().contains("not several"));
        assert!("192.0.2".parse::<Choice>().unwrap_err().contains("same, new or"));
    }
}
