//! Storage Commitment on an association (PS3.4 Annex J): the request is read whole and handed over, and its report goes
//! out between two messages of the peer.

use std::time::Duration;

use ichor_core::Uid;
use tracing::debug;

use super::association::{Ending, Service};
use super::handler::{InstanceSink, StorageHandler, StoreFailure, StoreOutcome};
use crate::command::{CommandSet, tag};
use crate::commitment::{CommitmentError, CommitmentReport, CommitmentRequest, REQUEST_ACTION};
use crate::negotiation::AcceptedContext;
use crate::status::StoreStatus;
use crate::uids;
use crate::wire::{FragmentKind, Stream};

/// Bounds on requests (PS3.4 J.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitmentLimits {
    /// Longest Action Information, in bytes (default: 8 MiB).
    pub max_bytes: usize,
    /// Most referenced instances of a request (default: 20,000).
    pub max_references: usize,
}

impl Default for CommitmentLimits {
    fn default() -> Self {
        Self { max_bytes: 8 << 20, max_references: 20_000 }
    }
}

/// A report that a handler wants to go out on an association; `id` is the handler's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingReport {
    /// The handler's number of it.
    pub id: i64,
    /// What it says.
    pub report: CommitmentReport,
}

/// A report that was sent and has no answer yet.
#[derive(Debug)]
pub(super) struct Unanswered {
    message_id: u16,
    id: i64,
}

/// Keeps the Action Information, up to its cap.
struct Collected {
    bytes: Vec<u8>,
    most: usize,
}

impl InstanceSink for Collected {
    async fn write(&mut self, fragment: &[u8]) -> Result<(), StoreFailure> {
        if self.bytes.len() + fragment.len() > self.most {
            let comment = format!("data set of more than {} bytes", self.most);
            return Err(StoreFailure::new(StoreStatus::ResourceLimitation, comment));
        }
        self.bytes.extend_from_slice(fragment);
        Ok(())
    }

    async fn commit(self) -> Result<StoreOutcome, StoreFailure> {
        Ok(StoreOutcome::Success)
    }
}

impl<H: StorageHandler, S: Stream> Service<'_, H, S> {
    /// The context on which reports can go out.
    pub(super) fn commitment_context(&self) -> Option<&AcceptedContext> {
        self.contexts.iter().find(|context| context.abstract_syntax.as_str() == uids::STORAGE_COMMITMENT)
    }

    /// Takes an N-ACTION; the status and comment of the response.
    pub(super) async fn action(
        &mut self,
        context: &AcceptedContext,
        command: &CommandSet,
        has_data: bool,
    ) -> Result<(StoreStatus, String), Ending> {
        let checked = check(context, command);
        if !has_data {
            let failure = checked.err().unwrap_or_else(|| invalid("no data set follows"));
            return Ok((failure.status, failure.comment));
        }
        let taken = match self.collect(checked).await? {
            Ok(bytes) => self.requested(context, &bytes).await,
            Err(failure) => Err(failure),
        };
        Ok(said(taken))
    }

    /// Takes an N-EVENT-REPORT, on a request of our own; the status and comment of the response.
    pub(super) async fn event(
        &mut self,
        context: &AcceptedContext,
        command: &CommandSet,
        has_data: bool,
    ) -> Result<(StoreStatus, String), Ending> {
        let checked = check_event(context, command);
        if !has_data {
            return Ok(said(checked.and_then(|()| Err(invalid("no data set follows")))));
        }
        let taken = match self.collect(checked).await? {
            Ok(bytes) => self.reported(context, &bytes).await,
            Err(failure) => Err(failure),
        };
        Ok(said(taken))
    }

    /// Reads the data set that follows a command; what was found wrong with the command comes first.
    async fn collect(&mut self, checked: Result<(), StoreFailure>) -> Result<Result<Vec<u8>, StoreFailure>, Ending> {
        let sink = checked.map(|()| Collected { bytes: Vec::new(), most: self.options.commitment.max_bytes });
        Ok(self.receive_data(sink).await?.map(|collected| collected.bytes))
    }

    async fn reported(&self, context: &AcceptedContext, bytes: &[u8]) -> Result<(), StoreFailure> {
        let most = self.options.commitment.max_references;
        let report =
            CommitmentReport::read(bytes, &context.transfer_syntax, most).map_err(|error| unreadable(&error))?;
        self.handler.report_received(self.association, &report).await
    }

    async fn requested(&self, context: &AcceptedContext, bytes: &[u8]) -> Result<(), StoreFailure> {
        let most = self.options.commitment.max_references;
        let request = CommitmentRequest::read(bytes, &context.transfer_syntax, most);
        let request = request.map_err(|error| unreadable(&error))?;
        self.handler.commitment_requested(self.association, &request).await
    }

    /// Sends the next report of the handler, if there is one.
    pub(super) async fn send_report(&mut self) -> Result<(), Ending> {
        let Some(context) = self.commitment_context().cloned() else { return Ok(()) };
        let Some(PendingReport { id, report }) = self.handler.take_report(self.association).await else {
            return Ok(());
        };
        self.last_message_id = self.last_message_id.checked_add(1).unwrap_or(1);
        let message_id = self.last_message_id;
        self.unanswered = Some(Unanswered { message_id, id });
        let command = report_command(message_id, &report);
        let limit: Duration = self.options.pdu_timeout;
        self.exchange.send_command(context.id, &command, limit).await?;
        let bytes = report.write(&context.transfer_syntax);
        let longest = self.exchange.wire().max_fragment();
        let mut chunks = bytes.chunks(longest).peekable();
        while let Some(chunk) = chunks.next() {
            let is_last = chunks.peek().is_none();
            self.exchange.wire().send_fragment(context.id, FragmentKind::DataSet, chunk, is_last, limit).await?;
        }
        debug!(id, message_id, "commitment report sent");
        Ok(())
    }

    /// Takes the peer's answer to a report. A data set (Event Reply) is read and ignored.
    pub(super) async fn report_answer(&mut self, command: &CommandSet, has_data: bool) -> Result<(), Ending> {
        let answered = command.u16(tag::MESSAGE_ID_RESPONDED_TO)?;
        let status = StoreStatus::from_code(command.u16(tag::STATUS)?);
        let Some(sent) = self.unanswered.take_if(|sent| sent.message_id == answered) else {
            return Err(Ending::violation("response without request"));
        };
        self.discard_data(has_data).await?;
        self.handler.report_answered(self.association, sent.id, status, command.comment()).await;
        Ok(())
    }
}

