//! /etc: the image's, with what this node is laid over it in memory. It is made anew at every boot from the node's state.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use lodge_model::node::NodeFile;
use lodge_sys::mount::{Mount, MsFlags};

const LAYER: &str = "/run/lodge/etc";

/// Lay the overlay over /etc, write the node's files into it, and tell the kernel its name.
pub fn mount(node: &NodeFile) -> Result<()> {
    let (upper, work) = (format!("{LAYER}/upper"), format!("{LAYER}/work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).with_context(|| format!("making {dir}"))?;
    }
    let data = format!("lowerdir=/etc,upperdir={upper},workdir={work}");
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    Mount { source: "overlay", target: "/etc", fstype: "overlay", flags, data: &data }.mount()?;
    for (name, content) in files(node) {
        let path = Path::new("/etc").join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    }
    nix::unistd::sethostname(&node.name).with_context(|| format!("setting the host name {:?}", node.name))
}

/// What is generated, as name and content.
fn files(node: &NodeFile) -> [(&'static str, String); 3] {
    let name = &node.name;
    // hosts(5). 127.0.1.1 is Debian's address for a host's own name when its real one may change.
    let hosts = format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    // machine-id(5): 32 hexadecimal digits. A center machine has no node id before its first registration.
    let id = node.node.map_or(node.machine.0, |node| node.0);
    [("hostname", format!("{name}\n")), ("hosts", hosts), ("machine-id", format!("{}\n", id.simple()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_files_say_who_it_is() {
        let text = r#"{"machine":"11111111-1111-1111-1111-111111111111","name":"node1","roles":["worker"],"disk_serial":"S"}"#;
        let mut node: NodeFile = serde_json::from_str(text).unwrap();
        let [hostname, hosts, id] = files(&node);
        assert_eq!(hostname.1, "node1\n");
        assert!(hosts.1.contains("127.0.1.1\tnode1\n"));
        assert_eq!(id.1, "11111111111111111111111111111111\n");
        node.node = Some("22222222-2222-2222-2222-222222222222".parse().unwrap());
        assert_eq!(files(&node)[2].1, "22222222222222222222222222222222\n");
    }
}
