//! Storage and Verification as user (PS3.4 Annex A and B): one association, one instance after the other, each in the
//! transfer syntax that it has.

mod commit;
mod error;
mod find;
mod options;
mod report;
mod retrieve;

use std::time::Duration;

use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AbortRQServiceProviderReason as AbortReason, AbortRQSource, AssociationAC, AssociationRQ,
    PresentationContextProposed, PresentationContextResultReason, UserVariableItem,
};
use ichor_core::Uid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::debug;

pub use commit::{CommitmentScu, ReceivedReport};
pub use error::ScuError;
pub use find::{Found, InstanceKey, Match, Queried, QueryModel, WorklistKeys, attribute};
pub use options::{ProposedContext, ScuOptions, StoreItem, StoreResponse};
pub use retrieve::{MoveKeys, Moved};

use crate::command::{CommandSet, field, tag};
use crate::exchange::{Exchange, ExchangeError, Incoming};
use crate::negotiation::{AcceptedContext, MAX_CONTEXTS, PeerInformation, user_information};
use crate::status::StoreStatus;
use crate::transport::Transport;
use crate::uids;
use crate::wire::{FragmentKind, MIN_PEER_PDU, PromptStream, Wire, WireError};

/// An association that was accepted, with at least one presentation context.
///
/// After an error that leaves a message unfinished the association is aborted, and every further call returns
/// [`ScuError::Closed`]. Dropped without [`Self::release`], the connection just closes: no fragment is ever marked as
/// the last one that is not.
#[derive(Debug)]
pub struct StorageScu {
    exchange: Option<Exchange<Transport>>,
    contexts: Vec<AcceptedContext>,
    response_timeout: Duration,
    last_message_id: u16,
}

impl StorageScu {
    /// Connects, and proposes one presentation context for each SOP class and transfer syntax, so that the peer cannot
    /// choose a syntax that an instance does not have.
    ///
    /// # Errors
    /// If there is no connection, no answer, or no accepted context.
    pub async fn connect(options: &ScuOptions, contexts: &[ProposedContext]) -> Result<Self, ScuError> {
        Self::connect_as(options, contexts, Vec::new()).await
    }

    /// [`Self::connect`] with more user information, such as roles (PS3.7 D.3.3.4).
    async fn connect_as(
        options: &ScuOptions,
        contexts: &[ProposedContext],
        more: Vec<UserVariableItem>,
    ) -> Result<Self, ScuError> {
        let proposed = propose(contexts)?;
        let stream = dial(options).await?;
        let mut wire = Wire::new(stream);
        let max_pdu = options.pdu_length();
        let request = AssociationRQ {
            protocol_version: 1,
            calling_ae_title: options.calling_ae.to_string(),
            called_ae_title: options.called_ae.to_string(),
            application_context_name: uids::APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: proposed.clone(),
            user_variables: user_information(max_pdu).into_iter().chain(more).collect(),
        };
        wire.send(&request.into(), options.response_timeout).await?;
        let answer = match wire.receive(options.response_timeout).await {
            Ok(Pdu::AssociationAC(answer)) => answer,
            Ok(Pdu::AssociationRJ(rejected)) => return Err(ScuError::rejected(&rejected)),
            Ok(Pdu::AbortRQ { source }) => return Err(ExchangeError::Aborted(source).into()),
            Ok(_) => {
                wire.abort_as_provider(AbortReason::UnexpectedPdu).await;
                return Err(ScuError::Protocol("association request answered with another PDU".to_owned()));
            }
            Err(error) => {
                wire.abort(AbortRQSource::ServiceUser).await;
                return Err(error.into());
            }
        };
        let information = PeerInformation::read(&answer.user_variables);
        let accepted = accepted(&proposed, &answer);
        if (1..MIN_PEER_PDU).contains(&information.max_pdu) {
            wire.abort(AbortRQSource::ServiceUser).await;
            return Err(ScuError::Protocol(format!("the peer takes PDUs of {} bytes only", information.max_pdu)));
        }
        wire.agree(max_pdu, information.max_pdu);
        debug!(address = options.address, proposed = proposed.len(), accepted = accepted.len(), "association accepted");
        let mut scu = Self {
            exchange: Some(Exchange::new(wire)),
            contexts: accepted,
            response_timeout: options.response_timeout,
            last_message_id: 0,
        };
        if scu.contexts.is_empty() {
            if let Err(error) = scu.hang_up().await {
                debug!(%error, "release of an association without contexts");
            }
            return Err(ScuError::NoAcceptedContext);
        }
        Ok(scu)
    }

