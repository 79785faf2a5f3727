//! Calls about drains, moves and settings (`lodge_model::drain`), and the signature of a certificate.

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lodge_model::drain::{
    Certificate, CertificateReply, CertificateView, DrainOrder, DrainView, Leaving, LeavingReply, MoveOrder, Settings,
    SettingsChange, SignedCertificate,
};
use lodge_model::environment::view::EnvironmentView;
use lodge_model::farewell::{LastWord, SignedWord};
use lodge_model::timing;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::Serialize;

use crate::center::{Center, MARGIN};
use crate::error::Error;
use crate::keys::KeyPem;

impl Center {
    /// `POST /nodes/{name}/drain`.
    pub async fn drain(&self, node: &str, order: &DrainOrder) -> Result<DrainView, Error> {
        self.post(&["nodes", node, "drain"], order).await
    }

    /// `GET /nodes/{name}/drain`.
    pub async fn drain_of(&self, node: &str) -> Result<DrainView, Error> {
        self.get(&["nodes", node, "drain"]).await
    }

    /// `GET /nodes/{name}/drain?wait=true&after=…`: held by the center for up to `timing::LONG_POLL` while the version is still this one.
    pub async fn drain_after(&self, node: &str, version: u64) -> Result<DrainView, Error> {
        let request = self.request(Method::GET, &["nodes", node, "drain"], timing::LONG_POLL + MARGIN);
        self.json(request.query(&[("wait", "true")]).query(&[("after", version)])).await
    }

    /// `DELETE /nodes/{name}/drain`.
    pub async fn undrain(&self, node: &str) -> Result<(), Error> {
        self.delete(&["nodes", node, "drain"]).await
    }

    /// `GET /nodes/{name}/certificate`.
    pub async fn certificate(&self, node: &str) -> Result<CertificateView, Error> {
        self.get(&["nodes", node, "certificate"]).await
    }

    /// `POST /environments/{name}/move`.
    pub async fn move_environment(&self, name: &str, order: &MoveOrder) -> Result<EnvironmentView, Error> {
        self.post(&["environments", name, "move"], order).await
    }

    /// `GET /settings`.
    pub async fn settings(&self) -> Result<Settings, Error> {
        self.get(&["settings"]).await
    }

    /// `PATCH /settings`.
    pub async fn change_settings(&self, change: &SettingsChange) -> Result<Settings, Error> {
        self.json(self.request(Method::PATCH, &["settings"], MARGIN).json(change)).await
    }

    /// `POST /node/leaving`.
    pub async fn leaving(&self, leaving: &Leaving) -> Result<LeavingReply, Error> {
        self.post(&["node", "leaving"], leaving).await
    }

    /// `POST /node/certificate`.
    pub async fn certify(&self, signed: &SignedCertificate) -> Result<CertificateReply, Error> {
        self.post(&["node", "certificate"], signed).await
    }
}

/// Sign a certificate with the node's key.
pub fn sign_certificate(certificate: &Certificate, key: &KeyPem) -> Result<SignedCertificate> {
    sign(certificate, key).context("signing a certificate")
}

/// Sign a node's last word with its key; `certificate` is its own (PEM).
pub fn sign_last_word(word: &LastWord, key: &KeyPem, certificate: &str) -> Result<SignedWord> {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes());
    let der = der.map_err(|error| anyhow!("reading the node's certificate: {error}"))?;
    let signed = sign(word, key).context("signing the last word")?;
    Ok(SignedWord { signed, signer: STANDARD.encode(&der) })
}

fn sign(said: &impl Serialize, key: &KeyPem) -> Result<SignedCertificate> {
    let der =
        PrivatePkcs8KeyDer::from_pem_slice(key.0.as_bytes()).map_err(|error| anyhow!("reading the node's key: {error}"))?;
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_pkcs8_der(), &random)
        .map_err(|error| anyhow!("the node's key is not an ECDSA P-256 key: {error}"))?;
    let payload = serde_json::to_string(said).context("encoding it")?;
    let signature = pair.sign(&random, payload.as_bytes()).map_err(|error| anyhow!("using the node's key: {error}"))?;
    Ok(SignedCertificate { payload, signature: STANDARD.encode(signature.as_ref()) })
}

/// The certificate inside, once its signature has been checked with the node's certificate (X.509, DER, base64), which must name the
/// node, and that certificate with the center's CA (DER, `Center::ca_der`).
pub fn verify_certificate(signed: &SignedCertificate, signer: &str, ca_der: &[u8]) -> Result<Certificate> {
    let der = STANDARD.decode(signer).context("decoding the node's certificate")?;
    let (_, node) = x509_parser::parse_x509_certificate(&der).context("reading the node's certificate")?;
    let (_, ca) = x509_parser::parse_x509_certificate(ca_der).context("reading the center's CA certificate")?;
    let public = |certificate: &x509_parser::certificate::X509Certificate<'_>| {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, certificate.public_key().subject_public_key.data.to_vec())
    };
    public(&ca)
        .verify(node.tbs_certificate.as_ref(), node.signature_value.data.as_ref())
        .map_err(|_| anyhow!("the node's certificate is not signed by the center's CA"))?;
    let signature = STANDARD.decode(&signed.signature).context("decoding the signature")?;
    public(&node)
        .verify(signed.payload.as_bytes(), &signature)
        .map_err(|_| anyhow!("the certificate is not signed with the node's key"))?;
    let certificate: Certificate = serde_json::from_str(&signed.payload).context("reading the certificate")?;
    let name = node.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if name != Some(certificate.node.to_string().as_str()) {
        return Err(anyhow!("the certificate is of node {}, and was signed by {}", certificate.node, name.unwrap_or("nobody")));
    }
    Ok(certificate)
}
