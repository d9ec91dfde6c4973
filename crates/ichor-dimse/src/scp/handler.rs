//! What the provider hands over, and to whom.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason as AcseReason,
    AssociationRJServiceProviderPresentationReason as PresentationReason, AssociationRJServiceUserReason as UserReason,
    AssociationRJSource,
};
use ichor_core::Uid;

use super::commitment::PendingReport;
use crate::commitment::{CommitmentReport, CommitmentRequest};
use crate::status::StoreStatus;
use crate::tls::TlsPeer;

/// A peer that asks for an association, or has one. Its texts are cut to their field's length, and hold printable
/// ASCII only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where it connects from.
    pub address: SocketAddr,
    /// AE title it calls itself; empty if it never said.
    pub calling_ae: String,
    /// AE title it calls us; empty if it never said.
    pub called_ae: String,
    /// Implementation Class UID (PS3.7 D.3.3.2), if given.
    pub implementation_class: Option<String>,
    /// Implementation Version Name, if given.
    pub implementation_version: Option<String>,
    /// What the TLS handshake has shown; `None` on the port without TLS.
    pub tls: Option<TlsPeer>,
    /// User that it claims to act for (PS3.7 D.3.3.7), if it gives a name.
    pub user: Option<String>,
    /// Whether a passcode of ours has proven that user.
    pub is_user_verified: bool,
}

impl PeerInfo {
    /// A peer of which nothing but the address is known.
    #[must_use]
    pub fn stranger(address: SocketAddr) -> Self {
        Self {
            address,
            calling_ae: String::new(),
            called_ae: String::new(),
            implementation_class: None,
            implementation_version: None,
            tls: None,
            user: None,
            is_user_verified: false,
        }
    }
}

/// Why a peer got no association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Permanent: no rule allows this calling AE title from this address.
    CallingAeNotRecognized,
    /// Permanent: a rule for this peer asks for a user, and the passcode that proves it did not come.
    UserNotVerified,
    /// Permanent: the peer calls another AE title.
    CalledAeNotRecognized,
    /// Permanent: the application context is not DICOM's.
    ApplicationContextNotSupported,
    /// Permanent: not version 1 of the upper layer protocol.
    ProtocolVersionNotSupported,
    /// Transient: something needed is not available just now.
    TemporaryCongestion,
    /// Transient: as many associations as are allowed are open.
    LocalLimitExceeded,
    /// Transient: this address has as many associations as one may have.
    PeerLimitExceeded,
    /// The TLS handshake came to nothing, for this reason; the connection was closed.
    TlsFailed(String),
    /// No A-ASSOCIATE-RQ came in time; the connection was aborted.
    TimedOut(Duration),
    /// What came was no A-ASSOCIATE-RQ; the connection was aborted.
    NotAnAssociation(String),
}

impl Rejection {
    /// The A-ASSOCIATE-RJ that says so (PS3.8 table 9-21); `None` where there is no request to reject.
    pub(super) fn pdu(&self) -> Option<AssociationRJ> {
        let (result, source) = match self {
            Self::CallingAeNotRecognized => permanent(UserReason::CallingAETitleNotRecognized),
            // PS3.7 D.3.3.7 leaves the reason open.
            Self::UserNotVerified => permanent(UserReason::NoReasonGiven),
            Self::CalledAeNotRecognized => permanent(UserReason::CalledAETitleNotRecognized),
            Self::ApplicationContextNotSupported => permanent(UserReason::ApplicationContextNameNotSupported),
            Self::ProtocolVersionNotSupported => (
                AssociationRJResult::Permanent,
                AssociationRJSource::ServiceProviderASCE(AcseReason::ProtocolVersionNotSupported),
            ),
            Self::TemporaryCongestion => transient(PresentationReason::TemporaryCongestion),
            Self::LocalLimitExceeded | Self::PeerLimitExceeded => transient(PresentationReason::LocalLimitExceeded),
            Self::TimedOut(_) | Self::NotAnAssociation(_) | Self::TlsFailed(_) => return None,
        };
        Some(AssociationRJ { result, source })
    }
}

