//! What a node says when it goes: that it leaves, whatever the cause, and what it has counted when nothing is assigned to it any more.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use lodge_model::drain::{
    Certificate, CertificateReply, CertificateView, DrainState, Leaving, LeavingReply, SignedCertificate,
};
use lodge_model::ids::{NodeId, TaskId};

use super::{Certified, Drain, request, view};
use crate::environments::reconcile;
use crate::fault::Fault;
use crate::flow::{World, node};
use crate::store::Tx;

/// Seconds of a deadline that are kept for clean stops of what could not be moved; the half of short deadlines.
const STOPS: u32 = 60;

/// A machine goes down: drain it. Said again, it changes nothing but the cause and, to less, the time.
pub fn leaving(tx: &Tx, world: &World, id: NodeId, said: &Leaving, now: Timestamp) -> Result<LeavingReply, Fault> {
    let node = node::known(tx, id)?;
    let boot = node.registered.as_ref().map(|registered| registered.boot);
    if boot != Some(said.boot) {
        return Err(Fault::conflict(format!("{} is registered with another boot; register again", node.name)));
    }
    let former = tx.get::<Drain>(&id)?;
    let default = request::settings(tx)?.deadline(said.cause);
    let mut drain = former.clone().unwrap_or_else(|| request::new(&node, said.cause, now));
    let is_first = !drain.goes_down;
    let until = |seconds: u32| now.checked_add(SignedDuration::from_secs(seconds.into())).ok();
    // A drain that an operator has given less time keeps it; so does one whose end the machine was told before.
    let total = default.min(said.seconds);
    let wanted = until(total - STOPS.min(total / 2));
    drain.deadline = [wanted, former.as_ref().and_then(|former| former.deadline)].into_iter().flatten().min();
    (drain.boot, drain.goes_down) = (boot, true);
    // The operator's order to go down is being carried out.
    drain.then = None;
    // An agent that has started anew does not know of the certificate: it counts again.
    if is_first || drain.state == DrainState::Drained {
        drain.question = TaskId(uuid::Uuid::new_v4());
        drain.state = DrainState::Draining;
    }
    if is_first {
        drain.cause = former.as_ref().map_or(said.cause, |former| former.cause);
        let power = format!("{:?}", said.power).to_lowercase();
        view::log(
            tx,
            id,
            &format!("{} is about to go down ({power} by {}): it is drained", node.name, said.cause.words()),
            now,
        )?;
    }
    if former.as_ref() != Some(&drain) {
        drain.version += 1;
        tx.put(&drain)?;
        tx.show();
        tx.wake();
        request::planned(tx, world, &node, now)?;
    }
    let left = drain.deadline.map_or(0, |deadline| deadline.duration_since(now).as_secs().max(0));
    let seconds = u32::try_from(left).unwrap_or(u32::MAX);
    Ok(LeavingReply { id: drain.question, seconds, total: total.min(seconds.saturating_add(STOPS)) })
}

/// Take a certificate. Its signature must be of the very certificate that the node shows on this connection.
pub fn certify(
    tx: &Tx,
    world: &World,
    id: NodeId,
    der: &[u8],
    signed: &SignedCertificate,
    now: Timestamp,
) -> Result<CertificateReply, Fault> {
    let said = verify(signed, der)?;
    let refuse = |why: &str| Ok(CertificateReply { issued: false, why: why.to_owned() });
    let Some(mut drain) = tx.get::<Drain>(&id)? else { return refuse("the node is not being drained (any more)") };
    if said.node != id || said.id != drain.question || Some(said.boot) != drain.boot {
        return refuse("this is not what was asked: another node, boot or drain");
    }
    if drain.state == DrainState::Drained {
        return Ok(CertificateReply { issued: true, why: String::new() });
    }
    if drain.state != DrainState::Certifying {
        return refuse("something is assigned to the node again");
    }
    if !said.counts.are_zero() {
        let left = said.counts.words();
        let waits = format!("there are still {left} on {}", drain.name);
        if drain.waits != waits {
            view::log(tx, id, &format!("no certificate yet: {waits}"), now)?;
        }
        return refuse(&waits);
    }
    (drain.state, drain.waits) = (DrainState::Drained, String::new());
    drain.version += 1;
    let certified = CertificateView {
        node: drain.name.clone(),
        certificate: said,
        signed: signed.clone(),
        signer: BASE64.encode(der),
        issued: now,
        cause: drain.cause,
        reason: drain.reason.clone(),
        items: drain.items.values().cloned().collect(),
    };
    tx.put(&Certified { node: id, view: certified })?;
    tx.put(&drain)?;
    tx.show();
    view::log(tx, id, &format!("{} has been drained; its certificate is issued", drain.name), now)?;
    reconcile::run(tx, world, false, now)?;
    tx.replan();
    Ok(CertificateReply { issued: true, why: String::new() })
}

fn verify(signed: &SignedCertificate, der: &[u8]) -> Result<Certificate, Fault> {
    let wrong = |why: &str| Fault::bad_input(format!("certificate: {why}"));
    check_signature(signed, der).map_err(|error| wrong(&format!("{error:#}")))?;
    serde_json::from_str(&signed.payload).map_err(|error| wrong(&error.to_string()))
}

/// Whether it is signed with the key of this certificate (X.509, DER).
pub fn check_signature(signed: &SignedCertificate, der: &[u8]) -> anyhow::Result<()> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).context("reading a node's certificate")?;
    let key = ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P256_SHA256_ASN1,
        parsed.public_key().subject_public_key.data.as_ref(),
    );
    let signature = BASE64.decode(&signed.signature).context("its signature is not base64")?;
    key.verify(signed.payload.as_bytes(), &signature).map_err(|_| anyhow::anyhow!("it is not signed with this node's key"))
}