    /// Whether the peer takes instances of this SOP class in this transfer syntax.
    #[must_use]
    pub fn accepts(&self, sop_class: &Uid, transfer_syntax: &Uid) -> bool {
        self.context(sop_class, transfer_syntax).is_some()
    }

    fn context(&self, sop_class: &Uid, transfer_syntax: &Uid) -> Option<u8> {
        self.contexts
            .iter()
            .find(|context| context.abstract_syntax == *sop_class && context.transfer_syntax == *transfer_syntax)
            .map(|context| context.id)
    }

    /// Stores one instance: `data` is its data set from the first byte to the end, without the file header, and is sent
    /// as it is read.
    ///
    /// # Errors
    /// [`ScuError::ContextNotAccepted`], [`ScuError::EmptyDataSet`] and a source that fails at its first byte leave the
    /// association as it was; every other error ends it.
    pub async fn store(
        &mut self,
        item: &StoreItem,
        mut data: impl AsyncRead + Unpin + Send,
    ) -> Result<StoreResponse, ScuError> {
        let context =
            self.context(&item.sop_class, &item.transfer_syntax).ok_or_else(|| ScuError::ContextNotAccepted {
                sop_class: item.sop_class.clone(),
                transfer_syntax: item.transfer_syntax.clone(),
            })?;
        let longest = self.exchange.as_mut().ok_or(ScuError::Closed)?.wire().max_fragment();
        let first = read_chunk(&mut data, longest).await.map_err(ScuError::Source)?;
        if first.is_empty() {
            return Err(ScuError::EmptyDataSet);
        }
        let message_id = self.next_message_id();
        let command = CommandSet::c_store_request(message_id, &item.sop_class, &item.sop_instance);
        let sent = self.send_data_set(context, &command, first, &mut data).await;
        self.answer(sent, field::C_STORE_RSP, message_id).await
    }

    /// Waits for the answer to a request that was sent with a data set; gives the association up if either fails.
    async fn answer(
        &mut self,
        sent: Result<(), ScuError>,
        response: u16,
        message_id: u16,
    ) -> Result<StoreResponse, ScuError> {
        let answered = match sent {
            Ok(()) => self.response(response, message_id).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok((status, comment)) => Ok(StoreResponse { status, comment }),
            Err(error) => {
                self.give_up(&error).await;
                Err(error)
            }
        }
    }

    /// Sends the command and the data set. One chunk is read ahead, so that the last one is known when it is sent.
    async fn send_data_set(
        &mut self,
        context: u8,
        command: &CommandSet,
        first: Vec<u8>,
        data: &mut (impl AsyncRead + Unpin + Send),
    ) -> Result<(), ScuError> {
        let limit = self.response_timeout;
        let exchange = self.exchange.as_mut().ok_or(ScuError::Closed)?;
        exchange.send_command(context, command, limit).await?;
        let longest = exchange.wire().max_fragment();
        let mut chunk = first;
        loop {
            let next = if chunk.len() < longest {
                Vec::new()
            } else {
                read_chunk(data, longest).await.map_err(ScuError::Source)?
            };
            let is_last = next.is_empty();
            exchange.wire().send_fragment(context, FragmentKind::DataSet, &chunk, is_last, limit).await?;
            if is_last {
                return Ok(());
            }
            chunk = next;
        }
    }

    /// Verifies that the peer answers (C-ECHO).
    ///
    /// # Errors
    /// If Verification was not accepted, or the peer does not answer.
    pub async fn echo(&mut self) -> Result<StoreStatus, ScuError> {
        let verification = uids::known(uids::VERIFICATION);
        let context = self.contexts.iter().find(|context| context.abstract_syntax == verification);
        let Some(context) = context.map(|context| context.id) else {
            let transfer_syntax = uids::known(uids::IMPLICIT_VR_LITTLE_ENDIAN);
            return Err(ScuError::ContextNotAccepted { sop_class: verification, transfer_syntax });
        };
        let message_id = self.next_message_id();
        let exchange = self.exchange.as_mut().ok_or(ScuError::Closed)?;
        let sent = exchange.send_command(context, &CommandSet::c_echo_request(message_id), self.response_timeout).await;
        let answered = match sent {
            Ok(()) => self.response(field::C_ECHO_RSP, message_id).await,
            Err(error) => Err(error.into()),
        };
        match answered {
            Ok((status, _)) => Ok(status),
            Err(error) => {
                self.give_up(&error).await;
                Err(error)
            }
        }
    }

