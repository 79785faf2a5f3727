//! Checking that a ticket was signed by the center's CA key.

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lodge_model::ticket::{SignedTicket, Ticket};

/// The ticket inside, once its signature by the CA (certificate in DER form, `Center::ca_der`) has been checked. Whether it is
/// for this machine, this disk and this time is `Ticket::disk`'s question.
pub fn verify_ticket(signed: &SignedTicket, ca_der: &[u8]) -> Result<Ticket> {
    let (_, ca) = x509_parser::parse_x509_certificate(ca_der).context("reading the center's CA certificate")?;
    let key = ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P256_SHA256_ASN1,
        ca.public_key().subject_public_key.data.as_ref(),
    );
    let signature = STANDARD.decode(&signed.signature).context("decoding the ticket's signature")?;
    key.verify(signed.payload.as_bytes(), &signature)
        .map_err(|_| anyhow!("the ticket is not signed by the center's CA; it is refused and nothing is written"))?;
    serde_json::from_str(&signed.payload).context("reading the ticket")
}
