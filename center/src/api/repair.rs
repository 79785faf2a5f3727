//! Repairs of environments, for operators and for users, who repair their own.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use lodge_model::api::ErrorBody;
use lodge_model::environment::view::{CheckOrder, EnvironmentView, ReinstallOrder, RepairEnd, RepairOrder};

use super::body::{Body, Parameters};
use super::environments::{Forced, ask};
use crate::auth::Caller;
use crate::center::Center;
use crate::environments::repair::{reinstall, request};
use crate::fault::Fault;

/// Open the files of an environment to a clean system, below `/repair`: it is stopped, its disk kept as a snapshot, and a repair environment
/// started in its place.
#[utoipa::path(post, path = "/environments/{name}/repair", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id"), Forced), request_body = RepairOrder,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn begin(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Parameters(forced): Parameters<Forced>,
    Body(order): Body<RepairOrder>,
) -> Result<Json<EnvironmentView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| request::begin(tx, world, &who, &name, (&order, forced.force), now)).await
}

/// End a repair: the environment gets its disk and addresses back, with the contents of the snapshot if asked, and is started.
#[utoipa::path(post, path = "/environments/{name}/repair/finish", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id")), request_body = RepairEnd,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn finish(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(end): Body<RepairEnd>,
) -> Result<Json<EnvironmentView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| request::finish(tx, world, &who, &name, end, now)).await
}

/// Check the disk of an environment that is stopped, and mend it if asked. `GET` tells what was found, as `disk_check`.
#[utoipa::path(post, path = "/environments/{name}/fsck", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id")), request_body = CheckOrder,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn fsck(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(order): Body<CheckOrder>,
) -> Result<Json<EnvironmentView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| request::check(tx, world, &who, &name, order, now)).await
}

/// Give an environment a new system. What is on its disk is kept as a snapshot, and shown to the new system at `/old`; what was at `/old`
/// before goes.
#[utoipa::path(post, path = "/environments/{name}/reinstall", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id"), Forced), request_body = ReinstallOrder,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn reinstall(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Parameters(forced): Parameters<Forced>,
    Body(order): Body<ReinstallOrder>,
) -> Result<Json<EnvironmentView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| reinstall::reinstall(tx, world, &who, &name, (&order, forced.force), now)).await
}
