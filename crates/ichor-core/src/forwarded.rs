//! Whom a proxy speaks for: `X-Forwarded-For` and `Forwarded` (RFC 7239), believed of proxies that the site trusts and of
//! nobody else.
//!
//! Each proxy adds at the right whom it was called by; what stands further left was said by that one, who may have made it up.
//! So the chain is read from the right, for as long as it is proxies of the site's that speak.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::IpNetwork;

/// Most addresses of a chain that are read.
const MOST_HOPS: usize = 32;

/// A trusted proxy says something of whom it speaks for that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnclearChain {
    /// What stands where an address should is none.
    #[error("a proxy's {0} names no address")]
    NoAddress(&'static str),
    /// There are two chains, and they name different peers: one of them was made up.
    #[error("X-Forwarded-For and Forwarded name different addresses")]
    Contradiction,
    /// The chain has no end.
    #[error("a proxy's chain of addresses is longer than {MOST_HOPS}")]
    TooLong,
}

/// Proxies that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNetwork>);

impl TrustedProxies {
    /// Believes proxies in these networks; without any, nobody.
    #[must_use]
    pub const fn new(networks: Vec<IpNetwork>) -> Self {
        Self(networks)
    }

    /// Whether there is a trusted proxy at an address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The peer that a request comes from: `peer` itself, or, if that is a trusted proxy, the nearest one in its chain that is
    /// none. A proxy without a chain speaks for itself. Each slice holds the values of all fields of that name, in their order.
    ///
    /// # Errors
    /// [`UnclearChain`] of a trusted proxy; of anybody else the chain is not read.
    pub fn client(&self, peer: IpAddr, x_forwarded_for: &[&[u8]], forwarded: &[&[u8]]) -> Result<IpAddr, UnclearChain> {
        if !self.contains(peer) {
            return Ok(peer);
        }
        let plain = self.nearest(x_forwarded_for, "X-Forwarded-For", |text| address(text.trim()))?;
        let standard = self.nearest(forwarded, "Forwarded", forwarded_for)?;
        match (plain, standard) {
            (Some(one), Some(other)) if one != other => Err(UnclearChain::Contradiction),
            (found, None) | (None, found) | (found, Some(_)) => Ok(found.unwrap_or(peer)),
        }
    }

    /// The rightmost address that is no trusted proxy's, else the leftmost; `None` without any field.
    fn nearest(
        &self,
        values: &[&[u8]],
        name: &'static str,
        parse: impl Fn(&str) -> Option<IpAddr>,
    ) -> Result<Option<IpAddr>, UnclearChain> {
        let mut last = None;
        let mut hops = 0;
        for value in values.iter().rev() {
            let text = std::str::from_utf8(value).map_err(|_| UnclearChain::NoAddress(name))?;
            for element in elements(text, ',').into_iter().rev() {
                hops += 1;
                if hops > MOST_HOPS {
                    return Err(UnclearChain::TooLong);
                }
                let address = parse(element).ok_or(UnclearChain::NoAddress(name))?;
                last = Some(address);
                if !self.contains(address) {
                    return Ok(last);
                }
            }
        }
        Ok(last)
    }
}

/// The parts of a text between separators that are not in quotes.
fn elements(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c: char| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match c {
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        c == separator && !is_quoted
    })
    .collect()
}

