//! A center's TLS for tests of the programs that call it: one authority, one certificate for 127.0.0.1.
//!
//! Not part of a shipped program: only with the feature `testing`, which tests alone ask for.

use std::sync::Arc;

use anyhow::Result;
use lodge_model::ids::Fingerprint;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use sha2::{Digest as _, Sha256};

/// What a server at 127.0.0.1 presents, and the fingerprint that a client pins it by.
pub fn tls_server() -> Result<(Arc<ServerConfig>, Fingerprint)> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &ca)?;
    let chain = vec![leaf.der().clone(), ca.der().clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    Ok((Arc::new(config), Fingerprint::from_digest(Sha256::digest(ca.der()).into())))
}
