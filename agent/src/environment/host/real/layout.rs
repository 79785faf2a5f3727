//! Where everything of an environment is: on the share, on the state partition, and below `/run`, where only root comes.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lodge_model::environment::share;
use lodge_model::ids::{Digest, EnvironmentId};
use lodge_sys::cgroup::{self, Cgroup};
use lodge_sys::program::Program;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The tops of all trees.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Root of the share.
    pub(super) share: PathBuf,
    /// Directories of the environments of this node.
    pub(super) run: PathBuf,
    /// Mount points of templates.
    pub(super) template_mounts: PathBuf,
    /// Cache of templates.
    pub(super) cache: PathBuf,
    /// State of the container engine.
    pub(super) crun: PathBuf,
    /// Control groups of environments.
    pub(super) cgroups: PathBuf,
    /// Where lxcfs shows its files.
    pub(super) lxcfs: PathBuf,
    /// How the engine makes control groups.
    pub(super) cgroup_manager: &'static str,
    /// Who takes the other end of an environment's console: the socket that crun is told.
    pub(super) console: fn(EnvironmentId) -> Result<PathBuf>,
    /// The program that criu calls.
    pub(super) hook: PathBuf,
}

/// Control groups of environments, below the root of all.
pub(super) const CGROUPS: &str = "env";

impl Layout {
    pub(super) fn of_node(share: PathBuf) -> Self {
        Self {
            share,
            run: "/run/lodge/environments".into(),
            template_mounts: "/run/lodge/templates".into(),
            cache: "/state/templates".into(),
            crun: super::CRUN_ROOT.into(),
            cgroups: Path::new(cgroup::ROOT).join(CGROUPS),
            lxcfs: "/var/lib/lxcfs".into(),
            cgroup_manager: "cgroupfs",
            console: crate::consoles::socket_for,
            hook: Program::Agent.path().into(),
        }
    }

    /// Its directory on the share.
    pub(super) fn on_share(&self, id: EnvironmentId) -> PathBuf {
        self.share.join(share::environment(id))
    }

    /// Its disk, which has a file system.
    pub(super) fn disk(&self, id: EnvironmentId) -> PathBuf {
        self.on_share(id).join(share::DISK)
    }

    /// Its disk until it has a file system.
    pub(super) fn new_disk(&self, id: EnvironmentId) -> PathBuf {
        self.on_share(id).join(NEW_DISK)
    }

    /// There while the disk is made larger.
    pub(super) fn growing(&self, id: EnvironmentId) -> PathBuf {
        self.on_share(id).join("growing")
    }

    /// Its directory on this node.
    pub(super) fn on_node(&self, id: EnvironmentId) -> PathBuf {
        self.run.join(id.to_string())
    }

    /// Make its directory on this node. Its own root has to find its way to its file systems while the engine enters them, by names that
    /// it must know; nobody else does.
    pub(super) fn make_on_node(&self, id: EnvironmentId, id_base: u32) -> Result<()> {
        let dir = self.on_node(id);
        private_dir(&dir)?;
        let open = |path: &Path, mode: u32| fs::set_permissions(path, Permissions::from_mode(mode));
        let make = open(&self.run, 0o711).and_then(|()| chown(&dir, Some(0), Some(id_base))).and_then(|()| open(&dir, 0o710));
        make.with_context(|| format!("opening {} for its own root", dir.display()))
    }

    /// Its checkpoint, whole or not.
    pub(super) fn checkpoint(&self, id: EnvironmentId) -> PathBuf {
        self.on_share(id).join(share::CHECKPOINT)
    }

    /// A template in the cache.
    pub(super) fn cached(&self, digest: &Digest) -> PathBuf {
        self.cache.join(format!("{}.erofs", digest.hex()))
    }

    /// Its control group.
    pub(super) fn cgroup(&self, id: EnvironmentId) -> Cgroup {
        Cgroup::at(self.cgroups.join(id.to_string()))
    }

    /// What was noted of it.
    pub(super) fn notes(&self, id: EnvironmentId) -> Notes {
        Notes(self.on_node(id))
    }
}

/// Name of a disk without a file system.
const NEW_DISK: &str = "disk.new";

/// Mount point of a template with its ids mapped.
pub(super) const LOWER: &str = "lower";
/// Mount point of the disk.
pub(super) const PRIVATE: &str = "private";
/// Mount point of the overlay: the environment's root.
pub(super) const ROOT: &str = "root";
/// Mount points of devices, while its processes are given them.
pub(super) const DEVICES: &str = "devices";
/// Mount point of what a repair environment changes of its own root, in memory.
pub(super) const SCRATCH: &str = "scratch";
/// Mount point of the template of the root that is shown besides.
pub(super) const BESIDE_LOWER: &str = "beside-lower";
/// Mount point of the root that is shown besides.
pub(super) const BESIDE: &str = "beside";
/// In crun's directory of a container: where its init waits until it is started.
pub(super) const EXEC_FIFO: &str = "exec.fifo";
/// What crun is told.
pub(super) const BUNDLE: &str = "bundle";

/// A file in an environment's directory on the node. What is noted is known as long as nothing is let go of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    /// The order it was taken with.
    Order,
    /// Bytes of its disk, since it was checked.
    Checked,
    /// Its disk is read and written through the page cache.
    Cached,
    /// Process of its init.
    Init,
    /// Seconds since 1970 when it was started.
    Started,
    /// Its limits.
    Limits,
    /// Its disk is held still.
    Frozen,
    /// The epoch that a whole checkpoint was made of.
    Kept,
    /// What was mended of its file system before it was opened for repair.
    Mended,
}

impl Note {
    const fn name(self) -> &'static str {
        match self {
            Note::Order => "order.json",
            Note::Checked => "checked.json",
            Note::Cached => "cached.json",
            Note::Init => "init.json",
            Note::Started => "started.json",
            Note::Limits => "limits.json",
            Note::Frozen => "frozen.json",
            Note::Kept => "kept.json",
            Note::Mended => "mended.json",
        }
    }
}

/// The notes about one environment.
#[derive(Clone, Debug)]
pub(super) struct Notes(PathBuf);

impl Notes {
    /// What was noted; nothing where the note cannot be read.
    pub(super) fn read<T: DeserializeOwned>(&self, note: Note) -> Option<T> {
        serde_json::from_slice(&fs::read(self.path(note)).ok()?).ok()
    }

    /// Note it. `/run` is not there after a power cut: the rename alone makes it whole.
    pub(super) fn write(&self, note: Note, value: &impl Serialize) -> Result<()> {
        let path = self.path(note);
        let temporary = self.0.join(format!(".{}", note.name()));
        let write = || -> Result<()> {
            private_dir(&self.0)?;
            fs::write(&temporary, serde_json::to_vec(value)?)?;
            Ok(fs::rename(&temporary, &path)?)
        };
        write().with_context(|| format!("writing {}", path.display()))
    }

    /// It is not so any more.
    pub(super) fn remove(&self, note: Note) -> Result<()> {
        remove_file(&self.path(note))
    }

    pub(super) fn path(&self, note: Note) -> PathBuf {
        self.0.join(note.name())
    }
}

/// Remove a file; none there is fine.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("removing {}", path.display())),
        _ => Ok(()),
    }
}

/// Make a directory that only root can use; whether it was not there. On the share one question does for both.
pub(super) fn new_private_dir(path: &Path) -> Result<bool> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => private_dir(path).map(|()| true),
        made => made.map(|()| true).with_context(|| format!("making {}", path.display())),
    }
}

/// Make a directory, and those above it, that only root can use.
pub(super) fn private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("making {}", path.display()))
}