/// The address of `for=…` in an element (RFC 7239 4 and 6).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut nodes = elements(element, ';').into_iter().filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let node = nodes.next()?;
    // Said twice, it says nothing.
    if nodes.next().is_some() {
        return None;
    }
    let node = node.strip_prefix('"').map_or(Some(node), |rest| rest.strip_suffix('"'))?;
    address(node)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let found = text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|place| place.ip()));
    found.or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "::1", "127.0.0.1"].map(|network| network.parse().unwrap()).to_vec())
    }

    #[track_caller]
    fn of(peer: &str, plain: &[&str], standard: &[&str]) -> Result<String, UnclearChain> {
        let bytes = |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
        let (plain, standard) = (bytes(plain), bytes(standard));
        let plain: Vec<&[u8]> = plain.iter().map(Vec::as_slice).collect();
        let standard: Vec<&[u8]> = standard.iter().map(Vec::as_slice).collect();
        let client = proxies().client(peer.parse().unwrap(), &plain, &standard)?;
        Ok(client.to_string())
    }

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        assert_eq!(of("192.0.2.9", &["10.1.1.1"], &["for=10.1.1.1"]).unwrap(), "192.0.2.9");
        assert_eq!(of("192.0.2.9", &["no address"], &[]).unwrap(), "192.0.2.9", "it is not even read");
        let nobody = TrustedProxies::default();
        let peer = "127.0.0.1".parse().unwrap();
        assert_eq!(nobody.client(peer, &[b"1.2.3.4"], &[]).unwrap(), peer);
    }

    #[test]
    fn the_nearest_that_is_no_proxy_is_the_client() {
        for (chain, client) in [
            (&["203.0.113.7"][..], "203.0.113.7"),
            // What a client made up stands left of what the proxy says of it.
            (&["127.0.0.1, 10.9.9.9, 203.0.113.7"], "203.0.113.7"),
            (&["198.51.100.1, 203.0.113.7, 10.2.2.2"], "203.0.113.7"),
            (&["198.51.100.1", "203.0.113.7", "10.2.2.2"], "203.0.113.7"),
            (&["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            (&["203.0.113.7:4711"], "203.0.113.7"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["::ffff:203.0.113.7"], "203.0.113.7"),
            // What stands left of the client is not read.
            (&["<script>, 203.0.113.7"], "203.0.113.7"),
            (&[], "10.1.1.1"),
        ] {
            assert_eq!(of("10.1.1.1", chain, &[]).unwrap(), client, "{chain:?}");
        }
    }

    #[test]
    fn the_standard_form_is_understood() {
        for (chain, client) in [
            (&["for=203.0.113.7;proto=https;by=10.1.1.1"][..], "203.0.113.7"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.43, for=203.0.113.7", "for=10.2.2.2"], "203.0.113.7"),
            (&["for=127.0.0.1;host=\"a, for=10.0.0.1; \\\" x\", for=203.0.113.7"], "203.0.113.7"),
        ] {
            assert_eq!(of("::1", &[], chain).unwrap(), client, "{chain:?}");
        }
    }

    #[test]
    fn a_chain_that_is_unclear_is_refused() {
        let endless = vec!["10.0.0.1"; MOST_HOPS + 1].join(",");
        for (plain, standard, fault) in [
            (&["unknown"][..], &[][..], UnclearChain::NoAddress("X-Forwarded-For")),
            (&[""], &[], UnclearChain::NoAddress("X-Forwarded-For")),
            (&["203.0.113.7,"], &[], UnclearChain::NoAddress("X-Forwarded-For")),
            (&["203.0.113.7, 10.0.0.999"], &[], UnclearChain::NoAddress("X-Forwarded-For")),
            (&[], &["for=_hidden"], UnclearChain::NoAddress("Forwarded")),
            (&[], &["proto=https"], UnclearChain::NoAddress("Forwarded")),
            (&[], &["for=1.2.3.4;for=10.0.0.1"], UnclearChain::NoAddress("Forwarded")),
            (&[], &["for=\"203.0.113.7"], UnclearChain::NoAddress("Forwarded")),
            // A proxy that sets one of them passes the client's own on in the other.
            (&["203.0.113.7"], &["for=127.0.0.1"], UnclearChain::Contradiction),
            (&[endless.as_str()], &[], UnclearChain::TooLong),
        ] {
            assert_eq!(of("10.1.1.1", plain, standard).unwrap_err(), fault, "{plain:?} {standard:?}");
        }
        assert_eq!(of("10.1.1.1", &["203.0.113.7"], &["for=203.0.113.7"]).unwrap(), "203.0.113.7");
    }
}
