//! Answers that need no network: options, command line, media, the disk's own ESP, SMBIOS.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use lodge_model::{
    answer::Answer,
    facts::{Disk, Facts},
    keywords::Keywords,
    paths::{ANSWER_NAME, ESP_ANSWER},
};
use lodge_sys::smbios;

use super::Source;
use crate::{installed, medium::Medium, options::Options};

const LONGEST: u64 = 256 << 10;

/// All of them, in their order. An unknown key or word anywhere is an error that names the place.
pub fn sources(options: &Options, facts: &Facts, media: &[Medium]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    if let Some(path) = &options.answer {
        sources.extend(file(path, &path.display().to_string())?);
    }
    let words = fs::read_to_string("/proc/cmdline").context("reading the kernel command line")?;
    sources.extend(keywords(&words, "the kernel command line")?);
    for medium in media {
        sources.extend(file(&medium.dir().join(ANSWER_NAME), &format!("{ANSWER_NAME} on {}", medium.device()))?);
    }
    for disk in &facts.disks {
        sources.extend(own_esp(disk)?);
    }
    let strings = smbios::oem_strings()?;
    sources.extend(keywords(&strings.join(" "), "SMBIOS type 11")?);
    Ok(sources)
}

/// The short form, as a source; none when it says nothing to an installer.
pub fn keywords(words: &str, place: &str) -> Result<Option<Source>> {
    let answer = Keywords::parse(words, place)?.answer(place)?;
    Ok(answer.map(|answer| Source { place: place.to_owned(), answer, in_hand: false }))
}

/// An answer file that somebody put there; none when there is none.
fn file(path: &Path, place: &str) -> Result<Option<Source>> {
    let text = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > LONGEST => anyhow::bail!("the answer from {place} is too long to be one"),
        _ => fs::read_to_string(path).with_context(|| format!("reading {place}"))?,
    };
    Ok(Some(Source { place: place.to_owned(), answer: Answer::parse(&text, place)?, in_hand: true }))
}

/// What the agent left on the ESP of a disk of ours, to be reinstalled. A damaged ESP says nothing.
fn own_esp(disk: &Disk) -> Result<Option<Source>> {
    let Ok(Some(esp)) = installed::esp(disk) else { return Ok(None) };
    file(&esp.dir().join(ESP_ANSWER), &format!("{ESP_ANSWER} on the EFI system partition of {}", disk.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_or_key_names_its_place() {
        let error = keywords("quiet lodge.centre=x", "the kernel command line").unwrap_err().to_string();
        assert!(error.contains("lodge.centre") && error.contains("the kernel command line"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ANSWER_NAME);
        assert_eq!(file(&path, "the stick").unwrap(), None);
        fs::write(&path, "[disk]\nserail = \"x\"").unwrap();
        let error = file(&path, "the stick").unwrap_err().to_string();
        assert!(error.contains("serail") && error.contains("the stick"), "{error}");
        fs::write(&path, "[disk]\nserial = \"x\"").unwrap();
        assert!(file(&path, "the stick").unwrap().unwrap().in_hand);
    }
}
