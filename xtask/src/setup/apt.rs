//! The machine's own apt settings, and what is derived from them: where Debian 13 is, for mkosi and for the few tools of Debian 13
//! that Debian 12 lacks. No host name is written here: the mirror is the one this machine already uses, or `LODGE_MIRROR`.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress::output;

/// The Debian release of the base OS and of the tools that make it.
pub const RELEASE: &str = "trixie";
/// Components of it: firmware for disks and network cards is in the second.
const COMPONENTS: &str = "main non-free-firmware";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Settings that tell how to reach a mirror; the others are the machine's own affair.
const PASSED_ON: [&str; 6] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::Check-",
    "Acquire::Retries",
    "Acquire::Max-FutureTime",
    "Acquire::AllowInsecure",
];

/// Where Debian's archives are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// Code name of the machine's own release.
    pub codename: String,
    /// The main archive.
    pub debian: String,
    /// The security archive, when the machine uses one.
    pub security: Option<String>,
}

impl Mirrors {
    /// Ask apt, so that every way of writing a source is understood.
    pub fn of_machine() -> Result<Self> {
        let release = std::fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
        let codename = codename(&release).context("looking for VERSION_CODENAME in /etc/os-release")?;
        let targets = output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ]))
        .context("asking apt for its sources")?;
        let mirror = std::env::var("LODGE_MIRROR").ok().filter(|mirror| !mirror.is_empty());
        Self::from_targets(&codename, &String::from_utf8_lossy(&targets), mirror)
    }

    fn from_targets(codename: &str, targets: &str, mirror: Option<String>) -> Result<Self> {
        let find = |suite: &str| {
            targets.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
                [uri, release, "main"] if release == suite => Some(uri.trim_end_matches('/').to_owned()),
                _ => None,
            })
        };
        let stable = (codename == "bookworm").then_some("oldstable").or_else(|| (codename == RELEASE).then_some("stable"));
        let Some(debian) = mirror.or_else(|| find(codename)).or_else(|| stable.and_then(find)) else {
            bail!("apt knows no source for {codename}/main; add one, or set LODGE_MIRROR to a Debian mirror's address");
        };
        Ok(Self { codename: codename.to_owned(), debian, security: find(&format!("{codename}-security")) })
    }

    /// Sources of Debian 13, in apt's deb822 format.
    pub fn debian13(&self) -> String {
        let mut text = stanza(&self.debian, &format!("{RELEASE} {RELEASE}-updates"), COMPONENTS);
        if let Some(security) = &self.security {
            text.push('\n');
            text.push_str(&stanza(security, &format!("{RELEASE}-security"), COMPONENTS));
        }
        text
    }

    /// Sources of Debian 13 for a system that will run elsewhere; none where the machine's own addresses hold a password or mean the
    /// machine itself.
    pub fn for_others(&self) -> Option<String> {
        let private = |uri: &String| {
            let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
            let authority = rest.split('/').next().unwrap_or_default();
            authority.contains('@') || ["", "localhost", "127.", "[::1]"].iter().any(|own| is_host(authority, own))
        };
        let uses_private = private(&self.debian) || self.security.as_ref().is_some_and(private);
        (!uses_private).then(|| self.debian13())
    }

    /// The source of the machine's own backports.
    pub fn backports(&self) -> String {
        stanza(&self.debian, &format!("{}-backports", self.codename), "main")
    }
}

/// The machine's settings for reaching mirrors (proxies, retries, clock checks), as an apt.conf.
pub fn acquire_settings() -> Result<String> {
    let dump = output(Command::new("apt-config").arg("dump")).context("asking apt for its settings")?;
    Ok(passed_on(&String::from_utf8_lossy(&dump)))
}

fn passed_on(dump: &str) -> String {
    dump.lines()
        .filter(|line| PASSED_ON.iter().any(|prefix| line.starts_with(prefix)) && !line.ends_with(" \"\";"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Whether an authority is this host, given whole or as the beginning of an address (`127.`).
fn is_host(authority: &str, own: &str) -> bool {
    let rest = authority.strip_prefix(own);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':') || own.ends_with('.'))
}

fn codename(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_owned())
}

fn stanza(uri: &str, suites: &str, components: &str) -> String {
    format!("Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {components}\nSigned-By: {KEYRING}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "http://mirror.test/debian/ bookworm main\n\
                           http://mirror.test/debian/ bookworm-updates main\n\
                           http://mirror.test/security/ bookworm-security main\n\
                           http://elsewhere.test/node nodistro main\n";

    #[test]
    fn debian_13_is_looked_for_where_the_machine_gets_its_own_release() {
        let mirrors = Mirrors::from_targets("bookworm", TARGETS, None).unwrap();
        let sources = mirrors.debian13();
        assert!(sources.contains("URIs: http://mirror.test/debian\nSuites: trixie trixie-updates\n"), "{sources}");
        assert!(sources.contains("URIs: http://mirror.test/security\nSuites: trixie-security\n"), "{sources}");
        assert!(!sources.contains("elsewhere"));
        assert!(mirrors.backports().contains("Suites: bookworm-backports\n"));
    }

    #[test]
    fn the_named_mirror_wins() {
        let mirrors = Mirrors::from_targets("bookworm", TARGETS, Some("http://mine.test/debian".into())).unwrap();
        assert_eq!(mirrors.debian, "http://mine.test/debian");
        assert_eq!(Mirrors::from_targets("trixie", "", Some("http://mine.test/d".into())).unwrap().security, None);
    }

    #[test]
    fn what_runs_elsewhere_gets_no_address_that_is_only_good_here() {
        let of = |mirror: &str| Mirrors::from_targets("trixie", "", Some(mirror.into())).unwrap().for_others();
        assert!(of("http://mirror.test/debian").unwrap().contains("URIs: http://mirror.test/debian\n"));
        assert!(of("https://localhost.mirror.test/debian").is_some());
        for own in ["http://ann:word@mirror.test/debian", "http://127.0.0.1:3142/debian", "http://localhost/d", "file:///srv/d"]
        {
            assert_eq!(of(own), None, "{own}");
        }
    }

    #[test]
    fn no_source_is_an_error_that_names_the_way_out() {
        let error = Mirrors::from_targets("trixie", TARGETS, None).unwrap_err().to_string();
        assert!(error.contains("LODGE_MIRROR"), "{error}");
    }

    #[test]
    fn only_settings_about_reaching_mirrors_are_passed_on() {
        let dump =
            "Acquire::http::Proxy \"http://proxy.test:3128\";\nAcquire::http::Dl-Limit \"\";\nAPT::Default-Release \"x\";\n";
        assert_eq!(passed_on(dump), "Acquire::http::Proxy \"http://proxy.test:3128\";\n");
    }
}
