//! Settings of the user, and what it sends.

use std::time::Duration;

use ichor_core::{AeTitle, Uid};

use crate::status::StoreStatus;
use crate::tls::ClientTls;
use crate::uids;
use crate::wire::PDU_LENGTHS;

/// Whom to call, and how long to wait. [`ScuOptions::new`] gives the defaults named here.
#[derive(Clone, Debug)]
pub struct ScuOptions {
    /// Own AE title.
    pub calling_ae: AeTitle,
    /// AE title of the peer.
    pub called_ae: AeTitle,
    /// `host:port` of the peer.
    pub address: String,
    /// Longest PDU that is announced, in bytes, kept between 4,096 and 131,072 (default: 131,072). What is sent goes by
    /// the peer's word, up to 131,072.
    pub max_pdu: u32,
    /// How to speak TLS with the peer (default: not at all).
    pub tls: Option<ClientTls>,
    /// Time for name resolution, connection and TLS handshake (default: 30 s).
    pub connect_timeout: Duration,
    /// Time for each answer, and for each PDU to be taken (default: 60 s).
    pub response_timeout: Duration,
}

impl ScuOptions {
    /// Starts with the defaults.
    #[must_use]
    pub fn new(calling_ae: AeTitle, called_ae: AeTitle, address: impl Into<String>) -> Self {
        Self {
            calling_ae,
            called_ae,
            address: address.into(),
            max_pdu: *PDU_LENGTHS.end(),
            tls: None,
            connect_timeout: Duration::from_secs(30),
            response_timeout: Duration::from_secs(60),
        }
    }

    pub(super) fn pdu_length(&self) -> u32 {
        self.max_pdu.clamp(*PDU_LENGTHS.start(), *PDU_LENGTHS.end())
    }
}

/// A SOP class, and the transfer syntaxes to propose it in; each becomes a presentation context of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedContext {
    /// SOP Class UID.
    pub sop_class: Uid,
    /// Transfer Syntax UIDs.
    pub transfer_syntaxes: Vec<Uid>,
}

impl ProposedContext {
    /// Proposes a SOP class.
    #[must_use]
    pub fn new(sop_class: Uid, transfer_syntaxes: impl IntoIterator<Item = Uid>) -> Self {
        Self { sop_class, transfer_syntaxes: transfer_syntaxes.into_iter().collect() }
    }

    /// Proposes Verification, for C-ECHO.
    #[must_use]
    pub fn verification() -> Self {
        Self::new(uids::known(uids::VERIFICATION), [uids::known(uids::IMPLICIT_VR_LITTLE_ENDIAN)])
    }
}

/// What an instance to be stored is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreItem {
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Transfer syntax of its data set.
    pub transfer_syntax: Uid,
}

/// The peer's word on an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreResponse {
    /// Status (0000,0900).
    pub status: StoreStatus,
    /// Error Comment (0000,0902), if there is one; printable ASCII, at most 64 characters.
    pub comment: Option<String>,
}
