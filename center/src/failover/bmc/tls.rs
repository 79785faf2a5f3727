//! Knowing the BMC that was meant: by the digest of the certificate that it presents, or by a CA. Nobody else vouches for a BMC.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use lodge_model::bmc::Trust;
use lodge_model::ids::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

/// Checks one BMC's certificate, and remembers which one it refused.
#[derive(Debug)]
pub struct Known {
    by: By,
    provider: Arc<CryptoProvider>,
    refused: Mutex<Option<Fingerprint>>,
}

#[derive(Debug)]
enum By {
    Nothing,
    Fingerprint(Fingerprint),
    Ca(Arc<WebPkiServerVerifier>),
}

impl Known {
    /// By this; by nothing, it refuses whatever is presented.
    pub fn by(trust: Option<&Trust>) -> Result<Arc<Self>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let by = match trust {
            None => By::Nothing,
            Some(Trust::Fingerprint(fingerprint)) => By::Fingerprint(fingerprint.clone()),
            Some(Trust::Ca(pem)) => By::Ca(verifier(pem, &provider)?),
        };
        Ok(Arc::new(Self { by, provider, refused: Mutex::default() }))
    }

    /// TLS that takes no other BMC.
    pub fn config(self: &Arc<Self>) -> Result<ClientConfig> {
        let tls = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let tls = tls.with_safe_default_protocol_versions().context("setting up TLS")?;
        let verifier: Arc<Self> = Arc::clone(self);
        // A BMC is in no public register: the digest or the site's CA takes the place of the public roots.
        Ok(tls.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }

    /// The certificate that was presented last, if it was refused.
    pub fn refused(&self) -> Option<Fingerprint> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn verifier(pem: &str, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.context("reading the CA's certificate")?).context("taking the CA's certificate")?;
    }
    ensure!(!roots.is_empty(), "there is no certificate (PEM) in it");
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.build().context("setting up the CA")
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = Fingerprint::from_digest(Sha256::digest(end_entity.as_ref()).into());
        let verified = match &self.by {
            By::Ca(verifier) => verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            By::Fingerprint(known) if *known == presented => Ok(ServerCertVerified::assertion()),
            By::Fingerprint(_) | By::Nothing => Err(CertificateError::ApplicationVerificationFailure.into()),
        };
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = verified.is_err().then_some(presented);
        verified
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
