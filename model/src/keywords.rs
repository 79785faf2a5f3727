//! The short form of the answer, `lodge.KEY=VALUE` words, used on the kernel command line, in SMBIOS type 11 strings and in the
//! DHCP answer; and the words that a UKI carries about itself. A word that starts with `lodge.` and is not known is refused.

use crate::answer::{Answer, AnswerError, CenterAnswer, InstallAnswer, NodeAnswer};

/// Private DHCP option (RFC 3942 gives 224–254 to sites) in which a site or the center's own answer carries the words.
pub const DHCP_OPTION: u8 = 224;
/// Vendor class (DHCP option 60) of a Lodge installer that asks with DHCPINFORM.
pub const DHCP_VENDOR_CLASS: &str = "LodgeInstaller";

/// Everything that `lodge.` words can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keywords {
    /// `lodge.version=`: version of this UKI.
    pub version: Option<String>,
    /// `lodge.roothash=`: dm-verity root hash of the base OS that belongs to this UKI.
    pub roothash: Option<String>,
    /// `lodge.rootsize=`: bytes of its root file system.
    pub rootsize: Option<u64>,
    /// `lodge.mode=`: `install`, `node` or `rescue`, where init shall not find out by itself.
    pub mode: Option<Mode>,
    /// `lodge.dry-run`: the installer prints its plan and writes nothing.
    pub dry_run: bool,
    /// `lodge.console-shell=ttyS1`: init keeps a root shell on that serial port, in the initrd and in the running system. Off unless
    /// asked for, and only ever asked for by who stands before the machine: init reads it from the kernel command line alone, which
    /// is fixed in the UKI, and the firmware's additions to it (SMBIOS) are ignored under Secure Boot.
    pub console_shell: Option<String>,
    /// `lodge.center=`: `https://ADDRESS:PORT`.
    pub center: Option<String>,
    /// `lodge.ca=`: fingerprint of the center's CA.
    pub ca: Option<String>,
    /// `lodge.token=`: join token.
    pub token: Option<String>,
    /// `lodge.bundle=`: address of the bundle.
    pub bundle: Option<String>,
    /// `lodge.name=`: host name.
    pub name: Option<String>,
}

/// What init does with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Start the installer.
    Install,
    /// Start the installed system.
    Node,
    /// Explain on every console and offer a shell.
    Rescue,
}

const KNOWN: &str = "version, roothash, rootsize, mode, dry-run, console-shell, center, ca, token, bundle, name";

impl Keywords {
    /// Read the `lodge.` words of a text, leaving all others alone. `place` says where the text came from, for people.
    pub fn parse(text: &str, place: &str) -> Result<Self, AnswerError> {
        let mut words = Self::default();
        for word in text.split_whitespace() {
            let Some(word) = word.strip_prefix("lodge.") else {
                continue;
            };
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            words.set(key, value).map_err(|why| AnswerError { place: place.to_owned(), why })?;
        }
        Ok(words)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = || match value {
            "" => Err(format!("lodge.{key} has no value")),
            value => Ok(Some(value.to_owned())),
        };
        match key {
            "version" => self.version = text()?,
            "roothash" => self.roothash = text()?,
            "rootsize" => {
                let size = value.parse().map_err(|_| format!("lodge.rootsize={value:?} is not a number of bytes"))?;
                self.rootsize = Some(size);
            }
            "mode" => self.mode = Some(parse_mode(value)?),
            "dry-run" if value.is_empty() => self.dry_run = true,
            "console-shell" => self.console_shell = Some(parse_port(value)?),
            "center" => self.center = text()?,
            "ca" => self.ca = text()?,
            "token" => self.token = text()?,
            "bundle" => self.bundle = text()?,
            "name" => self.name = text()?,
            _ => return Err(format!("unknown word \"lodge.{key}\"; known are: {KNOWN}")),
        }
        Ok(())
    }

    /// The answer that the words stand for; `None` when they say nothing to an installer.
    pub fn answer(&self, place: &str) -> Result<Option<Answer>, AnswerError> {
        let wrong = |why: String| AnswerError { place: place.to_owned(), why };
        let center = match (&self.center, &self.ca, &self.token) {
            (Some(url), Some(ca), Some(token)) => Some(CenterAnswer {
                url: url.clone(),
                ca: ca.parse().map_err(|error: crate::ids::IdError| wrong(format!("lodge.ca: {error}")))?,
                token: token.clone(),
            }),
            (None, None, None) => None,
            _ => return Err(wrong("lodge.center, lodge.ca and lodge.token belong together; one is missing".into())),
        };
        let node = NodeAnswer { name: self.name.clone(), roles: Vec::new() };
        let install = InstallAnswer { bundle: self.bundle.clone(), dry_run: self.dry_run, ..InstallAnswer::default() };
        let answer = Answer { center, node, install, ..Answer::default() };
        answer.check().map_err(wrong)?;
        Ok((answer != Answer::default()).then_some(answer))
    }
}

/// The words by which a center makes itself known.
pub fn center_words(center: &CenterAnswer) -> String {
    format!("lodge.center={} lodge.ca={} lodge.token={}", center.url, center.ca, center.token)
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "install" => Ok(Mode::Install),
        "node" => Ok(Mode::Node),
        "rescue" => Ok(Mode::Rescue),
        _ => Err(format!("lodge.mode={text:?} is not install, node or rescue")),
    }
}

/// A terminal's name below /dev, as `ttyS1`: it becomes part of a path.
fn parse_port(text: &str) -> Result<String, String> {
    let good = text.starts_with("tty") && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if good { Ok(text.to_owned()) } else { Err(format!("lodge.console-shell={text:?} is not a terminal such as ttyS1")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_center_survives_its_words() {
        let center = CenterAnswer {
            url: "https://10.0.0.1:8443".into(),
            ca: crate::ids::Fingerprint::from_digest([7; 32]),
            token: "t0k".into(),
        };
        let words = Keywords::parse(&format!("quiet {} console=ttyS0", center_words(&center)), "a test").unwrap();
        assert_eq!(words.answer("a test").unwrap().unwrap().center.unwrap(), center);
    }

    #[test]
    fn unknown_and_half_given_words_are_refused() {
        let error = Keywords::parse("lodge.centre=x", "the kernel command line").unwrap_err().to_string();
        assert!(error.contains("lodge.centre") && error.contains("kernel command line"), "{error}");
        let half = Keywords::parse("lodge.center=https://x", "SMBIOS").unwrap();
        assert!(half.answer("SMBIOS").is_err());
        assert!(Keywords::parse("lodge.mode=sleep", "a test").is_err());
        assert!(Keywords::parse("lodge.console-shell=../sda", "a test").is_err());
    }

    #[test]
    fn a_console_shell_says_nothing_to_an_installer() {
        let words = Keywords::parse("lodge.console-shell=ttyS1", "a test").unwrap();
        assert_eq!(words.console_shell.as_deref(), Some("ttyS1"));
        assert_eq!(words.answer("a test").unwrap(), None);
    }

    #[test]
    fn a_uki_that_says_nothing_to_an_installer_gives_no_answer() {
        let words = Keywords::parse("lodge.version=1.0 lodge.roothash=aa lodge.rootsize=4096", "a test").unwrap();
        assert_eq!(words.answer("a test").unwrap(), None);
        assert_eq!(words.rootsize, Some(4096));
    }
}
