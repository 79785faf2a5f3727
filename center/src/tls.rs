//! The HTTPS side: TLS with the center's own certificate, and client certificates as an option.
//!
//! A client certificate is verified against the center's own CA during the handshake; who shows none comes in all the same and
//! must bring a token. The certificate's digest and subject are handed to the handlers with every request of the connection.

use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use axum_server::tls::TlsService;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use lodge_model::ids::{NodeId, hex};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tower_layer::Layer;

use crate::ca::{Ca, ServerIdentity};

/// Who is at the other end of a connection, as far as its certificate tells.
#[derive(Clone, Debug, Default)]
pub struct Peer(pub Option<PeerNode>);

/// A verified client certificate.
#[derive(Clone, Debug)]
pub struct PeerNode {
    /// Its subject.
    pub node: NodeId,
    /// SHA-256 of its DER form, hexadecimal.
    pub certificate: String,
    /// Its DER form.
    pub der: Arc<[u8]>,
}

/// The server's settings.
pub fn config(ca: &Ca, identity: ServerIdentity) -> anyhow::Result<RustlsConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone()).context("trusting the center's own CA")?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .context("preparing to verify client certificates")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain, identity.key)
        .context("taking the server's certificate")?;
    // Agents break off the questions that are held for them, and need not connect anew with HTTP/2.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
}

/// Accepts TLS connections and tells the handlers who is there.
#[derive(Clone)]
pub struct PeerAcceptor(RustlsAcceptor);

impl PeerAcceptor {
    /// With these settings.
    pub fn new(config: RustlsConfig) -> Self {
        Self(RustlsAcceptor::new(config))
    }
}

impl<I, S> Accept<I, S> for PeerAcceptor
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Send + 'static,
{
    type Stream = TlsStream<I>;
    type Service = AddExtension<TlsService<S>, Peer>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let accepted = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let peer = Peer(certificate.and_then(read));
            Ok((stream, Extension(peer).layer(service)))
        })
    }
}

/// The subject of a certificate; `None` for one that names no node.
fn read(certificate: &CertificateDer) -> Option<PeerNode> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    let digest = hex(&Sha256::digest(certificate));
    Some(PeerNode { node: NodeId::from_str(name).ok()?, certificate: digest, der: Arc::from(certificate.as_ref()) })
}
