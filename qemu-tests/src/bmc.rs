//! The machines' BMCs: one Redfish service (DMTF DSP0266) over HTTPS with a system for each machine of the rack. It switches the machines
//! themselves, and what it says of their power is what their QEMU processes are: it cannot say that one is off which runs.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use base64::Engine as _;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::machine::{Machine, Power};

/// Address of the service in the site.
pub const URL: &str = "https://10.77.0.6";
/// The account.
pub const USER: &str = "lodge";
/// Its password.
pub const PASSWORD: &str = "calvin and hobbes";

/// What a BMC has its hands on.
pub struct Board {
    uuid: Uuid,
    power: Power,
}

impl Board {
    /// Of a machine.
    pub fn of(machine: &Machine) -> Self {
        Self { uuid: machine.spec.uuid(), power: machine.power.clone() }
    }
}

/// The service, until it is dropped.
pub struct Bmcs {
    /// `sha256:…` of its certificate.
    pub fingerprint: String,
    orders: Arc<Mutex<Vec<String>>>,
    handle: Handle<std::net::SocketAddr>,
}

#[derive(Clone)]
struct Service {
    boards: Arc<BTreeMap<String, Board>>,
    orders: Arc<Mutex<Vec<String>>>,
}

impl Bmcs {
    /// Serve these on a port of 127.0.0.1.
    pub fn start(boards: BTreeMap<String, Board>, port: u16) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["10.77.0.6".to_owned()]).context("making a certificate")?;
        let der = made.cert.der().clone();
        let fingerprint = format!("sha256:{}", lodge_model::ids::hex(&Sha256::digest(&der)));
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("setting up TLS")?
            .with_no_client_auth()
            .with_single_cert(vec![der], key)
            .context("setting up TLS")?;
        let listener = TcpListener::bind(("127.0.0.1", port)).context("listening for the BMCs")?;
        listener.set_nonblocking(true).context("listening for the BMCs")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
        let (orders, handle) = (Arc::<Mutex<Vec<String>>>::default(), Handle::new());
        let routes = routes(Service { boards: Arc::new(boards), orders: Arc::clone(&orders) });
        let told = handle.clone();
        let serve = async move {
            let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(tls)))?;
            server.handle(told).serve(routes.into_make_service()).await
        };
        let run = move || {
            if let Err(error) = runtime.block_on(serve) {
                eprintln!("the BMCs have ended: {error}");
            }
        };
        std::thread::Builder::new().name("BMCs".into()).spawn(run).context("starting a thread")?;
        Ok(Self { fingerprint, orders, handle })
    }

    /// What they were ordered to do so far: `MACHINE ForceOff`.
    pub fn orders(&self) -> Vec<String> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Bmcs {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

fn routes(service: Service) -> Router {
    Router::new()
        .route("/redfish/v1/Systems", get(systems))
        .route("/redfish/v1/Systems/{name}", get(system))
        .route("/redfish/v1/Systems/{name}/Actions/ComputerSystem.Reset", post(reset))
        .route_layer(middleware::from_fn(account))
        .route("/redfish/v1/", get(async || Json(json!({ "Systems": { "@odata.id": "/redfish/v1/Systems" } }))))
        .with_state(service)
}

async fn account(request: Request, next: Next) -> Response {
    let expected = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    match request.headers().get(header::AUTHORIZATION) {
        Some(given) if given.as_bytes() == format!("Basic {expected}").as_bytes() => next.run(request).await,
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn systems(State(service): State<Service>) -> Json<Value> {
    let members: Vec<Value> = service.boards.keys().map(|name| json!({ "@odata.id": path(name) })).collect();
    Json(json!({ "Members@odata.count": members.len(), "Members": members }))
}

async fn system(State(service): State<Service>, Path(name): Path<String>) -> Response {
    let Some(Board { uuid, power }) = service.boards.get(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let told = json!({
        "@odata.id": path(&name), "Id": name, "UUID": uuid, "Manufacturer": "Lodge", "Model": "Rack",
        "PowerState": if power.is_on() { "On" } else { "Off" },
        "Actions": { "#ComputerSystem.Reset": {
            "target": format!("{}/Actions/ComputerSystem.Reset", path(&name)),
            "ResetType@Redfish.AllowableValues": ["On", "ForceOff"],
        }},
    });
    Json(told).into_response()
}

async fn reset(State(service): State<Service>, Path(name): Path<String>, Json(order): Json<Value>) -> Response {
    let Some(Board { power, .. }) = service.boards.get(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let kind = order["ResetType"].as_str().unwrap_or_default().to_owned();
    service.orders.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{name} {kind}"));
    let power = power.clone();
    let switched = tokio::task::spawn_blocking(move || match kind.as_str() {
        "ForceOff" => {
            power.off();
            Ok(())
        }
        "On" if power.is_on() => Ok(()),
        "On" => power.on_again(),
        other => anyhow::bail!("{other:?} is no value of ResetType here"),
    });
    match switched.await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        failed => {
            let why = match failed {
                Ok(Err(error)) => format!("{error:#}"),
                _ => "the switch broke".to_owned(),
            };
            (StatusCode::BAD_REQUEST, Json(json!({ "error": { "code": "Base.1.0.GeneralError", "message": why } })))
                .into_response()
        }
    }
}

fn path(name: &str) -> String {
    format!("/redfish/v1/Systems/{name}")
}
