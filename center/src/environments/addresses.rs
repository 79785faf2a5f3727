//! Pools of addresses, hardware addresses and ranges of ids: what may be given, and which one is next. Pure; `claims` holds what is taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lodge_model::environment::order::{Address, IDS};
use lodge_model::environment::view::Pool;
use lodge_model::ids::EnvironmentId;
use lodge_model::node::check_name;

/// Ranges of ids there are: the first one is the node's own, and the last one holds the number that means no id.
pub const ID_RANGES: u32 = 65_534;

/// First id on the node of a range.
pub fn id_base(range: u32) -> u32 {
    (range % ID_RANGES + 1) * IDS
}

/// The `attempt`-th hardware address of an environment: locally administered, of random bits of its id.
pub fn mac(id: EnvironmentId, attempt: u8) -> String {
    let bytes = id.0.as_bytes();
    let [a, b, c, d, e] = [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4].wrapping_add(attempt)];
    format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

/// Whether a pool can be, beside the ones there are.
pub fn check_pool(pool: &Pool, others: &[Pool]) -> Result<(), String> {
    check_name(&pool.name).map_err(|why| format!("name: {why}"))?;
    let width = width(pool.first);
    if width != self::width(pool.last) {
        return Err(format!("last: {} and {} are not of one family; make a pool for each", pool.first, pool.last));
    }
    if number(pool.first) > number(pool.last) {
        return Err(format!("last: {} comes before the first address, {}", pool.last, pool.first));
    }
    if u32::from(pool.prefix) > width || pool.prefix == 0 {
        return Err(format!("prefix: {} is not the length of a prefix; from 1 to {width} is possible", pool.prefix));
    }
    let network = |address: IpAddr| network(address, pool.prefix);
    if network(pool.first) != network(pool.last) {
        return Err(format!("last: {} is not in the network of {}/{}", pool.last, pool.first, pool.prefix));
    }
    check_edges(pool)?;
    if let Some(gateway) = pool.gateway {
        if self::width(gateway) != width || network(gateway) != network(pool.first) {
            return Err(format!("gateway: {gateway} is not in the network of {}/{}", pool.first, pool.prefix));
        }
        if contains(pool, gateway) {
            return Err(format!("gateway: {gateway} is one of the pool's own addresses; leave it out of the pool"));
        }
    }
    match others.iter().find(|other| other.name != pool.name && overlap(pool, other)) {
        Some(other) => Err(format!("the pool {} has {} to {} already", other.name, other.first, other.last)),
        None => Ok(()),
    }
}

/// The address of a network itself and its broadcast address are nobody's.
fn check_edges(pool: &Pool) -> Result<(), String> {
    let hosts = width(pool.first) - u32::from(pool.prefix);
    if !pool.first.is_ipv4() || hosts < 2 {
        return Ok(());
    }
    let mask = (1u128 << hosts) - 1;
    if number(pool.first) & mask == 0 {
        return Err(format!("first: {} is the address of the network itself; begin one later", pool.first));
    }
    if number(pool.last) & mask == mask {
        return Err(format!("last: {} is the broadcast address of the network; end one earlier", pool.last));
    }
    Ok(())
}

/// Whether an address is one of a pool's.
pub fn contains(pool: &Pool, address: IpAddr) -> bool {
    width(pool.first) == width(address) && (number(pool.first)..=number(pool.last)).contains(&number(address))
}

/// Addresses of a pool; at most `u64::MAX`.
pub fn size(pool: &Pool) -> u64 {
    let size = (number(pool.last) - number(pool.first)).saturating_add(1);
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// An address of a pool, as its environment gets it.
pub fn address(pool: &Pool, ip: IpAddr) -> Address {
    Address { ip, prefix: pool.prefix, gateway: pool.gateway }
}

/// The next free address from `next` on, round the pool once, and where the next search begins.
pub fn pick<E>(
    pool: &Pool,
    next: IpAddr,
    mut is_taken: impl FnMut(IpAddr) -> Result<bool, E>,
) -> Result<Option<(IpAddr, IpAddr)>, E> {
    let (first, last) = (number(pool.first), number(pool.last));
    let start = if contains(pool, next) { number(next) } else { first };
    let from = |number: u128| if pool.first.is_ipv4() { v4(number) } else { IpAddr::V6(Ipv6Addr::from_bits(number)) };
    for candidate in (start..=last).chain(first..start) {
        let ip = from(candidate);
        if !is_taken(ip)? {
            return Ok(Some((ip, from(if candidate == last { first } else { candidate + 1 }))));
        }
    }
    Ok(None)
}

fn v4(number: u128) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)))
}

