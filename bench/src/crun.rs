//! The peer `crun run`: what the agent told crun about an environment, with only what must differ changed, and a link made by hand.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::order::IDS;
use lodge_sys::program::Program;
use serde_json::{Value, json};

use crate::peer::{Peer, WORK, call};

/// Start it.
pub fn start(peer: &Peer, like: &Path) -> Result<()> {
    let text = fs::read(like).with_context(|| format!("reading {}", like.display()))?;
    let config = config(peer, serde_json::from_slice(&text).with_context(|| format!("reading {}", like.display()))?);
    let path = peer.dir().join("config.json");
    fs::write(&path, config.to_string()).with_context(|| format!("writing {}", path.display()))?;
    let pid_file = peer.dir().join("pid");
    let mut run = crun();
    run.args(["run", "--detach", "--bundle"]).arg(peer.dir()).arg("--pid-file").arg(&pid_file).arg(&peer.name);
    // Inherited pipes would be held for as long as it lives.
    run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !run.status().context("starting crun")?.success() {
        bail!("{run:?} failed");
    }
    let pid = fs::read_to_string(&pid_file).with_context(|| format!("reading {}", pid_file.display()))?;
    connect(peer, pid.trim())
}

/// End it.
pub fn stop(peer: &Peer) -> Result<()> {
    call(crun().args(["delete", "--force"]).arg(&peer.name))
}

fn crun() -> Command {
    let mut command = Command::new(Program::Crun.path());
    command.args(["--root", &format!("{WORK}/crun"), "--cgroup-manager", "cgroupfs"]);
    command
}

fn config(peer: &Peer, mut config: Value) -> Value {
    let ids = json!([{"containerID": 0, "hostID": peer.base(), "size": IDS}]);
    config["hostname"] = peer.name.clone().into();
    config["root"]["path"] = peer.dir().join("root").to_string_lossy().into();
    config["process"]["terminal"] = false.into();
    config["linux"]["uidMappings"] = ids.clone();
    config["linux"]["gidMappings"] = ids;
    config["linux"]["cgroupsPath"] = format!("/bench/{}", peer.name).into();
    config
}

/// A pair of links: one end a port of the node's bridge, the other the container's `eth0`.
fn connect(peer: &Peer, pid: &str) -> Result<()> {
    let (name, mac) = (&peer.name, peer.mac());
    ip(
        Command::new("ip"),
        &format!("link add {name} type veth peer name eth0 address {mac} netns {pid}\nlink set {name} master br0 up\n"),
    )?;
    let mut inside = Command::new("nsenter");
    inside.args(["--target", pid, "--net", "ip"]);
    ip(inside, &format!("address add {}/24 dev eth0\nlink set lo up\nlink set eth0 up\n", peer.address))
}

fn ip(mut command: Command, lines: &str) -> Result<()> {
    command.args(["-batch", "-"]).stdin(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child = command.spawn().with_context(|| format!("starting {shown}"))?;
    child
        .stdin
        .take()
        .context("no standard input")?
        .write_all(lines.as_bytes())
        .with_context(|| format!("writing to {shown}"))?;
    if !child.wait().with_context(|| format!("waiting for {shown}"))?.success() {
        bail!("{shown} failed with {lines:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_must_differ_is_changed() {
        let peer = Peer { name: "p1".into(), number: 1, address: [10, 77, 0, 201].into() };
        let like = json!({
            "hostname": "web1", "root": {"path": "/x", "readonly": false}, "process": {"terminal": true, "args": ["/sbin/init"]},
            "linux": {"cgroupsPath": "/env/7", "uidMappings": [], "gidMappings": [], "seccomp": {"defaultAction": "x"}},
        });
        let made = config(&peer, like);
        assert_eq!(made["process"]["args"], json!(["/sbin/init"]));
        assert_eq!(made["linux"]["seccomp"]["defaultAction"], "x");
        assert_eq!(made["linux"]["uidMappings"][0]["hostID"], 20_001 * 65_536);
        assert_eq!(made["linux"]["cgroupsPath"], "/bench/p1");
    }
}
