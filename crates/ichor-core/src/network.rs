//! Networks in CIDR notation, for allow-lists.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// An IP network: an address and the number of leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNetwork {
    address: IpAddr,
    prefix: u8,
}

/// Why a string is not an [`IpNetwork`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidNetwork {
    /// The part before the slash is no address.
    #[error("{0:?} holds no IP address")]
    Address(String),
    /// The part after the slash is no number, or more than the address has bits.
    #[error("{0:?} has no prefix length that fits its address")]
    Prefix(String),
    /// Bits that do not count are set, so the author meant something else.
    #[error("{0:?} has bits set behind its prefix length")]
    HostBits(String),
}

impl IpNetwork {
    /// Whether an address lies in the network. An IPv4 address that came in over IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => same(network.octets(), address.octets(), self.prefix),
            (IpAddr::V6(network), IpAddr::V6(address)) => same(network.octets(), address.octets(), self.prefix),
            _ => false,
        }
    }
}

/// Whether the first `prefix` bits are equal.
fn same<const N: usize>(a: [u8; N], b: [u8; N], prefix: u8) -> bool {
    let (whole, rest) = (usize::from(prefix / 8), prefix % 8);
    // `rest` is below 8, so the shift is in range; with no bits left over the mask is empty.
    let mask = !(0xff_u8 >> rest);
    a[..whole] == b[..whole] && (rest == 0 || (a[whole] & mask) == (b[whole] & mask))
}

/// Whether every bit behind the prefix is zero.
fn no_host_bits(octets: &[u8], prefix: u8) -> bool {
    (usize::from(prefix)..octets.len() * 8).all(|bit| octets[bit / 8] & (0x80 >> (bit % 8)) == 0)
}

impl FromStr for IpNetwork {
    type Err = InvalidNetwork;

    /// Parses `10.0.0.0/8`, `2001:db8::/32`, or a single address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork::Address(text.to_owned()))?;
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => match prefix.parse::<u8>() {
                Ok(prefix) if prefix <= bits => prefix,
                _ => return Err(InvalidNetwork::Prefix(text.to_owned())),
            },
        };
        let clean = match address {
            IpAddr::V4(address) => no_host_bits(&address.octets(), prefix),
            IpAddr::V6(address) => no_host_bits(&address.octets(), prefix),
        };
        if clean { Ok(Self { address, prefix }) } else { Err(InvalidNetwork::HostBits(text.to_owned())) }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(network: &str, inside: &[&str], outside: &[&str]) {
        let network: IpNetwork = network.parse().unwrap();
        for address in inside {
            assert!(network.contains(address.parse().unwrap()), "{address} in {network}");
        }
        for address in outside {
            assert!(!network.contains(address.parse().unwrap()), "{address} not in {network}");
        }
    }

    #[test]
    fn membership() {
        check("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], &["11.0.0.0", "9.255.255.255", "::1"]);
        check("192.168.4.0/22", &["192.168.4.1", "192.168.7.255"], &["192.168.8.0", "192.168.3.255"]);
        check("127.0.0.1", &["127.0.0.1"], &["127.0.0.2"]);
        check("0.0.0.0/0", &["1.2.3.4", "255.255.255.255"], &["::1", "2001:db8::1"]);
        check("2001:db8::/33", &["2001:db8::1", "2001:db8:7fff::"], &["2001:db8:8000::", "10.0.0.1"]);
        check("::/0", &["::1", "2001:db8::1"], &["10.0.0.1"]);
    }

    #[test]
    fn refused() {
        let error = |text: &str| text.parse::<IpNetwork>().unwrap_err();
        assert_eq!(error("hospital"), InvalidNetwork::Address("hospital".into()));
        assert_eq!(error("10.0.0.0/33"), InvalidNetwork::Prefix("10.0.0.0/33".into()));
        assert_eq!(error("10.0.0.0/-1"), InvalidNetwork::Prefix("10.0.0.0/-1".into()));
        assert_eq!(error("10.0.0.5/8"), InvalidNetwork::HostBits("10.0.0.5/8".into()));
        assert_eq!("10.0.0.0/8".parse::<IpNetwork>().unwrap().to_string(), "10.0.0.0/8");
    }
}
