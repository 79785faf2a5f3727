//! The machine's own key and the request to have it certified. The key never leaves the machine.

use anyhow::{Context, Result};

/// A private key, PKCS#8 PEM. Not printable by accident.
#[derive(Clone)]
pub struct KeyPem(pub String);

impl std::fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPem(…)")
    }
}

/// A certificate signing request, PEM.
#[derive(Clone, Debug)]
pub struct CsrPem(pub String);

/// A new ECDSA P-256 key and a request signed by it. The subject is left to the center.
pub fn new_key_and_csr() -> Result<(KeyPem, CsrPem)> {
    let key = rcgen::KeyPair::generate().context("making a key")?;
    let params = rcgen::CertificateParams::new(Vec::<String>::new()).context("making a certificate signing request")?;
    let csr = params.serialize_request(&key).context("signing the certificate signing request")?;
    let csr = csr.pem().context("encoding the certificate signing request")?;
    Ok((KeyPem(key.serialize_pem()), CsrPem(csr)))
}
