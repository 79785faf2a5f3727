//! What a node fetches from the center piece by piece: it may be larger than memory.

use std::time::Duration;

use lodge_model::ids::Digest;
use reqwest::{Method, Response};

use crate::center::Center;
use crate::error::Error;

/// A center that sends nothing for this long will not send the rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something on its way from the center.
pub struct Download {
    response: Response,
    center: Center,
}

impl Center {
    /// `GET /node/uploads/{digest}`: what an operator has sent to be made into a template.
    pub async fn node_upload(&self, digest: &Digest) -> Result<Download, Error> {
        let request = self.request_without_limit(Method::GET, &["node", "uploads", &digest.to_string()]);
        let answer = tokio::time::timeout(PATIENCE, self.send(request)).await.map_err(|_| silent(self))?;
        Ok(Download { response: answer?, center: self.clone() })
    }
}

impl Download {
    /// Bytes in all, if the center says so.
    pub fn size(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece; `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let piece = tokio::time::timeout(PATIENCE, self.response.chunk()).await.map_err(|_| silent(&self.center))?;
        let piece = piece.map_err(|error| self.center.broken(&error))?;
        Ok(piece.map(Into::into))
    }
}

fn silent(center: &Center) -> Error {
    Error::Unreachable { url: center.url().to_owned(), why: format!("it has sent nothing for {} s", PATIENCE.as_secs()) }
}
