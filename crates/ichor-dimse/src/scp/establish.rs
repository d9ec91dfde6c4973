//! From a connection to an association (PS3.8 7.1): the request is read within the ARTIM time, held against the rules
//! and the handler, and answered. Nobody is refused in silence.

use std::sync::Arc;
use std::time::Duration;

use dicom_ul::Pdu;
use dicom_ul::pdu::{AbortRQServiceProviderReason as AbortReason, AssociationAC, AssociationRQ};
use ichor_core::AeTitle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::handler::{PeerInfo, Rejection, StorageHandler};
use super::options::ScpOptions;
use crate::negotiation::{AcceptedContext, MAX_CONTEXTS, PeerInformation, negotiate, printable, user_information};
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
    limit: Duration,
) -> Result<Request, NoRequest> {
    let refused = |what: String, reason| NoRequest::Refused(Rejection::NotAnAssociation(what), reason);
    match wire.receive(limit).await {
        Ok(Pdu::AssociationRQ(message)) => {
            let information = PeerInformation::read(&message.user_variables);
            peer.calling_ae = printable(&message.calling_ae_title, AeTitle::MAX_LENGTH);
            peer.called_ae = printable(&message.called_ae_title, AeTitle::MAX_LENGTH);
            peer.implementation_class = information.implementation_class;
            peer.implementation_version = information.implementation_version;
            Ok(Request { peer, message, max_pdu: information.max_pdu })
        }
        Ok(Pdu::Unknown { pdu_type, .. }) => {
            Err(refused(format!("unrecognized PDU type 0x{pdu_type:02x}"), AbortReason::UnrecognizedPdu))
        }
        Ok(Pdu::AbortRQ { .. }) | Err(WireError::Closed) => Err(NoRequest::Nothing),
        Ok(_) => Err(refused("another PDU came first".to_owned(), AbortReason::UnexpectedPdu)),
        Err(WireError::TimedOut(limit)) => {
            Err(NoRequest::Refused(Rejection::TimedOut(limit), AbortReason::ReasonNotSpecified))
        }
        Err(error) => Err(refused(error.to_string(), AbortReason::InvalidPduParameter)),
    }
}

/// Holds a request against the rules; what comes first is what a stranger may learn.
pub(super) fn check(
    request: &Request,
    options: &ScpOptions,
    associations: &Arc<Semaphore>,
) -> Result<OwnedSemaphorePermit, Rejection> {
    let Request { peer, message, max_pdu } = request;
    // Only bit 0 is tested (PS3.8 9.3.2).
    if message.protocol_version & 1 == 0 {
        return Err(Rejection::ProtocolVersionNotSupported);
    }
    if message.application_context_name.trim_matches(['\0', ' ']) != uids::APPLICATION_CONTEXT {
        return Err(Rejection::ApplicationContextNotSupported);
    }
    if !options.peers.iter().any(|rule| rule.matches(peer)) {
        return Err(Rejection::CallingAeNotRecognized);
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
    Arc::clone(associations).try_acquire_owned().map_err(|_| Rejection::LocalLimitExceeded)
}

/// Accepts: answers each presentation context, and agrees on PDU lengths.
pub(super) async fn accept<S: Stream>(
    wire: &mut Wire<S>,
    request: &Request,
    options: &ScpOptions,
) -> Result<Vec<AcceptedContext>, WireError> {
    let negotiated = negotiate(&request.message.presentation_contexts, &options.sop_classes);
    let answer = AssociationAC {
        protocol_version: 1,
        // Reserved fields that carry what the request had (PS3.8 9.3.3); made printable, which no peer may test.
        calling_ae_title: request.peer.calling_ae.clone(),
        called_ae_title: request.peer.called_ae.clone(),
        application_context_name: uids::APPLICATION_CONTEXT.to_owned(),
        presentation_contexts: negotiated.results,
        user_variables: user_information(options.pdu_length()),
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