fn permanent(reason: UserReason) -> (AssociationRJResult, AssociationRJSource) {
    (AssociationRJResult::Permanent, AssociationRJSource::ServiceUser(reason))
}

fn transient(reason: PresentationReason) -> (AssociationRJResult, AssociationRJSource) {
    (AssociationRJResult::Transient, AssociationRJSource::ServiceProviderPresentation(reason))
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CallingAeNotRecognized => f.write_str("calling AE title not recognized"),
            Self::UserNotVerified => f.write_str("user identity not verified"),
            Self::CalledAeNotRecognized => f.write_str("called AE title not recognized"),
            Self::ApplicationContextNotSupported => f.write_str("application context not supported"),
            Self::ProtocolVersionNotSupported => f.write_str("protocol version not supported"),
            Self::TemporaryCongestion => f.write_str("temporary congestion"),
            Self::LocalLimitExceeded => f.write_str("local limit exceeded"),
            Self::PeerLimitExceeded => f.write_str("local limit exceeded: associations of this address"),
            Self::TlsFailed(why) => write!(f, "no TLS: {why}"),
            Self::TimedOut(limit) => write!(f, "no association request within {limit:?}"),
            Self::NotAnAssociation(what) => write!(f, "no association request: {what}"),
        }
    }
}

/// How an association ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssociationOutcome {
    /// The peer released it in good order.
    Released,
    /// The peer aborted it; in words, who and why.
    AbortedByPeer(String),
    /// We aborted it, because the peer broke the protocol or a limit.
    Aborted(String),
    /// The connection was lost.
    Dropped(String),
    /// We aborted it, because the peer was silent for too long.
    TimedOut(String),
    /// We aborted it, because the listener stops.
    ShutDown,
}

impl fmt::Display for AssociationOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Released => f.write_str("released"),
            Self::AbortedByPeer(why) => write!(f, "aborted by the peer: {why}"),
            Self::Aborted(why) => write!(f, "aborted: {why}"),
            Self::Dropped(why) => write!(f, "dropped: {why}"),
            Self::TimedOut(why) => write!(f, "timed out: {why}"),
            Self::ShutDown => f.write_str("aborted: shutting down"),
        }
    }
}

/// The end of an association, and what came over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssociationEnd {
    /// How it ended.
    pub outcome: AssociationOutcome,
    /// Instances taken: the sink has committed them, whether or not the peer still heard the answer.
    pub instances: u64,
    /// Instances that were to be answered with a failure.
    pub failures: u64,
    /// Data set bytes received, of all instances.
    pub bytes: u64,
}

/// What a C-STORE-RQ announces (PS3.7 9.3.1.1), parsed, with the transfer syntax of its presentation context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRequest {
    /// Affected SOP Class UID; it is the one that the presentation context was accepted for.
    pub sop_class: Uid,
    /// Affected SOP Instance UID.
    pub sop_instance: Uid,
    /// Transfer syntax of the bytes that follow.
    pub transfer_syntax: Uid,
    /// Message ID.
    pub message_id: u16,
}

/// Why an instance was not taken: the status that the peer hears, and a comment of which it gets 64 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFailure {
    /// Failure status; a success or warning here is answered as a processing failure.
    pub status: StoreStatus,
    /// Error Comment (0000,0902); empty stands for the words of the status. Patient data has no place in it.
    pub comment: String,
    /// Elements of the data set that are at fault, by group and element: Offending Element (0000,0901), which goes with
    /// 0xA9xx and 0xCxxx (PS3.4 table B.2-1). Usually none.
    pub offending: Vec<(u16, u16)>,
}

impl StoreFailure {
    /// Puts a failure together.
    #[must_use]
    pub fn new(status: StoreStatus, comment: impl Into<String>) -> Self {
        Self { status, comment: comment.into(), offending: Vec::new() }
    }

