//! For agents: `/node/…` with the node's client certificate.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use lodge_model::api::{ErrorBody, Heartbeat, Orders, Register};
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::{Body, Text};
use crate::auth::Agent;
use crate::center::Center;
use crate::fault::Fault;
use crate::flow::node;

/// Body of `POST /node/off`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GoingDown {
    /// Why, for people.
    reason: String,
}

/// Once per start of the agent.
#[utoipa::path(post, path = "/node/register", tag = "agent", security(("certificate" = [])), request_body = Register,
    responses((status = 200, body = Orders), (status = "4XX", body = ErrorBody)))]
pub async fn register(
    who: Agent,
    State(center): State<Arc<Center>>,
    Body(said): Body<Register>,
) -> Result<Json<Orders>, Fault> {
    let (world, now, boot) = (Arc::clone(&center.world), center.now(), said.boot);
    let orders = center.store.transact(move |tx| node::register(tx, &world, who.node, &said, now)).await?;
    center.world.live.is_news(who.node, boot, orders.generation);
    Ok(Json(orders))
}

/// A sign of life. Answered at once when there are new orders, else after 2 s.
#[utoipa::path(post, path = "/node/heartbeat", tag = "agent", security(("certificate" = [])), request_body = Heartbeat,
    responses((status = 200, body = Orders), (status = "4XX", body = ErrorBody)))]
pub async fn heartbeat(
    who: Agent,
    State(center): State<Arc<Center>>,
    Body(said): Body<Heartbeat>,
) -> Result<Json<Orders>, Fault> {
    Ok(Json(center.heartbeat(who.node, said).await?))
}

/// Add to the machine's console log.
#[utoipa::path(post, path = "/node/console", tag = "agent", security(("certificate" = [])),
    request_body(content = String, content_type = "text/plain"),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn console(who: Agent, State(center): State<Arc<Center>>, Text(text): Text) -> Result<StatusCode, Fault> {
    center.consoles.append(who.machine, text).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The node goes down, and that is expected.
#[utoipa::path(post, path = "/node/off", tag = "agent", security(("certificate" = [])), request_body = GoingDown,
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn off(who: Agent, State(center): State<Arc<Center>>, Body(said): Body<GoingDown>) -> Result<StatusCode, Fault> {
    let (world, now) = (Arc::clone(&center.world), center.now());
    center.store.transact(move |tx| node::off(tx, &world, who.node, &said.reason, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}
