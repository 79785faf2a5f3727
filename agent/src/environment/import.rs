//! Making a template on the share of what the center was sent: fetched piece by piece, never whole on this node.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use lodge_client::{Center, Download};
use lodge_model::environment::share;
use lodge_model::ids::Digest;
use lodge_template::Limits;
use tokio::runtime::Handle;

use super::host::Progress;
use super::tasks::Import;

/// Where large things that are thrown away are put.
pub const WORK: &str = "/state/var/lib/lodge/import";

/// Imports into the share at this path. The calls come from a thread outside of the runtime.
pub fn into_share(share: &Path, center: Center, runtime: Handle) -> Import {
    let target: PathBuf = share.join(share::TEMPLATES);
    Arc::new(move |upload: &Digest, progress: &dyn Progress| {
        let download = runtime.block_on(center.node_upload(upload)).context("fetching the upload from the center")?;
        let size = download.size();
        let mut archive = Pieces { download, runtime: runtime.clone(), piece: Vec::new(), at: 0 };
        let order = lodge_template::Import {
            archive: &mut archive,
            size,
            digest: Some(upload),
            work: Path::new(WORK),
            target: &target,
            limits: Limits::default(),
        };
        Ok(lodge_template::import(order, &mut |percent| progress.percent(percent))?)
    })
}

/// What comes from the center, as a file to be read once.
struct Pieces {
    download: Download,
    runtime: Handle,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.runtime.block_on(self.download.piece()).map_err(io::Error::other)? {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let read = (&self.piece[self.at..]).read(into)?;
        self.at += read;
        Ok(read)
    }
}