    /// Names an element that is at fault.
    #[must_use]
    pub fn at(mut self, group: u16, element: u16) -> Self {
        self.offending.push((group, element));
        self
    }
}

/// How an instance was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// Taken as it is.
    Success,
    /// Taken, with something to say about it; a status that is no warning is answered as success.
    Warning {
        /// Warning status.
        status: StoreStatus,
        /// Error Comment (0000,0902).
        comment: String,
    },
}

/// Takes one instance, fragment by fragment. Dropped before [`Self::commit`] has returned success, it must leave
/// nothing that counts: the peer was never told that the instance is safe.
pub trait InstanceSink: Send + 'static {
    /// Takes the next bytes of the data set. After an error the rest of the data set is read and discarded, and the
    /// peer hears of the failure; the association goes on.
    fn write(&mut self, fragment: &[u8]) -> impl Future<Output = Result<(), StoreFailure>> + Send;

    /// Makes the instance durable. The peer hears of success after this has returned it.
    fn commit(self) -> impl Future<Output = Result<StoreOutcome, StoreFailure>> + Send;
}

/// Whom the provider works for. A listener serves each association on a thread of its own, which the handler may block.
pub trait StorageHandler: Send + Sync + 'static {
    /// What the handler keeps of an open association.
    type Association: Send + Sync + 'static;
    /// Takes one instance.
    type Sink: InstanceSink;

    /// Decides on an association that every rule allows, before it is accepted.
    fn association_opened(&self, peer: &PeerInfo) -> impl Future<Output = Result<Self::Association, Rejection>> + Send;

    /// Hears of each association that was refused, so that none is refused in silence.
    fn association_refused(&self, peer: &PeerInfo, rejection: &Rejection) -> impl Future<Output = ()> + Send;

    /// Hears of the end of each association that was opened.
    fn association_closed(
        &self,
        association: Self::Association,
        end: AssociationEnd,
    ) -> impl Future<Output = ()> + Send;

    /// Makes a sink for an instance that is about to come.
    fn begin(
        &self,
        association: &Self::Association,
        request: &StoreRequest,
    ) -> impl Future<Output = Result<Self::Sink, StoreFailure>> + Send;

    /// Takes a request for storage commitment (PS3.4 J.3.2). The peer hears of success after this has returned it: from
    /// then on it counts on a report. By default it is not supported.
    fn commitment_requested(
        &self,
        association: &Self::Association,
        request: &CommitmentRequest,
    ) -> impl Future<Output = Result<(), StoreFailure>> + Send {
        let _ = (association, request);
        let failure = StoreFailure::new(StoreStatus::UnrecognizedOperation, "storage commitment is not supported");
        std::future::ready(Err(failure))
    }

    /// Takes a report on a storage commitment request of our own (PS3.4 J.3.3), on an association that its provider has
    /// opened. The peer hears of success after this has returned it. By default it is not supported.
    fn report_received(
        &self,
        association: &Self::Association,
        report: &CommitmentReport,
    ) -> impl Future<Output = Result<(), StoreFailure>> + Send {
        let _ = (association, report);
        let failure = StoreFailure::new(StoreStatus::UnrecognizedOperation, "reports are not supported");
        std::future::ready(Err(failure))
    }

    /// Completes when [`Self::take_report`] may have a report for this association. Dropping it must lose nothing.
    fn report_due(&self, association: &Self::Association) -> impl Future<Output = ()> + Send {
        let _ = association;
        std::future::pending()
    }

    /// Takes the next report that is to go out on this association. If no [`Self::report_answered`] follows before the
    /// association is closed, the peer may not have it.
    fn take_report(&self, association: &Self::Association) -> impl Future<Output = Option<PendingReport>> + Send {
        let _ = association;
        std::future::ready(None)
    }

    /// Hears what the peer answered to a report.
    fn report_answered(
        &self,
        association: &Self::Association,
        id: i64,
        status: StoreStatus,
        comment: Option<String>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (association, id, status, comment);
        std::future::ready(())
    }
}
