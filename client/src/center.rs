//! One method a call of the API. Paths and bodies are documented in `lodge_model::api`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lodge_model::api::{
    ClusterView, Decision, EnrolReply, EnrolRequest, ErrorBody, EventView, Heartbeat, Hello, InstallOrder, MachineEvent,
    NodeDetail, NodeView, Orders, Register, TicketView, TokenView,
};
use lodge_model::ids::{Fingerprint, MachineId};
use lodge_model::timing;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::pin::PinVerifier;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a call may take besides the time the center holds it by intent. A heartbeat's is short: it is how an agent notices
/// that the center is gone, and it must be back within 10 s of the center's return.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);
const HEARTBEAT_MARGIN: Duration = Duration::from_secs(3);
/// An agent's connection on which nothing has come for so long is asked whether anybody is there, and given up without an answer.
const SILENCE: Duration = Duration::from_secs(3);
/// A refusal that is not JSON is shown up to this many characters.
const REFUSAL_MAX: usize = 300;

/// How the caller proves itself.
#[derive(Clone)]
pub enum Auth {
    /// `Authorization: Bearer …`: a join or an operator's token.
    Token(String),
    /// A client certificate: an agent. All its calls share one connection (HTTP/2), so that to break off a heartbeat that the center holds,
    /// which is how news are told, costs no handshake.
    Certificate {
        /// The certificate, PEM.
        cert_pem: String,
        /// Its key, PKCS#8 PEM.
        key_pem: String,
    },
}

/// A center that is known by the fingerprint of its CA. Cheap to clone; connections are kept and shared.
#[derive(Clone)]
pub struct Center {
    base: Url,
    url: String,
    ca: Fingerprint,
    http: Client,
    /// HTTP/1.1 only: what a WebSocket starts with.
    upgrading: Client,
    pin: Arc<PinVerifier>,
}

impl Center {
    /// A center at `https://ADDRESS:PORT`. Nothing is connected yet.
    pub fn new(url: &str, ca: &Fingerprint, auth: Auth) -> Result<Self> {
        let base = parse_url(url)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pin = Arc::new(PinVerifier::new(ca.clone(), Arc::clone(&provider)));
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("setting up TLS")?
            .dangerous() // the pin replaces the public roots; the rest of the check is rustls' own
            .with_custom_certificate_verifier(Arc::<PinVerifier>::clone(&pin));
        let mut headers = HeaderMap::new();
        let is_agent = matches!(auth, Auth::Certificate { .. });
        let tls = match auth {
            Auth::Token(token) => {
                let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).context("reading the token")?;
                bearer.set_sensitive(true);
                headers.insert(AUTHORIZATION, bearer);
                tls.with_no_client_auth()
            }
            Auth::Certificate { cert_pem, key_pem } => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert_pem.as_bytes()).collect();
                let chain = chain.context("reading the client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).context("reading the client key")?;
                tls.with_client_auth_cert(chain, key).context("using the client certificate and key")?
            }
        };
        let client = |protocols: &[&[u8]]| {
            let mut tls = tls.clone();
            tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Client::builder()
                .tls_backend_preconfigured(tls)
                .https_only(true)
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_keepalive(Duration::from_secs(5))
                .http2_keep_alive_interval(SILENCE)
                .http2_keep_alive_timeout(SILENCE)
                .http2_keep_alive_while_idle(true)
                .user_agent(concat!("lodge/", env!("CARGO_PKG_VERSION")))
                .default_headers(headers.clone())
                .build()
                .context("setting up the HTTP client")
        };
        let http = client(if is_agent { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] })?;
        let upgrading = client(&[b"http/1.1"])?;
        Ok(Self { url: base.as_str().trim_end_matches('/').to_owned(), base, ca: ca.clone(), http, upgrading, pin })
    }

    /// The center's address, as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The pinned CA certificate (DER), after the first connection.
    pub fn ca_der(&self) -> Option<&[u8]> {
        self.pin.ca().map(AsRef::as_ref)
    }
}

// ---- installer -------------------------------------------------------------------------------------------------------------

impl Center {
    /// `POST /machines/{machine}/facts`.
    pub async fn hello(&self, machine: MachineId, hello: &Hello) -> Result<Decision, Error> {
        self.post(&["machines", &machine.to_string(), "facts"], hello).await
    }

    /// `GET /machines/{machine}/decision`: held by the center for up to `timing::LONG_POLL` while it is `Wait`.
    pub async fn decision(&self, machine: MachineId) -> Result<Decision, Error> {
        let request = self.request(Method::GET, &["machines", &machine.to_string(), "decision"], timing::LONG_POLL + MARGIN);
        self.json(request).await
    }

    /// `POST /machines/{machine}/events`.
    pub async fn machine_events(&self, machine: MachineId, events: &[MachineEvent]) -> Result<(), Error> {
        self.post_only(&["machines", &machine.to_string(), "events"], events).await
    }

    /// `POST /machines/{machine}/console`: text to be appended to the machine's console log.
    pub async fn machine_console(&self, machine: MachineId, text: &str) -> Result<(), Error> {
        self.post_text(&["machines", &machine.to_string(), "console"], text).await
    }

    /// `POST /machines/{machine}/enrol`.
    pub async fn enrol(&self, machine: MachineId, request: &EnrolRequest) -> Result<EnrolReply, Error> {
        self.post(&["machines", &machine.to_string(), "enrol"], request).await
    }
}

// ---- agent -----------------------------------------------------------------------------------------------------------------

impl Center {
    /// `POST /node/register`.
    pub async fn register(&self, register: &Register) -> Result<Orders, Error> {
        self.post(&["node", "register"], register).await
    }

