//! For installers: `/machines/{machine}/…` with a join token.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use lodge_model::api::{Decision, EnrolReply, EnrolRequest, ErrorBody, Hello, MachineEvent};

use super::body::{Body, Text};
use crate::auth::Installer;
use crate::center::Center;
use crate::fault::Fault;
use crate::flow::machine;
use crate::store::Tx;

/// Say what the machine is; the first request of an installer, sent again when its facts have changed.
#[utoipa::path(post, path = "/machines/{machine}/facts", tag = "installer", security(("token" = [])),
    params(("machine" = String, Path, description = "machine id")), request_body = Hello,
    responses((status = 200, body = Decision), (status = "4XX", body = ErrorBody)))]
pub async fn facts(
    who: Installer,
    State(center): State<Arc<Center>>,
    Body(hello): Body<Hello>,
) -> Result<Json<Decision>, Fault> {
    let (world, bundle, now) = (Arc::clone(&center.world), center.bundle_url().await?, center.now());
    let work = move |tx: &Tx| machine::hello(tx, &world, &bundle, who.machine, &hello, now);
    Ok(Json(center.store.transact(work).await?))
}

/// Wait for a decision: answered at once when there is one, else when what is waited for changes or after 25 s.
#[utoipa::path(get, path = "/machines/{machine}/decision", tag = "installer", security(("token" = [])),
    params(("machine" = String, Path, description = "machine id")),
    responses((status = 200, body = Decision), (status = "4XX", body = ErrorBody)))]
pub async fn decision(who: Installer, State(center): State<Arc<Center>>) -> Result<Json<Decision>, Fault> {
    Ok(Json(center.decision(who.machine).await?))
}

/// Tell of progress, of what is waited for, of a failure or of the end.
#[utoipa::path(post, path = "/machines/{machine}/events", tag = "installer", security(("token" = [])),
    params(("machine" = String, Path, description = "machine id")), request_body = Vec<MachineEvent>,
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn events(
    who: Installer,
    State(center): State<Arc<Center>>,
    Body(events): Body<Vec<MachineEvent>>,
) -> Result<StatusCode, Fault> {
    let (world, now) = (Arc::clone(&center.world), center.now());
    center.store.transact(move |tx| machine::events(tx, &world, who.machine, &events, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Add to the machine's console log.
#[utoipa::path(post, path = "/machines/{machine}/console", tag = "installer", security(("token" = [])),
    params(("machine" = String, Path, description = "machine id")),
    request_body(content = String, content_type = "text/plain"),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn console(who: Installer, State(center): State<Arc<Center>>, Text(text): Text) -> Result<StatusCode, Fault> {
    center.consoles.append(who.machine, text).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get the node's certificate. Answered when the share lets the machine's address in, after 8 s at the latest.
#[utoipa::path(post, path = "/machines/{machine}/enrol", tag = "installer", security(("token" = [])),
    params(("machine" = String, Path, description = "machine id")), request_body = EnrolRequest,
    responses((status = 200, body = EnrolReply), (status = "4XX", body = ErrorBody)))]
pub async fn enrol(
    who: Installer,
    State(center): State<Arc<Center>>,
    Body(request): Body<EnrolRequest>,
) -> Result<Json<EnrolReply>, Fault> {
    let (world, now) = (Arc::clone(&center.world), center.now());
    let work = move |tx: &Tx| machine::enrol(tx, &world, who.machine, who.purpose, &request, now);
    let (reply, server) = center.store.transact(work).await?;
    if let Some((server, generation)) = server {
        center.carried_out(server, generation).await?;
    }
    Ok(Json(reply))
}
