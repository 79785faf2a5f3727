//! TFTP for UEFI PXE: one file, `lodge.efi`, by whatever directory it is asked for.
//!
//! `async-tftp` does the protocol with the options that make it bearable: block size, window size (edk2 asks for 4) and the
//! file's size. It has an executor of its own, so it gets a thread of its own, where reading the file may block.

use std::fs::File;
use std::io::{self, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_tftp::packet;
use async_tftp::server::{Handler, TftpServerBuilder};
use futures_util::io::{AllowStdIo, Sink};
use tokio::runtime::Handle;

use super::bundle::Bundles;
use super::offer::BOOT_FILE;

/// Read from the file in pieces of this many bytes.
const BUFFER: usize = 256 << 10;
/// Firmware that asks for the size alone goes away without a word; this many times it is asked whether it is still there.
const RETRIES: u32 = 8;

struct BootFile {
    bundles: Arc<Bundles>,
}

impl Handler for BootFile {
    type Reader = AllowStdIo<BufReader<File>>;
    type Writer = Sink;

    async fn read_req_open(&mut self, client: &SocketAddr, path: &Path) -> Result<(Self::Reader, Option<u64>), packet::Error> {
        if path.file_name().is_none_or(|name| name != BOOT_FILE) {
            tracing::info!("tftp: {client} asks for {}, which is not here", path.display());
            return Err(packet::Error::FileNotFound);
        }
        let bundle = self.bundles.newest().map_err(|why| {
            tracing::warn!("tftp: {client}: {why}");
            packet::Error::FileNotFound
        })?;
        tracing::info!("tftp: {client} fetches {BOOT_FILE} {}", bundle.version);
        open(&bundle.uki).map_err(|error| {
            tracing::error!("tftp: opening {}: {error}", bundle.uki.display());
            packet::Error::FileNotFound
        })
    }

    async fn write_req_open(&mut self, _: &SocketAddr, _: &Path, _: Option<u64>) -> Result<Self::Writer, packet::Error> {
        Err(packet::Error::PermissionDenied)
    }
}

/// Serve on this socket until the process ends.
pub async fn serve(socket: UdpSocket, bundles: Arc<Bundles>) -> anyhow::Result<()> {
    let place = socket.local_addr().context("asking for the TFTP port")?;
    let server = TftpServerBuilder::with_handler(BootFile { bundles })
        .std_socket(socket)
        .map_err(|error| anyhow::anyhow!("serving TFTP on {place}: {error}"))?
        .max_send_retries(RETRIES)
        .build()
        .await
        .map_err(|error| anyhow::anyhow!("serving TFTP on {place}: {error}"))?;
    let runtime = Handle::current();
    let work = move || {
        if let Err(error) = runtime.block_on(server.serve()) {
            tracing::error!("serving TFTP on {place}: {error}");
        }
    };
    std::thread::Builder::new().name("tftp".to_owned()).spawn(work).context("starting the TFTP thread")?;
    Ok(())
}

fn open(path: &Path) -> io::Result<(AllowStdIo<BufReader<File>>, Option<u64>)> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((AllowStdIo::new(BufReader::with_capacity(BUFFER, file)), Some(size)))
}
