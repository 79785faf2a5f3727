//! Media: volumes labelled LODGE that may hold an answer and a bundle.

use std::path::{Path, PathBuf};

use lodge_model::{
    facts::{Disk, Facts},
    paths::{BUNDLE_NAME, MEDIUM_LABEL},
};

use crate::mounted::Mounted;

/// A mounted medium.
#[derive(Debug)]
pub struct Medium {
    device: String,
    mounted: Mounted,
}

impl Medium {
    /// Kernel name of the volume.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Its root.
    pub fn dir(&self) -> &Path {
        self.mounted.dir()
    }

    /// The bundle on it, if there is one.
    pub fn bundle(&self) -> Option<PathBuf> {
        Some(self.dir().join(BUNDLE_NAME)).filter(|path| path.is_file())
    }
}

/// Mount every medium there is. One that cannot be mounted is told through `log` and left out.
pub fn mount_all(facts: &Facts, log: &mut dyn FnMut(&str)) -> Vec<Medium> {
    let mut media = Vec::new();
    for disk in &facts.disks {
        // A hybrid image shows the same volume on the disk and on its first partition: the first that mounts is enough.
        let volume = volumes(disk).find_map(|(device, kind)| {
            let node = Path::new("/dev").join(device);
            match Mounted::look(&node, &format!("medium-{device}"), kind) {
                Ok(mounted) => Some(Medium { device: device.to_owned(), mounted }),
                Err(error) => {
                    log(&format!("a medium cannot be used: {error:#}"));
                    None
                }
            }
        });
        media.extend(volume);
    }
    media
}

/// Unmount the media and open the drives of those that are discs: firmware that prefers discs would start the installer again and
/// again. What fails is told through `log`; the machine restarts all the same.
pub fn eject_discs(media: Vec<Medium>, log: &mut dyn FnMut(&str)) {
    // Volumes of one medium may be mounted twice: all are let go of first.
    let discs: Vec<_> =
        media.iter().filter(|medium| medium.device.starts_with("sr")).map(|medium| medium.device.clone()).collect();
    drop(media);
    for disc in discs {
        match lodge_sys::disc::eject(&Path::new("/dev").join(&disc)) {
            Ok(()) => log(&format!("the disc in {disc} is let out")),
            Err(error) => log(&format!("the disc stays in its drive: {error:#}")),
        }
    }
}

/// A disk that holds a medium is never meant to be installed on, even where its controller does not say that it is removable.
pub fn protect(facts: &mut Facts) {
    for disk in &mut facts.disks {
        if volumes(disk).next().is_some() {
            disk.removable = true;
        }
    }
}

fn volumes(disk: &Disk) -> impl Iterator<Item = (&str, &str)> {
    let media = disk.signatures.iter().filter(|signature| signature.label == MEDIUM_LABEL);
    media.filter(|signature| matches!(signature.kind.as_str(), "iso9660" | "vfat")).map(|found| (&*found.device, &*found.kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{disk, facts};
    use lodge_model::facts::Signature;

    #[test]
    fn a_stick_that_does_not_say_so_is_protected() {
        let signature = Signature { device: "sda1".into(), kind: "iso9660".into(), label: "LODGE".into() };
        let mut facts = facts(vec![Disk { signatures: vec![signature], ..disk("sda", "STICK") }, disk("vda", "S1")]);
        protect(&mut facts);
        assert_eq!(facts.disks.iter().map(|disk| disk.removable).collect::<Vec<_>>(), [true, false]);
    }
}
