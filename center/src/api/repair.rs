//! Repairs of environments, for operators and for users, who repair their own.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use lodge_model::api::ErrorBody;
use lodge_model::environment::view::{EnvironmentView, RepairEnd, RepairOrder};

use super::body::Body;
use super::environments::ask;
use crate::auth::Caller;
use crate::center::Center;
use crate::environments::repair::request;
use crate::fault::Fault;

/// Open the files of an environment to a clean system, below `/repair`: it is stopped, its disk kept as a snapshot, and a repair environment
/// started in its place.
#[utoipa::path(post, path = "/environments/{name}/repair", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id")), request_body = RepairOrder,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn begin(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Body(order): Body<RepairOrder>,
) -> Result<Json<EnvironmentView>, Fault> {
    let now = center.now();
    ask(&center, move |tx, world| request::begin(tx, world, &who, &name, &order, now)).await
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
