//! Keys and certificates, real ones: certificates of drains and last words are signed here and checked by the center.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use lodge_client::KeyPem;

/// Whoever signs: all nodes have the same key, which is of no importance to anything that is looked at here.
pub struct Signer {
    /// The key.
    pub key: KeyPem,
    /// Its certificate.
    pub pem: String,
    /// The same, DER.
    pub der: Vec<u8>,
    /// Its digest, as the center keeps it.
    pub digest: String,
    /// Where the authority's key is.
    pub ca: tempfile::TempDir,
}

/// The signer of this process; made once, for keys take longer than runs.
pub fn signer() -> Result<&'static Signer> {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    if let Some(signer) = SIGNER.get() {
        return Ok(signer);
    }
    let ca = tempfile::tempdir().context("making a directory for the authority")?;
    let authority = lodge_center::ca::Ca::open(ca.path())?;
    let (key, request) = lodge_client::new_key_and_csr()?;
    let node = lodge_model::ids::NodeId(uuid::Uuid::from_u128(1));
    let signed = authority.sign_node(&request.0, node)?;
    let der = rustls_pki_types::pem::PemObject::from_pem_slice(signed.pem.as_bytes());
    let der: rustls_pki_types::CertificateDer<'static> =
        der.map_err(|error| anyhow::anyhow!("reading a certificate: {error}"))?;
    let lodge_center::ca::NodeCertificate { pem, digest } = signed;
    Ok(SIGNER.get_or_init(|| Signer { key, der: der.to_vec(), pem, digest, ca }))
}
