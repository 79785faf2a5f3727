//! Knowing the center by the digest of its CA certificate.
//!
//! The server presents its leaf and the CA certificate. The chain is accepted when one of its certificates has the pinned
//! SHA-256 and the leaf verifies under that one, name or address and dates included. The digest makes the certificate
//! trustworthy; everything after it is ordinary WebPKI.

use std::sync::{Arc, OnceLock};

use lodge_model::ids::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

/// The presented chain does not hold the pinned certificate.
#[derive(Debug, thiserror::Error)]
#[error("none of the presented certificates is the pinned one")]
pub(crate) struct WrongPin {
    /// Fingerprint of the last certificate of the chain: the CA, if the other side is a center at all.
    pub(crate) presented: Option<Fingerprint>,
}

/// A `ServerCertVerifier` that trusts exactly one CA, known by its digest.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    expected: Fingerprint,
    provider: Arc<CryptoProvider>,
    trusted: OnceLock<Trusted>,
}

/// The pinned certificate, once it has been seen.
#[derive(Debug)]
struct Trusted {
    ca: CertificateDer<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl PinVerifier {
    pub(crate) fn new(expected: Fingerprint, provider: Arc<CryptoProvider>) -> Self {
        Self { expected, provider, trusted: OnceLock::new() }
    }

    /// The pinned certificate (DER); known after the first connection.
    pub(crate) fn ca(&self) -> Option<&CertificateDer<'static>> {
        self.trusted.get().map(|trusted| &trusted.ca)
    }

    fn trusted(&self, chain: &[&CertificateDer<'_>]) -> Result<&Trusted, rustls::Error> {
        let found = chain.iter().find(|certificate| fingerprint(certificate) == self.expected);
        let Some(ca) = found else {
            let presented = chain.last().map(|certificate| fingerprint(certificate));
            let wrong = OtherError(Arc::new(WrongPin { presented }));
            return Err(rustls::Error::InvalidCertificate(CertificateError::Other(wrong)));
        };
        if let Some(trusted) = self.trusted.get() {
            return Ok(trusted);
        }
        let ca = (*ca).clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(self.trusted.get_or_init(|| Trusted { ca, verifier }))
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<&CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).collect();
        let trusted = self.trusted(&chain)?;
        trusted.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Fingerprint::from_digest(Sha256::digest(certificate.as_ref()).into())
}
