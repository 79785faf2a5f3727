//! Environments, for operators and for users, who see their own.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use lodge_model::api::ErrorBody;
use lodge_model::environment::spec::{Change, Spec};
use lodge_model::environment::view::EnvironmentView;
use lodge_model::timing::LONG_POLL;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::body::{Body, Parameters};
use crate::auth::Caller;
use crate::center::Center;
use crate::environments::{request, view};
use crate::fault::Fault;
use crate::flow::World;
use crate::store::Tx;

/// Whether the answer may wait.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Hold the answer until there is another version than `after`, 25 s at most.
    #[serde(default)]
    pub wait: bool,
    /// The version that is known; for a list the greatest one.
    #[serde(default)]
    pub after: u64,
}

/// Whether it is insisted upon.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Forced {
    /// Even if no node could die any more then without loss. For operators.
    #[serde(default)]
    pub force: bool,
}

type One = Result<Json<EnvironmentView>, Fault>;

/// All environments that the caller may see, by name. Held (`wait`) while none has a greater version than `after` and none has gone.
#[utoipa::path(get, path = "/environments", tag = "user", security(("token" = [])), params(Watched),
    responses((status = 200, body = Vec<EnvironmentView>), (status = "4XX", body = ErrorBody)))]
pub async fn list(
    who: Caller,
    State(center): State<Arc<Center>>,
    Parameters(watched): Parameters<Watched>,
) -> Result<Json<Vec<EnvironmentView>>, Fault> {
    let deadline = Instant::now() + LONG_POLL;
    let mut views = center.store.views();
    let mut first = None;
    loop {
        views.mark_unchanged();
        let (world, who) = (Arc::clone(&center.world), who.clone());
        let all = center.store.transact(move |tx| view::all(tx, &world, &who)).await?;
        let is_same = *first.get_or_insert(all.len()) == all.len();
        let newest = all.iter().map(|view| view.version).max().unwrap_or(0);
        let goes_on = watched.wait && is_same && newest <= watched.after;
        if !goes_on || timeout_at(deadline, views.changed()).await.is_err() {
            return Ok(Json(all));
        }
    }
}

/// Create an environment. It is placed as soon as a node has room for it; `GET` says what it waits for.
#[utoipa::path(post, path = "/environments", tag = "user", security(("token" = [])), params(Forced), request_body = Spec,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn create(
    who: Caller,
    State(center): State<Arc<Center>>,
    Parameters(forced): Parameters<Forced>,
    Body(spec): Body<Spec>,
) -> One {
    let now = center.now();
    ask(&center, move |tx, world| request::create(tx, world, &who, &spec, forced.force, now)).await
}

/// One environment. Held (`wait`) while its version is `after`.
#[utoipa::path(get, path = "/environments/{name}", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id"), Watched),
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn show(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Parameters(watched): Parameters<Watched>,
) -> One {
    let deadline = Instant::now() + LONG_POLL;
    let mut views = center.store.views();
    loop {
        views.mark_unchanged();
        let (world, who, name) = (Arc::clone(&center.world), who.clone(), name.clone());
        let one = center.store.transact(move |tx| view::named(tx, &world, &who, &name)).await?;
        let goes_on = watched.wait && one.version == watched.after;
        if !goes_on || timeout_at(deadline, views.changed()).await.is_err() {
            return Ok(Json(one));
        }
    }
}

/// Change an environment; what is absent stays. Memory and processors change at once, the disk grows.
#[utoipa::path(patch, path = "/environments/{name}", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id"), Forced), request_body = Change,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn change(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Parameters(forced): Parameters<Forced>,
    Body(change): Body<Change>,
) -> One {
    let now = center.now();
    ask(&center, move |tx, world| request::change(tx, world, &who, &name, (&change, forced.force), now)).await
}

/// Remove an environment, its disk and its snapshots. `GET` finds it until all of it is gone.
#[utoipa::path(delete, path = "/environments/{name}", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn destroy(who: Caller, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<StatusCode, Fault> {
    let now = center.now();
    let _ = ask(&center, move |tx, world| request::destroy(tx, world, &who, &name, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let an environment run.
#[utoipa::path(post, path = "/environments/{name}/start", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id"), Forced),
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn start(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Parameters(forced): Parameters<Forced>,
) -> One {
    let now = center.now();
    ask(&center, move |tx, world| request::start(tx, world, &who, &name, forced.force, now)).await
}

/// Let an environment's init shut it down.
#[utoipa::path(post, path = "/environments/{name}/stop", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id")),
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn stop(who: Caller, State(center): State<Arc<Center>>, Path(name): Path<String>) -> One {
    let now = center.now();
    ask(&center, move |tx, world| request::stop(tx, world, &who, &name, now)).await
}

/// Let an environment's init shut it down, and start it again.
#[utoipa::path(post, path = "/environments/{name}/restart", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id"), Forced),
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn restart(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Parameters(forced): Parameters<Forced>,
) -> One {
    let now = center.now();
    ask(&center, move |tx, world| request::restart(tx, world, &who, &name, forced.force, now)).await
}

/// End an environment without asking it.
#[utoipa::path(post, path = "/environments/{name}/kill", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name or id")),
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = ErrorBody)))]
pub async fn kill(who: Caller, State(center): State<Arc<Center>>, Path(name): Path<String>) -> One {
    let now = center.now();
    ask(&center, move |tx, world| request::kill(tx, world, &who, &name, now)).await
}

/// One request, one transaction.
pub async fn ask<T: Send + 'static>(
    center: &Center,
    work: impl Fn(&Tx, &World) -> Result<T, Fault> + Send + Sync + 'static,
) -> Result<Json<T>, Fault> {
    let world = Arc::clone(&center.world);
    Ok(Json(center.transact_and_plan(move |tx| work(tx, &world)).await?))
}
