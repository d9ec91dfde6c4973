//! From a connection to an association (PS3.8 7.1): the request is read within the ARTIM time, held against the rules
//! and the handler, and answered. Nobody is refused in silence.

use std::time::Duration;

use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AbortRQServiceProviderReason as AbortReason, AssociationAC, AssociationRQ, UserIdentityType, UserVariableItem,
};
use ichor_core::AeTitle;
use tokio::time::Instant;

use super::admission::{Admission, Place};
use super::handler::{PeerInfo, Rejection, StorageHandler};
use super::options::{PeerRule, ScpOptions};
use crate::negotiation::{
    AcceptedContext, MAX_CONTEXTS, PeerInformation, answer_to_identity, answer_to_operations, claimed_name, negotiate,
    printable, user_identity, user_information,
};
use crate::uids;
use crate::wire::{MIN_PEER_PDU, Stream, Wire, WireError};

/// An A-ASSOCIATE-RQ that was read.
pub(super) struct Request {
    pub(super) peer: PeerInfo,
    message: AssociationRQ,
    max_pdu: u32,
}

/// Why no request was read.
pub(super) enum NoRequest {
    /// The peer came and went without a byte, as port checks do.
    Nothing,
    /// Something else came, or too late.
    Refused(Rejection, AbortReason),
}

/// Reads the A-ASSOCIATE-RQ of a connection.
pub(super) async fn read_request<S: Stream>(
    wire: &mut Wire<S>,
    mut peer: PeerInfo,
    options: &ScpOptions,
    peers: &[PeerRule],
    deadline: Instant,
) -> Result<Request, NoRequest> {
    let refused = |what: String, reason| NoRequest::Refused(Rejection::NotAnAssociation(what), reason);
    match wire.receive(deadline.saturating_duration_since(Instant::now())).await {
        Ok(Pdu::AssociationRQ(message)) => {
            let information = PeerInformation::read(&message.user_variables);
            peer.calling_ae = printable(&message.calling_ae_title, AeTitle::MAX_LENGTH);
            peer.called_ae = printable(&message.called_ae_title, AeTitle::MAX_LENGTH);
            peer.implementation_class = information.implementation_class;
            peer.implementation_version = information.implementation_version;
            identify(&mut peer, &message.user_variables, peers);
            Ok(Request { peer, message, max_pdu: information.max_pdu })
        }
        Ok(Pdu::Unknown { pdu_type, .. }) => {
            Err(refused(format!("unrecognized PDU type 0x{pdu_type:02x}"), AbortReason::UnrecognizedPdu))
        }
        Ok(Pdu::AbortRQ { .. }) | Err(WireError::Closed) => Err(NoRequest::Nothing),
        Ok(_) => Err(refused("another PDU came first".to_owned(), AbortReason::UnexpectedPdu)),
        Err(WireError::TimedOut(_)) => {
            Err(NoRequest::Refused(Rejection::TimedOut(options.artim_timeout), AbortReason::ReasonNotSpecified))
        }
        Err(error) => Err(refused(error.to_string(), AbortReason::InvalidPduParameter)),
    }
}

/// Holds a request against the rules; what comes first is what a stranger may learn.
pub(super) fn check(
    request: &Request,
    options: &ScpOptions,
    peers: &[PeerRule],
    admission: &Admission,
) -> Result<Place, Rejection> {
    let Request { peer, message, max_pdu } = request;
    // Only bit 0 is tested (PS3.8 9.3.2).
    if message.protocol_version & 1 == 0 {
        return Err(Rejection::ProtocolVersionNotSupported);
    }
    if message.application_context_name.trim_matches(['\0', ' ']) != uids::APPLICATION_CONTEXT {
        return Err(Rejection::ApplicationContextNotSupported);
    }
    if !peers.iter().any(|rule| rule.matches(peer)) {
        let is_named = peers.iter().any(|rule| rule.names(peer));
        return Err(if is_named { Rejection::UserNotVerified } else { Rejection::CallingAeNotRecognized });
    }
    if options.check_called_ae && AeTitle::parse(&peer.called_ae).ok().as_ref() != Some(&options.ae_title) {
        return Err(Rejection::CalledAeNotRecognized);
    }
    if (1..MIN_PEER_PDU).contains(max_pdu) {
        return Err(Rejection::NotAnAssociation(format!("the peer takes PDUs of {max_pdu} bytes only")));
    }
    if message.presentation_contexts.len() > MAX_CONTEXTS {
        let count = message.presentation_contexts.len();
        return Err(Rejection::NotAnAssociation(format!("{count} presentation contexts, of {MAX_CONTEXTS} possible")));
    }
    admission.enter(peer.address.ip())
}

/// Who the peer says it acts for, and whether a rule's passcode proves it. The passcode goes no further than this.
fn identify(peer: &mut PeerInfo, items: &[UserVariableItem], rules: &[PeerRule]) {
    let Some(identity) = user_identity(items) else { return };
    peer.user = claimed_name(identity);
    let proves = |rule: &PeerRule| {
        rule.user.as_ref().is_some_and(|user| {
            identity.identity_type() == UserIdentityType::UsernamePassword
                && user.is_proven_by(&identity.primary_field(), &identity.secondary_field())
        })
    };
    peer.is_user_verified = rules.iter().any(proves);
}

/// Accepts: answers each presentation context, and agrees on PDU lengths.
pub(super) async fn accept<S: Stream>(
    wire: &mut Wire<S>,
    request: &Request,
    options: &ScpOptions,
) -> Result<Vec<AcceptedContext>, WireError> {
    let AssociationRQ { presentation_contexts, user_variables, .. } = &request.message;
    let negotiated = negotiate(presentation_contexts, user_variables, &options.sop_classes, options.prefer);
    let mut answers = user_information(options.pdu_length());
    answers.extend(negotiated.roles);
    answers.extend(answer_to_operations(user_variables));
    answers.extend(answer_to_identity(user_variables, request.peer.is_user_verified));
    let answer = AssociationAC {
        protocol_version: 1,
        // Reserved fields that carry what the request had (PS3.8 9.3.3); made printable, which no peer may test.
        calling_ae_title: request.peer.calling_ae.clone(),
        called_ae_title: request.peer.called_ae.clone(),
        application_context_name: uids::APPLICATION_CONTEXT.to_owned(),
        presentation_contexts: negotiated.results,
        user_variables: answers,
    };
    wire.send(&answer.into(), options.pdu_timeout).await?;
    wire.agree(options.pdu_length(), request.max_pdu);
    Ok(negotiated.accepted)
}

/// Tells the peer why not, and closes.
pub(super) async fn reject<S: Stream>(mut wire: Wire<S>, rejection: &Rejection, limit: Duration) {
    match rejection.pdu() {
        Some(pdu) => {
            if wire.send(&pdu.into(), limit).await.is_ok() {
                wire.close().await;
            }
        }
        None => wire.abort_as_provider(AbortReason::InvalidPduParameter).await,
    }
}

/// Hands a refusal to the handler.
pub(super) async fn report<H: StorageHandler>(handler: &H, peer: &PeerInfo, rejection: &Rejection) {
    tracing::debug!(peer = %peer.address, calling_ae = %peer.calling_ae, reason = %rejection, "association refused");
    handler.association_refused(peer, rejection).await;
}
