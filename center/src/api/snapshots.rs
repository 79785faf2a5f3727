//! Snapshots and clones of environments, for operators and for users.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use lodge_model::api::ErrorBody;
use lodge_model::environment::view::{CloneOrder, EnvironmentView, SnapshotOrder, SnapshotView};

use super::body::{Body, Parameters};
use super::environments::{Forced, ask};
use crate::auth::Caller;
use crate::center::Center;
use crate::environments::snapshots;
use crate::fault::Fault;

/// All snapshots of an environment, oldest first.
#[utoipa::path(get, path = "/environments/{name}/snapshots", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id")),
    responses((status = 200, body = Vec<SnapshotView>), (status = "4XX", body = ErrorBody)))]
pub async fn list(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
) -> Result<Json<Vec<SnapshotView>>, Fault> {
    ask(&center, move |tx, _| snapshots::list(tx, &who, &name)).await
}

/// Keep the disk as it is now.
#[utoipa::path(post, path = "/environments/{name}/snapshots", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id")), request_body = SnapshotOrder,
    responses((status = 200, body = SnapshotView), (status = "4XX", body = ErrorBody)))]
pub async fn take(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(order): Body<SnapshotOrder>,
) -> Result<Json<SnapshotView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, _| snapshots::take(tx, &who, &name, order.name.as_deref(), now)).await
}

/// Remove a snapshot.
#[utoipa::path(delete, path = "/environments/{name}/snapshots/{snapshot}", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id"), ("snapshot" = String, Path, description = "its name")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn remove(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path((name, snapshot)): Path<(String, String)>,
) -> Result<StatusCode, Fault> {
    let now = center.now();
    let _ = ask(&center, move |tx, _| snapshots::remove(tx, &who, &name, &snapshot, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Put a snapshot in place of the disk of an environment that has been stopped. What the disk holds now is lost.
#[utoipa::path(post, path = "/environments/{name}/snapshots/{snapshot}/rollback", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id"), ("snapshot" = String, Path, description = "its name")),
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn rollback(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path((name, snapshot)): Path<(String, String)>,
) -> Result<Json<EnvironmentView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| snapshots::rollback(tx, world, &who, &name, &snapshot, now)).await
}

/// Make a new environment with a copy of the disk, the same settings and new addresses.
#[utoipa::path(post, path = "/environments/{name}/clone", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id"), Forced), request_body = CloneOrder,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn clone(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Parameters(forced): Parameters<Forced>,
    Body(order): Body<CloneOrder>,
) -> Result<Json<EnvironmentView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| snapshots::clone(tx, world, &who, &name, (&order.name, forced.force), now)).await
}