    /// Releases the association (A-RELEASE) and closes the connection.
    ///
    /// # Errors
    /// If the peer does not agree in time; the connection is closed anyway.
    pub async fn release(mut self) -> Result<(), ScuError> {
        self.hang_up().await
    }

    /// Aborts the association (A-ABORT) and closes the connection.
    pub async fn abort(mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.into_wire().abort(AbortRQSource::ServiceUser).await;
        }
    }

    async fn hang_up(&mut self) -> Result<(), ScuError> {
        let mut exchange = self.exchange.take().ok_or(ScuError::Closed)?;
        let limit = self.response_timeout;
        let agreed = async {
            exchange.wire().send(&Pdu::ReleaseRQ, limit).await?;
            match exchange.next_command(limit, limit).await? {
                Incoming::ReleaseResponse => Ok(()),
                // Both sides at once: the requestor of the association answers first (PS3.8 7.2.2.7).
                Incoming::ReleaseRequest => {
                    exchange.wire().send(&Pdu::ReleaseRP, limit).await?;
                    // Its own response is due as well; many hang up instead, and have agreed all the same.
                    match exchange.next_command(limit, limit).await {
                        Ok(Incoming::ReleaseResponse) | Err(ExchangeError::Wire(WireError::Closed)) => Ok(()),
                        Ok(_) => Err(ScuError::Protocol("message instead of A-RELEASE-RP".to_owned())),
                        Err(error) => Err(error.into()),
                    }
                }
                Incoming::Command { .. } => Err(ScuError::Protocol("message instead of A-RELEASE-RP".to_owned())),
            }
        }
        .await;
        match agreed {
            Ok(()) => exchange.into_wire().close().await,
            Err(_) => exchange.into_wire().abort(AbortRQSource::ServiceUser).await,
        }
        agreed
    }

    /// Waits for the response to a message.
    async fn response(
        &mut self,
        wanted_field: u16,
        message_id: u16,
    ) -> Result<(StoreStatus, Option<String>), ScuError> {
        let limit = self.response_timeout;
        let exchange = self.exchange.as_mut().ok_or(ScuError::Closed)?;
        let bytes = match exchange.next_command(limit, limit).await? {
            Incoming::Command { bytes, .. } => bytes,
            Incoming::ReleaseRequest | Incoming::ReleaseResponse => {
                return Err(ScuError::Protocol("release instead of a response".to_owned()));
            }
        };
        let command = CommandSet::decode(&bytes)?;
        let (found_field, found_id) = (command.u16(tag::COMMAND_FIELD)?, command.u16(tag::MESSAGE_ID_RESPONDED_TO)?);
        if (found_field, found_id) != (wanted_field, message_id) {
            return Err(ScuError::Protocol(format!(
                "response 0x{found_field:04X} to message {found_id} where 0x{wanted_field:04X} to {message_id} was due"
            )));
        }
        if command.announces_data_set()? {
            return Err(ScuError::Protocol("response with a data set".to_owned()));
        }
        Ok((StoreStatus::from_code(command.u16(tag::STATUS)?), command.comment()))
    }

    /// Reads the data set that follows a command, up to `most` bytes.
    async fn read_data_set(&mut self, context: u8, most: usize) -> Result<Vec<u8>, ScuError> {
        let limit = self.response_timeout;
        let exchange = self.exchange.as_mut().ok_or(ScuError::Closed)?;
        exchange.expect_data(context);
        let mut bytes = Vec::new();
        loop {
            let fragment = exchange.next_fragment(limit).await?;
            if bytes.len() + fragment.bytes.len() > most {
                return Err(ScuError::Protocol(format!("data set of more than {most} bytes")));
            }
            bytes.extend_from_slice(&fragment.bytes);
            if fragment.is_last {
                return Ok(bytes);
            }
        }
    }

    fn next_message_id(&mut self) -> u16 {
        self.last_message_id = self.last_message_id.checked_add(1).unwrap_or(1);
        self.last_message_id
    }

    /// Ends an association on which a message is unfinished; the peer must not take it for whole.
    async fn give_up(&mut self, error: &ScuError) {
        let Some(exchange) = self.exchange.take() else { return };
        match error {
            ScuError::Dropped(_) | ScuError::Aborted(_) => drop(exchange),
            _ => exchange.into_wire().abort(AbortRQSource::ServiceUser).await,
        }
    }
}

