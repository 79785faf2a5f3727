//! For operators: everything else, with an operator's token.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use lodge_model::api::{ClusterView, ErrorBody, EventView, InstallOrder, NodeDetail, NodeView, TicketView, TokenView};
use lodge_model::environment::view::Labels;
use lodge_model::timing::LONG_POLL;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::body::{Body, Parameters};
use crate::auth::{Operator, parse_machine};
use crate::center::Center;
use crate::fault::Fault;
use crate::flow::operator;
use crate::store::Tx;

/// Which events are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Of one node or machine; of all where it is left out.
    node: Option<String>,
    /// Only events with a greater number.
    #[serde(default)]
    after: i64,
    /// Hold the answer until there is one, 25 s at most.
    #[serde(default)]
    wait: bool,
}

/// All nodes, and the machines that wait.
#[utoipa::path(get, path = "/nodes", tag = "operator", security(("token" = [])),
    responses((status = 200, body = Vec<NodeView>), (status = "4XX", body = ErrorBody)))]
pub async fn nodes(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<Vec<NodeView>>, Fault> {
    let (world, now) = (Arc::clone(&center.world), center.now());
    Ok(Json(center.store.transact(move |tx| operator::nodes(tx, &world, now)).await?))
}

/// Everything about one node or machine.
#[utoipa::path(get, path = "/nodes/{name}", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name or machine id")),
    responses((status = 200, body = NodeDetail), (status = "4XX", body = ErrorBody)))]
pub async fn node(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<Json<NodeDetail>, Fault> {
    let (world, now) = (Arc::clone(&center.world), center.now());
    Ok(Json(center.store.transact(move |tx| operator::node(tx, &world, &name, now)).await?))
}

/// Remove a node or machine and all that is known of it.
#[utoipa::path(delete, path = "/nodes/{name}", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name or machine id")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn forget(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<StatusCode, Fault> {
    let (world, now) = (Arc::clone(&center.world), center.now());
    let machine = center.store.transact(move |tx| operator::forget(tx, &world, &name, now)).await?;
    center.consoles.remove(machine).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the machine has printed on its console, the newest part.
#[utoipa::path(get, path = "/nodes/{name}/console", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name or machine id")),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "4XX", body = ErrorBody)))]
pub async fn console(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<String, Fault> {
    let whole = center.store.transact(move |tx| operator::find(tx, &name)).await?;
    center.consoles.read(whole.machine.id).await
}

/// Install a node again: its disk is erased, its id and name stay.
#[utoipa::path(post, path = "/nodes/{name}/reinstall", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name or machine id")), request_body = InstallOrder,
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn reinstall(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(order): Body<InstallOrder>,
) -> Result<StatusCode, Fault> {
    let (world, bundle, now) = (Arc::clone(&center.world), center.bundle_url().await?, center.now());
    center.store.transact(move |tx| operator::reinstall(tx, &world, &bundle, &name, &order, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Set labels of a node, which environments can ask for; an empty value removes one.
#[utoipa::path(patch, path = "/nodes/{name}/labels", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name")), request_body = Labels,
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn label(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(labels): Body<Labels>,
) -> Result<StatusCode, Fault> {
    let now = center.now();
    center.store.transact(move |tx| operator::label(tx, &name, &labels, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An operator's word that the machine of a silent node is off: its environments are started elsewhere. If that is not true, two
/// copies of them run, so look at the machine first. The node gets nothing more to do until it has been started anew.
#[utoipa::path(post, path = "/nodes/{name}/confirm-off", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn confirm_off(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Fault> {
    let (world, now) = (Arc::clone(&center.world), center.now());
    center.store.transact(move |tx| operator::confirm_off(tx, &world, &name, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let a waiting machine in.
#[utoipa::path(post, path = "/machines/{machine}/approve", tag = "operator", security(("token" = [])),
    params(("machine" = String, Path, description = "machine id")), request_body = InstallOrder,
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn approve(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(machine): Path<String>,
    Body(order): Body<InstallOrder>,
) -> Result<StatusCode, Fault> {
    let (world, now, machine) = (Arc::clone(&center.world), center.now(), parse_machine(&machine)?);
    center.store.transact(move |tx| operator::approve(tx, &world, machine, &order, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The event log, oldest first, at most 1000 events an answer.
#[utoipa::path(get, path = "/events", tag = "operator", security(("token" = [])), params(Wanted),
    responses((status = 200, body = Vec<EventView>), (status = "4XX", body = ErrorBody)))]
pub async fn events(
    _: Operator,
    State(center): State<Arc<Center>>,
    Parameters(wanted): Parameters<Wanted>,
) -> Result<Json<Vec<EventView>>, Fault> {
    let deadline = Instant::now() + LONG_POLL;
    let mut log = center.store.events();
    loop {
        log.mark_unchanged();
        let (node, after) = (wanted.node.clone(), wanted.after);
        let work = move |tx: &Tx| {
            let machine = node.as_ref().map(|name| operator::find(tx, name)).transpose()?.map(|whole| whole.machine.id);
            tx.events_after(after, machine)
        };
        let events = center.store.transact(work).await?;
        if !events.is_empty() || !wanted.wait || timeout_at(deadline, log.changed()).await.is_err() {
            return Ok(Json(events));
        }
    }
}

/// All tickets, newest first.
#[utoipa::path(get, path = "/tickets", tag = "operator", security(("token" = [])),
    responses((status = 200, body = Vec<TicketView>), (status = "4XX", body = ErrorBody)))]
pub async fn tickets(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<Vec<TicketView>>, Fault> {
    let now = center.now();
    Ok(Json(center.store.transact(move |tx| operator::tickets(tx, now)).await?))
}

/// A new join token, for one machine.
#[utoipa::path(post, path = "/tokens", tag = "operator", security(("token" = [])),
    responses((status = 200, body = TokenView), (status = "4XX", body = ErrorBody)))]
pub async fn mint_token(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<TokenView>, Fault> {
    let (world, now) = (Arc::clone(&center.world), center.now());
    Ok(Json(center.store.transact(move |tx| operator::mint_token(tx, &world, now)).await?))
}

/// The whole at a glance.
#[utoipa::path(get, path = "/cluster", tag = "operator", security(("token" = [])),
    responses((status = 200, body = ClusterView), (status = "4XX", body = ErrorBody)))]
pub async fn cluster(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<ClusterView>, Fault> {
    let bundle = center.bundle().await?.ok().map(|bundle| bundle.version.clone());
    let (world, now) = (Arc::clone(&center.world), center.now());
    Ok(Json(center.store.transact(move |tx| operator::cluster(tx, &world, bundle.clone(), now)).await?))
}
