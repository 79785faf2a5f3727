//! BMCs: the small computer in a server by which its power is switched and read, whatever the server itself does. Redfish over HTTPS.
//!
//! | path below `/api/v1` | what |
//! |---|---|
//! | `PUT /nodes/{name}/bmc` | how a node's BMC is reached (`BmcOrder`); it is asked first, and stored when it answers (`BmcView`) |
//! | `GET /nodes/{name}/bmc` | that, without the password |
//! | `POST /nodes/{name}/bmc/test` | ask it now (`BmcTest`); nothing is switched |
//! | `DELETE /nodes/{name}/bmc` | forget it |

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ids::Fingerprint;

/// Something that is never shown: not by `Debug`, not in a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How a BMC is known to be the one that was meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// It presents the certificate with this digest (of the DER form): what BMCs with a certificate of their own making need.
    Fingerprint(Fingerprint),
    /// Its certificate holds under one of these (PEM), name and dates included.
    Ca(String),
}

/// Body of `PUT /nodes/{name}/bmc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BmcOrder {
    /// `https://ADDRESS`.
    pub url: String,
    /// Name of an account that may switch power.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Which of the systems it manages, where it manages several.
    #[serde(default)]
    pub system: Option<String>,
    /// Without it nothing is stored, and the refusal tells the digest of what it presents.
    #[serde(default)]
    pub trust: Option<Trust>,
    /// A machine that was switched off to fence it stays off, for whoever wants to look at it.
    #[serde(default)]
    pub stays_off: bool,
    /// Even if it does not answer now, or says that it manages another machine.
    #[serde(default)]
    pub force: bool,
}

/// `GET /nodes/{name}/bmc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BmcView {
    /// Its address.
    pub url: String,
    /// The account.
    pub user: String,
    /// Which of its systems, where that had to be said.
    pub system: Option<String>,
    /// How it is known.
    pub trust: Trust,
    /// A machine that was switched off to fence it stays off.
    pub stays_off: bool,
    /// The machine (SMBIOS UUID) that it manages, as it said when it was set. Nothing is switched when it names another one.
    pub machine: Option<Uuid>,
    /// When it was set.
    pub set: Timestamp,
}

/// Answer to `POST /nodes/{name}/bmc/test`: what it says of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BmcTest {
    /// Redfish's word: `On`, `Off`, `PoweringOn`…
    pub power: String,
    /// The system.
    pub system: String,
    /// Maker and model.
    pub model: String,
    /// Its SMBIOS UUID.
    pub machine: Option<Uuid>,
    /// Ways of switching that it offers; empty where it does not say.
    pub resets: Vec<String>,
    /// Milliseconds it took.
    pub ms: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_travels_and_is_not_shown() {
        let text = r#"{"url":"https://10.0.0.9","user":"lodge","password":"hunter2"}"#;
        let order: BmcOrder = serde_json::from_str(text).unwrap();
        assert_eq!(order.password.0, "hunter2");
        assert!(!format!("{order:?}").contains("hunter2"));
        assert!(serde_json::to_string(&order).unwrap().contains("hunter2"));
    }
}
