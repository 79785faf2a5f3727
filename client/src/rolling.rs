//! Calls about the reboot of the whole cluster (`lodge_model::rolling`).

use lodge_model::rolling::{RebootOrder, RebootView};
use lodge_model::timing;
use reqwest::Method;

use crate::center::{Center, MARGIN};
use crate::error::Error;

const PATH: [&str; 2] = ["cluster", "reboot"];

impl Center {
    /// `POST /cluster/reboot`.
    pub async fn reboot_cluster(&self, order: &RebootOrder) -> Result<RebootView, Error> {
        self.post(&PATH, order).await
    }

    /// `GET /cluster/reboot`.
    pub async fn cluster_reboot(&self) -> Result<RebootView, Error> {
        self.get(&PATH).await
    }

    /// `GET /cluster/reboot?wait=true&after=…`: held by the center for up to `timing::LONG_POLL` while the version is still this one.
    pub async fn cluster_reboot_after(&self, version: u64) -> Result<RebootView, Error> {
        let request = self.request(Method::GET, &PATH, timing::LONG_POLL + MARGIN);
        self.json(request.query(&[("wait", "true")]).query(&[("after", version)])).await
    }

    /// `POST /cluster/reboot/continue`.
    pub async fn continue_cluster_reboot(&self) -> Result<RebootView, Error> {
        self.post(&["cluster", "reboot", "continue"], &()).await
    }

    /// `DELETE /cluster/reboot`.
    pub async fn cancel_cluster_reboot(&self) -> Result<RebootView, Error> {
        self.json(self.request(Method::DELETE, &PATH, MARGIN)).await
    }
}
