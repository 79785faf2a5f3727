//! Calls about environments, templates, address pools and users. Paths and bodies are documented in `lodge_model::environment::view`.

use std::collections::BTreeMap;

use futures_util::stream;
use lodge_model::environment::spec::{Change, Spec};
use lodge_model::environment::view::{
    CheckOrder, CloneOrder, EnvironmentView, Labels, Pool, PoolView, ReinstallOrder, RepairEnd, RepairOrder, SnapshotOrder,
    SnapshotView, TemplateView, UserOrder, UserToken, UserView,
};
use lodge_model::timing;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, RequestBuilder};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::center::{Center, MARGIN};
use crate::error::Error;

/// Bytes of an upload that are read at once.
const PIECE: usize = 256 << 10;

/// What is done to an environment that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It is to run.
    Start,
    /// Its init is told to shut it down.
    Stop,
    /// Stopped, and started again.
    Restart,
    /// Ended at once.
    Kill,
}

impl Power {
    fn path(self) -> &'static str {
        match self {
            Power::Start => "start",
            Power::Stop => "stop",
            Power::Restart => "restart",
            Power::Kill => "kill",
        }
    }
}

/// Changes to a quota, by the names of `view::Quota`: what is absent stays, `None` is no limit.
pub type QuotaChange = BTreeMap<&'static str, Option<u64>>;

/// A template on its way to the center.
pub struct Upload<R, P> {
    /// Where it is read from.
    pub from: R,
    /// Bytes in all.
    pub size: u64,
    /// Told how many bytes more have been handed to the connection.
    pub progress: P,
}

// ---- environments ----------------------------------------------------------------------------------------------------------

impl Center {
    /// `GET /environments`.
    pub async fn environments(&self) -> Result<Vec<EnvironmentView>, Error> {
        self.get(&["environments"]).await
    }

    /// `GET /environments/{name}`.
    pub async fn environment(&self, name: &str) -> Result<EnvironmentView, Error> {
        self.get(&["environments", name]).await
    }

    /// `GET /environments/{name}?wait=true&after=…`: held by the center for up to `timing::LONG_POLL` while the version is still this one.
    pub async fn environment_after(&self, name: &str, version: u64) -> Result<EnvironmentView, Error> {
        let request = self.request(Method::GET, &["environments", name], timing::LONG_POLL + MARGIN);
        self.json(request.query(&[("wait", "true")]).query(&[("after", version)])).await
    }

    /// `POST /environments`; with `force` even if no node could die any more then without loss, here and below.
    pub async fn create_environment(&self, spec: &Spec, force: bool) -> Result<(), Error> {
        self.send(self.admitted(Method::POST, &["environments"], force).json(spec)).await.map(drop)
    }

    /// `PATCH /environments/{name}`.
    pub async fn change_environment(&self, name: &str, change: &Change, force: bool) -> Result<(), Error> {
        self.send(self.admitted(Method::PATCH, &["environments", name], force).json(change)).await.map(drop)
    }

    /// `DELETE /environments/{name}`.
    pub async fn destroy_environment(&self, name: &str) -> Result<(), Error> {
        self.delete(&["environments", name]).await
    }

    /// `POST /environments/{name}/{start,stop,restart,kill}`.
    pub async fn power(&self, name: &str, power: Power, force: bool) -> Result<(), Error> {
        self.send(self.admitted(Method::POST, &["environments", name, power.path()], force)).await.map(drop)
    }

    /// `GET /environments/{name}/snapshots`.
    pub async fn snapshots(&self, name: &str) -> Result<Vec<SnapshotView>, Error> {
        self.get(&["environments", name, "snapshots"]).await
    }

    /// `POST /environments/{name}/snapshots`.
    pub async fn snapshot(&self, name: &str, order: &SnapshotOrder) -> Result<SnapshotView, Error> {
        self.post(&["environments", name, "snapshots"], order).await
    }

    /// `DELETE /environments/{name}/snapshots/{snapshot}`.
    pub async fn remove_snapshot(&self, name: &str, snapshot: &str) -> Result<(), Error> {
        self.delete(&["environments", name, "snapshots", snapshot]).await
    }

    /// `POST /environments/{name}/snapshots/{snapshot}/rollback`.
    pub async fn rollback(&self, name: &str, snapshot: &str) -> Result<(), Error> {
        let path = ["environments", name, "snapshots", snapshot, "rollback"];
        self.send(self.request(Method::POST, &path, MARGIN)).await.map(drop)
    }

    /// `POST /environments/{name}/repair`.
    pub async fn repair(&self, name: &str, order: &RepairOrder, force: bool) -> Result<(), Error> {
        self.send(self.admitted(Method::POST, &["environments", name, "repair"], force).json(order)).await.map(drop)
    }

    /// `POST /environments/{name}/repair/finish`.
    pub async fn finish_repair(&self, name: &str, end: RepairEnd) -> Result<(), Error> {
        self.post_only(&["environments", name, "repair", "finish"], &end).await
    }

    /// `POST /environments/{name}/fsck`.
    pub async fn check_disk(&self, name: &str, order: CheckOrder) -> Result<EnvironmentView, Error> {
        self.post(&["environments", name, "fsck"], &order).await
    }

    /// `POST /environments/{name}/reinstall`.
    pub async fn reinstall_environment(&self, name: &str, order: &ReinstallOrder, force: bool) -> Result<(), Error> {
        self.send(self.admitted(Method::POST, &["environments", name, "reinstall"], force).json(order)).await.map(drop)
    }

