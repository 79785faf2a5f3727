//! Plain HTTP. What comes over it is only believed for its signature.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Response, StatusCode};
use tokio::runtime::{Builder, Runtime};

/// A server that says nothing for this long is given up.
const SILENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// The kind of every error of the network itself: worth another try.
pub const CUT: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// The body of an answer, to be read like a file.
pub struct Body {
    runtime: Runtime,
    response: Response,
    piece: io::Cursor<Vec<u8>>,
}

impl Body {
    /// Ask for it.
    pub fn open(url: &str) -> Result<Self> {
        let (runtime, response) = ask(url)?;
        if !response.status().is_success() {
            bail!("fetching {url}: the server answered {}", response.status());
        }
        Ok(Self { runtime, response, piece: io::Cursor::default() })
    }

    /// Bytes in all, where the server says.
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.runtime.block_on(self.response.chunk()) {
                Ok(Some(piece)) => self.piece = io::Cursor::new(piece.into()),
                Ok(None) => return Ok(0),
                Err(error) => return Err(cut(&error)),
            }
        }
    }
}

/// A small file; `None` where the server has none.
pub fn get(url: &str, most: usize) -> Result<Option<Vec<u8>>> {
    let (runtime, response) = ask(url)?;
    match response.status() {
        StatusCode::NOT_FOUND => return Ok(None),
        status if !status.is_success() => bail!("fetching {url}: the server answered {status}"),
        _ => {}
    }
    let mut body = Body { runtime, response, piece: io::Cursor::default() };
    let mut bytes = Vec::new();
    body.by_ref().take(most as u64 + 1).read_to_end(&mut bytes).with_context(|| format!("fetching {url}"))?;
    if bytes.len() > most {
        bail!("{url} has more than {most} bytes");
    }
    Ok(Some(bytes))
}

fn ask(url: &str) -> Result<(Runtime, Response)> {
    if !url.starts_with("http://") {
        bail!("{url:?} is not an http:// address; other ways to fetch are not supported (a bundle is known by its signature)");
    }
    let runtime = Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    let response = runtime.block_on(async { client()?.get(url).send().await.map_err(|error| cut(&error).into()) });
    let response = response.map_err(|error: anyhow::Error| error.context(format!("fetching {url}")))?;
    Ok((runtime, response))
}

/// The client must be made although it never speaks TLS: with no roots, and the provider named, since none is installed.
fn client() -> Result<Client> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("setting up HTTP")?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = Client::builder().tls_backend_preconfigured(tls).no_proxy();
    client.connect_timeout(CONNECT).read_timeout(SILENCE).build().context("setting up HTTP")
}

fn cut(error: &reqwest::Error) -> io::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    io::Error::new(CUT, cause.to_string())
}
