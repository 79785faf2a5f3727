//! Who this node is and how it proves it: `node.json`, key and certificate, written by the installer, or by `store` on a machine
//! that installed its own center. `node.json` is written last: with a node id in it, everything else is in place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lodge_client::{Auth, Center, KeyPem};
use lodge_model::api::EnrolReply;
use lodge_model::ids::NodeId;
use lodge_model::node::{CenterRef, NodeFile};
use lodge_model::paths;

use crate::durable;

/// Where the identity is kept.
#[derive(Clone, Debug)]
pub struct Files {
    /// `node.json`.
    pub node: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Certificate.
    pub certificate: PathBuf,
    /// The center's CA.
    pub ca: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            node: paths::NODE_FILE.into(),
            key: paths::NODE_KEY.into(),
            certificate: paths::NODE_CERT.into(),
            ca: paths::CA_CERT.into(),
        }
    }
}

/// A node that has been admitted.
#[derive(Clone)]
pub struct Identity {
    /// What the installer wrote.
    pub file: NodeFile,
    /// Its id.
    pub node: NodeId,
    /// Its center.
    pub center: CenterRef,
    certificate: String,
    key: String,
}

/// What the files say.
pub enum Standing {
    /// Admitted.
    Admitted(Identity),
    /// Not yet: the machine of a new center.
    New(NodeFile),
}

impl Identity {
    /// Its key.
    pub fn key(&self) -> KeyPem {
        KeyPem(self.key.clone())
    }

    /// Its certificate (PEM).
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its way to the center.
    pub fn center(&self) -> Result<Center> {
        let auth = Auth::Certificate { cert_pem: self.certificate.clone(), key_pem: self.key.clone() };
        Center::new(&self.center.url, &self.center.ca, auth)
    }
}

/// Read who this node is.
pub fn read(files: &Files) -> Result<Standing> {
    let text = read_text(&files.node)?;
    let file: NodeFile = serde_json::from_str(&text).with_context(|| format!("reading {}", files.node.display()))?;
    let (Some(node), Some(center)) = (file.node, file.center.clone()) else { return Ok(Standing::New(file)) };
    let certificate = read_text(&files.certificate)?;
    let key = read_text(&files.key)?;
    Ok(Standing::Admitted(Identity { file, node, center, certificate, key }))
}

/// Keep what the center gave.
pub fn store(files: &Files, file: &NodeFile, key: &KeyPem, reply: &EnrolReply, center: CenterRef) -> Result<Identity> {
    durable::write(&files.key, key.0.as_bytes(), 0o600)?;
    durable::write(&files.certificate, reply.certificate.as_bytes(), 0o644)?;
    durable::write(&files.ca, reply.ca.as_bytes(), 0o644)?;
    let file = NodeFile { node: Some(reply.node), center: Some(center.clone()), ..file.clone() };
    let json = serde_json::to_vec_pretty(&file).context("encoding node.json")?;
    durable::write(&files.node, &json, 0o644)?;
    Ok(Identity { file, node: reply.node, center, certificate: reply.certificate.clone(), key: key.0.clone() })
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_model::ids::Fingerprint;
    use lodge_model::node::Role;

    #[test]
    fn what_is_stored_is_read_back_and_the_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = Files { node: at("node.json"), key: at("key.pem"), certificate: at("cert.pem"), ca: at("ca.pem") };
        let id = "00000000-0000-4000-8000-000000000001";
        let file = NodeFile {
            machine: id.parse().unwrap(),
            node: None,
            name: "center1".into(),
            roles: vec![Role::Center, Role::Share],
            center: None,
            network: None,
            site: None,
            disk_serial: "C0".into(),
        };
        fs::write(&files.node, serde_json::to_string(&file).unwrap()).unwrap();
        assert!(matches!(read(&files).unwrap(), Standing::New(read) if read == file));
        let reply = EnrolReply { node: id.parse().unwrap(), certificate: "C".into(), ca: "A".into(), share: None };
        let center = CenterRef { url: "https://127.0.0.1:8443".into(), ca: Fingerprint::from_digest([1; 32]) };
        store(&files, &file, &KeyPem("K".into()), &reply, center.clone()).unwrap();
        let Standing::Admitted(identity) = read(&files).unwrap() else { panic!("not admitted") };
        assert_eq!((identity.node, &identity.center, &identity.file.name), (reply.node, &center, &file.name));
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&files.key).unwrap();
        let Err(error) = read(&files) else { panic!("read without a key") };
        assert!(format!("{error:#}").contains("key.pem"), "{error:#}");
    }
}