/// The command of a report (PS3.7 10.3.1), about the well-known instance.
pub(crate) fn report_command(message_id: u16, report: &CommitmentReport) -> CommandSet {
    let (class, instance) = well_known();
    CommandSet::n_event_report_request(message_id, &class, &instance, report.event_type())
}

fn well_known() -> (Uid, Uid) {
    (uids::known(uids::STORAGE_COMMITMENT), uids::known(uids::STORAGE_COMMITMENT_INSTANCE))
}

fn unreadable(error: &CommitmentError) -> StoreFailure {
    let status = match error {
        CommitmentError::TooMany(_) => StoreStatus::ResourceLimitation,
        CommitmentError::Malformed(_) | CommitmentError::TooDeep => StoreStatus::ProcessingFailure,
        _ => StoreStatus::InvalidArgumentValue,
    };
    StoreFailure::new(status, error.to_string())
}

fn said(taken: Result<(), StoreFailure>) -> (StoreStatus, String) {
    match taken {
        Ok(()) => (StoreStatus::Success, String::new()),
        Err(failure) => (failure.status, failure.comment),
    }
}

/// Holds an event against PS3.4 J.3.3 (statuses of PS3.7 10.1.1.1.8). Its type says no more than the data set does.
fn check_event(context: &AcceptedContext, command: &CommandSet) -> Result<(), StoreFailure> {
    let (class, _) = well_known();
    let failure = |status, comment: &str| Err(StoreFailure::new(status, comment));
    if context.abstract_syntax != class {
        return failure(StoreStatus::UnrecognizedOperation, "not a Storage Commitment context");
    }
    match command.uid(tag::AFFECTED_SOP_CLASS) {
        Ok(found) if found == class => Ok(()),
        Ok(_) => failure(StoreStatus::ClassInstanceConflict, "SOP class is not that of the context"),
        Err(error) => failure(StoreStatus::NoSuchSopClass, &error.to_string()),
    }
}

fn invalid(comment: &str) -> StoreFailure {
    StoreFailure::new(StoreStatus::InvalidArgumentValue, comment)
}

/// Holds the command against PS3.4 J.3.2 (statuses of PS3.7 10.1.4.1.10).
fn check(context: &AcceptedContext, command: &CommandSet) -> Result<(), StoreFailure> {
    let (class, instance) = well_known();
    let failure = |status, comment: &str| Err(StoreFailure::new(status, comment));
    if context.abstract_syntax != class {
        return failure(StoreStatus::UnrecognizedOperation, "not a Storage Commitment context");
    }
    match command.uid(tag::REQUESTED_SOP_CLASS) {
        Ok(found) if found == class => {}
        Ok(_) => return failure(StoreStatus::ClassInstanceConflict, "SOP class is not that of the context"),
        Err(error) => return failure(StoreStatus::NoSuchSopClass, &error.to_string()),
    }
    match command.uid(tag::REQUESTED_SOP_INSTANCE) {
        Ok(found) if found == instance => {}
        Ok(_) => return failure(StoreStatus::NoSuchSopInstance, "not the well-known SOP instance"),
        Err(error) => return failure(StoreStatus::NoSuchSopInstance, &error.to_string()),
    }
    match command.u16(tag::ACTION_TYPE) {
        Ok(REQUEST_ACTION) => Ok(()),
        Ok(other) => failure(StoreStatus::NoSuchActionType, &format!("action type {other} is not supported")),
        Err(error) => failure(StoreStatus::NoSuchActionType, &error.to_string()),
    }
}
