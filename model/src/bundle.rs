//! What a bundle `lodge-os-<version>.tar.gz` holds: members in the order of `MEMBERS`, so that it can be verified while it streams.

use serde::{Deserialize, Serialize};

/// The members of a bundle, in order. `manifest.sig` is the raw 64-byte Ed25519 signature over the bytes of `manifest.json`.
pub const MEMBERS: [&str; 5] = [MANIFEST, SIGNATURE, UKI, VERITY, ROOT];
/// Member name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// Member name of the manifest's signature.
pub const SIGNATURE: &str = "manifest.sig";
/// Member name of the unified kernel image.
pub const UKI: &str = "lodge.efi";
/// Member name of the dm-verity hash tree.
pub const VERITY: &str = "root.verity";
/// Member name of the root file system (erofs).
pub const ROOT: &str = "root.erofs";
/// The only schema there is.
pub const SCHEMA: u32 = 1;
/// A manifest is never longer than this, in bytes.
pub const MANIFEST_MAX: u64 = 64 << 10;

/// The signed table of contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `SCHEMA`.
    pub schema: u32,
    /// Version of the base OS, as in the file name and on the kernel command line.
    pub version: String,
    /// dm-verity root hash, 64 hexadecimal digits.
    pub roothash: String,
    /// The parts that follow the signature, in order.
    pub parts: Vec<Part>,
}

/// One part of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Member name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the bytes, 64 hexadecimal digits.
    pub sha256: String,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON this version reads.
    #[error("the manifest is not readable: {0}")]
    Syntax(#[source] serde_json::Error),
    /// Readable, and wrong.
    #[error("the manifest is wrong: {0}")]
    Content(String),
}

impl Manifest {
    /// Parse and check a manifest. The signature must have been checked before.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(ManifestError::Syntax)?;
        let wrong = |why: String| Err(ManifestError::Content(why));
        if manifest.schema != SCHEMA {
            return wrong(format!("schema is {}, this installer reads {SCHEMA}", manifest.schema));
        }
        if !is_version(&manifest.version) {
            return wrong(format!("{:?} is not a version", manifest.version));
        }
        if crate::layout::slot_uuids(&manifest.roothash).is_none() {
            return wrong(format!("{:?} is not a root hash", manifest.roothash));
        }
        let names: Vec<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
        if names != MEMBERS[2..] {
            return wrong(format!("the parts are {names:?}, expected {:?}", &MEMBERS[2..]));
        }
        for part in &manifest.parts {
            if crate::ids::unhex(&part.sha256).is_none_or(|digest| digest.len() != 32) {
                return wrong(format!("{}: {:?} is not a sha256", part.name, part.sha256));
            }
        }
        Ok(manifest)
    }

    /// The part of that name.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }
}

/// Whether a text can be a version: it becomes part of file names and of a kernel command line.
pub fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let part = |name: &str| Part { name: name.into(), size: 1, sha256: "00".repeat(32) };
        Manifest {
            schema: SCHEMA,
            version: "0.1.0-abc".into(),
            roothash: "11".repeat(32),
            parts: MEMBERS[2..].iter().map(|name| part(name)).collect(),
        }
    }

    #[test]
    fn a_good_manifest_is_read() {
        let bytes = serde_json::to_vec(&manifest()).unwrap();
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest());
    }

    #[test]
    fn wrong_content_is_named() {
        let mut wrong = manifest();
        wrong.version = "../../etc".into();
        let error = Manifest::parse(&serde_json::to_vec(&wrong).unwrap()).unwrap_err().to_string();
        assert!(error.contains("../../etc"), "{error}");
        let mut wrong = manifest();
        wrong.parts.swap(0, 1);
        assert!(Manifest::parse(&serde_json::to_vec(&wrong).unwrap()).is_err());
    }
}
