//! Settings of the provider.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ichor_core::AeTitle;

use super::commitment::CommitmentLimits;
use super::handler::PeerInfo;
use crate::uids;
use crate::wire::PDU_LENGTHS;
use ichor_core::IpNetwork;

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
    /// Associations at once from one address; one more is rejected the same way (default: 32).
    pub max_associations_per_peer: usize,
    /// Connections without an association at once, from addresses that a rule covers; one more is closed (default: 64).
    /// From one address as many as [`Self::max_associations_per_peer`].
    pub max_handshakes: usize,
    /// The same from addresses that no rule covers: few, so that strangers who say nothing keep nobody out (default: 8).
    pub max_strangers: usize,
    /// Longest PDU that is accepted and announced, in bytes, kept between 4,096 and 131,072 (default: 131,072).
    pub max_pdu: u32,
    /// Longest data set, in bytes; a longer one is answered with 0xA700 (default: 2 GiB).
    pub max_instance_bytes: u64,
    /// Time for a peer to request its association after it has connected (ARTIM, PS3.8 9.1.5; default: 30 s).
    pub artim_timeout: Duration,
    /// Time without any message before an association is aborted (default: 60 s).
    pub idle_timeout: Duration,
    /// Time for each PDU of a data set, for the rest of a command once its first PDU is there, and for each PDU that is
    /// sent (default: 30 s).
    pub pdu_timeout: Duration,
    /// Fewest bytes a second of a data set, over each [`Self::throughput_window`] spent waiting for the peer; who sends
    /// less is aborted. 0: no such bound (default: 1,024).
    pub min_bytes_per_second: u64,
    /// See [`Self::min_bytes_per_second`]. Time in which the handler writes does not count (default: 30 s).
    pub throughput_window: Duration,
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
    /// Whose order of transfer syntaxes counts, where a presentation context proposes several (default: the peer's).
    pub prefer: Preference,
}

/// Whose order of transfer syntaxes counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// The first proposed one that the rule lists.
    #[default]
    Peer,
    /// The first one of the rule that is proposed.
    Own,
}

/// Which transfer syntaxes are accepted for a SOP class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SopClassRule {
    /// SOP Class UID.
    pub sop_class: &'static str,
    /// Transfer Syntax UIDs; their order matters with [`Preference::Own`].
    pub transfer_syntaxes: Vec<&'static str>,
}

/// Peers that may open an association: every condition must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRule {
    /// Calling AE title; `None` is any.
    pub ae_title: Option<AeTitle>,
    /// Networks of which one must hold the peer's address; none at all is any address.
    pub networks: Vec<IpNetwork>,
    /// User and passcode that it must give (PS3.7 D.3.3.7); `None` asks for neither.
    pub user: Option<UserRule>,
}

/// A user, and the passcode that proves it.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRule {
    /// Name.
    pub name: String,
    /// Passcode. It stands in no log.
    pub passcode: String,
}

impl UserRule {
    /// Whether this name and passcode are those. The time it takes tells nothing of the passcode but its length.
    pub(super) fn is_proven_by(&self, name: &[u8], passcode: &[u8]) -> bool {
        let ours = self.passcode.as_bytes();
        let difference = ours.iter().zip(passcode).fold(0, |sum, (a, b)| sum | (a ^ b));
        self.name.as_bytes() == name && ours.len() == passcode.len() && difference == 0
    }
}

impl fmt::Debug for UserRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRule").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SopClassRule {
    /// Whether the class is one of instances: neither Verification nor Storage Commitment.
    #[must_use]
    pub fn is_storage(&self) -> bool {
        ![uids::VERIFICATION, uids::STORAGE_COMMITMENT].contains(&self.sop_class)
    }
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
            max_associations_per_peer: 32,
            max_handshakes: 64,
            max_strangers: 8,
            max_pdu: *PDU_LENGTHS.end(),
            max_instance_bytes: 2 << 30,
            artim_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            pdu_timeout: Duration::from_secs(30),
            min_bytes_per_second: 1024,
            throughput_window: Duration::from_secs(30),
            instance_timeout: Duration::from_secs(3600),
            drain_timeout: Duration::from_secs(10),
            commitment: CommitmentLimits::default(),
            sop_classes: std::iter::once(verification).chain(storage).collect(),
            prefer: Preference::Peer,
        }
    }

    /// Sets the transfer syntaxes of every SOP class but Verification.
    pub fn set_storage_syntaxes(&mut self, transfer_syntaxes: &[&'static str]) {
        for rule in self.sop_classes.iter_mut().filter(|rule| rule.is_storage()) {
            rule.transfer_syntaxes = transfer_syntaxes.to_vec();
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
        let proven = peer.user.as_deref().filter(|_| peer.is_user_verified);
        self.names(peer) && self.user.as_ref().is_none_or(|user| proven == Some(user.name.as_str()))
    }

    /// Whether a peer meets every condition but that of the user.
    pub(super) fn names(&self, peer: &PeerInfo) -> bool {
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
        let rule = PeerRule {
            ae_title: Some(AeTitle::parse("CT1").unwrap()),
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            user: None,
        };
        let peer = |address: &str, calling_ae: &str| PeerInfo {
            calling_ae: calling_ae.to_owned(),
            ..PeerInfo::stranger(format!("{address}:1042").parse().unwrap())
        };
        assert!(rule.matches(&peer("10.1.2.3", "CT1")));
        assert!(!rule.matches(&peer("10.1.2.3", "ct1")));
        assert!(!rule.matches(&peer("10.1.2.3", "")));
        assert!(!rule.matches(&peer("192.168.1.1", "CT1")));
        let anyone = PeerRule { ae_title: None, networks: Vec::new(), user: None };
        assert!(anyone.matches(&peer("192.168.1.1", "")));
    }

    #[test]
    fn a_rule_with_a_user_wants_it_proven() {
        let user = UserRule { name: "router".to_owned(), passcode: "s3cret".to_owned() };
        assert!(!format!("{user:?}").contains("s3cret"));
        for (name, passcode, proves) in [
            ("router", "s3cret", true),
            ("router", "s3cres", false),
            ("router", "s3cret0", false),
            ("ct", "s3cret", false),
            ("router", "", false),
        ] {
            assert_eq!(user.is_proven_by(name.as_bytes(), passcode.as_bytes()), proves, "{name} {passcode}");
        }
        let rule = PeerRule { ae_title: None, networks: Vec::new(), user: Some(user) };
        let mut peer = PeerInfo::stranger("10.1.2.3:1042".parse().unwrap());
        assert!(!rule.matches(&peer));
        peer.user = Some("router".to_owned());
        assert!(!rule.matches(&peer), "a claim is no proof");
        peer.is_user_verified = true;
        assert!(rule.matches(&peer));
        peer.user = Some("ct".to_owned());
        assert!(!rule.matches(&peer), "another user's proof");
    }
}
