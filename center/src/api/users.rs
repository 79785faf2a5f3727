//! Users and their quotas: for operators; a user may look at herself and have another token.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use lodge_model::api::ErrorBody;
use lodge_model::environment::view::{UserOrder, UserToken, UserView};

use super::body::Body;
use crate::auth::{Caller, Operator};
use crate::center::Center;
use crate::fault::Fault;
use crate::users::{self, QuotaChange};

/// All users, with what they may have and what they have. A user sees herself.
#[utoipa::path(get, path = "/users", tag = "user", security(("token" = [])),
    responses((status = 200, body = Vec<UserView>), (status = "4XX", body = ErrorBody)))]
pub async fn list(who: Caller, State(center): State<Arc<Center>>) -> Result<Json<Vec<UserView>>, Fault> {
    Ok(Json(center.store.transact(move |tx| users::list(tx, &who)).await?))
}

/// One user.
#[utoipa::path(get, path = "/users/{name}", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name of a user")),
    responses((status = 200, body = UserView), (status = "4XX", body = ErrorBody)))]
pub async fn show(who: Caller, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<Json<UserView>, Fault> {
    Ok(Json(center.store.transact(move |tx| users::show(tx, &who, &name)).await?))
}

/// Add a user. The answer has her first token, which is shown once.
#[utoipa::path(post, path = "/users", tag = "operator", security(("token" = [])), request_body = UserOrder,
    responses((status = 200, body = UserToken), (status = "4XX", body = ErrorBody)))]
pub async fn add(
    _: Operator,
    State(center): State<Arc<Center>>,
    Body(order): Body<UserOrder>,
) -> Result<Json<UserToken>, Fault> {
    let now = center.now();
    Ok(Json(center.store.transact(move |tx| users::add(tx, &order, now)).await?))
}

/// Change a user's quota: what is absent stays, null is no limit.
#[utoipa::path(patch, path = "/users/{name}", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "name of a user")), request_body = QuotaChange,
    responses((status = 200, body = UserView), (status = "4XX", body = ErrorBody)))]
pub async fn change(
    _: Operator,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(change): Body<QuotaChange>,
) -> Result<Json<UserView>, Fault> {
    let now = center.now();
    Ok(Json(center.store.transact(move |tx| users::change(tx, &name, &change, now)).await?))
}

/// Remove a user who has no environments.
#[utoipa::path(delete, path = "/users/{name}", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "name of a user")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn remove(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<StatusCode, Fault> {
    let now = center.now();
    center.store.transact(move |tx| users::remove(tx, &name, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One more token of a user.
#[utoipa::path(post, path = "/users/{name}/tokens", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name of a user")),
    responses((status = 200, body = UserToken), (status = "4XX", body = ErrorBody)))]
pub async fn add_token(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
) -> Result<Json<UserToken>, Fault> {
    let now = center.now();
    Ok(Json(center.store.transact(move |tx| users::add_token(tx, &who, &name, now)).await?))
}

/// Take back all tokens of a user, for when one has been lost.
#[utoipa::path(delete, path = "/users/{name}/tokens", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "name of a user")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn revoke(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<StatusCode, Fault> {
    let now = center.now();
    center.store.transact(move |tx| users::revoke_tokens(tx, &name, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}
