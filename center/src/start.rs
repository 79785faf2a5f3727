//! From the command line to a center that serves, and to its end.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum_server::Handle;
use lodge_model::api::LocalJoin;
use lodge_model::layout::MIB;
use lodge_model::progress;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::signal::unix::{SignalKind, signal};

use crate::boot::bundle::Bundles;
use crate::ca::Ca;
use crate::center::{Center, Files};
use crate::config::{self, Arguments};
use crate::console::Consoles;
use crate::fault::Fault;
use crate::flow::World;
use crate::live::Live;
use crate::records::{Purpose, Site, TokenRecord};
use crate::store::Store;
use crate::tls::{self, PeerAcceptor};
use crate::uploads::Uploads;
use crate::{api, boot, files, token};

/// How long requests that are under way may take once the center is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Start, serve, and stop at SIGTERM or SIGINT.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = prepare_data(&arguments.data)?;
    let ca = Ca::open(&data)?;
    let store = Store::open(&data.join("center.db"))?;
    let site = site(&store, &arguments)?;
    let netboot = arguments.netboot || site.answer.netboot;
    let addresses = config::addresses(&arguments.addresses)?;
    let listener = listen(arguments.listen)?;
    let boot_at = arguments.boot_listen.or(netboot.then_some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80))));
    let boot_listener = boot_at.map(listen).transpose()?;

    let port = listener.local_addr().context("asking for the API's port")?.port();
    let url = format!("https://{}", SocketAddr::new(addresses[0], port));
    let boot_url = boot_listener.as_ref().map(|listener| boot_url(listener, addresses[0])).transpose()?;
    let tls = tls::config(&ca, ca.server_identity(&certified(&addresses))?)?;
    let world = World { ca, url, live: Live::default() };
    write_local_join(&store, &world, port, arguments.local_join.as_deref())?;
    announce(&store, &world, &arguments)?;
    let netboot = netboot.then(|| Netboot::open(&arguments)).transpose()?;
    say(&listener, boot_listener.as_ref(), netboot.as_ref())?;

    let uploads = Uploads::new(&data, arguments.upload_max_mib.saturating_mul(MIB))?;
    let files = Files { consoles: Consoles::new(&data)?, bundles: Bundles::new(&data)?, uploads };
    let center = Arc::new(Center::new(store, world, files, boot_url));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(serve(center, listener, boot_listener, tls, netboot))
}

async fn serve(
    center: Arc<Center>,
    listener: TcpListener,
    boot_listener: Option<TcpListener>,
    tls: axum_server::tls_rustls::RustlsConfig,
    netboot: Option<Netboot>,
) -> anyhow::Result<()> {
    // A former run may have ended between an import and this.
    center.clean_uploads().await.map_err(inner).context("removing uploads that are not needed")?;
    let handle = Handle::new();
    tokio::spawn(stop_at_signal(handle.clone())?);
    tokio::spawn(Arc::clone(&center).watch());
    tokio::spawn(Arc::clone(&center).plan());
    tokio::spawn(Arc::clone(&center).guard());
    if let Some(netboot) = netboot {
        netboot.serve(&center).await?;
    }
    if let Some(listener) = boot_listener {
        let server = axum_server::from_tcp(listener).context("serving boot files")?.handle(handle.clone());
        let routes = boot::http::routes(Arc::clone(&center));
        tokio::spawn(async move {
            if let Err(error) = server.serve(routes.into_make_service()).await {
                tracing::error!("serving boot files: {error}");
            }
        });
    }
    let server = axum_server::from_tcp(listener).context("serving the API")?.acceptor(PeerAcceptor::new(tls)).handle(handle);
    server.serve(api::routes(center).into_make_service()).await.context("serving the API")?;
    tracing::info!("stopped in order");
    Ok(())
}

/// The sockets of the network boot.
struct Netboot {
    dhcp: UdpSocket,
    pxe: UdpSocket,
    tftp: UdpSocket,
}

impl Netboot {
    fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let [dhcp, pxe, tftp] = [arguments.dhcp_listen, arguments.pxe_listen, arguments.tftp_listen];
        let tftp_socket = UdpSocket::bind(tftp).with_context(|| format!("listening on UDP {tftp} for TFTP"))?;
        Ok(Self { dhcp: boot::dhcp::open(dhcp)?, pxe: boot::dhcp::open(pxe)?, tftp: tftp_socket })
    }

    async fn serve(self, center: &Arc<Center>) -> anyhow::Result<()> {
        for (socket, is_pxe_port) in [(self.dhcp, false), (self.pxe, true)] {
            let center = Arc::clone(center);
            tokio::spawn(async move {
                if let Err(error) = boot::dhcp::serve(socket, is_pxe_port, center).await {
                    tracing::error!("netboot has ended: {error:#}");
                }
            });
        }
        boot::tftp::serve(self.tftp, Arc::clone(&center.bundles)).await
    }
}

fn stop_at_signal(handle: Handle<SocketAddr>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        handle.graceful_shutdown(Some(GRACE));
    })
}

