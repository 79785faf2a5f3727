//! Amounts as people write them: sizes (`10G`, powers of 1024), processors (`0.5`), times (`5m`), labels (`rack=a`).

use lodge_model::layout::{GIB, MIB};

const KIB: u64 = 1024;
const TIB: u64 = 1024 * GIB;

/// Bytes of `10G`, `1.5GiB`, `512M`, `4096`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write it as 10G, 512M or 1.5T");
    let at = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = match unit.trim_start().to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 1,
        "K" => KIB,
        "M" => MIB,
        "G" => GIB,
        "T" => TIB,
        _ => return Err(wrong()),
    };
    thousandths(number).and_then(|number| number.checked_mul(unit)).map(|bytes| bytes / 1000).ok_or_else(wrong)
}

/// Thousandths of a processor of `2`, `0.5`.
pub fn parse_cpus(text: &str) -> Result<u32, String> {
    let millis = thousandths(text).and_then(|millis| u32::try_from(millis).ok());
    millis.ok_or_else(|| format!("{text:?} is no number of processors; write it as 2 or 0.5"))
}

/// Seconds of `90`, `90s`, `5m`, `1h`.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.chars().last() {
        Some('s') => (text.trim_end_matches('s'), 1),
        Some('m') => (text.trim_end_matches('m'), 60),
        Some('h') => (text.trim_end_matches('h'), 3600),
        _ => (text, 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    seconds.ok_or_else(|| format!("{text:?} is no time; write it as 90s, 5m or 1h"))
}

/// `rack=a`.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no label; write it as KEY=VALUE")),
    }
}

/// `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        TIB.. => (TIB, "TiB"),
        GIB.. => (GIB, "GiB"),
        MIB.. => (MIB, "MiB"),
        KIB.. => (KIB, "KiB"),
        _ => return format!("{bytes} B"),
    };
    let tenths = (u128::from(bytes) * 10 / u128::from(unit)) as u64;
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        tenth => format!("{}.{tenth} {name}", tenths / 10),
    }
}

/// `0.5`.
pub fn cpus(millis: u32) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A decimal number with up to three places.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || part.len() > 3 || !digits(whole) || !digits(part) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let part = format!("{part:0<3}").parse::<u64>().ok()?;
    whole.checked_mul(1000)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = ["10G", "1.5g", "512MiB", "4096", "2TB", "1 G", "0.125K"].map(|text| parse_size(text).unwrap());
        assert_eq!(read, [10 * GIB, 3 * GIB / 2, 512 * MIB, 4096, 2 * TIB, GIB, 128]);
        for text in ["", "G", "10X", "-1G", "1.2345G", "1..5G", "10 G B x", "99999999999999T", "1e3"] {
            assert!(parse_size(text).unwrap_err().contains("10G"), "{text}");
        }
    }

    #[test]
    fn processors_times_and_labels() {
        assert_eq!(["2", "0.5", ".25", "1."].map(|text| parse_cpus(text).unwrap()), [2000, 500, 250, 1000]);
        assert!(parse_cpus("two").is_err() && parse_cpus(".").is_err() && parse_cpus("99999999999").is_err());
        assert_eq!(["90", "90s", "5m", "1h"].map(|text| parse_seconds(text).unwrap()), [90, 90, 300, 3600]);
        assert!(parse_seconds("5d").is_err() && parse_seconds("").is_err() && parse_seconds("m").is_err());
        assert_eq!(parse_label("rack=a=b").unwrap(), ("rack".into(), "a=b".into()));
        assert!(parse_label("rack").is_err() && parse_label("=a").is_err());
    }

    #[test]
    fn amounts_are_told_shortly() {
        assert_eq!([0, 1023, 1536, 10 * GIB].map(size), ["0 B", "1023 B", "1.5 KiB", "10 GiB"]);
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
        assert_eq!([500, 2000, 1250].map(cpus), ["0.5", "2", "1.25"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,30}") {
            let _ = (parse_size(&text), parse_cpus(&text), parse_seconds(&text), parse_label(&text));
        }

        #[test]
        fn whole_sizes_survive_their_text(number in 1_u64..1024, unit in 0_usize..4) {
            let bytes = number * [KIB, MIB, GIB, TIB][unit];
            prop_assert_eq!(parse_size(&size(bytes)).unwrap(), bytes);
        }
    }
}
