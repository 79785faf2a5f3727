//! Kernel modules by name and by modalias: a parser for kmod's text indexes (modules.dep(5); `modules.alias`, `modules.softdep`) and
//! finit_module(2). It runs before there is a udev, and nothing else in the initrd loads a module for a device.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::{self, File},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
};

mod index;
pub use index::Index;

/// The modules of the running kernel, and which of them have been loaded from here.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    index: Index,
    /// From the kernel command line: `NAME.PARAMETER=VALUE` words and `modprobe.blacklist=`.
    command_line: String,
    loaded: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Modules {
    /// Read the indexes of the running kernel.
    pub fn open(command_line: &str) -> Result<Self> {
        let release =
            nix::sys::utsname::uname().context("asking for the kernel's release")?.release().to_string_lossy().into_owned();
        Self::open_in(&Path::new("/lib/modules").join(release), command_line)
    }

    fn open_in(dir: &Path, command_line: &str) -> Result<Self> {
        let read =
            |name: &str| fs::read_to_string(dir.join(name)).with_context(|| format!("reading {}", dir.join(name).display()));
        // Only modules.dep must be there: a kernel may have no aliases or soft dependencies.
        let index = Index::parse(
            &read("modules.dep")?,
            read("modules.alias").unwrap_or_default(),
            &read("modules.softdep").unwrap_or_default(),
        );
        Ok(Self {
            dir: dir.to_owned(),
            index,
            command_line: command_line.to_owned(),
            loaded: BTreeSet::new(),
            seen: BTreeSet::new(),
        })
    }

    /// Load a module and what it needs; one that is built in, or not there, is fine (`false`): the next step that needs it says so.
    pub fn load(&mut self, name: &str) -> Result<bool> {
        let Some(plan) = self.index.plan(name) else { return Ok(false) };
        let mut newly = false;
        for step in plan {
            if self.loaded.contains(&step.name) {
                continue;
            }
            match self.insert(&step.path, &step.name) {
                Ok(()) => newly = true,
                // A soft dependency is a wish; a missing device or a second driver for it is the module's own affair.
                Err(_) if !step.required => {}
                Err(error) => return Err(error),
            }
            self.loaded.insert(step.name);
        }
        Ok(newly)
    }

    /// Load the drivers for a device. Returns what could not be loaded.
    pub fn load_for(&mut self, modalias: &str) -> Vec<anyhow::Error> {
        if !self.seen.insert(modalias.to_owned()) {
            return Vec::new();
        }
        let names = self.index.for_modalias(modalias);
        let wanted = names.into_iter().filter(|name| !is_blacklisted(&self.command_line, name)).collect::<Vec<_>>();
        wanted.iter().filter_map(|name| self.load(name).err()).collect()
    }

    /// Load the drivers for every device that the kernel knows and that was not looked at before. Returns how many devices were
    /// new, and what could not be loaded. `pulse` is called between devices.
    pub fn coldplug(&mut self, pulse: &mut dyn FnMut()) -> (usize, Vec<anyhow::Error>) {
        let mut aliases = BTreeSet::new();
        collect_modaliases(Path::new("/sys/devices"), &mut aliases);
        let new: Vec<String> = aliases.into_iter().filter(|alias| !self.seen.contains(alias)).collect();
        let mut errors = Vec::new();
        for alias in &new {
            errors.extend(self.load_for(alias));
            pulse();
        }
        (new.len(), errors)
    }

    fn insert(&self, path: &str, name: &str) -> Result<()> {
        let path = self.dir.join(path);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let parameters = CString::new(parameters(&self.command_line, name)).context("reading a module's parameters")?;
        // The kernel unpacks compressed modules itself (MODULE_INIT_COMPRESSED_FILE, linux/module.h).
        let is_plain = path.extension().is_some_and(|extension| extension == "ko");
        let flags = ModuleInitFlags::from_bits_retain(if is_plain { 0 } else { 4 });
        match finit_module(file.as_fd(), &parameters, flags) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            // No such device: the driver looked and found nothing to drive.
            Err(Errno::ENODEV) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("loading {}", path.display())),
        }
    }
}

/// Parameters of a module that the kernel command line gives.
fn parameters(command_line: &str, module: &str) -> String {
    let words = command_line.split_whitespace().filter_map(|word| {
        let (name, parameter) = word.split_once('.')?;
        (index::normal(name) == module && parameter.contains('=')).then_some(parameter)
    });
    words.collect::<Vec<_>>().join(" ")
}

fn is_blacklisted(command_line: &str, module: &str) -> bool {
    let lists = command_line.split_whitespace().filter_map(|word| word.strip_prefix("modprobe.blacklist="));
    lists.flat_map(|list| list.split(',')).any(|name| index::normal(name) == module)
}

/// Walk a part of sysfs without following links.
fn collect_modaliases(dir: &Path, found: &mut BTreeSet<String>) {
    // Devices come and go while this walks: what cannot be read is not there.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect_modaliases(&entry.path(), found);
        } else if entry.file_name() == "modalias"
            && let Ok(text) = fs::read_to_string(entry.path())
            && !text.trim().is_empty()
        {
            found.insert(text.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_gives_parameters_and_blacklists() {
        let line =
            "quiet softdog.soft_margin=30 lodge.mode=node nvme-core.io_timeout=9 nvme_core.x=1 modprobe.blacklist=ast,i6300esb";
        assert_eq!(parameters(line, "softdog"), "soft_margin=30");
        assert_eq!(parameters(line, "nvme_core"), "io_timeout=9 x=1");
        assert_eq!(parameters(line, "ext4"), "");
        assert!(is_blacklisted(line, "i6300esb") && !is_blacklisted(line, "i6300"));
    }

    #[test]
    fn modaliases_are_collected_once() {
        let sys = tempfile::tempdir().unwrap();
        for (device, alias) in [("a/b", "pci:x\n"), ("a", "pci:x\n"), ("c", "\n"), ("d", "acpi:PNP0C0C:\n")] {
            fs::create_dir_all(sys.path().join(device)).unwrap();
            fs::write(sys.path().join(device).join("modalias"), alias).unwrap();
        }
        let mut found = BTreeSet::new();
        collect_modaliases(sys.path(), &mut found);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["acpi:PNP0C0C:", "pci:x"]);
    }

    #[test]
    fn a_module_that_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("modules.dep"), "").unwrap();
        assert!(!Modules::open_in(dir.path(), "").unwrap().load("ext4").unwrap());
        assert!(Modules::open_in(&dir.path().join("nowhere"), "").is_err());
    }
}
