//! The one error type of the center's flows: either a refusal in words for the caller, or something that broke inside.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lodge_model::api::ErrorBody;

/// Why a request is not carried out.
#[derive(Debug)]
pub enum Fault {
    /// The caller is told: a status and a sentence.
    Refused(StatusCode, String),
    /// The center itself failed; the chain is logged, the caller hears that much.
    Internal(anyhow::Error),
}

impl Fault {
    /// 401: no token, or one that the center does not know.
    pub fn unauthorized(why: impl Into<String>) -> Self {
        Self::Refused(StatusCode::UNAUTHORIZED, why.into())
    }

    /// 403: known, and not allowed.
    pub fn forbidden(why: impl Into<String>) -> Self {
        Self::Refused(StatusCode::FORBIDDEN, why.into())
    }

    /// 404.
    pub fn not_found(why: impl Into<String>) -> Self {
        Self::Refused(StatusCode::NOT_FOUND, why.into())
    }

    /// 409: not in this state.
    pub fn conflict(why: impl Into<String>) -> Self {
        Self::Refused(StatusCode::CONFLICT, why.into())
    }

    /// 422: the input is wrong.
    pub fn bad_input(why: impl Into<String>) -> Self {
        Self::Refused(StatusCode::UNPROCESSABLE_ENTITY, why.into())
    }
}

impl<E: Into<anyhow::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Internal(error.into())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Refused(status, error) => (status, error),
            Self::Internal(error) => {
                tracing::error!("{error:#}");
                let told = "the center failed to do this; its log says why; try again".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, told)
            }
        };
        (status, axum::Json(ErrorBody { error })).into_response()
    }
}
