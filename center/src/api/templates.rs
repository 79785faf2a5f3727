//! Templates: operators import and remove them, everybody may use them. The agent that imports one fetches the upload here.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use lodge_model::api::ErrorBody;
use lodge_model::environment::view::TemplateView;
use lodge_model::ids::{Digest, IdError};
use lodge_model::timing::LONG_POLL;
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};
use tower_http::services::ServeFile;
use utoipa::IntoParams;

use super::body::Parameters;
use crate::auth::{Agent, Caller, Operator};
use crate::center::Center;
use crate::fault::Fault;
use crate::templates;

/// How long the rest of a refused upload is read and thrown away.
const REST: Duration = Duration::from_secs(10);

/// Whether the answer may wait.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Hold the answer until the view has another version than `after`, 25 s at most.
    #[serde(default)]
    wait: bool,
    /// The version that is known.
    #[serde(default)]
    after: u64,
}

/// All templates.
#[utoipa::path(get, path = "/templates", tag = "user", security(("token" = [])),
    responses((status = 200, body = Vec<TemplateView>), (status = "4XX", body = ErrorBody)))]
pub async fn list(_: Caller, State(center): State<Arc<Center>>) -> Result<Json<Vec<TemplateView>>, Fault> {
    Ok(Json(center.store.transact(templates::views).await?))
}

/// One template, and how its import stands.
#[utoipa::path(get, path = "/templates/{name}", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name of a template"), Watched),
    responses((status = 200, body = TemplateView), (status = "4XX", body = ErrorBody)))]
pub async fn show(
    _: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    Parameters(watched): Parameters<Watched>,
) -> Result<Json<TemplateView>, Fault> {
    let deadline = Instant::now() + LONG_POLL;
    let mut views = center.store.views();
    loop {
        views.mark_unchanged();
        let name = name.clone();
        let view = center.store.transact(move |tx| templates::view(tx, &name)).await?;
        let goes_on = watched.wait && view.version == watched.after;
        if !goes_on || timeout_at(deadline, views.changed()).await.is_err() {
            return Ok(Json(view));
        }
    }
}

/// Import a template: the body is a root tarball (tar, gzip or zstd) or an OCI image archive, streamed. Answered when it has been taken
/// in; a node then makes the image, and `GET /templates/{name}` says how that stands.
#[utoipa::path(put, path = "/templates/{name}", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "name of the new template")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = TemplateView), (status = "4XX", body = ErrorBody), (status = 507, body = ErrorBody)))]
pub async fn import(
    who: Result<Operator, Fault>,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<TemplateView>, Fault> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = request.into_body().into_data_stream();
    let answer = match who {
        Ok(Operator) => take_in(&center, name, length, &mut body).await,
        Err(fault) => Err(fault),
    };
    if answer.is_err() {
        // Who is cut off while sending never reads why: let the rest come in for a while, beside the answer.
        tokio::spawn(timeout(REST, async move { while let Some(Ok(_)) = body.next().await {} }));
    }
    Ok(Json(answer?))
}

async fn take_in(
    center: &Arc<Center>,
    name: String,
    length: Option<u64>,
    body: &mut axum::body::BodyDataStream,
) -> Result<TemplateView, Fault> {
    let asked = name.clone();
    center.store.transact(move |tx| templates::may_import(tx, &asked)).await?;
    let upload = center.uploads.receive(length, body).await?;
    let (digest, size, now) = (upload.digest.clone(), upload.size, center.now());
    let view = center.store.transact(move |tx| templates::import(tx, &name, &digest, size, now)).await;
    drop(upload);
    if view.is_err() {
        center.clean_uploads().await?;
    }
    view
}

/// Remove a template that no environment was made from.
#[utoipa::path(delete, path = "/templates/{name}", tag = "operator", security(("token" = [])),
    params(("name" = String, Path, description = "name of a template")),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub async fn remove(_: Operator, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<StatusCode, Fault> {
    let now = center.now();
    center.store.transact(move |tx| templates::remove(tx, &name, now)).await?;
    center.clean_uploads().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An upload that this node has been told to import. Parts may be asked for (`Range`).
#[utoipa::path(get, path = "/node/uploads/{digest}", tag = "agent", security(("certificate" = [])),
    params(("digest" = String, Path, description = "sha256:… of the upload")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "4XX", body = ErrorBody)))]
pub async fn upload(
    who: Agent,
    State(center): State<Arc<Center>>,
    Path(digest): Path<String>,
    request: Request,
) -> Result<Response, Fault> {
    let digest: Digest = digest.parse().map_err(|error: IdError| Fault::bad_input(format!("path: {error}")))?;
    let path = center.uploads.path(&digest);
    let wanted = digest.clone();
    if !center.store.transact(move |tx| templates::may_fetch(tx, who.node, &wanted)).await? {
        return Err(Fault::not_found(format!("this node is not to import an upload {digest} (any more)")));
    }
    Ok(ServeFile::new(path).try_call(request).await?.map(Body::new).into_response())
}
