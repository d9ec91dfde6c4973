//! Why an instance could not be sent, and whether another attempt may help.

use std::io;

use dicom_ul::pdu::{AssociationRJ, AssociationRJResult};
use ichor_core::Uid;
use thiserror::Error;

use crate::command::CommandError;
use crate::exchange::{ExchangeError, abort_words};
use crate::tls::TlsError;
use crate::wire::WireError;

/// What can go wrong between a user and its peer.
#[derive(Debug, Error)]
pub enum ScuError {
    /// Nothing listens there, or the name is not known.
    #[error("no connection to {address}")]
    Connect {
        /// `host:port`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Own certificates or keys cannot be used; nothing was sent.
    #[error("no TLS: {0}")]
    TlsFiles(#[from] TlsError),
    /// The TLS handshake came to nothing.
    #[error("no TLS with {address}: {reason}")]
    Tls {
        /// `host:port`.
        address: String,
        /// Whose certificate, or what else, was not accepted.
        reason: String,
    },
    /// The peer rejected the association (A-ASSOCIATE-RJ).
    #[error("association rejected ({}): {reason}", if *permanent { "permanent" } else { "transient" })]
    Rejected {
        /// Whether the peer called it permanent.
        permanent: bool,
        /// The peer's reason.
        reason: String,
    },
    /// The peer accepted none of the proposed presentation contexts.
    #[error("the peer accepts none of the proposed presentation contexts")]
    NoAcceptedContext,
    /// The peer accepted others, but not the one that this needs.
    #[error("the peer does not accept {sop_class} in transfer syntax {transfer_syntax}")]
    ContextNotAccepted {
        /// SOP class.
        sop_class: Uid,
        /// Transfer syntax.
        transfer_syntax: Uid,
    },
    /// One association carries 1 to 128 presentation contexts.
    #[error("{0} presentation contexts to propose, where 1 to 128 are possible")]
    Contexts(usize),
    /// The data set has no bytes.
    #[error("the data set is empty")]
    EmptyDataSet,
    /// The data set could not be read.
    #[error("the data set cannot be read")]
    Source(#[source] io::Error),
    /// The peer aborted (A-ABORT).
    #[error("association aborted by the peer: {0}")]
    Aborted(String),
    /// The connection was lost.
    #[error("connection lost: {0}")]
    Dropped(String),
    /// The peer was silent for too long.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// The peer broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The association has ended already.
    #[error("the association has ended")]
    Closed,
}

impl ScuError {
    /// Whether the same attempt would fail again whatever the peer does: what is to be sent is no object. A peer that is
    /// absent, busy, confused, or not yet told of us and our SOP classes may be better next time; that it calls its
    /// rejection permanent speaks of its present configuration.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Contexts(_) | Self::EmptyDataSet => true,
            Self::Rejected { .. }
            | Self::NoAcceptedContext
            | Self::ContextNotAccepted { .. }
            | Self::Connect { .. }
            | Self::TlsFiles(_)
            | Self::Tls { .. }
            | Self::Source(_)
            | Self::Aborted(_)
            | Self::Dropped(_)
            | Self::TimedOut(_)
            | Self::Protocol(_)
            | Self::Closed => false,
        }
    }

    pub(super) fn rejected(rejected: &AssociationRJ) -> Self {
        let permanent = rejected.result == AssociationRJResult::Permanent;
        Self::Rejected { permanent, reason: rejected.source.to_string() }
    }
}

impl From<ExchangeError> for ScuError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Aborted(source) => Self::Aborted(abort_words(&source)),
            ExchangeError::Wire(WireError::TimedOut(limit)) => Self::TimedOut(format!("no answer within {limit:?}")),
            ExchangeError::Wire(WireError::Closed) => Self::Dropped("closed by the peer".to_owned()),
            ExchangeError::Wire(WireError::Broken(why)) => Self::Dropped(why),
            ExchangeError::Wire(WireError::Malformed(why)) => Self::Protocol(why),
            ExchangeError::Order(order) => Self::Protocol(order.to_string()),
            ExchangeError::Unexpected(what) => Self::Protocol(format!("unexpected {what}")),
            ExchangeError::Unrecognized(pdu_type) => Self::Protocol(format!("unrecognized PDU type 0x{pdu_type:02x}")),
        }
    }
}

impl From<CommandError> for ScuError {
    fn from(error: CommandError) -> Self {
        Self::Protocol(error.to_string())
    }
}