    /// `POST /environments/{name}/clone`.
    pub async fn clone_environment(&self, name: &str, order: &CloneOrder, force: bool) -> Result<(), Error> {
        self.send(self.admitted(Method::POST, &["environments", name, "clone"], force).json(order)).await.map(drop)
    }

    /// `GET /environments/{name}/logs`: bytes, as they were printed. The center asks the node for them.
    pub async fn logs(&self, name: &str) -> Result<Vec<u8>, Error> {
        let request = self.request(Method::GET, &["environments", name, "logs"], timing::LONG_POLL + MARGIN);
        let response = self.send(request).await?;
        response.bytes().await.map(|bytes| bytes.to_vec()).map_err(|error| self.broken(&error))
    }
}

// ---- templates -------------------------------------------------------------------------------------------------------------

impl Center {
    /// `GET /templates`.
    pub async fn templates(&self) -> Result<Vec<TemplateView>, Error> {
        self.get(&["templates"]).await
    }

    /// `GET /templates/{name}`.
    pub async fn template(&self, name: &str) -> Result<TemplateView, Error> {
        self.get(&["templates", name]).await
    }

    /// `PUT /templates/{name}`: the archive as it is. It is imported after this has returned; `template` tells how that stands.
    pub async fn import_template<R, P>(&self, name: &str, upload: Upload<R, P>) -> Result<(), Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
        P: Fn(u64) + Send + 'static,
    {
        let size = upload.size;
        let pieces = stream::try_unfold(upload, |mut upload| async move {
            let mut piece = vec![0; PIECE];
            let read = upload.from.read(&mut piece).await?;
            piece.truncate(read);
            (upload.progress)(read as u64);
            Ok::<_, std::io::Error>((read > 0).then_some((piece, upload)))
        });
        let request = self.request_without_limit(Method::PUT, &["templates", name]);
        let request = request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, size);
        self.send(request.body(Body::wrap_stream(pieces))).await.map(drop)
    }

    /// `DELETE /templates/{name}`.
    pub async fn remove_template(&self, name: &str) -> Result<(), Error> {
        self.delete(&["templates", name]).await
    }
}

// ---- pools, users, nodes ---------------------------------------------------------------------------------------------------

impl Center {
    /// `GET /pools`.
    pub async fn pools(&self) -> Result<Vec<PoolView>, Error> {
        self.get(&["pools"]).await
    }

    /// `POST /pools`.
    pub async fn add_pool(&self, pool: &Pool) -> Result<(), Error> {
        self.post_only(&["pools"], pool).await
    }

    /// `DELETE /pools/{name}`.
    pub async fn remove_pool(&self, name: &str) -> Result<(), Error> {
        self.delete(&["pools", name]).await
    }

    /// `GET /users`.
    pub async fn users(&self) -> Result<Vec<UserView>, Error> {
        self.get(&["users"]).await
    }

    /// `GET /users/{name}`.
    pub async fn user(&self, name: &str) -> Result<UserView, Error> {
        self.get(&["users", name]).await
    }

    /// `POST /users`.
    pub async fn add_user(&self, order: &UserOrder) -> Result<UserToken, Error> {
        self.post(&["users"], order).await
    }

    /// `PATCH /users/{name}`.
    pub async fn change_quota(&self, name: &str, change: &QuotaChange) -> Result<(), Error> {
        self.patch_only(&["users", name], change).await
    }

    /// `DELETE /users/{name}/tokens`.
    pub async fn revoke_user_tokens(&self, name: &str) -> Result<(), Error> {
        self.delete(&["users", name, "tokens"]).await
    }

    /// `DELETE /users/{name}`.
    pub async fn remove_user(&self, name: &str) -> Result<(), Error> {
        self.delete(&["users", name]).await
    }

    /// `POST /users/{name}/tokens`.
    pub async fn mint_user_token(&self, name: &str) -> Result<UserToken, Error> {
        self.json(self.request(Method::POST, &["users", name, "tokens"], MARGIN)).await
    }

    /// `PATCH /nodes/{name}/labels`: an empty value removes a label.
    pub async fn set_labels(&self, node: &str, labels: &Labels) -> Result<(), Error> {
        self.patch_only(&["nodes", node, "labels"], labels).await
    }

    /// `POST /nodes/{name}/confirm-off`: an operator's word that the machine is off.
    pub async fn confirm_off(&self, node: &str) -> Result<(), Error> {
        self.send(self.request(Method::POST, &["nodes", node, "confirm-off"], MARGIN)).await.map(drop)
    }
}

// ---- how ---------------------------------------------------------------------------------------------------------------------

impl Center {
    /// What may be refused because it leaves no room for the environments of a node that dies.
    fn admitted(&self, method: Method, path: &[&str], force: bool) -> RequestBuilder {
        let request = self.request(method, path, MARGIN);
        if force { request.query(&[("force", "true")]) } else { request }
    }

    async fn patch_only(&self, path: &[&str], body: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.send(self.request(Method::PATCH, path, MARGIN).json(body)).await.map(drop)
    }

    pub(crate) async fn delete(&self, path: &[&str]) -> Result<(), Error> {
        self.send(self.request(Method::DELETE, path, MARGIN)).await.map(drop)
    }
}
