//! The center's certificate authority: one ECDSA P-256 key, made at the first start, that never leaves its directory.
//!
//! It signs the center's own server certificate (anew at each start), nodes' client certificates, and tickets. Certificates
//! are valid from 2020 to 2099: a machine fresh from the factory may have any clock, and what ends a node's certificate is not
//! time but the center's word (a forgotten node, a newer certificate). It keeps no list and knows no store.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lodge_model::ids::{Fingerprint, NodeId, hex};
use lodge_model::ticket::{SignedTicket, Ticket};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

use crate::files;

/// The authority.
pub struct Ca {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    signer: EcdsaKeyPair,
    random: SystemRandom,
}

/// A server's chain and key.
pub struct ServerIdentity {
    /// Leaf, then CA certificate.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

/// A certificate that has been given to a node.
pub struct NodeCertificate {
    /// PEM.
    pub pem: String,
    /// SHA-256 of its DER form, hexadecimal.
    pub digest: String,
}

impl Ca {
    /// Read the authority from its directory, or make it there when there is none yet.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let (key_path, certificate_path) = (dir.join("ca.key"), dir.join("ca.pem"));
        if !certificate_path.exists() {
            // The key goes first: a power cut between the two leaves a key without certificate, which is made anew here.
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making the CA's key")?;
            let certificate = ca_params()?.self_signed(&key).context("signing the CA's certificate")?;
            files::write_private(&key_path, key.serialize_pem().as_bytes())?;
            files::write(&certificate_path, certificate.pem().as_bytes())?;
        }
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
        Self::from_pem(&read(&certificate_path)?, &read(&key_path)?)
            .with_context(|| format!("loading the CA from {}", dir.display()))
    }

    fn from_pem(certificate: &str, key: &str) -> anyhow::Result<Self> {
        let key = KeyPair::from_pem(key).context("reading the CA's key")?;
        let random = SystemRandom::new();
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.serialized_der(), &random)
            .map_err(|error| anyhow::anyhow!("the CA's key is not an ECDSA P-256 key: {error}"))?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| anyhow::anyhow!("the CA's certificate is not readable: {error}"))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).context("reading the CA's certificate")?;
        Ok(Self { certificate: der, pem: certificate.to_owned(), issuer, signer, random })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// By what machines know it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from_digest(Sha256::digest(&self.certificate).into())
    }

    /// A new certificate for the center's own server.
    pub fn server_identity(&self, addresses: &[IpAddr]) -> anyhow::Result<ServerIdentity> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making the server's key")?;
        let mut params = params("lodge center")?;
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into().context("naming localhost")?));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).context("signing the server's certificate")?;
        Ok(ServerIdentity {
            chain: vec![leaf.der().clone(), self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// A client certificate for a node. Of the request only the public key is taken, once it has proved to own its private half.
    pub fn sign_node(&self, request: &str, node: NodeId) -> Result<NodeCertificate, rcgen::Error> {
        let request = CertificateSigningRequestParams::from_pem(request)?;
        let mut params = params(&node.to_string())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(NodeCertificate { pem: certificate.pem(), digest: hex(&Sha256::digest(certificate.der())) })
    }

    /// A ticket as it travels.
    pub fn sign_ticket(&self, ticket: &Ticket) -> anyhow::Result<SignedTicket> {
        let payload = serde_json::to_string(ticket).context("encoding a ticket")?;
        let signature = self
            .signer
            .sign(&self.random, payload.as_bytes())
            .map_err(|error| anyhow::anyhow!("signing ticket {}: {error}", ticket.id))?;
        Ok(SignedTicket { payload, signature: BASE64.encode(signature.as_ref()) })
    }
}

fn ca_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = params("lodge center CA")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 12, 31);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_stays_the_same_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Ca::open(dir.path()).unwrap().fingerprint();
        assert_eq!(Ca::open(dir.path()).unwrap().fingerprint(), first);
        let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_request_that_does_not_own_its_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::open(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap();
        let node = NodeId(uuid::Uuid::from_u128(5));
        assert!(ca.sign_node(&request.pem().unwrap(), node).is_ok());
        let mut der = request.der().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let body = BASE64.encode(&der);
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(ca.sign_node(&forged, node).is_err());
        assert!(ca.sign_node("no request", node).is_err());
    }
}
