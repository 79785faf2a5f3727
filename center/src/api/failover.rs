//! Incidents, arming, and whether any one node may die.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use lodge_model::api::ErrorBody;
use lodge_model::guard::FencingView;
use lodge_model::incident::{ArmOrder, CapacityView, FailoverView, IncidentView};
use lodge_model::timing::LONG_POLL;
use tokio::time::{Instant, timeout_at};

use super::body::{Body, Parameters};
use super::environments::{Watched, ask};
use crate::auth::Operator;
use crate::center::Center;
use crate::environments::capacity;
use crate::failover::{attested, request};
use crate::fault::Fault;

/// All incidents, the newest first.
#[utoipa::path(get, path = "/incidents", tag = "operator", security(("token" = [])),
    responses((status = 200, body = Vec<IncidentView>), (status = "4XX", body = ErrorBody)))]
pub async fn incidents(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<Vec<IncidentView>>, Fault> {
    ask(&center, |tx, _| request::incidents(tx)).await
}

/// One incident with its timeline. Held (`wait`) while its version is `after`.
#[utoipa::path(get, path = "/incidents/{id}", tag = "operator", security(("token" = [])),
    params(("id" = u64, Path, description = "its number"), Watched),
    responses((status = 200, body = IncidentView), (status = "4XX", body = ErrorBody)))]
pub async fn incident(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(id): Path<u64>,
    Parameters(watched): Parameters<Watched>,
) -> Result<Json<IncidentView>, Fault> {
    let deadline = Instant::now() + LONG_POLL;
    let mut views = center.store.views();
    loop {
        views.mark_unchanged();
        let view = center.store.transact(move |tx| request::incident(tx, id)).await?;
        let goes_on = watched.wait && view.version == watched.after;
        if !goes_on || timeout_at(deadline, views.changed()).await.is_err() {
            return Ok(Json(view));
        }
    }
}

/// Whether anything is taken over at present.
#[utoipa::path(get, path = "/failover", tag = "operator", security(("token" = [])),
    responses((status = 200, body = FailoverView), (status = "4XX", body = ErrorBody)))]
pub async fn state(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<FailoverView>, Fault> {
    ask(&center, |tx, _| request::state(tx)).await
}

/// No automatic takeover from now on, as for planned work on the network. What is fenced already stays fenced.
#[utoipa::path(post, path = "/failover/disarm", tag = "operator", security(("token" = [])), request_body = ArmOrder,
    responses((status = 200, body = FailoverView), (status = "4XX", body = ErrorBody)))]
pub async fn disarm(
    _: Operator,
    State(center): State<Arc<Center>>,
    Body(order): Body<ArmOrder>,
) -> Result<Json<FailoverView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, _| request::disarm(tx, &order, now)).await
}

/// Automatic takeovers again.
#[utoipa::path(post, path = "/failover/arm", tag = "operator", security(("token" = [])), request_body = ArmOrder,
    responses((status = 200, body = FailoverView), (status = "4XX", body = ErrorBody)))]
pub async fn arm(
    _: Operator,
    State(center): State<Arc<Center>>,
    Body(order): Body<ArmOrder>,
) -> Result<Json<FailoverView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, _| request::arm(tx, &order, now)).await
}

/// By which ways each worker could be fenced now.
#[utoipa::path(get, path = "/fencing", tag = "operator", security(("token" = [])),
    responses((status = 200, body = FencingView), (status = "4XX", body = ErrorBody)))]
pub async fn fencing(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<FencingView>, Fault> {
    ask(&center, |tx, _| attested::show(tx)).await
}

/// What would become of every environment if one node died, for each node.
#[utoipa::path(get, path = "/capacity", tag = "operator", security(("token" = [])),
    responses((status = 200, body = CapacityView), (status = "4XX", body = ErrorBody)))]
pub async fn capacity(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<CapacityView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| capacity::show(tx, world, now)).await
}
