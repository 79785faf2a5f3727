//! Answers that need the network: beside the boot file on the server the machine was booted from, and in DHCP answers.

use anyhow::{Context as _, Result};
use lodge_model::{answer::Answer, keywords::DHCP_OPTION, paths::ANSWER_NAME};
use lodge_network::Uplink;
use lodge_sys::efivar;

use super::{Source, local::keywords};
use crate::{bundle::http, report::Report};

/// An answer file is never longer than this, in bytes.
const LONGEST: usize = 256 << 10;

/// All of them, in their order, until one names a center.
pub fn sources(uplink: &Uplink, report: &mut Report) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    if let Some(url) = boot_place() {
        match http::get(&url, LONGEST) {
            Ok(Some(text)) => {
                let text = String::from_utf8(text).with_context(|| format!("reading {url}"))?;
                found.push(Source { answer: Answer::parse(&text, &url)?, place: url, in_hand: false });
            }
            Ok(None) => {}
            // The server may be gone by now; there are other places.
            Err(error) => report.note(&format!("no answer beside the boot file: {error:#}")),
        }
    }
    let words = uplink.dhcp_words.as_deref().unwrap_or_default();
    found.extend(keywords(words, &format!("the DHCP answer on {} (option {DHCP_OPTION})", uplink.interface))?);
    if found.iter().any(|source| source.answer.center.is_some()) {
        return Ok(found);
    }
    if let Some(words) = lodge_network::inform(uplink)? {
        found.extend(keywords(&words, &format!("the answer to DHCPINFORM on {}", uplink.interface))?);
    }
    Ok(found)
}

/// Address of the answer file beside the boot file, where the firmware or the stub says from where the machine was booted.
fn boot_place() -> Option<String> {
    let said = ["StubDeviceURL", "LoaderDeviceURL"];
    let url = said.iter().find_map(|name| efivar::read_text(efivar::LOADER, name).ok().flatten());
    let url = url.or_else(current_boot_option)?;
    let (dir, _) = url.rsplit_once('/')?;
    let is_http = dir.starts_with("http://") && dir.len() > "http://".len();
    is_http.then(|| format!("{dir}/{ANSWER_NAME}"))
}

fn current_boot_option() -> Option<String> {
    let current: [u8; 2] = efivar::read(efivar::GLOBAL, "BootCurrent").ok()??.try_into().ok()?;
    let name = format!("Boot{:04X}", u16::from_le_bytes(current));
    uri(&efivar::read(efivar::GLOBAL, &name).ok()??)
}

/// The address in the URI node (UEFI specification, 10.3.4.23: type 3, subtype 24) of a load option's device path (3.1.3:
/// attributes, length of the path, description in UTF-16, path).
fn uri(option: &[u8]) -> Option<String> {
    let description = option.get(6..)?;
    let end = description.chunks_exact(2).position(|unit| unit == [0, 0])?;
    let mut path = description.get((end + 1) * 2..)?;
    while let [kind, subtype, low, high, ..] = *path {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let node = path.get(4..length)?;
        if (kind, subtype) == (3, 24) {
            return String::from_utf8(node.to_vec()).ok().filter(|uri| !uri.is_empty());
        }
        path = path.get(length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn option(nodes: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![1, 0, 0, 0, 0, 0];
        bytes.extend(efivar::utf16("UEFI HTTPv4"));
        for (kind, subtype, data) in nodes {
            bytes.extend([*kind, *subtype]);
            bytes.extend(u16::try_from(data.len() + 4).unwrap().to_le_bytes());
            bytes.extend(*data);
        }
        bytes
    }

    #[test]
    fn the_uri_of_a_boot_option_is_found() {
        let bytes = option(&[(1, 1, &[0; 2]), (3, 24, b"http://10.0.0.1/boot/lodge.efi"), (0x7f, 0xff, &[])]);
        assert_eq!(uri(&bytes).as_deref(), Some("http://10.0.0.1/boot/lodge.efi"));
        assert_eq!(uri(&option(&[(3, 24, b""), (0x7f, 0xff, &[])])), None);
        assert_eq!(uri(&option(&[(1, 1, &[0; 2])])), None);
    }

    proptest! {
        #[test]
        fn no_option_makes_the_reader_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = uri(&bytes);
        }
    }
}
