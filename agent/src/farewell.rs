//! The node's last word: when everything has been stopped for a shutdown, it counts, signs, and leaves that on the share, so that a center
//! that was away starts elsewhere what ran here as soon as it is back. While anything is left there is no last word.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use lodge_client::{KeyPem, sign_last_word};
use lodge_model::drain::{Cause, Power};
use lodge_model::farewell::{LastWord, word_path};
use lodge_model::ids::{BootId, NodeId};

use crate::durable;
use crate::leave::{Count, unix_time};

/// There once the last word has been said: an agent that is started again in this boot starts nothing, or the word would be a lie.
pub const SAID: &str = "/run/lodge/said-farewell";

/// Whether it has been said in this boot.
pub fn is_said() -> bool {
    Path::new(SAID).exists()
}

/// Says it.
pub struct Farewell {
    /// The node.
    pub node: NodeId,
    /// This boot.
    pub boot: BootId,
    /// Its key.
    pub key: KeyPem,
    /// Its certificate (PEM).
    pub certificate: String,
    /// Where the share is.
    pub share: PathBuf,
    /// Whether it is mounted.
    pub has_share: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Counts what is left.
    pub count: Count,
    /// Where it is noted that it has been said (`SAID`).
    pub note: PathBuf,
}

impl Farewell {
    /// Count, sign, write. It hangs with the share: on a thread, and not waited for without a limit.
    pub async fn say(self: Arc<Self>, cause: Cause, power: Power) -> Result<()> {
        tokio::task::spawn_blocking(move || self.write(cause, power)).await.context("waiting for a thread")?
    }

    fn write(&self, cause: Cause, power: Power) -> Result<()> {
        ensure!((self.has_share)(), "the share is not mounted");
        let counts = (self.count)()?;
        ensure!(counts.are_zero(), "there are still {}", counts.words());
        let word = LastWord { node: self.node, last_of: self.boot, at: unix_time(), cause, power, counts };
        let signed = sign_last_word(&word, &self.key, &self.certificate)?;
        let json = serde_json::to_vec(&signed).context("encoding it")?;
        durable::write(&self.note, b"", 0o600)?;
        durable::write(&self.share.join(word_path(self.node)), &json, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_client::new_key_and_csr;
    use lodge_model::drain::Counts;
    use lodge_model::farewell::SignedWord;
    use uuid::Uuid;

    fn farewell(share: &std::path::Path, processes: u32, is_mounted: bool) -> Arc<Farewell> {
        let (key, _) = new_key_and_csr().unwrap();
        let certificate = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n".to_owned();
        Arc::new(Farewell {
            node: NodeId(Uuid::from_u128(7)),
            boot: BootId(Uuid::from_u128(8)),
            key,
            certificate,
            share: share.to_owned(),
            has_share: Arc::new(move || is_mounted),
            count: Arc::new(move || Ok(Counts { processes, ..Counts::default() })),
            note: share.join("note"),
        })
    }

    #[tokio::test]
    async fn it_is_left_when_nothing_is_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(word_path(NodeId(Uuid::from_u128(7))));
        let say = |processes, is_mounted| farewell(dir.path(), processes, is_mounted).say(Cause::Ups, Power::Poweroff);
        let error = say(2, true).await.unwrap_err();
        assert!(error.to_string().contains("2 processes") && !path.exists(), "{error:#}");
        let note = dir.path().join("note");
        assert!(!note.exists());
        assert!(say(0, false).await.is_err() && !path.exists());
        say(0, true).await.unwrap();
        assert!(note.exists());
        let word: SignedWord = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let said: LastWord = serde_json::from_str(&word.signed.payload).unwrap();
        assert_eq!((said.last_of, said.cause, word.signer.as_str()), (BootId(Uuid::from_u128(8)), Cause::Ups, "AAEC"));
    }
}
