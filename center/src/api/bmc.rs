//! BMCs of nodes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use lodge_model::api::ErrorBody;
use lodge_model::bmc::{BmcOrder, BmcTest, BmcView};

use super::body::Body;
use super::environments::ask;
use crate::auth::Operator;
use crate::center::Center;
use crate::failover::bmc::redfish::Limits;
use crate::failover::bmc::request;
use crate::fault::Fault;

/// Say how the BMC of a node is reached. It is asked first, and must know the machine.
#[utoipa::path(put, path = "/nodes/{name}/bmc", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name")), request_body = BmcOrder,
    responses((status = 200, body = BmcView), (status = "4XX", body = ErrorBody)))]
pub async fn set(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(order): Body<BmcOrder>,
) -> Result<Json<BmcView>, Fault> {
    Ok(Json(request::set(&center.store, &name, order, Limits::default(), center.now()).await?))
}

/// How the BMC of a node is reached; its password is not shown.
#[utoipa::path(get, path = "/nodes/{name}/bmc", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name")),
    responses((status = 200, body = BmcView), (status = "4XX", body = ErrorBody)))]
pub async fn show(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<Json<BmcView>, Fault> {
    ask(&center, move |tx, _| request::show(tx, &name)).await
}

/// Ask the BMC of a node now. Nothing is switched.
#[utoipa::path(post, path = "/nodes/{name}/bmc/test", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name")),
    responses((status = 200, body = BmcTest), (status = "4XX", body = ErrorBody)))]
pub async fn test(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<Json<BmcTest>, Fault> {
    Ok(Json(request::test(&center.store, &name, Limits::default()).await?))
}

/// Forget the BMC of a node.
#[utoipa::path(delete, path = "/nodes/{name}/bmc", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "node name")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn remove(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<StatusCode, Fault> {
    let now = center.now();
    let _ = ask(&center, move |tx, _| request::remove(tx, &name, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}
