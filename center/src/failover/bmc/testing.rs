//! A BMC for tests: an HTTPS server with one system (or several), that does what DSP0266 says, or what bad firmware does instead.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use base64::Engine as _;
use jiff::Timestamp;
use lodge_model::bmc::{Secret, Trust};
use lodge_model::ids::{Fingerprint, NodeId};
use rustls::ServerConfig;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Bmc;

/// What the firmware does with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// Takes it, and the power follows after so many looks.
    Good(u32),
    /// Takes it, and nothing happens.
    Lies,
    /// Refuses it, with a reason.
    Refuses,
    /// Never answers it.
    Hangs,
    /// Offers only what the operating system would have to do itself.
    Graceful,
}

/// The inside of a BMC.
pub struct Inside {
    pub firmware: Firmware,
    pub power: &'static str,
    pub uuid: Uuid,
    pub systems: Vec<&'static str>,
    /// What it was ordered to do.
    pub orders: Vec<String>,
    coming: Option<(&'static str, u32)>,
}

/// A BMC that runs until it is dropped.
pub struct Board {
    pub url: String,
    pub fingerprint: Fingerprint,
    pub pem: String,
    inside: Arc<Mutex<Inside>>,
    server: tokio::task::JoinHandle<()>,
}

pub const USER: &str = "lodge";
pub const PASSWORD: &str = "hunter2";

impl Board {
    /// Switch one on. Its system runs.
    pub fn start(firmware: Firmware, uuid: Uuid) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let der = made.cert.der().clone();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let inside = Inside { firmware, power: "On", uuid, systems: vec!["1"], orders: vec![], coming: None };
        let inside = Arc::new(Mutex::new(inside));
        let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(tls))).unwrap();
        let routes = routes(Arc::clone(&inside)).into_make_service();
        let server = tokio::spawn(async move { server.serve(routes).await.unwrap() });
        let fingerprint = Fingerprint::from_digest(Sha256::digest(&der).into());
        Self { url, fingerprint, pem: made.cert.pem(), inside, server }
    }

    /// It is unplugged: nobody listens any more.
    pub async fn unplug(mut self) {
        self.server.abort();
        assert!((&mut self.server).await.is_err_and(|error| error.is_cancelled()));
    }

    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    /// As the center keeps it.
    pub fn record(&self, node: NodeId) -> Bmc {
        Bmc {
            node,
            url: self.url.clone(),
            user: USER.into(),
            password: Secret(PASSWORD.into()),
            system: None,
            trust: Trust::Fingerprint(self.fingerprint.clone()),
            stays_off: false,
            machine: Some(self.inside().uuid),
            set: Timestamp::UNIX_EPOCH,
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Shared = State<Arc<Mutex<Inside>>>;

fn routes(inside: Arc<Mutex<Inside>>) -> Router {
    Router::new()
        .route("/redfish/v1/Systems", get(systems))
        .route("/redfish/v1/Systems/{id}", get(system))
        .route("/redfish/v1/Systems/{id}/Actions/ComputerSystem.Reset", post(reset))
        .route_layer(middleware::from_fn(account))
        // The service root is for everybody.
        .route("/redfish/v1/", get(async || Json(json!({ "Systems": { "@odata.id": "/redfish/v1/Systems" } }))))
        .with_state(inside)
}

async fn account(request: Request, next: Next) -> Response {
    let expected = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    match request.headers().get(header::AUTHORIZATION) {
        Some(given) if given.as_bytes() == format!("Basic {expected}").as_bytes() => next.run(request).await,
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn systems(State(inside): Shared) -> Json<Value> {
    let systems = inside.lock().unwrap().systems.clone();
    let members: Vec<Value> = systems.iter().map(|id| json!({ "@odata.id": format!("/redfish/v1/Systems/{id}") })).collect();
    Json(json!({ "Members@odata.count": members.len(), "Members": members }))
}

async fn system(State(inside): Shared, Path(id): Path<String>) -> Json<Value> {
    let mut inside = inside.lock().unwrap();
    match inside.coming {
        Some((power, 0)) => (inside.power, inside.coming) = (power, None),
        Some((power, left)) => inside.coming = Some((power, left - 1)),
        None => {}
    }
    let offered = match inside.firmware {
        Firmware::Graceful => json!(["GracefulShutdown"]),
        _ => json!(["On", "ForceOff", "GracefulShutdown", "ForceRestart"]),
    };
    Json(json!({
        "@odata.id": format!("/redfish/v1/Systems/{id}"), "Id": id, "Manufacturer": "Lodge", "Model": "Board",
        "UUID": inside.uuid.to_string().to_uppercase(), "PowerState": inside.power,
        "Actions": { "#ComputerSystem.Reset": {
            "target": format!("/redfish/v1/Systems/{id}/Actions/ComputerSystem.Reset"),
            "ResetType@Redfish.AllowableValues": offered,
        }},
    }))
}

async fn reset(State(inside): Shared, Json(order): Json<Value>) -> Response {
    let firmware = {
        let mut inside = inside.lock().unwrap();
        inside.orders.push(order["ResetType"].as_str().unwrap().to_owned());
        inside.firmware
    };
    match firmware {
        Firmware::Good(looks) => {
            let to = if order["ResetType"] == "On" { "On" } else { "Off" };
            let mut inside = inside.lock().unwrap();
            (inside.power, inside.coming) = (if to == "On" { "PoweringOn" } else { "PoweringOff" }, Some((to, looks)));
            StatusCode::NO_CONTENT.into_response()
        }
        Firmware::Lies | Firmware::Graceful => StatusCode::NO_CONTENT.into_response(),
        Firmware::Refuses => {
            let told = json!({ "error": { "code": "Base.1.0.GeneralError", "message": "see ExtendedInfo",
                "@Message.ExtendedInfo": [{ "MessageId": "Base.1.0.ResourceInUse", "Message": "The firmware is being updated." }] } });
            (StatusCode::CONFLICT, Json(told)).into_response()
        }
        Firmware::Hangs => std::future::pending().await,
    }
}
