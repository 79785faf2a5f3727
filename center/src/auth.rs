//! Who asks: extractors that let a handler run only for the right caller, and hand it the caller's identity.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use lodge_model::ids::{MachineId, NodeId};

use crate::center::Center;
use crate::fault::Fault;
use crate::flow;
use crate::records::Purpose;
use crate::tls::Peer;
use crate::token;

/// The installer (or, with a local token, the center's own agent) of the machine in the path.
pub struct Installer {
    /// The machine.
    pub machine: MachineId,
    /// What its token is good for.
    pub purpose: Purpose,
}

/// The agent of a node that is known.
pub struct Agent {
    /// The node.
    pub node: NodeId,
    /// Its machine.
    pub machine: MachineId,
    /// The certificate that it has shown, DER.
    pub certificate: Arc<[u8]>,
}

/// An operator.
pub struct Operator;

/// An operator or a user: who may ask for environments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Sees and does everything.
    Operator,
    /// Sees and does what is her own.
    User {
        /// Her name.
        name: String,
    },
}

impl Caller {
    /// Whose a thing is that the caller makes: nobody's in particular, if it is an operator.
    pub fn owner(&self) -> Option<&str> {
        match self {
            Self::Operator => None,
            Self::User { name } => Some(name),
        }
    }

    /// Whether a thing of this owner is there for the caller at all. What is not is answered like what does not exist, so that nobody
    /// learns of it.
    pub fn sees(&self, owner: Option<&str>) -> bool {
        match self {
            Self::Operator => true,
            Self::User { name } => owner == Some(name),
        }
    }
}

impl FromRequestParts<Arc<Center>> for Installer {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, center: &Arc<Center>) -> Result<Self, Fault> {
        let token = bearer(parts)?;
        let Path(path): Path<HashMap<String, String>> =
            Path::from_request_parts(parts, center).await.map_err(|error| Fault::bad_input(error.to_string()))?;
        let machine = parse_machine(path.get("machine").map_or("", String::as_str))?;
        let now = center.now();
        let purpose = center.store.transact(move |tx| token::use_as_machine(tx, &token, machine, now)).await?;
        Ok(Self { machine, purpose })
    }
}

impl FromRequestParts<Arc<Center>> for Agent {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, center: &Arc<Center>) -> Result<Self, Fault> {
        let peer = parts.extensions.get::<Peer>().and_then(|peer| peer.0.clone()).ok_or_else(|| {
            Fault::unauthorized("this is for nodes: connect with the client certificate that the node was enrolled with")
        })?;
        let certificate = Arc::clone(&peer.der);
        let known = center.store.transact(move |tx| flow::node::identify(tx, peer.node, &peer.certificate)).await?;
        Ok(Self { node: known.id, machine: known.machine, certificate })
    }
}

impl FromRequestParts<Arc<Center>> for Operator {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, center: &Arc<Center>) -> Result<Self, Fault> {
        let (token, now) = (bearer(parts)?, center.now());
        center.store.transact(move |tx| token::check_operator(tx, &token, now)).await?;
        Ok(Self)
    }
}

impl FromRequestParts<Arc<Center>> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, center: &Arc<Center>) -> Result<Self, Fault> {
        let (token, now) = (bearer(parts)?, center.now());
        center.store.transact(move |tx| token::caller(tx, &token, now)).await
    }
}

/// A machine id in a path.
pub fn parse_machine(text: &str) -> Result<MachineId, Fault> {
    text.parse().map_err(|error: lodge_model::ids::IdError| Fault::bad_input(format!("path: {error}")))
}

fn bearer(parts: &Parts) -> Result<String, Fault> {
    let value = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(token.trim().to_owned())
        }
        _ => Err(Fault::unauthorized("the request carries no token; send it as \"Authorization: Bearer TOKEN\"")),
    }
}
