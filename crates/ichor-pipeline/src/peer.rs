//! Where a peer is, as a configuration or the job log writes it.

use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

/// Host and port of `host:port`, `[host]:port`, a host or a URL, of which the port may be the scheme's; never the name and password
/// that a URL may have before it. `None` if it is none of these.
#[must_use]
pub fn end_of(address: &str) -> Option<(String, Option<u16>)> {
    if let Ok(host) = address.parse::<IpAddr>() {
        return Some((host.to_string(), None));
    }
    // No URL has the zone that a link-local address may have.
    if let Ok(socket) = address.parse::<SocketAddr>() {
        return Some((socket.ip().to_string(), Some(socket.port())));
    }
    let url =
        if address.contains("://") { Url::parse(address) } else { Url::parse(&format!("tcp://{address}")) }.ok()?;
    let host = match url.host()? {
        Host::Ipv6(host) => host.to_string(),
        host => host.to_string(),
    };
    Some((host, url.port_or_known_default()))
}

/// The host alone; of what is none of these what would be the host.
pub(crate) fn host_of(address: &str) -> String {
    end_of(address).map_or_else(|| likely_host(address).to_owned(), |(host, _)| host)
}

fn likely_host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if let Some((host, _)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    // Of several colons none begins a port.
    rest.split_once(':').filter(|(_, port)| !port.contains(':')).map_or(rest, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_addresses_and_urls() {
        for (address, host, port) in [
            ("10.1.2.3:104", "10.1.2.3", Some(104)),
            ("pacs.example:104", "pacs.example", Some(104)),
            ("pacs", "pacs", None),
            ("192.0.2.7", "192.0.2.7", None),
            ("[2001:db8::1]:104", "2001:db8::1", Some(104)),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[fe80::1%2]:104", "fe80::1", Some(104)),
            ("https://pacs.example:8443/dicom-web", "pacs.example", Some(8443)),
            ("https://[2001:db8::1]/dicom-web", "2001:db8::1", Some(443)),
            ("http://pacs/dicom-web?a=b#c", "pacs", Some(80)),
        ] {
            assert_eq!(end_of(address), Some((host.to_owned(), port)), "{address}");
        }
    }

    #[test]
    fn no_password_goes_to_a_repository() {
        assert_eq!(host_of("https://user:pw@pacs:8443/x"), "pacs");
        assert_eq!(host_of("https://user:pw@[2001:db8::1]:8443"), "2001:db8::1");
        assert_eq!(host_of("https://user:pw@host:port/x"), "host", "not even where nothing can be read");
    }

    #[test]
    fn a_peer_that_cannot_be_read_is_named_all_the_same() {
        let local = SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 104, 0, 2));
        assert_eq!(host_of(&local.to_string()), "fe80::1");
        for (address, host) in
            [("fe80::1%eth0", "fe80::1%eth0"), ("[fe80::1%eth0]:104", "fe80::1%eth0"), ("host:port", "host")]
        {
            assert_eq!(host_of(address), host, "{address}");
        }
    }

    #[test]
    fn what_is_no_address_has_no_host() {
        for address in ["", "a b", "http://", ":104", "host:port"] {
            assert_eq!(end_of(address), None, "{address:?}");
        }
    }
}