fn overlap(one: &Pool, other: &Pool) -> bool {
    width(one.first) == width(other.first) && number(one.first) <= number(other.last) && number(other.first) <= number(one.last)
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn network(address: IpAddr, prefix: u8) -> u128 {
    number(address).checked_shr(width(address) - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    fn pool(first: &str, last: &str, prefix: u8) -> Pool {
        let ip = |text: &str| text.parse().unwrap();
        Pool { name: "lan".into(), first: ip(first), last: ip(last), prefix, gateway: None, dns: vec![] }
    }

    fn refused(pool: &Pool) -> String {
        check_pool(pool, &[]).unwrap_err()
    }

    #[test]
    fn a_pool_that_cannot_be_is_refused_by_its_field() {
        assert_eq!(check_pool(&pool("10.0.0.10", "10.0.0.20", 24), &[]), Ok(()));
        assert_eq!(check_pool(&pool("fd00::1", "fd00::ffff:ffff:ffff:ffff", 64), &[]), Ok(()));
        assert!(refused(&pool("10.0.0.10", "fd00::1", 24)).starts_with("last"));
        assert!(refused(&pool("10.0.0.10", "10.0.0.9", 24)).starts_with("last"));
        assert!(refused(&pool("10.0.0.10", "10.0.1.9", 24)).starts_with("last"));
        assert!(refused(&pool("10.0.0.10", "10.0.0.20", 33)).starts_with("prefix"));
        assert!(refused(&pool("10.0.0.0", "10.0.0.20", 24)).starts_with("first"));
        assert!(refused(&pool("10.0.0.1", "10.0.0.255", 24)).starts_with("last"));
        let with = |gateway: &str| Pool { gateway: Some(gateway.parse().unwrap()), ..pool("10.0.0.10", "10.0.0.20", 24) };
        assert_eq!(check_pool(&with("10.0.0.1"), &[]), Ok(()));
        assert!(refused(&with("10.0.1.1")).starts_with("gateway"));
        assert!(refused(&with("10.0.0.15")).starts_with("gateway"));
        let other = Pool { name: "other".into(), ..pool("10.0.0.20", "10.0.0.30", 24) };
        assert!(check_pool(&pool("10.0.0.10", "10.0.0.20", 24), &[other]).unwrap_err().contains("other"));
    }

    #[test]
    fn ranges_of_ids_stay_off_the_edges() {
        assert_eq!(id_base(0), IDS);
        assert_eq!(u64::from(id_base(ID_RANGES - 1)) + u64::from(IDS), (1 << 32) - u64::from(IDS));
    }

    #[test]
    fn an_address_that_was_just_given_back_rests() {
        let pool = pool("10.0.0.10", "10.0.0.12", 24);
        let free = |_| Ok::<_, Infallible>(false);
        let (ip, next) = pick(&pool, "10.0.0.12".parse().unwrap(), free).unwrap().unwrap();
        assert_eq!((ip.to_string(), next.to_string()), ("10.0.0.12".into(), "10.0.0.10".into()));
    }

    proptest! {
        #[test]
        fn addresses_are_unique_until_the_pool_is_empty(length in 1u8..40, start in 0u8..60, v6 in any::<bool>()) {
            let pool = if v6 {
                pool("fd00::1", &format!("fd00::{length:x}"), 64)
            } else {
                pool("10.0.0.1", &format!("10.0.0.{length}"), 24)
            };
            let mut next: IpAddr = format!("10.0.0.{start}").parse().unwrap();
            let mut taken = BTreeSet::new();
            for _ in 0..length {
                let (ip, after) = pick(&pool, next, |ip| Ok::<_, Infallible>(taken.contains(&ip))).unwrap().unwrap();
                prop_assert!(contains(&pool, ip) && taken.insert(ip));
                next = after;
            }
            prop_assert_eq!(taken.len() as u64, size(&pool));
            prop_assert_eq!(pick(&pool, next, |ip| Ok::<_, Infallible>(taken.contains(&ip))).unwrap(), None);
        }
    }
}
