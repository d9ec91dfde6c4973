//! Storage commitment as user (PS3.4 J.3): the request (N-ACTION), and its report (N-EVENT-REPORT) on the same association,
//! which may come before the answer to the request.

use std::collections::VecDeque;
use std::time::Duration;

use super::{ProposedContext, ScuError, ScuOptions, StorageScu, StoreResponse};
use crate::command::{CommandSet, field, tag};
use crate::commitment::{CommitmentError, CommitmentReport, CommitmentRequest, REQUEST_ACTION};
use crate::exchange::{ExchangeError, Incoming};
use crate::status::StoreStatus;
use crate::uids;
use crate::wire::WireError;

/// Longest report that is read, in bytes.
const MAX_REPORT_BYTES: usize = 8 << 20;

/// A report that waits for its answer: [`CommitmentScu::answer`].
#[derive(Debug)]
pub struct ReceivedReport {
    context: u8,
    command: CommandSet,
    /// What it says, or why it cannot be read.
    pub report: Result<CommitmentReport, CommitmentError>,
}

/// An association on which a peer is asked for storage commitment.
#[derive(Debug)]
pub struct CommitmentScu {
    scu: StorageScu,
    early: VecDeque<ReceivedReport>,
    most: usize,
}

impl CommitmentScu {
    /// Connects to a provider of Storage Commitment.
    ///
    /// # Errors
    /// If there is no connection, no answer, or no accepted context.
    pub async fn connect(options: &ScuOptions) -> Result<Self, ScuError> {
        let syntaxes = [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN].map(uids::known);
        let context = ProposedContext::new(uids::known(uids::STORAGE_COMMITMENT), syntaxes);
        let scu = StorageScu::connect(options, &[context]).await?;
        Ok(Self { scu, early: VecDeque::new(), most: 0 })
    }

    /// Asks for commitment, and waits for the peer's word that it has heard. A report that comes first is kept for
    /// [`Self::report`].
    ///
    /// # Errors
    /// Every error ends the association.
    pub async fn request(&mut self, request: &CommitmentRequest) -> Result<StoreResponse, ScuError> {
        self.most = request.references.len();
        let (class, instance) = (uids::known(uids::STORAGE_COMMITMENT), uids::known(uids::STORAGE_COMMITMENT_INSTANCE));
        let context = self.scu.contexts.iter().find(|context| context.abstract_syntax == class).cloned();
        let context = context.ok_or(ScuError::NoAcceptedContext)?;
        let message_id = self.scu.next_message_id();
        let command = CommandSet::n_action_request(message_id, &class, &instance, REQUEST_ACTION);
        let bytes = request.write(&context.transfer_syntax);
        let longest = self.scu.exchange.as_mut().ok_or(ScuError::Closed)?.wire().max_fragment();
        let (first, mut rest) = bytes.split_at(longest.min(bytes.len()));
        let answered = async {
            self.scu.send_data_set(context.id, &command, first.to_vec(), &mut rest).await?;
            self.action_response(message_id).await
        }
        .await;
        if let Err(error) = &answered {
            self.scu.give_up(error).await;
        }
        answered
    }

    async fn action_response(&mut self, message_id: u16) -> Result<StoreResponse, ScuError> {
        let limit = self.scu.response_timeout;
        loop {
            let exchange = self.scu.exchange.as_mut().ok_or(ScuError::Closed)?;
            let Incoming::Command { context, bytes } = exchange.next_command(limit, limit).await? else {
                return Err(ScuError::Protocol("release instead of a response".to_owned()));
            };
            let command = CommandSet::decode(&bytes)?;
            match command.u16(tag::COMMAND_FIELD)? {
                field::N_EVENT_REPORT_RQ => {
                    let report = self.read_report(context, command).await?;
                    self.early.push_back(report);
                    if self.early.len() > 1 {
                        return Err(ScuError::Protocol("several reports before the answer to one request".to_owned()));
                    }
                }
                field::N_ACTION_RSP if command.u16(tag::MESSAGE_ID_RESPONDED_TO)? == message_id => {
                    if command.announces_data_set()? {
                        // Action Reply, which this action does not have (PS3.4 J.3.2.1.3); it is read and ignored.
                        self.scu.read_data_set(context, MAX_REPORT_BYTES).await?;
                    }
                    let status = StoreStatus::from_code(command.u16(tag::STATUS)?);
                    return Ok(StoreResponse { status, comment: command.comment() });
                }
                other => {
                    return Err(ScuError::Protocol(format!("command 0x{other:04X} instead of an N-ACTION-RSP")));
                }
            }
        }
    }

    /// Waits for a report on this association; `None` if none begins in time.
    ///
    /// # Errors
    /// Every error ends the association.
    pub async fn report(&mut self, limit: Duration) -> Result<Option<ReceivedReport>, ScuError> {
        if let Some(report) = self.early.pop_front() {
            return Ok(Some(report));
        }
        let within = self.scu.response_timeout;
        let exchange = self.scu.exchange.as_mut().ok_or(ScuError::Closed)?;
        let incoming = match exchange.next_command(limit, within).await {
            Err(ExchangeError::Wire(WireError::TimedOut(_))) if !exchange.has_begun_message() => return Ok(None),
            incoming => incoming,
        };
        let taken = match incoming {
            Ok(Incoming::Command { context, bytes }) => self.take_report(context, &bytes).await,
            Ok(_) => Err(ScuError::Protocol("the provider releases the association".to_owned())),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = &taken {
            self.scu.give_up(error).await;
        }
        taken.map(Some)
    }

    async fn take_report(&mut self, context: u8, bytes: &[u8]) -> Result<ReceivedReport, ScuError> {
        let command = CommandSet::decode(bytes)?;
        match command.u16(tag::COMMAND_FIELD)? {
            field::N_EVENT_REPORT_RQ => self.read_report(context, command).await,
            other => Err(ScuError::Protocol(format!("command 0x{other:04X} instead of an N-EVENT-REPORT"))),
        }
    }

    async fn read_report(&mut self, context: u8, command: CommandSet) -> Result<ReceivedReport, ScuError> {
        if !command.announces_data_set()? {
            return Err(ScuError::Protocol("N-EVENT-REPORT without a data set".to_owned()));
        }
        let accepted = self.scu.contexts.iter().find(|accepted| accepted.id == context);
        let Some(syntax) = accepted.map(|accepted| accepted.transfer_syntax.clone()) else {
            return Err(ScuError::Protocol(format!(
                "message on presentation context {context}, which was not accepted"
            )));
        };
        let bytes = self.scu.read_data_set(context, MAX_REPORT_BYTES).await?;
        Ok(ReceivedReport { context, command, report: CommitmentReport::read(&bytes, &syntax, self.most) })
    }

    /// Answers a report. The provider may forget about it then: it should be on record before.
    ///
    /// # Errors
    /// Every error ends the association.
    pub async fn answer(
        &mut self,
        report: &ReceivedReport,
        status: StoreStatus,
        comment: &str,
    ) -> Result<(), ScuError> {
        let limit = self.scu.response_timeout;
        let response = CommandSet::response(&report.command, status, comment)?;
        let exchange = self.scu.exchange.as_mut().ok_or(ScuError::Closed)?;
        Ok(exchange.send_command(report.context, &response, limit).await?)
    }

    /// Releases the association.
    ///
    /// # Errors
    /// If the peer does not agree in time; the connection is closed anyway.
    pub async fn release(self) -> Result<(), ScuError> {
        self.scu.release().await
    }
}