/// One context for each SOP class and transfer syntax, each pair once.
fn propose(contexts: &[ProposedContext]) -> Result<Vec<PresentationContextProposed>, ScuError> {
    let mut pairs: Vec<(&Uid, &Uid)> = Vec::new();
    for context in contexts {
        for syntax in &context.transfer_syntaxes {
            if !pairs.contains(&(&context.sop_class, syntax)) {
                pairs.push((&context.sop_class, syntax));
            }
        }
    }
    if pairs.is_empty() || pairs.len() > MAX_CONTEXTS {
        return Err(ScuError::Contexts(pairs.len()));
    }
    // The odd numbers of a byte are as many as may be proposed.
    let proposed = (1..=u8::MAX).step_by(2).zip(pairs).map(|(id, (class, syntax))| PresentationContextProposed {
        id,
        abstract_syntax: class.to_string(),
        transfer_syntaxes: vec![syntax.to_string()],
    });
    Ok(proposed.collect())
}

/// The contexts that the peer accepted as they were proposed; an answer with another syntax is none.
fn accepted(proposed: &[PresentationContextProposed], answer: &AssociationAC) -> Vec<AcceptedContext> {
    let accepts = |proposed: &PresentationContextProposed| {
        let syntax = proposed.transfer_syntaxes.first()?;
        let result = answer.presentation_contexts.iter().find(|result| result.id == proposed.id)?;
        let same = result.transfer_syntax.trim_matches(['\0', ' ']) == syntax;
        (same && result.reason == PresentationContextResultReason::Acceptance).then_some(())?;
        Some(AcceptedContext {
            id: proposed.id,
            abstract_syntax: Uid::parse(&proposed.abstract_syntax).ok()?,
            transfer_syntax: Uid::parse(syntax).ok()?,
        })
    };
    proposed.iter().filter_map(accepts).collect()
}

async fn dial(options: &ScuOptions) -> Result<Transport, ScuError> {
    let late =
        |_| ScuError::TimedOut(format!("no connection to {} within {:?}", options.address, options.connect_timeout));
    timeout(options.connect_timeout, connect(options)).await.map_err(late)?
}

async fn connect(options: &ScuOptions) -> Result<Transport, ScuError> {
    let address = &options.address;
    let tls = match options.tls.clone() {
        None => None,
        Some(tls) => {
            let name = tls.name_for(address)?;
            // Files are read, which may block.
            let config = tokio::task::spawn_blocking(move || tls.config()).await;
            Some((config.map_err(|error| ScuError::Source(error.into()))??, name))
        }
    };
    let unreachable = |source| ScuError::Connect { address: address.clone(), source };
    let stream = TcpStream::connect(address).await.and_then(PromptStream::new).map_err(unreachable)?;
    let Some((config, name)) = tls else { return Ok(Transport::Plain(stream)) };
    let connected = TlsConnector::from(config).connect(name, stream).await;
    let stream = connected.map_err(|error| ScuError::Tls { address: address.clone(), reason: error.to_string() })?;
    Ok(Transport::Tls(Box::new(stream)))
}

/// Reads until the chunk is full or the source ends.
async fn read_chunk(data: &mut (impl AsyncRead + Unpin), longest: usize) -> std::io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(longest);
    // `take` is a bound the capacity alone is not: a vector grows when it is full.
    data.take(longest as u64).read_to_end(&mut chunk).await?;
    Ok(chunk)
}

impl From<WireError> for ScuError {
    fn from(error: WireError) -> Self {
        ExchangeError::Wire(error).into()
    }
}
