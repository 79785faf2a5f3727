//! Hardware addresses, and what follows from them.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use anyhow::{Context as _, Result, bail};
use lodge_model::ids::unhex;

/// A hardware address of Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// To everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The link-local address that the kernel makes from it (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
    }

    /// Where frames to an IPv6 multicast address go (RFC 2464, 7).
    pub fn of_multicast(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

/// The group that the owner of an address listens to (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    /// Of one machine: neither a group's nor zero.
    fn from_str(text: &str) -> Result<Self> {
        let pairs = || text.split(':').map(|pair| (pair.len() == 2).then(|| unhex(pair)).flatten());
        let bytes: Option<Vec<u8>> = pairs().collect::<Option<Vec<_>>>().map(|pairs| pairs.concat());
        let bytes: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
        let bytes =
            bytes.with_context(|| format!("{text:?} is not a hardware address: expected six pairs as 02:00:00:00:00:01"))?;
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            bail!("{text:?} is not the hardware address of one machine");
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_it() {
        let mac: Mac = "02:00:5e:10:00:0A".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:0a");
        assert_eq!(mac.link_local(), "fe80::5eff:fe10:a".parse::<Ipv6Addr>().unwrap());
        let group = solicited_node("2001:db8::1:2:3".parse().unwrap());
        assert_eq!(group, "ff02::1:ff02:3".parse::<Ipv6Addr>().unwrap());
        assert_eq!(Mac::of_multicast(group), Mac([0x33, 0x33, 0xff, 0x02, 0, 3]));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "02:00:00:00:00", "02:00:00:00:00:0", "02:00:00:00:00:01:02", "020:0:00:00:00:01", "gg:00:00:00:00:01"]
        {
            assert!(text.parse::<Mac>().unwrap_err().to_string().contains("six pairs"), "{text}");
        }
        assert!("ff:ff:ff:ff:ff:ff".parse::<Mac>().unwrap_err().to_string().contains("one machine"));
        assert!("00:00:00:00:00:00".parse::<Mac>().is_err());
    }
}
