//! Pax extended headers: `<length> <key>=<value>\n`, the length being that of the whole record (POSIX, `pax`). Values may hold any byte,
//! so records are cut by their length, never by lines.

use anyhow::{Context as _, Result, bail};

/// The records of a header.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<(&str, &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (record, rest) = split(bytes).context("it has a broken pax header")?;
        records.push(record);
        bytes = rest;
    }
    Ok(records)
}

type Record<'a> = (&'a str, &'a [u8]);

fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let key = std::str::from_utf8(record.get(..equals)?).ok()?;
    Some(((key, record.get(equals + 1..)?), bytes.get(length..)?))
}

/// Add a record.
pub fn push(to: &mut Vec<u8>, key: &str, value: &[u8]) -> Result<()> {
    if key.is_empty() || key.contains(['=', '\n', '\0']) {
        bail!("{key:?} cannot be the name of an attribute");
    }
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let length = (1..20).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
    let length = length.with_context(|| format!("the attribute {key} is too long"))?;
    to.extend_from_slice(format!("{length} {key}=").as_bytes());
    to.extend_from_slice(value);
    to.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec(("[a-zA-Z.]{1,30}", prop::collection::vec(any::<u8>(), 0..1200)), 0..4)) {
            let mut bytes = Vec::new();
            for (key, value) in &values {
                push(&mut bytes, key, value).unwrap();
            }
            let read: Vec<_> = parse(&bytes).unwrap().into_iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), digits in "[0-9]{1,25} [a-z=]{0,5}\n") {
            let _ = parse(&bytes);
            let _ = parse(digits.as_bytes());
        }
    }
}
