//! `AE@HOST:PORT` on the command line.

use std::fmt;
use std::str::FromStr;

use ichor_core::{AeTitle, InvalidAeTitle};
use thiserror::Error;

/// A peer as it stands on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress {
    /// Called AE title.
    pub(crate) ae_title: AeTitle,
    /// `host:port`.
    pub(crate) address: String,
}

/// Why a text is not a [`PeerAddress`].
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum InvalidPeer {
    #[error("expected AE@HOST:PORT")]
    Form,
    #[error(transparent)]
    AeTitle(#[from] InvalidAeTitle),
}

impl FromStr for PeerAddress {
    type Err = InvalidPeer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (title, address) = text.rsplit_once('@').ok_or(InvalidPeer::Form)?;
        let (host, port) = address.rsplit_once(':').ok_or(InvalidPeer::Form)?;
        if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(InvalidPeer::Form);
        }
        Ok(Self { ae_title: AeTitle::parse(title)?, address: address.to_owned() })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.ae_title, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsed_and_refused() {
        let peer: PeerAddress = "ORTHANC@127.0.0.1:4242".parse().unwrap();
        assert_eq!((peer.ae_title.as_str(), peer.address.as_str()), ("ORTHANC", "127.0.0.1:4242"));
        assert_eq!("PACS@[::1]:104".parse::<PeerAddress>().unwrap().address, "[::1]:104");
        for bad in ["ORTHANC", "@h:1", "A@h", "A@h:0", "A@:104", "A@h:99999", "TITLE_FAR_TOO_LONG@h:1"] {
            assert!(bad.parse::<PeerAddress>().is_err(), "{bad}");
        }
    }
}
