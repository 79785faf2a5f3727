//! The base OS: from the bundle into a slot, and back for comparison.

use std::{
    fs::{self, File},
    io::{Read, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use lodge_model::{
    bundle::{ROOT, UKI, VERITY},
    layout::Slot,
};

use super::{Apply, Progress, storage};
use crate::bundle::{self, Stream};

/// The UKI waits here, on the state partition, until the boot entry is written.
const STAGED_UKI: &str = ".install-lodge.efi";

/// A bundle that is being read, and what of it comes next.
pub(super) struct Parts {
    stream: Stream<Box<dyn Read>>,
    next: &'static str,
}

impl Apply<'_> {
    pub(super) fn write_verity(&mut self, slot: Slot, progress: &mut Progress) -> Result<()> {
        self.write_part(VERITY, slot.verity_label(), progress)
    }

    pub(super) fn write_root(&mut self, slot: Slot, progress: &mut Progress) -> Result<()> {
        self.write_part(ROOT, slot.root_label(), progress)?;
        progress.stream = None;
        Ok(())
    }

    pub(super) fn read_back(&mut self, slot: Slot) -> Result<()> {
        let parts = [(VERITY, slot.verity_label()), (ROOT, slot.root_label())];
        let total = parts.iter().filter_map(|(name, _)| self.manifest.part(name)).map(|part| part.size).sum();
        let mut done = 0;
        for (name, label) in parts {
            let node = self.node(label)?;
            let part = self.manifest.part(name).with_context(|| format!("the manifest has no part {name}"))?;
            let report = &mut *self.report;
            let found = storage::sha256(&node, part.size, &mut |bytes| {
                done += bytes;
                report.progress(done, total);
            })?;
            if found != part.sha256.to_lowercase() {
                bail!("{} does not hold what was written to it; the disk is broken", node.display());
            }
        }
        Ok(())
    }

    /// Keep the bundle for a center to serve, then read the copy back through the same checks.
    pub(super) fn store_bundle(&mut self, progress: &Progress) -> Result<()> {
        let state = progress.state.as_ref().context("the state partition is not mounted")?.dir();
        let dir = below(state, lodge_model::paths::CENTER_BUNDLES)?;
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let path = dir.join(format!("lodge-os-{}.tar.gz", self.plan.version));
        let partial = path.with_extension("partial");
        let source = &self.source;
        let work = |report: &mut crate::report::Report| -> Result<()> {
            let (mut bytes, length) = source.open()?;
            let mut file = File::create(&partial).with_context(|| format!("making {}", partial.display()))?;
            let (mut done, mut piece) = (0, vec![0; 1 << 20]);
            loop {
                let read = bytes.read(&mut piece).with_context(|| format!("reading {}", source.describe()))?;
                if read == 0 {
                    break;
                }
                file.write_all(piece.get(..read).unwrap_or_default())
                    .with_context(|| format!("writing {}", partial.display()))?;
                done += read as u64;
                report.progress(done, length.unwrap_or(0));
            }
            file.sync_all().with_context(|| format!("writing {}", partial.display()))
        };
        let mut tries = 1;
        while let Err(error) = work(self.report) {
            if !bundle::is_cut(&error) || tries >= bundle::TRIES {
                return Err(error);
            }
            tries += 1;
        }
        bundle::verify(bundle::Source::File(partial.clone()), &self.key, 0, &mut |_, _| {})?;
        fs::rename(&partial, &path).with_context(|| format!("putting {} into place", path.display()))?;
        sync_dir(&dir)
    }

    /// Where the UKI waits.
    pub(super) fn staged_uki(&self, progress: &Progress) -> Result<PathBuf> {
        Ok(progress.state.as_ref().context("the state partition is not mounted")?.dir().join(STAGED_UKI))
    }

    /// Write one part to a partition; when the network is cut the stream begins anew, and so does the part.
    fn write_part(&mut self, name: &'static str, label: &str, progress: &mut Progress) -> Result<()> {
        let node = self.node(label)?;
        let mut tries = 1;
        loop {
            match self.write_part_once(name, &node, progress) {
                Err(error) if bundle::is_cut(&error) && tries < bundle::TRIES => {
                    tries += 1;
                    progress.stream = None;
                    self.report.note(&format!("the bundle was cut off, it is fetched again: {error:#}"));
                }
                result => return result,
            }
        }
    }

    fn write_part_once(&mut self, name: &'static str, node: &Path, progress: &mut Progress) -> Result<()> {
        let total = self.manifest.part(name).map_or(0, |part| part.size);
        let mut parts = self.stream_at(name, progress)?;
        let writer = storage::Writer::open(node)?;
        let mut done = 0;
        let report = &mut *self.report;
        let copied = parts.stream.part(name, &mut |piece| {
            writer.write(piece)?;
            done += piece.len() as u64;
            report.progress(done, total);
            Ok(())
        });
        // A writer that failed says why; what the copier saw is only that it is gone.
        writer.finish()?;
        copied?;
        parts.next = following(name);
        progress.stream = Some(parts);
        Ok(())
    }

    /// The bundle, read up to this part. The UKI comes before and is put aside on the way.
    fn stream_at(&mut self, name: &'static str, progress: &mut Progress) -> Result<Parts> {
        if let Some(parts) = progress.stream.take().filter(|parts| parts.next == name) {
            return Ok(parts);
        }
        let mut stream = Stream::open(self.source.open()?.0, &self.key)?;
        if *stream.manifest() != self.manifest {
            bail!("the bundle {} has changed since it was verified", self.source.describe());
        }
        let path = self.staged_uki(progress)?;
        let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        stream.part(UKI, &mut |piece| file.write_all(piece).with_context(|| format!("writing {}", path.display())))?;
        file.sync_all().with_context(|| format!("writing {}", path.display()))?;
        if name == ROOT {
            stream.part(VERITY, &mut |_| Ok(()))?;
        }
        Ok(Parts { stream, next: name })
    }
}

fn following(name: &str) -> &'static str {
    if name == VERITY { ROOT } else { "" }
}

/// A path of the installed system, below the mounted state partition.
pub(super) fn below(state: &Path, path: &str) -> Result<PathBuf> {
    let relative = Path::new(path).strip_prefix(lodge_model::paths::STATE);
    Ok(state.join(relative.with_context(|| format!("placing {path}"))?))
}

/// A rename is on the disk only when its directory is.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("writing {}", dir.display()))
}
