//! Settings of the provider.

use std::net::IpAddr;
use std::time::Duration;

use ichor_core::AeTitle;

use super::commitment::CommitmentLimits;
use super::handler::PeerInfo;
use crate::network::IpNetwork;
use crate::uids;
use crate::wire::PDU_LENGTHS;

/// Settings of a [`StorageScp`](super::StorageScp). [`ScpOptions::new`] gives the defaults named here.
#[derive(Clone, Debug)]
pub struct ScpOptions {
    /// Own AE title.
    pub ae_title: AeTitle,
    /// Reject peers that call another AE title (default: no).
    pub check_called_ae: bool,
    /// Who may come. Without any rule nobody may (default: none).
    pub peers: Vec<PeerRule>,
    /// Associations at once; one more is rejected as transient, local limit exceeded (default: 64).
    pub max_associations: usize,
    /// Longest PDU that is accepted and announced, in bytes, kept between 4,096 and 131,072 (default: 131,072).
    pub max_pdu: u32,
    /// Longest data set, in bytes; a longer one is answered with 0xA700 (default: 2 GiB).
    pub max_instance_bytes: u64,
    /// Time for a peer to request its association after it has connected (ARTIM, PS3.8 9.1.5; default: 30 s).
    pub artim_timeout: Duration,
    /// Time without any message before an association is aborted (default: 60 s).
    pub idle_timeout: Duration,
    /// Time for each PDU inside a message, and for each that is sent (default: 30 s).
    pub pdu_timeout: Duration,
    /// Time for a whole instance, from command to last fragment (default: 1 h). It ends peers that send a byte now and
    /// then.
    pub instance_timeout: Duration,
    /// Time that open associations have to finish the instance in progress at shutdown (default: 10 s).
    pub drain_timeout: Duration,
    /// Bounds on requests for storage commitment.
    pub commitment: CommitmentLimits,
    /// What is accepted, by SOP class. Verification belongs here as well (default: [`uids::STORAGE_SOP_CLASSES`] with
    /// [`uids::TRANSFER_SYNTAXES`], and Verification).
    pub sop_classes: Vec<SopClassRule>,
}

/// Which transfer syntaxes are accepted for a SOP class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SopClassRule {
    /// SOP Class UID.
    pub sop_class: &'static str,
    /// Transfer Syntax UIDs; their order does not matter, the peer's does.
    pub transfer_syntaxes: Vec<&'static str>,
}

/// Peers that may open an association: every condition must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRule {
    /// Calling AE title; `None` is any.
    pub ae_title: Option<AeTitle>,
    /// Networks of which one must hold the peer's address; none at all is any address.
    pub networks: Vec<IpNetwork>,
}

impl ScpOptions {
    /// Starts with the defaults, and with nobody allowed.
    #[must_use]
    pub fn new(ae_title: AeTitle) -> Self {
        let verification = SopClassRule {
            sop_class: uids::VERIFICATION,
            transfer_syntaxes: vec![uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN],
        };
        let storage = uids::STORAGE_SOP_CLASSES
            .iter()
            .map(|sop_class| SopClassRule { sop_class, transfer_syntaxes: uids::TRANSFER_SYNTAXES.to_vec() });
        Self {
            ae_title,
            check_called_ae: false,
            peers: Vec::new(),
            max_associations: 64,
            max_pdu: *PDU_LENGTHS.end(),
            max_instance_bytes: 2 << 30,
            artim_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            pdu_timeout: Duration::from_secs(30),
            instance_timeout: Duration::from_secs(3600),
            drain_timeout: Duration::from_secs(10),
            commitment: CommitmentLimits::default(),
            sop_classes: std::iter::once(verification).chain(storage).collect(),
        }
    }

    /// Accepts Storage Commitment as well (PS3.4 J.3.5), for a handler that takes requests.
    #[must_use]
    pub fn with_commitment(mut self, limits: CommitmentLimits) -> Self {
        self.commitment = limits;
        self.sop_classes.push(SopClassRule {
            sop_class: uids::STORAGE_COMMITMENT,
            transfer_syntaxes: vec![uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN],
        });
        self
    }

    /// [`Self::max_pdu`] within its bounds.
    pub(super) fn pdu_length(&self) -> u32 {
        self.max_pdu.clamp(*PDU_LENGTHS.start(), *PDU_LENGTHS.end())
    }
}

impl PeerRule {
    /// Whether a peer meets every condition.
    #[must_use]
    pub fn matches(&self, peer: &PeerInfo) -> bool {
        let title = match &self.ae_title {
            None => true,
            Some(wanted) => AeTitle::parse(&peer.calling_ae).is_ok_and(|calling| calling == *wanted),
        };
        title && self.covers(peer.address.ip())
    }

    /// Whether a peer with this address may meet the conditions.
    pub(super) fn covers(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_wants_title_and_network() {
        let rule =
            PeerRule { ae_title: Some(AeTitle::parse("CT1").unwrap()), networks: vec!["10.0.0.0/8".parse().unwrap()] };
        let peer = |address: &str, calling_ae: &str| PeerInfo {
            address: format!("{address}:1042").parse().unwrap(),
            calling_ae: calling_ae.to_owned(),
            called_ae: "ICHOR".to_owned(),
            implementation_class: None,
            implementation_version: None,
        };
        assert!(rule.matches(&peer("10.1.2.3", "CT1")));
        assert!(!rule.matches(&peer("10.1.2.3", "ct1")));
        assert!(!rule.matches(&peer("10.1.2.3", "")));
        assert!(!rule.matches(&peer("192.168.1.1", "CT1")));
        let anyone = PeerRule { ae_title: None, networks: Vec::new() };
        assert!(anyone.matches(&peer("192.168.1.1", "")));
    }
}