fn prepare_data(data: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(data).with_context(|| format!("making {}", data.display()))?;
    // Keys, digests of tokens and facts of every machine: nobody else's business.
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).with_context(|| format!("closing {}", data.display()))?;
    data.canonicalize().with_context(|| format!("finding {}", data.display()))
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    listener.set_nonblocking(true).with_context(|| format!("listening on {address}"))?;
    keep_alive(&listener).with_context(|| format!("setting TCP keepalive on {address}"))?;
    Ok(listener)
}

/// Connections inherit it from their listener: a session may be silent for days, and one whose other side has vanished without a word
/// ends a minute later.
fn keep_alive(listener: &TcpListener) -> nix::Result<()> {
    setsockopt(listener, sockopt::KeepAlive, &true)?;
    setsockopt(listener, sockopt::TcpKeepIdle, &30)?;
    setsockopt(listener, sockopt::TcpKeepInterval, &10)?;
    setsockopt(listener, sockopt::TcpKeepCount, &3)
}

/// The site's settings: those of the first start, whatever the command line says later.
fn site(store: &Store, arguments: &Arguments) -> anyhow::Result<Site> {
    let known = store.transact_blocking(|tx| tx.get::<Site>(&"site")).map_err(inner).context("reading the site's settings")?;
    if let Some(site) = known {
        return Ok(site);
    }
    let first = Site { answer: config::first_site(arguments)? };
    store.transact_blocking(|tx| tx.put(&first)).map_err(inner).context("storing the site's settings")?;
    Ok(first)
}

/// The boot files' address, as machines are told.
fn boot_url(listener: &TcpListener, address: IpAddr) -> anyhow::Result<String> {
    let local = listener.local_addr().context("asking for the boot files' port")?;
    let address = if local.ip().is_unspecified() { address } else { local.ip() };
    let place = SocketAddr::new(address, local.port());
    let place = if place.port() == 80 { place.to_string().trim_end_matches(":80").to_owned() } else { place.to_string() };
    Ok(format!("http://{place}/boot/"))
}

/// The addresses in the server's certificate.
fn certified(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut all = addresses.to_vec();
    all.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    all.dedup();
    all
}

/// A new local token at each start; those of former starts are void.
fn write_local_join(store: &Store, world: &World, port: u16, path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let (text, record) = token::mint(Purpose::Local, None, jiff::Timestamp::now())?;
    let replace = |tx: &crate::store::Tx| {
        for old in tx.list::<TokenRecord>()?.iter().filter(|old| old.purpose == Purpose::Local) {
            tx.delete::<TokenRecord>(&old.digest)?;
        }
        tx.put(&record)
    };
    store.transact_blocking(replace).map_err(inner).context("replacing the local token")?;
    let url = format!("https://127.0.0.1:{port}");
    let join = LocalJoin { url, ca: world.ca.fingerprint(), token: text };
    files::write_private(path, &serde_json::to_vec(&join).context("encoding the local token")?)
}

/// Tell the operator's token once. It is told before it is stored: a token that nobody has heard of would lock everybody out.
fn announce(store: &Store, world: &World, arguments: &Arguments) -> anyhow::Result<()> {
    let has_operator = store
        .transact_blocking(|tx| Ok(tx.list::<TokenRecord>()?.iter().any(|token| token.purpose == Purpose::Operator)))
        .map_err(inner)
        .context("looking for an operator's token")?;
    if has_operator && !arguments.new_operator_token {
        return Ok(());
    }
    let (text, record) = token::mint(Purpose::Operator, None, jiff::Timestamp::now())?;
    let login = format!("log in with: lodge login {} --ca {} --token {text}", world.url, world.ca.fingerprint());
    let line = format!("{}note: {login}\n", progress::PREFIX);
    let told = arguments.announce.iter().filter(|path| tell(path, &line)).count();
    if told == 0 {
        eprint!("{line}");
    }
    store.transact_blocking(|tx| tx.put(&record)).map_err(inner).context("storing the operator's token")
}

fn tell(path: &Path, line: &str) -> bool {
    let told = OpenOptions::new().append(true).create(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = &told {
        tracing::warn!("announcing the operator's token on {}: {error}", path.display());
    }
    told.is_ok()
}

/// Where it listens, on standard output: one line a place, for people and for whoever started it with port 0.
fn say(listener: &TcpListener, boot: Option<&TcpListener>, netboot: Option<&Netboot>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "api https://{}", listener.local_addr().context("asking for the API's address")?)?;
    if let Some(boot) = boot {
        writeln!(out, "boot http://{}", boot.local_addr().context("asking for the boot files' address")?)?;
    }
    if let Some(netboot) = netboot {
        for (word, socket) in [("dhcp", &netboot.dhcp), ("pxe", &netboot.pxe), ("tftp", &netboot.tftp)] {
            writeln!(out, "{word} udp://{}", socket.local_addr().context("asking for a netboot port")?)?;
        }
    }
    out.flush().context("saying where it listens")
}

fn inner(fault: Fault) -> anyhow::Error {
    match fault {
        Fault::Internal(error) => error,
        Fault::Refused(_, why) => anyhow::anyhow!(why),
    }
}
