//! `http://…/boot/`: the boot file, the bundle, and an answer that names this center. Plain HTTP, because firmware speaks that;
//! what is fetched is verified by signature and digest, and the answer, which holds a join token, is given only where the site
//! lets in whoever boots from its network.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lodge_model::answer::{Answer, CenterAnswer};
use lodge_model::paths::{ANSWER_NAME, BUNDLE_NAME};
use tower_http::services::ServeFile;

use super::bundle::Bundle;
use crate::center::Center;
use crate::fault::Fault;
use crate::records::Site;
use crate::store::Tx;
use crate::token;

/// Everything below `/boot/`.
pub fn routes(center: Arc<Center>) -> Router {
    Router::new()
        .route("/boot/lodge.efi", get(boot_file))
        .route(&format!("/boot/{BUNDLE_NAME}"), get(whole_bundle))
        .route(&format!("/boot/{ANSWER_NAME}"), get(answer))
        .fallback(nothing_here)
        .with_state(center)
}

async fn nothing_here(request: Request) -> Fault {
    tracing::info!("{} {}: not here", request.method(), request.uri());
    Fault::not_found(format!("there is nothing at {}; boot files are below /boot/", request.uri().path()))
}

async fn boot_file(State(center): State<Arc<Center>>, request: Request) -> Result<Response, Fault> {
    let bundle = bundle(&center).await?;
    serve(&bundle.uki, "application/efi", request).await
}

async fn whole_bundle(State(center): State<Arc<Center>>, request: Request) -> Result<Response, Fault> {
    let bundle = bundle(&center).await?;
    serve(&bundle.path, "application/gzip", request).await
}

async fn answer(State(center): State<Arc<Center>>) -> Result<Response, Fault> {
    let now = center.now();
    let mint = move |tx: &Tx| {
        let site: Site = tx.get(&"site")?.unwrap_or_default();
        if !site.answer.netboot {
            let why = "this site does not let unknown machines in by netboot; give them a token made by an operator";
            return Err(Fault::forbidden(why));
        }
        token::mint_join(tx, None, now)
    };
    let (token, _) = center.store.transact(mint).await?;
    let center = CenterAnswer { url: center.world.url.clone(), ca: center.world.ca.fingerprint(), token };
    let text = toml::to_string(&Answer { center: Some(center), ..Answer::default() })?;
    Ok(([(CONTENT_TYPE, "application/toml")], text).into_response())
}

async fn bundle(center: &Arc<Center>) -> Result<Arc<Bundle>, Fault> {
    center.bundle().await?.map_err(Fault::not_found)
}

async fn serve(path: &std::path::Path, kind: &'static str, request: Request) -> Result<Response, Fault> {
    tracing::info!("{} {}", request.method(), request.uri().path());
    let mut response = ServeFile::new(path).try_call(request).await?.into_response();
    if response.status().is_success() {
        response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(kind));
    }
    Ok(response)
}
