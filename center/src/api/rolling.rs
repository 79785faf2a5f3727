//! The reboot of the whole cluster.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use lodge_model::api::ErrorBody;
use lodge_model::rolling::{RebootOrder, RebootView};
use lodge_model::timing::LONG_POLL;
use tokio::time::{Instant, timeout_at};

use super::body::{Body, Parameters};
use super::environments::{Watched, ask};
use crate::auth::Operator;
use crate::center::Center;
use crate::environments::rolling::request;
use crate::fault::Fault;

type Shown = Result<Json<RebootView>, Fault>;

/// Drain and restart every worker in turn. It stops at the first one that does not come back; with `dry_run` only the plan is answered.
#[utoipa::path(post, path = "/cluster/reboot", tag = "operator", security(("token" = [])), request_body = RebootOrder,
    responses((status = 200, body = RebootView), (status = "4XX", body = ErrorBody)))]
pub async fn order(_: Operator, State(center): State<Arc<Center>>, Body(order): Body<RebootOrder>) -> Shown {
    let now = center.now();
    ask(&center, move |tx, world| request::order(tx, world, &order, now)).await
}

/// How it stands. Held (`wait`) while its version is `after`.
#[utoipa::path(get, path = "/cluster/reboot", tag = "operator", security(("token" = [])), params(Watched),
    responses((status = 200, body = RebootView), (status = "4XX", body = ErrorBody)))]
pub async fn show(_: Operator, State(center): State<Arc<Center>>, Parameters(watched): Parameters<Watched>) -> Shown {
    let deadline = Instant::now() + LONG_POLL;
    let mut views = center.store.views();
    loop {
        views.mark_unchanged();
        let view = center.store.transact(request::show).await?;
        let goes_on = watched.wait && view.version == watched.after;
        if !goes_on || timeout_at(deadline, views.changed()).await.is_err() {
            return Ok(Json(view));
        }
    }
}

/// Go on after it has stopped. A node that is still away is left out.
#[utoipa::path(post, path = "/cluster/reboot/continue", tag = "operator", security(("token" = [])),
    responses((status = 200, body = RebootView), (status = "4XX", body = ErrorBody)))]
pub async fn go_on(_: Operator, State(center): State<Arc<Center>>) -> Shown {
    let now = center.now();
    ask(&center, move |tx, world| request::go_on(tx, world, now)).await
}

/// Restart no further node.
#[utoipa::path(delete, path = "/cluster/reboot", tag = "operator", security(("token" = [])),
    responses((status = 200, body = RebootView), (status = "4XX", body = ErrorBody)))]
pub async fn cancel(_: Operator, State(center): State<Arc<Center>>) -> Shown {
    let now = center.now();
    ask(&center, move |tx, world| request::cancel(tx, world, now)).await
}
