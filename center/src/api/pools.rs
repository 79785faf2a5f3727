//! Address pools, for operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use lodge_model::api::ErrorBody;
use lodge_model::environment::view::{Pool, PoolView};

use super::body::Body;
use crate::auth::Operator;
use crate::center::Center;
use crate::environments::pools;
use crate::fault::Fault;

/// All address pools, the first served first.
#[utoipa::path(get, path = "/pools", tag = "operator", security(("token" = [])),
    responses((status = 200, body = Vec<PoolView>), (status = "4XX", body = ErrorBody)))]
pub async fn list(_: Operator, State(center): State<Arc<Center>>) -> Result<Json<Vec<PoolView>>, Fault> {
    Ok(Json(center.store.transact(pools::list).await?))
}

/// Add an address pool.
#[utoipa::path(post, path = "/pools", tag = "operator", security(("token" = [])), request_body = Pool,
    responses((status = 200, body = PoolView), (status = "4XX", body = ErrorBody)))]
pub async fn add(_: Operator, State(center): State<Arc<Center>>, Body(pool): Body<Pool>) -> Result<Json<PoolView>, Fault> {
    let now = center.now();
    Ok(Json(center.store.transact(move |tx| pools::add(tx, &pool, now)).await?))
}

/// Remove an address pool that no environment has an address of.
#[utoipa::path(delete, path = "/pools/{name}", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "pool name")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn remove(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<StatusCode, Fault> {
    let now = center.now();
    center.store.transact(move |tx| pools::remove(tx, &name, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}
