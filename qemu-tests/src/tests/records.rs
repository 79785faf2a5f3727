//! Records that an environment has written, each on its disk before it was acknowledged.

use anyhow::Result;

use crate::scenario::hold;

/// Records are 1, 2, 3… without a gap, as far as acknowledged at least.
pub fn complete(text: &str, acknowledged: u64) -> Result<()> {
    let records: Vec<u64> = text.lines().map_while(|line| line.parse().ok()).collect();
    let in_order = records.iter().zip(1..).all(|(found, expected)| *found == expected);
    let count = records.len() as u64;
    hold(in_order && count >= acknowledged, || {
        let end: Vec<&str> = text.lines().rev().take(5).collect();
        format!("{acknowledged} records were acknowledged, {count} are there; the last lines are {end:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_record_and_a_gap_are_noticed() {
        assert!(complete("1\n2\n3\n", 3).is_ok() && complete("1\n2\n3\n4\n", 3).is_ok());
        assert!(complete("1\n2\n", 3).is_err());
        assert!(complete("1\n3\n4\n", 3).is_err());
        assert!(complete("", 1).is_err());
    }
}
