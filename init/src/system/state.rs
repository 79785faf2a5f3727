//! The state partition: find it, check it, repair it, mount it. It is never formatted from here: what is on it is somebody's.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, anyhow, bail};
use lodge_model::{layout, paths};
use lodge_sys::{
    block,
    mount::{Mount, MsFlags},
    program::{Output, Program},
    uevent::Uevents,
};

use crate::{
    log,
    step::{Failure, required},
    watchdog,
};

/// How long the partition may take to show up; its disk is there, since the root is on it.
const PATIENCE: Duration = Duration::from_secs(15);
/// A check that takes longer says so this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Check and mount the state partition of this disk.
pub fn mount(disk: &str) -> Result<(), Failure> {
    let advice = "is the disk complete? `blkid` and `dmesg` show what is there; the base OS itself runs";
    let device = required("finding the state partition", advice, || find(disk))?;
    let advice = format!(
        "nothing was overwritten. Repair it by hand with `e2fsck {0}`, copy what can be saved with `mount -o ro {0} /state`, or \
         reinstall the node (`lodge node reinstall`), which starts with an empty one",
        device.display()
    );
    required("checking the state file system", &advice, || check(&device))?;
    required("mounting the state file system", &advice, || {
        let source = device.display().to_string();
        let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        Mount { source: &source, target: paths::STATE, fstype: "ext4", flags, data: "errors=remount-ro" }.mount()
    })
}

fn find(disk: &str) -> Result<PathBuf> {
    let uevents = Uevents::open()?;
    let until = log::uptime() + PATIENCE;
    loop {
        watchdog::pulse();
        let partitions = block::partitions()?;
        let found = partitions.iter().find(|partition| partition.disk == disk && partition.label == layout::STATE);
        if let Some(partition) = found {
            return Ok(partition.device());
        }
        let left = until.saturating_sub(log::uptime());
        if left.is_zero() {
            bail!("{disk} has no partition labelled {:?}", layout::STATE);
        }
        uevents.wait(left)?;
    }
}

/// A rung of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    /// `e2fsck -p`: replays the journal and repairs what is safe to repair.
    Preen,
    /// `e2fsck -y`: repairs whatever it can; files may end up in lost+found.
    Repair,
}

/// What follows a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Sound,
    Repaired,
    Climb(Rung),
    GiveUp,
}

/// e2fsck's exit status is a sum (e2fsck(8)): 1 corrected, 2 corrected and a restart is due (for a mounted root only), 4 left
/// uncorrected, 8 and above: it could not work.
fn next(rung: Rung, status: i32) -> Next {
    match (rung, status) {
        (_, 0) => Next::Sound,
        (_, 1..=3) => Next::Repaired,
        (Rung::Preen, _) => Next::Climb(Rung::Repair),
        (Rung::Repair, _) => Next::GiveUp,
    }
}

fn check(device: &std::path::Path) -> Result<()> {
    let mut rung = Rung::Preen;
    loop {
        let option = match rung {
            Rung::Preen => "-p",
            Rung::Repair => "-y",
        };
        let arguments = [option.into(), device.as_os_str().to_owned()];
        let every: Vec<i32> = (0..=255).collect();
        let start = log::uptime();
        let mut told = start;
        let output = Program::E2fsck.call(arguments).accept(&every).run_with_pulse(&mut || {
            watchdog::pulse();
            if log::uptime().saturating_sub(told) >= TELL_EVERY {
                told = log::uptime();
                log::notice(&format!("still checking {}, {} s", device.display(), (told - start).as_secs()));
            }
        })?;
        let said = gist(&output, device);
        match next(rung, output.code) {
            Next::Sound => return Ok(()),
            Next::Repaired => {
                log::warning(&format!("the state file system was repaired: {said}"));
                return Ok(());
            }
            Next::Climb(higher) => {
                log::warning(&format!("e2fsck {option} left errors (exit status {}), repairing: {said}", output.code));
                rung = higher;
            }
            Next::GiveUp => {
                return Err(anyhow!("e2fsck {option} {} ended with exit status {}: {said}", device.display(), output.code));
            }
        }
    }
}

/// The lines that name the device: the rest is banner and general advice.
fn gist(output: &Output, device: &std::path::Path) -> String {
    let text = format!("{}\n{}", output.text(), String::from_utf8_lossy(&output.stderr));
    let name = device.display().to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| line.contains(&name)).collect();
    lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_climbed_rung_by_rung_and_never_formats() {
        assert_eq!(next(Rung::Preen, 0), Next::Sound);
        assert_eq!(next(Rung::Preen, 1), Next::Repaired);
        assert_eq!(next(Rung::Preen, 4), Next::Climb(Rung::Repair));
        assert_eq!(next(Rung::Preen, 8), Next::Climb(Rung::Repair));
        assert_eq!(next(Rung::Repair, 3), Next::Repaired);
        assert_eq!(next(Rung::Repair, 4), Next::GiveUp);
        assert_eq!(next(Rung::Repair, 12), Next::GiveUp);
    }

    #[test]
    fn a_real_file_system_is_checked_and_repaired_and_a_wrong_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("state");
        std::fs::write(&image, vec![0; 32 << 20]).unwrap();
        assert!(format!("{:#}", check(&image).unwrap_err()).contains("exit status 8"));
        Program::MkfsExt4.call(["-q", "-F", "-b", "1024", &image.display().to_string()]).run().unwrap();
        check(&image).unwrap();
        // A superblock that lies about its free blocks, marked as not cleanly unmounted (offsets: ext4's on-disk format).
        let mut bytes = std::fs::read(&image).unwrap();
        bytes[1024 + 0x0c] ^= 0x55;
        bytes[1024 + 0x3a] = 2;
        std::fs::write(&image, &bytes).unwrap();
        check(&image).unwrap();
        check(&image).unwrap();
    }
}
