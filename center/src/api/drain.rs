//! Drains, moves, certificates and settings.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use lodge_model::api::ErrorBody;
use lodge_model::drain::{
    CertificateReply, CertificateView, DrainOrder, DrainView, Leaving, LeavingReply, MoveOrder, Settings, SettingsChange,
    SignedCertificate,
};
use lodge_model::environment::view::EnvironmentView;
use lodge_model::timing::LONG_POLL;
use tokio::time::{Instant, timeout_at};

use super::body::{Body, Parameters};
use super::environments::{Watched, ask};
use crate::auth::{Agent, Caller, Operator};
use crate::center::Center;
use crate::environments::drain::{leaving as flow, request};
use crate::fault::Fault;

/// Move every environment off a node. Nothing new comes to it from then on; with `dry_run` only the plan is answered.
#[utoipa::path(post, path = "/nodes/{name}/drain", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name")), request_body = DrainOrder,
    responses((status = 200, body = DrainView), (status = "4XX", body = ErrorBody)))]
pub async fn order(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(order): Body<DrainOrder>,
) -> Result<Json<DrainView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| request::drain(tx, world, &name, &order, now)).await
}

/// How a drain stands. Held (`wait`) while its version is `after`.
#[utoipa::path(get, path = "/nodes/{name}/drain", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name"), Watched),
    responses((status = 200, body = DrainView), (status = "4XX", body = ErrorBody)))]
pub async fn show(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Parameters(watched): Parameters<Watched>,
) -> Result<Json<DrainView>, Fault> {
    let deadline = Instant::now() + LONG_POLL;
    let mut views = center.store.views();
    loop {
        views.mark_unchanged();
        let name = name.clone();
        let view = center.store.transact(move |tx| request::show(tx, &name)).await?;
        let goes_on = watched.wait && view.version == watched.after;
        if !goes_on || timeout_at(deadline, views.changed()).await.is_err() {
            return Ok(Json(view));
        }
    }
}

/// Let a node take environments again. A drain that goes on is cancelled: what has not been told to stop stays.
#[utoipa::path(delete, path = "/nodes/{name}/drain", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn undrain(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<StatusCode, Fault> {
    let now = center.now();
    let _ = ask(&center, move |tx, world| request::undrain(tx, world, &name, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The newest certificate of a node: what it counted and signed when it was drained, and what became of its environments.
#[utoipa::path(get, path = "/nodes/{name}/certificate", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name")),
    responses((status = 200, body = CertificateView), (status = "4XX", body = ErrorBody)))]
pub async fn certificate(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
) -> Result<Json<CertificateView>, Fault> {
    ask(&center, move |tx, _| request::certificate(tx, &name)).await
}

/// Move an environment to another node. Its view says how it goes on; `moves` has the measured gap.
#[utoipa::path(post, path = "/environments/{name}/move", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "name or id")), request_body = MoveOrder,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn move_one(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(order): Body<MoveOrder>,
) -> Result<Json<EnvironmentView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| request::move_one(tx, world, &Caller::Operator, &name, &order, now)).await
}

/// Deadlines and budgets.
#[utoipa::path(get, path = "/settings", tag = "operator", security(("token" = [])),
    responses((status = 200, body = Settings), (status = "4XX", body = ErrorBody)))]
pub async fn settings(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<Settings>, Fault> {
    ask(&center, |tx, _| request::settings(tx)).await
}

/// Change them; what is absent stays.
#[utoipa::path(patch, path = "/settings", tag = "operator", security(("token" = [])), request_body = SettingsChange,
    responses((status = 200, body = Settings), (status = "4XX", body = ErrorBody)))]
pub async fn set(
    _: Operator,
    State(center): State<Arc<Center>>,
    Body(change): Body<SettingsChange>,
) -> Result<Json<Settings>, Fault> {
    let now = center.now();
    ask(&center, move |tx, _| request::set(tx, &change, now)).await
}

/// The machine goes down, whatever the cause: it is drained, and may wait so long for its certificate.
#[utoipa::path(post, path = "/node/leaving", tag = "agent", security(("certificate" = [])), request_body = Leaving,
    responses((status = 200, body = LeavingReply), (status = "4XX", body = ErrorBody)))]
pub async fn leaving(
    who: Agent,
    State(center): State<Arc<Center>>,
    Body(said): Body<Leaving>,
) -> Result<Json<LeavingReply>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| flow::leaving(tx, world, who.node, &said, now)).await
}

/// What the node has counted, signed with its key. It is issued when all is zero.
#[utoipa::path(post, path = "/node/certificate", tag = "agent", security(("certificate" = [])), request_body = SignedCertificate,
    responses((status = 200, body = CertificateReply), (status = "4XX", body = ErrorBody)))]
pub async fn certify(
    who: Agent,
    State(center): State<Arc<Center>>,
    Body(signed): Body<SignedCertificate>,
) -> Result<Json<CertificateReply>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| flow::certify(tx, world, who.node, &who.certificate, &signed, now)).await
}