    /// `POST /node/heartbeat`: held by the center for up to `timing::HEARTBEAT` while it has no news.
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<Orders, Error> {
        let request = self.request(Method::POST, &["node", "heartbeat"], timing::HEARTBEAT + HEARTBEAT_MARGIN);
        self.json(request.json(heartbeat)).await
    }

    /// `POST /node/console`: text to be appended to the node's console log.
    pub async fn node_console(&self, text: &str) -> Result<(), Error> {
        self.post_text(&["node", "console"], text).await
    }

    /// `POST /node/off`: "I disconnect now, in order".
    pub async fn going_down(&self, reason: &str) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Off<'a> {
            reason: &'a str,
        }
        self.post_only(&["node", "off"], &Off { reason }).await
    }
}

// ---- operator --------------------------------------------------------------------------------------------------------------

impl Center {
    /// `GET /nodes`: nodes, and machines that wait.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        self.get(&["nodes"]).await
    }

    /// `GET /nodes/{name}`; `name` is a node's name or a machine id, here and below.
    pub async fn node(&self, name: &str) -> Result<NodeDetail, Error> {
        self.get(&["nodes", name]).await
    }

    /// `GET /events`: those with an id greater than `after`, of one node or of all. With `wait` the center holds an empty
    /// answer for up to `timing::LONG_POLL`.
    pub async fn events(&self, node: Option<&str>, after: i64, wait: bool) -> Result<Vec<EventView>, Error> {
        let limit = if wait { timing::LONG_POLL + MARGIN } else { MARGIN };
        let mut request = self.request(Method::GET, &["events"], limit).query(&[("after", after)]);
        if let Some(node) = node {
            request = request.query(&[("node", node)]);
        }
        if wait {
            request = request.query(&[("wait", true)]);
        }
        self.json(request).await
    }

    /// `GET /nodes/{name}/console`.
    pub async fn console_log(&self, name: &str) -> Result<String, Error> {
        let response = self.send(self.request(Method::GET, &["nodes", name, "console"], MARGIN)).await?;
        response.text().await.map_err(|error| self.broken(&error))
    }

    /// `POST /nodes/{name}/reinstall`.
    pub async fn reinstall(&self, name: &str, order: &InstallOrder) -> Result<(), Error> {
        self.post_only(&["nodes", name, "reinstall"], order).await
    }

    /// `POST /machines/{machine}/approve`.
    pub async fn approve(&self, machine: MachineId, order: &InstallOrder) -> Result<(), Error> {
        self.post_only(&["machines", &machine.to_string(), "approve"], order).await
    }

    /// `DELETE /nodes/{name}`.
    pub async fn forget(&self, name: &str) -> Result<(), Error> {
        self.send(self.request(Method::DELETE, &["nodes", name], MARGIN)).await.map(drop)
    }

    /// `GET /tickets`.
    pub async fn tickets(&self) -> Result<Vec<TicketView>, Error> {
        self.get(&["tickets"]).await
    }

    /// `POST /tokens`: a new join token.
    pub async fn mint_token(&self) -> Result<TokenView, Error> {
        self.json(self.request(Method::POST, &["tokens"], MARGIN)).await
    }

    /// `GET /cluster`.
    pub async fn cluster(&self) -> Result<ClusterView, Error> {
        self.get(&["cluster"]).await
    }
}

// ---- how ---------------------------------------------------------------------------------------------------------------------

impl Center {
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Error> {
        self.json(self.request(Method::GET, path, MARGIN)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &(impl Serialize + ?Sized)) -> Result<T, Error> {
        self.json(self.request(Method::POST, path, MARGIN).json(body)).await
    }

    pub(crate) async fn post_only(&self, path: &[&str], body: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.send(self.request(Method::POST, path, MARGIN).json(body)).await.map(drop)
    }

    async fn post_text(&self, path: &[&str], text: &str) -> Result<(), Error> {
        let request = self.request(Method::POST, path, MARGIN).header(CONTENT_TYPE, "text/plain; charset=utf-8");
        self.send(request.body(text.to_owned())).await.map(drop)
    }

    pub(crate) fn request(&self, method: Method, path: &[&str], limit: Duration) -> RequestBuilder {
        self.request_without_limit(method, path).timeout(limit)
    }

    pub(crate) fn request_without_limit(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.http.request(method, self.at(path))
    }

    /// A request that asks for another protocol on its connection.
    pub(crate) fn upgrade(&self, path: &[&str]) -> RequestBuilder {
        self.upgrading.request(Method::GET, self.at(path))
    }

    /// An address below `/api/v1`. Path segments are escaped, so no name can reach another path.
    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.send(request).await?;
        let url = response.url().to_string();
        let body = response.bytes().await.map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&body).map_err(|error| Error::Answer { url, why: error.to_string() })
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        let message = match serde_json::from_str::<ErrorBody>(&body) {
            Ok(body) => body.error,
            Err(_) if body.trim().is_empty() => status.canonical_reason().unwrap_or("no reason given").to_owned(),
            Err(_) => body.trim().chars().take(REFUSAL_MAX).collect(),
        };
        Err(Error::Refused { status: status.as_u16(), message })
    }

    pub(crate) fn broken(&self, error: &reqwest::Error) -> Error {
        Error::from_http(&self.url, &self.ca, error)
    }
}

fn parse_url(text: &str) -> Result<Url> {
    let url =
        Url::parse(text).with_context(|| format!("reading the center's address {text:?}; expected https://ADDRESS:PORT"))?;
    if url.scheme() != "https" || url.host().is_none() || url.cannot_be_a_base() {
        bail!("the center's address {text:?} is not https://ADDRESS:PORT");
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        bail!("the center's address {text:?} holds more than https://ADDRESS:PORT");
    }
    Ok(url)
}
