//! One type per noun that has an identity, so that no two can be swapped by mistake.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a {what}: {why}")]
pub struct IdError {
    what: &'static str,
    text: String,
    why: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text.trim()).map($name).map_err(|_| IdError {
                    what: $what,
                    text: text.to_owned(),
                    why: "expected 32 hexadecimal digits with hyphens",
                })
            }
        }
    };
}

uuid_id!(
    /// A physical machine: the SMBIOS system UUID where the firmware has one, else a UUID made from its first MAC.
    /// It survives a reinstall.
    MachineId, "machine id"
);
uuid_id!(
    /// A registered node. Given by the center when the machine is first admitted; survives a reinstall.
    NodeId, "node id"
);
uuid_id!(
    /// One permission to write one disk.
    TicketId, "ticket id"
);
uuid_id!(
    /// The kernel's `/proc/sys/kernel/random/boot_id`: new at every boot.
    BootId, "boot id"
);

uuid_id!(
    /// An environment. Given by the center when it is created; its directory on the share has this name.
    EnvironmentId, "environment id"
);
uuid_id!(
    /// Something that a node is asked to do once.
    TaskId, "task id"
);
uuid_id!(
    /// One `exec` or `console`.
    SessionId, "session id"
);

macro_rules! sha256_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From the digest itself.
            pub fn from_digest(digest: [u8; 32]) -> Self {
                Self(digest)
            }

            /// The digest itself.
            pub fn digest(&self) -> &[u8; 32] {
                &self.0
            }

            /// Its 64 hexadecimal digits alone.
            pub fn hex(&self) -> String {
                hex(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", self.hex())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = |why| IdError { what: $what, text: text.to_owned(), why };
                let digits = text.strip_prefix("sha256:").ok_or_else(|| error("expected it to start with \"sha256:\""))?;
                let bytes = unhex(digits).ok_or_else(|| error("expected hexadecimal digits after \"sha256:\""))?;
                let digest = bytes.try_into().map_err(|_| error("expected 64 hexadecimal digits after \"sha256:\""))?;
                Ok(Self(digest))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

sha256_id!(
    /// `sha256:` and 64 hexadecimal digits: the digest of the DER form of the center's CA certificate.
    Fingerprint, "fingerprint"
);
sha256_id!(
    /// `sha256:` and 64 hexadecimal digits: the digest of a template's image, or of an upload.
    Digest, "digest"
);

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that hexadecimal digits stand for; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_fingerprint_survives_its_text(digest in any::<[u8; 32]>()) {
            let fingerprint = Fingerprint::from_digest(digest);
            prop_assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        }

        #[test]
        fn no_text_makes_an_id_parser_panic(text in ".{0,80}") {
            let _ = text.parse::<Fingerprint>();
            let _ = text.parse::<NodeId>();
        }
    }

    #[test]
    fn a_short_fingerprint_says_what_is_expected() {
        let error = "sha256:abcd".parse::<Fingerprint>().unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits"), "{error}");
    }
}
