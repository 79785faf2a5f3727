//! Making ext4 file systems.

use std::path::Path;

use anyhow::Result;

use crate::program::Program;

/// On a file or device that is all zeros and will be reached over a network: nothing is reserved, zeros are not written again, and there is
/// no orphan file, which every mount would read, block after block (mke2fs(8), ext4(5)). `more` is for mke2fs, too.
pub fn make_on_zeros(on: &Path, more: &[&str]) -> Result<()> {
    let call = Program::MkfsExt4.call(["-q", "-F", "-m", "0", "-O", "^orphan_file"]);
    let call = call.arguments(["-E", "nodiscard,root_owner=0:0,assume_storage_prezeroed=1"]);
    call.arguments(more).arguments([on]).run().map(drop)
}
