//! What this program does when criu calls it (criu(8), `--action-script`): the moment is in its environment, and it has no arguments.
//!
//! | moment | what |
//! |---|---|
//! | `post-dump` | everything is written, and the processes still stand: only when the checkpoint is whole they are ended |
//! | `post-setup-namespaces` | the control groups are made before processes come into them, and connections find their network prepared |

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{DRAFT, GROUPS, HERE, RECORD, Record, groups};
use crate::durable;

/// The name of the moment.
pub const MOMENT: &str = "CRTOOLS_SCRIPT_ACTION";
/// Where the images are.
const IMAGES: &str = "CRTOOLS_IMAGE_DIR";
/// Its init, as the node numbers it.
const INIT: &str = "CRTOOLS_INIT_PID";

/// Where the environment is on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Here {
    /// Its control group.
    pub cgroup: PathBuf,
    /// The file that says that a whole checkpoint was made.
    pub kept: PathBuf,
}

/// Do what is to be done at this moment.
pub fn run(moment: &str) -> Result<()> {
    let images =
        || -> Result<PathBuf> { Ok(std::env::var_os(IMAGES).context("criu does not say where its images are")?.into()) };
    match moment {
        "post-dump" => seal(&images()?),
        "post-setup-namespaces" => {
            make_groups(&images()?)?;
            let init = std::env::var(INIT).ok().and_then(|pid| pid.parse().ok());
            unscaled(init.context("criu does not say which its init is")?)
        }
        _ => Ok(()),
    }
}

/// The checkpoint is whole. The share says so first: a note on the node without it would be a promise that nobody keeps.
fn seal(images: &Path) -> Result<()> {
    let record: Record = read(&images.join(DRAFT))?;
    let here: Here = read(&images.join(HERE))?;
    for entry in fs::read_dir(images).with_context(|| format!("listing {}", images.display()))? {
        let path = entry.with_context(|| format!("listing {}", images.display()))?.path();
        File::open(&path).and_then(|file| file.sync_all()).with_context(|| format!("syncing {}", path.display()))?;
    }
    let (draft, whole) = (images.join(DRAFT), images.join(RECORD));
    fs::rename(&draft, &whole).with_context(|| format!("renaming {}", draft.display()))?;
    File::open(images).and_then(|dir| dir.sync_all()).with_context(|| format!("syncing {}", images.display()))?;
    durable::write(&here.kept, &serde_json::to_vec(&record.epoch)?, 0o600)
}

fn make_groups(images: &Path) -> Result<()> {
    let groups: Vec<groups::Group> = read(&images.join(GROUPS))?;
    let here: Here = read(&images.join(HERE))?;
    groups::restore(&here.cgroup, &groups)
}

/// A connection whose other end does not scale windows gets no word about that from criu, and would be made again with whatever this
/// kernel begins a connection with: its window would be told 16,384 times too small. So connections begin without scaling, and criu says
/// the scale of those that have one. The setting is put back with the others.
fn unscaled(init: u32) -> Result<()> {
    lodge_network::set_setting(init, lodge_network::WINDOW_SCALING, "0")
}

/// A file of a checkpoint.
pub fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_model::ids::EnvironmentId;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    #[test]
    fn a_checkpoint_is_whole_only_after_the_last_word() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        fs::create_dir(&images).unwrap();
        let record = Record {
            environment: EnvironmentId(Uuid::from_u128(7)),
            epoch: 3,
            since: 1,
            mounts: Vec::new(),
            console: None,
            settings: BTreeMap::new(),
        };
        let here = Here { cgroup: dir.path().join("group"), kept: dir.path().join("kept.json") };
        assert!(seal(&images).is_err() && !here.kept.exists());
        fs::write(images.join(DRAFT), serde_json::to_vec(&record).unwrap()).unwrap();
        fs::write(images.join(HERE), serde_json::to_vec(&here).unwrap()).unwrap();
        seal(&images).unwrap();
        assert_eq!(read::<Record>(&images.join(RECORD)).unwrap(), record);
        assert_eq!(read::<u64>(&here.kept).unwrap(), 3);
    }
}
