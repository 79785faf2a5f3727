//! The memory of a node that is in use and cannot be had back: everything but free pages and pages of files, which can be read again.
//! So it holds processes, page tables, kernel objects, caches of file systems that are pinned, tmpfs: whoever they are charged to.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};

/// Two looks this far apart that differ by less than `STILL` are enough. udev keeps what works for it, some MiB, for 3 s.
const BETWEEN: Duration = Duration::from_secs(5);
const STILL: u64 = 128 << 10;
/// Looks, at most.
const LOOKS: usize = 12;

/// Bytes, once what was started has come to rest.
pub fn in_use() -> Result<u64> {
    let mut last = look()?;
    for _ in 0..LOOKS {
        thread::sleep(BETWEEN);
        let now = look()?;
        if now.abs_diff(last) < STILL {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

fn look() -> Result<u64> {
    nix::unistd::sync();
    // Twice: what the first time lets go of holds something itself.
    for _ in 0..2 {
        fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches")?;
    }
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    in_use_of(&text).context("reading /proc/meminfo")
}

fn in_use_of(meminfo: &str) -> Option<u64> {
    let kib = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let files = kib("Cached")?.checked_sub(kib("Shmem")?)?;
    Some(kib("MemTotal")?.checked_sub(kib("MemFree")?)?.checked_sub(files)? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_files_do_not_count_and_tmpfs_does() {
        let meminfo = "MemTotal:  1000 kB\nMemFree:  400 kB\nBuffers: 7 kB\nCached:  300 kB\nSwapCached: 9 kB\nShmem:  50 kB\n";
        assert_eq!(in_use_of(meminfo), Some((600 - 250) << 10));
        assert_eq!(in_use_of("MemTotal: 1 kB\n"), None);
    }
}
