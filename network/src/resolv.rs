//! The resolver's file (resolv.conf(5)).

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};

use crate::Uplink;

/// Write the uplink's name servers to `path` (`/etc/resolv.conf`), whole or not at all.
pub fn write_resolv_conf(uplink: &Uplink, path: &Path) -> Result<()> {
    let text: String = uplink.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    let write = || -> Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        let new = path.with_extension("conf.new");
        fs::File::create(&new).and_then(|mut file| file.write_all(text.as_bytes()))?;
        fs::rename(&new, path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}
