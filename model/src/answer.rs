//! The answer: what an operator says beforehand, so that nobody has to be asked at the machine.
//!
//! One schema for every place it can come from. A file `lodge.toml` gives all of it; the kernel command line, SMBIOS type 11
//! strings and the DHCP answer carry the short form `lodge.center=… lodge.ca=… lodge.token=…` (see `keywords`), which is turned
//! into the same type. Unknown keys are refused, with the place they came from.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::disk::DiskRule;
use crate::ids::Fingerprint;
use crate::node::Role;

/// A whole answer. Everything may be left out; `check` says what a use of it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Answer {
    /// Where the center is and how to know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub center: Option<CenterAnswer>,
    /// What the machine becomes.
    pub node: NodeAnswer,
    /// Which disk. Only used where no center gives a ticket: an answer on the medium is then the permission to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskRule>,
    /// How its uplink is set up. Absent: DHCP on every link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkAnswer>,
    /// How the installation goes.
    pub install: InstallAnswer,
    /// What a new center does, for a machine with that role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteAnswer>,
}

/// The center, as a machine that has never seen it must know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CenterAnswer {
    /// `https://ADDRESS:PORT`.
    pub url: String,
    /// Fingerprint of the center's CA certificate.
    pub ca: Fingerprint,
    /// Join token.
    pub token: String,
}

/// What the machine becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct NodeAnswer {
    /// Host name; the center names the node where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Roles; `["worker"]` where it is left out and no center says otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
}

/// A fixed set-up of the uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkAnswer {
    /// Hardware address of the interface; the first one with a carrier where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Address with prefix length: `10.0.0.10/24`.
    pub address: String,
    /// Default gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
}

/// How the installation goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct InstallAnswer {
    /// `http://…/lodge-os.tar.gz`; the ticket's, else the medium's, where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// What to do when it is done.
    pub then: Then,
    /// Print the plan, write nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What to do after an installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Start the installed system.
    #[default]
    Reboot,
    /// Switch the machine off.
    Poweroff,
}

/// Settings of a new center.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SiteAnswer {
    /// Whether an unknown machine that asks is admitted at once or waits for an operator.
    pub admit: Admit,
    /// Which disk an admitted machine is installed on.
    pub disk: DiskRule,
    /// Whether the center answers PXE and HTTP Boot on its links.
    pub netboot: bool,
}

/// What happens to a machine that the center has never seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Admit {
    /// It gets a ticket when its disk is unambiguous.
    Auto,
    /// It waits for `lodge node approve`.
    #[default]
    Approve,
}

/// Why an answer is refused: always with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer from {place} is wrong: {why}")]
pub struct AnswerError {
    /// Where the answer came from, for people.
    pub place: String,
    /// What is wrong, for people.
    pub why: String,
}

impl Answer {
    /// Parse and check a `lodge.toml`. `place` says where it came from, for people.
    pub fn parse(text: &str, place: &str) -> Result<Self, AnswerError> {
        let wrong = |why: String| AnswerError { place: place.to_owned(), why };
        let answer: Self = toml::from_str(text).map_err(|error| wrong(error.to_string().trim().to_owned()))?;
        answer.check().map_err(wrong)?;
        Ok(answer)
    }

    /// The rules that the types alone do not hold.
    pub fn check(&self) -> Result<(), String> {
        if let Some(center) = &self.center {
            check_center_url(&center.url)?;
            if center.token.is_empty() {
                return Err("center.token is empty".into());
            }
        }
        if let Some(name) = &self.node.name {
            crate::node::check_name(name)?;
        }
        if let Some(bundle) = &self.install.bundle
            && !bundle.starts_with("http://")
            && !bundle.starts_with("https://")
        {
            return Err(format!("install.bundle {bundle:?} is not an http:// or https:// address"));
        }
        if let Some(network) = &self.network {
            parse_cidr(&network.address)
                .ok_or_else(|| format!("network.address {:?} is not ADDRESS/PREFIX", network.address))?;
        }
        Ok(())
    }
}

/// `ADDRESS/PREFIX` as its two parts.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= longest).then_some((address, prefix))
}

fn check_center_url(url: &str) -> Result<(), String> {
    match url.strip_prefix("https://") {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => Ok(()),
        _ => Err(format!("center.url {url:?} is not https://ADDRESS:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_center_machines_answer_is_read() {
        let text = r#"
            [node]
            name = "center1"
            roles = ["center", "share"]
            [disk]
            serial = "CENTER0"
            [network]
            address = "10.77.0.10/24"
            gateway = "10.77.0.1"
            [site]
            admit = "auto"
            netboot = true
        "#;
        let answer = Answer::parse(text, "a test").unwrap();
        assert_eq!(answer.node.roles, [Role::Center, Role::Share]);
        assert_eq!(answer.disk.unwrap(), DiskRule::by_serial("CENTER0"));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused_with_their_place() {
        for (text, word) in [
            ("[disk]\nserail = \"x\"", "serail"),
            ("colour = 1", "colour"),
            ("[center]\nurl = \"ftp://x\"\nca = \"sha256:00\"\ntoken = \"t\"", "sha256"),
            ("[network]\naddress = \"10.0.0.1\"", "ADDRESS/PREFIX"),
            ("[node]\nname = \"-x\"", "-x"),
        ] {
            let error = Answer::parse(text, "the stick").unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("the stick"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(\\[[a-z]{1,8}\\]\n|[a-z-]{1,8} = [0-9\"a-z]{0,8}\n){0,6}") {
            let _ = Answer::parse(&text, "a test");
        }
    }
}
