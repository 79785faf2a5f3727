//! Who the node is: key, certificate, node.json; and the proof that it can use the share.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lodge_model::{
    api::{EnrolRequest, ShareMount},
    node::NodeFile,
    paths,
};
use lodge_sys::{mount, nfs};

use super::{Apply, Progress, slot};

/// Where the share is mounted for its proof.
const SHARE: &str = "/run/lodge/install/share";
const UNMOUNT: Duration = Duration::from_secs(15);

impl Apply<'_> {
    pub(super) fn enrol(&mut self, progress: &mut Progress) -> Result<()> {
        let state = progress.state.as_ref().context("the state partition is not mounted")?.dir();
        let enrolment = self.enrolment.as_ref().context("there is no center to enrol at")?;
        let (key, csr) = lodge_client::new_key_and_csr()?;
        write(state, paths::NODE_KEY, 0o600, key.0.as_bytes())?;
        let request = EnrolRequest {
            ticket: Some(enrolment.ticket.id),
            name: None,
            roles: Vec::new(),
            csr: csr.0,
            address: enrolment.uplink.ip().to_owned(),
        };
        let reply = enrolment.runtime.block_on(enrolment.center.enrol(self.machine, &request));
        let reply = reply.with_context(|| format!("enrolling at {}", enrolment.center.url()))?;
        anyhow::ensure!(
            reply.node == enrolment.ticket.node,
            "the center certified node {} where its ticket names {}",
            reply.node,
            enrolment.ticket.node
        );
        write(state, paths::NODE_CERT, 0o644, reply.certificate.as_bytes())?;
        write(state, paths::CA_CERT, 0o644, reply.ca.as_bytes())?;
        progress.share = reply.share;
        Ok(())
    }

    pub(super) fn node_files(&mut self, progress: &Progress) -> Result<()> {
        let state = progress.state.as_ref().context("the state partition is not mounted")?.dir();
        let is_center = self.plan.roles.contains(&lodge_model::node::Role::Center);
        let file = NodeFile {
            machine: self.machine,
            node: self.plan.node,
            name: self.plan.name.clone(),
            roles: self.plan.roles.clone(),
            center: self.enrolment.as_ref().map(|enrolment| enrolment.center_ref.clone()),
            network: self.network.clone(),
            site: is_center.then(|| self.site.clone().unwrap_or_default()),
            disk_serial: self.plan.disk.serial.clone(),
        };
        let text = serde_json::to_vec_pretty(&file).context("writing down what the node is")?;
        write(state, paths::NODE_FILE, 0o600, &text)
    }

    pub(super) fn prove_share(&mut self, progress: &Progress) -> Result<()> {
        let enrolment = self.enrolment.as_ref().context("there is no center to ask for the share")?;
        let Some(ShareMount::Nfs { server }) = &progress.share else {
            self.report.note("no share is registered yet; the node mounts it when there is one");
            return Ok(());
        };
        let server: IpAddr = server.parse().with_context(|| format!("reading the share's address {server:?}"))?;
        let client: IpAddr = enrolment.uplink.ip().parse().context("reading this machine's address")?;
        let target = Path::new(SHARE);
        // One left by a try that failed.
        if mount::is_mounted(target)? {
            mount::unmount_within(target, UNMOUNT)?;
        }
        nfs::mount(server, client, target)?;
        let proven = nfs::prove(&target.join("nodes").join(enrolment.ticket.node.to_string()));
        let unmounted = mount::unmount_within(target, UNMOUNT);
        let took = proven?;
        if let mount::Unmounted::Detached(why) = unmounted? {
            self.report.note(&format!("the share could not be unmounted in order: {why}"));
        }
        self.report.note(&format!("the share at {server} takes and keeps what is written ({} ms)", took.as_millis()));
        Ok(())
    }
}

/// Write a file of the installed system's state, whole or not at all.
fn write(state: &Path, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let path = slot::below(state, path)?;
    let dir = path.parent().context("naming a directory")?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("making {}", dir.display()))?;
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file: File = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new)
        .with_context(|| format!("making {}", new.display()))?;
    file.write_all(content).and_then(|()| file.sync_all()).with_context(|| format!("writing {}", new.display()))?;
    fs::rename(&new, &path).with_context(|| format!("putting {} into place", path.display()))?;
    slot::sync_dir(dir)
}
