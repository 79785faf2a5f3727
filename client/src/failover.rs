//! Calls about incidents, takeovers and capacity (`lodge_model::incident`), and about BMCs (`lodge_model::bmc`).

use std::time::Duration;

use lodge_model::bmc::{BmcOrder, BmcTest, BmcView};
use lodge_model::guard::FencingView;
use lodge_model::incident::{ArmOrder, CapacityView, FailoverView, IncidentView};
use lodge_model::timing;
use reqwest::Method;

use crate::center::{Center, MARGIN};
use crate::error::Error;

/// A BMC is asked up to three things, and has 10 s for each answer.
const BMC: Duration = Duration::from_secs(40);

impl Center {
    /// `GET /incidents`.
    pub async fn incidents(&self) -> Result<Vec<IncidentView>, Error> {
        self.get(&["incidents"]).await
    }

    /// `GET /incidents/{id}`.
    pub async fn incident(&self, id: u64) -> Result<IncidentView, Error> {
        self.get(&["incidents", &id.to_string()]).await
    }

    /// `GET /incidents/{id}?wait=true&after=…`: held by the center for up to `timing::LONG_POLL` while the version is still this one.
    pub async fn incident_after(&self, id: u64, version: u64) -> Result<IncidentView, Error> {
        let request = self.request(Method::GET, &["incidents", &id.to_string()], timing::LONG_POLL + MARGIN);
        self.json(request.query(&[("wait", "true")]).query(&[("after", version)])).await
    }

    /// `GET /failover`.
    pub async fn failover(&self) -> Result<FailoverView, Error> {
        self.get(&["failover"]).await
    }

    /// `POST /failover/disarm`.
    pub async fn disarm(&self, order: &ArmOrder) -> Result<FailoverView, Error> {
        self.post(&["failover", "disarm"], order).await
    }

    /// `POST /failover/arm`.
    pub async fn arm(&self, order: &ArmOrder) -> Result<FailoverView, Error> {
        self.post(&["failover", "arm"], order).await
    }

    /// `GET /capacity`.
    pub async fn capacity(&self) -> Result<CapacityView, Error> {
        self.get(&["capacity"]).await
    }

    /// `GET /fencing`.
    pub async fn fencing(&self) -> Result<FencingView, Error> {
        self.get(&["fencing"]).await
    }

    /// `PUT /nodes/{name}/bmc`.
    pub async fn set_bmc(&self, node: &str, order: &BmcOrder) -> Result<BmcView, Error> {
        self.json(self.request(Method::PUT, &["nodes", node, "bmc"], BMC).json(order)).await
    }

    /// `GET /nodes/{name}/bmc`.
    pub async fn bmc(&self, node: &str) -> Result<BmcView, Error> {
        self.get(&["nodes", node, "bmc"]).await
    }

    /// `POST /nodes/{name}/bmc/test`.
    pub async fn test_bmc(&self, node: &str) -> Result<BmcTest, Error> {
        self.json(self.request(Method::POST, &["nodes", node, "bmc", "test"], BMC)).await
    }

    /// `DELETE /nodes/{name}/bmc`.
    pub async fn remove_bmc(&self, node: &str) -> Result<(), Error> {
        self.delete(&["nodes", node, "bmc"]).await
    }
}
