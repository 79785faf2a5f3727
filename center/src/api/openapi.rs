//! The API's own description, made from the handlers, and the sign that the center is there.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};

use crate::center::Center;

/// What the document says besides the routes.
pub fn base() -> OpenApi {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("a join token or an operator's token"));
    let certificate = SecurityScheme::MutualTls {
        description: Some("the node's certificate".to_owned()),
        extensions: None,
        deprecated: None,
    };
    let components = ComponentsBuilder::new()
        .security_scheme("token", SecurityScheme::Http(bearer.build()))
        .security_scheme("certificate", certificate)
        .build();
    let info = InfoBuilder::new()
        .title("Lodge center")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Bare machines in, registered nodes out. Errors are bodies with one key, `error`."))
        .build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// `GET /openapi.json`.
pub fn routes(document: OpenApi) -> Router<Arc<Center>> {
    let document = Arc::new(document);
    let serve = move || {
        let document = Arc::clone(&document);
        async move { Json((*document).clone()) }
    };
    Router::new().route("/openapi.json", get(serve))
}

/// Whether the center is there; says `ok`.
#[utoipa::path(get, path = "/healthz", tag = "anybody", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn healthz() -> &'static str {
    "ok\n"
}
