//! Sessions with environments, and the agents' side of them: WebSockets whose messages are `lodge_model::environment::session::Frame`s.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use lodge_model::api::ErrorBody;
use lodge_model::environment::session::SessionKind;
use lodge_model::ids::{IdError, SessionId};

use crate::auth::{Agent, Caller};
use crate::center::Center;
use crate::fault::Fault;
use crate::sessions::{self, Call, MESSAGE_MAX};

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;
/// Words of a query, in their order.
type Words = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// Run a program in an environment (WebSocket).
#[utoipa::path(get, path = "/environments/{name}/exec", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name of an environment"),
        ("command" = Vec<String>, Query, description = "program and arguments, one parameter each"),
        ("tty" = Option<bool>, Query, description = "whether it gets a terminal")),
    responses((status = 101), (status = "4XX", body = ErrorBody)))]
pub async fn exec(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    words: Words,
    upgrade: Upgrade,
) -> Result<Response, Fault> {
    let Query(words) = words.map_err(|error| Fault::bad_input(error.body_text()))?;
    let what = parse_exec(words).map_err(Fault::bad_input)?;
    open(&center, &who, name, what, upgrade).await
}

/// Attach to the console of an environment (WebSocket). What it printed before comes first.
#[utoipa::path(get, path = "/environments/{name}/console", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name of an environment")),
    responses((status = 101), (status = "4XX", body = ErrorBody)))]
pub async fn console(
    who: Caller,
    State(center): State<Arc<Center>>,
    Path(name): Path<String>,
    upgrade: Upgrade,
) -> Result<Response, Fault> {
    open(&center, &who, name, SessionKind::Console, upgrade).await
}

/// What an environment has printed on its console, the newest part, as the node keeps it.
#[utoipa::path(get, path = "/environments/{name}/logs", tag = "user", security(("token" = [])),
    params(("name" = String, Path, description = "name of an environment")),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "4XX", body = ErrorBody)))]
pub async fn logs(who: Caller, State(center): State<Arc<Center>>, Path(name): Path<String>) -> Result<Response, Fault> {
    let call = call(&center, &who, name, SessionKind::Log).await?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], sessions::collect(call).await?).into_response())
}

/// Join a session that is in this node's orders (WebSocket).
#[utoipa::path(get, path = "/node/sessions/{id}", tag = "agent", security(("certificate" = [])),
    params(("id" = String, Path, description = "the session")),
    responses((status = 101), (status = "4XX", body = ErrorBody)))]
pub async fn join(
    who: Agent,
    State(center): State<Arc<Center>>,
    id: Result<Path<String>, PathRejection>,
    upgrade: Upgrade,
) -> Result<Response, Fault> {
    let Path(id) = id.map_err(|error| Fault::bad_input(error.body_text()))?;
    let id: SessionId = id.parse().map_err(|error: IdError| Fault::bad_input(format!("path: {error}")))?;
    let upgrade = checked(upgrade)?;
    let join = center.sessions.join(who.node, id)?;
    Ok(upgrade.on_upgrade(async move |socket| {
        // The client may have gone meanwhile: the socket is dropped, and the agent notices.
        let _ = join.send(socket);
    }))
}

async fn open(
    center: &Arc<Center>,
    who: &Caller,
    name: String,
    what: SessionKind,
    upgrade: Upgrade,
) -> Result<Response, Fault> {
    let upgrade = checked(upgrade)?;
    let call = call(center, who, name, what).await?;
    Ok(upgrade.on_upgrade(move |socket| sessions::run(socket, call)))
}

async fn call(center: &Arc<Center>, who: &Caller, name: String, what: SessionKind) -> Result<Call, Fault> {
    let (world, who, asked, now) = (Arc::clone(&center.world), who.clone(), what.clone(), center.now());
    let target = center.store.transact(move |tx| sessions::target(tx, &world, &who, &name, &asked, now)).await?;
    center.sessions.call(target.node, target.environment, what)
}

fn checked(upgrade: Upgrade) -> Result<WebSocketUpgrade, Fault> {
    let upgrade = upgrade.map_err(|error| {
        let why = format!("this is a WebSocket: {}", error.body_text());
        Fault::Refused(StatusCode::BAD_REQUEST, why)
    })?;
    Ok(upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX))
}

fn parse_exec(words: Vec<(String, String)>) -> Result<SessionKind, String> {
    let (mut command, mut tty) = (Vec::new(), false);
    for (key, value) in words {
        match key.as_str() {
            "command" => command.push(value),
            "tty" => tty = value.parse().map_err(|_| format!("tty: {value:?} is neither true nor false"))?,
            _ => return Err(format!("{key}: unknown; use command (once for each word) and tty")),
        }
    }
    match command.first() {
        None => Err("command: name a program".to_owned()),
        Some(program) if program.is_empty() => Err("command: the program has no name".to_owned()),
        Some(_) if command.iter().any(|word| word.contains('\0')) => Err("command: a word has a NUL byte in it".to_owned()),
        Some(_) => Ok(SessionKind::Exec { command, tty }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[(&str, &str)]) -> Result<SessionKind, String> {
        parse_exec(words.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_words_of_a_command_keep_their_order() {
        let command = ["sh", "-c", "echo a b"].map(str::to_owned).to_vec();
        let words = [("command", "sh"), ("tty", "true"), ("command", "-c"), ("command", "echo a b")];
        assert_eq!(parse(&words), Ok(SessionKind::Exec { command, tty: true }));
        assert!(parse(&[]).unwrap_err().contains("name a program"));
        assert!(parse(&[("command", "")]).is_err());
        assert!(parse(&[("comand", "sh")]).unwrap_err().contains("comand"));
        assert!(parse(&[("command", "sh"), ("tty", "maybe")]).unwrap_err().contains("maybe"));
        assert!(parse(&[("command", "sh"), ("command", "a\0b")]).unwrap_err().contains("NUL"));
    }
}
