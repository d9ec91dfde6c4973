//! One association: commands are dispatched, data sets streamed, and each request gets its response.

use std::time::Duration;

use dicom_ul::Pdu;
use dicom_ul::pdu::AbortRQServiceProviderReason as AbortReason;
use ichor_core::Uid;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::commitment::Unanswered;
use super::handler::{AssociationOutcome, InstanceSink, StorageHandler, StoreFailure, StoreOutcome, StoreRequest};
use super::options::ScpOptions;
use super::pace::Pace;
use crate::command::{CommandError, CommandSet, field, tag};
use crate::exchange::{Exchange, ExchangeError, Incoming, abort_words};
use crate::negotiation::AcceptedContext;
use crate::status::StoreStatus;
use crate::uids;
use crate::wire::{Stream, WireError};

/// What came over the association.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) instances: u64,
    pub(super) failures: u64,
    pub(super) bytes: u64,
}

/// How an association ends, and what is still owed to the peer.
#[derive(Debug)]
pub(super) enum Ending {
    /// Released; A-RELEASE-RP was sent.
    Released,
    /// There is nobody to tell.
    Lost(AssociationOutcome),
    /// The peer gets an A-ABORT.
    Abort(AssociationOutcome, AbortReason),
}

impl Ending {
    /// Stops at the boundary of a message.
    pub(super) fn shut_down() -> Self {
        Self::Abort(AssociationOutcome::ShutDown, AbortReason::ReasonNotSpecified)
    }

    pub(super) fn violation(why: impl Into<String>) -> Self {
        Self::Abort(AssociationOutcome::Aborted(why.into()), AbortReason::UnexpectedPduParameter)
    }
}

impl From<ExchangeError> for Ending {
    fn from(error: ExchangeError) -> Self {
        let reason = error.abort_reason();
        match error {
            ExchangeError::Aborted(source) => Self::Lost(AssociationOutcome::AbortedByPeer(abort_words(&source))),
            ExchangeError::Wire(wire) => wire.into(),
            other => Self::Abort(AssociationOutcome::Aborted(other.to_string()), reason),
        }
    }
}

impl From<WireError> for Ending {
    fn from(error: WireError) -> Self {
        let words = error.to_string();
        match error {
            WireError::Closed => Self::Lost(AssociationOutcome::Dropped("closed without release".to_owned())),
            WireError::Broken(why) => Self::Lost(AssociationOutcome::Dropped(why)),
            WireError::TimedOut(_) => Self::Abort(AssociationOutcome::TimedOut(words), AbortReason::ReasonNotSpecified),
            WireError::Malformed(_) => {
                Self::Abort(AssociationOutcome::Aborted(words), AbortReason::InvalidPduParameter)
            }
        }
    }
}

impl From<CommandError> for Ending {
    fn from(error: CommandError) -> Self {
        Self::violation(error.to_string())
    }
}

/// What a response says.
struct Answer {
    status: StoreStatus,
    comment: String,
    offending: Vec<(u16, u16)>,
}

impl Answer {
    fn new(status: StoreStatus, comment: impl Into<String>) -> Self {
        Self { status, comment: comment.into(), offending: Vec::new() }
    }
}

impl From<StoreFailure> for Answer {
    /// A failure is told as one, and with words: those of its code where it brings none.
    fn from(failure: StoreFailure) -> Self {
        let StoreFailure { status, comment, offending } = failure;
        let status = if status.is_success_or_warning() { StoreStatus::ProcessingFailure } else { status };
        let comment = if comment.trim().is_empty() { status.to_string() } else { comment };
        Self { status, comment, offending }
    }
}

/// An accepted association.
pub(super) struct Service<'a, H: StorageHandler, S> {
    pub(super) exchange: &'a mut Exchange<S>,
    pub(super) contexts: &'a [AcceptedContext],
    pub(super) options: &'a ScpOptions,
    pub(super) handler: &'a H,
    pub(super) association: &'a H::Association,
    pub(super) tally: &'a mut Tally,
    /// Message ID of the last request of our own.
    pub(super) last_message_id: u16,
    /// The commitment report that the peer has not answered yet; one at a time.
    pub(super) unanswered: Option<Unanswered>,
}

impl<H: StorageHandler, S: Stream> Service<'_, H, S> {
    /// Serves until the association ends. When `stopping` is cancelled, the message in progress is the last.
    pub(super) async fn run(mut self, stopping: &CancellationToken) -> Ending {
        // Counts from the peer's last message: looks at reports in between do not keep a silent peer.
        let mut idle_since = Instant::now();
        let mut inside = false;
        loop {
            let idle = self.options.idle_timeout.saturating_sub(idle_since.elapsed());
            let may_report = !inside && self.unanswered.is_none() && self.commitment_context().is_some();
            let incoming = tokio::select! {
                biased;
                () = stopping.cancelled() => return Ending::shut_down(),
                incoming = self.exchange.next_command(idle, self.options.pdu_timeout) => Some(incoming),
                () = self.handler.report_due(self.association), if may_report => None,
            };
            let Some(incoming) = incoming else {
                // Not inside the peer's message: its answer comes first.
                inside = self.exchange.has_begun_message();
                match if inside { Ok(()) } else { self.send_report().await } {
                    Ok(()) => continue,
                    Err(ending) => return ending,
                }
            };
            inside = false;
            idle_since = Instant::now();
            let answered = match incoming {
                Ok(Incoming::Command { context, bytes }) => self.dispatch(context, &bytes).await,
                Ok(Incoming::ReleaseRequest) => {
                    return match self.exchange.wire().send(&Pdu::ReleaseRP, self.options.pdu_timeout).await {
                        Ok(()) => Ending::Released,
                        Err(error) => error.into(),
                    };
                }
                Ok(Incoming::ReleaseResponse) => return Ending::violation("A-RELEASE-RP without request"),
                Err(error) if matches!(error, ExchangeError::Wire(WireError::TimedOut(_))) => {
                    return Ending::from(error).idle(self.options.idle_timeout, self.exchange.has_begun_message());
                }
                Err(error) => return error.into(),
            };
            if let Err(ending) = answered {
                return ending;
            }
        }
    }

    async fn dispatch(&mut self, context: u8, bytes: &[u8]) -> Result<(), Ending> {
        let Some(context) = self.contexts.iter().find(|accepted| accepted.id == context) else {
            return Err(Ending::violation(format!(
                "message on presentation context {context}, which was not accepted"
            )));
        };
        let command = CommandSet::decode(bytes)?;
        let has_data = command.announces_data_set()?;
        if has_data {
            self.exchange.expect_data(context.id);
        }
        if command.is_response()? {
            if command.u16(tag::COMMAND_FIELD)? == field::N_EVENT_REPORT_RSP {
                return self.report_answer(&command, has_data).await;
            }
            return Err(Ending::violation("response without request"));
        }
        let operation = command.u16(tag::COMMAND_FIELD)?;
        let Answer { status, comment, offending } = match operation {
            field::C_STORE_RQ => {
                let answer = self.store(context, &command, has_data).await?;
                if answer.status.is_success_or_warning() {
                    self.tally.instances += 1;
                } else {
                    self.tally.failures += 1;
                }
                answer
            }
            field::N_ACTION_RQ => {
                let context = context.clone();
                let (status, comment) = self.action(&context, &command, has_data).await?;
                Answer::new(status, comment)
            }
            field::N_EVENT_REPORT_RQ => {
                let context = context.clone();
                let (status, comment) = self.event(&context, &command, has_data).await?;
                Answer::new(status, comment)
            }
            field::C_CANCEL_RQ => {
                // Nothing that could be cancelled runs; the operation has no response (PS3.7 9.3.2.3).
                self.discard_data(has_data).await?;
                return Ok(());
            }
            _ => {
                self.discard_data(has_data).await?;
                self.answer_without_data(context, operation)
            }
        };
        let response = CommandSet::response(&command, status, &comment)?.with_offending(&offending);
        debug!(operation, %status, "answered");
        self.exchange.send_command(context.id, &response, self.options.pdu_timeout).await?;
        Ok(())
    }

    pub(super) async fn discard_data(&mut self, has_data: bool) -> Result<(), Ending> {
        if has_data {
            let unwanted = StoreFailure::new(StoreStatus::UnrecognizedOperation, "");
            self.receive_data::<H::Sink>(Err(unwanted)).await?.err();
        }
        Ok(())
    }

    fn answer_without_data(&self, context: &AcceptedContext, operation: u16) -> Answer {
        if operation != field::C_ECHO_RQ {
            let comment = format!("command field 0x{operation:04X} is not supported");
            return Answer::new(StoreStatus::UnrecognizedOperation, comment);
        }
        if context.abstract_syntax.as_str() != uids::VERIFICATION {
            return Answer::new(StoreStatus::SopClassNotSupported, "not a Verification context");
        }
        Answer::new(StoreStatus::Success, "")
    }

    /// Takes an instance; the status and comment of the response.
    async fn store(
        &mut self,
        context: &AcceptedContext,
        command: &CommandSet,
        has_data: bool,
    ) -> Result<Answer, Ending> {
        if !has_data {
            return Ok(Answer::new(StoreStatus::CannotUnderstand, "no data set follows"));
        }
        let sink = match store_request(context, command) {
            Ok(request) => self.handler.begin(self.association, &request).await,
            Err(failure) => Err(failure),
        };
        let taken = match self.receive_data(sink).await? {
            Ok(sink) => sink.commit().await,
            Err(failure) => Err(failure),
        };
        Ok(match taken {
            Ok(StoreOutcome::Success) => Answer::new(StoreStatus::Success, ""),
            Ok(StoreOutcome::Warning { status, comment }) if status.is_warning() => Answer::new(status, comment),
            Ok(StoreOutcome::Warning { comment, .. }) => Answer::new(StoreStatus::Success, comment),
            Err(failure) => failure.into(),
        })
    }

    /// Reads the data set to its end, into the sink for as long as that takes it, else into nothing: only then can the
    /// peer hear an answer. What is discarded is bounded as well.
    pub(super) async fn receive_data<K: InstanceSink>(
        &mut self,
        mut sink: Result<K, StoreFailure>,
    ) -> Result<Result<K, StoreFailure>, Ending> {
        let (limit, deadline) = (self.options.max_instance_bytes, Instant::now() + self.options.instance_timeout);
        let mut received: u64 = 0;
        let mut pace = Pace::new(self.options.min_bytes_per_second, self.options.throughput_window);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let words = format!("instance not complete within {:?}", self.options.instance_timeout);
                return Err(Ending::Abort(AssociationOutcome::TimedOut(words), AbortReason::ReasonNotSpecified));
            }
            let asked = Instant::now();
            let fragment = self.exchange.next_fragment(self.options.pdu_timeout.min(left)).await?;
            if let Err(words) = pace.count(fragment.bytes.len(), asked.elapsed()) {
                return Err(Ending::Abort(AssociationOutcome::TimedOut(words), AbortReason::ReasonNotSpecified));
            }
            received = received.saturating_add(fragment.bytes.len() as u64);
            self.tally.bytes = self.tally.bytes.saturating_add(fragment.bytes.len() as u64);
            if received > limit {
                if received > limit.saturating_mul(2) {
                    return Err(Ending::violation(format!("data set of more than twice {limit} bytes")));
                }
                if sink.is_ok() {
                    let comment = format!("data set of more than {limit} bytes");
                    sink = Err(StoreFailure::new(StoreStatus::OutOfResources, comment));
                }
            }
            if let Ok(open) = &mut sink
                && !fragment.bytes.is_empty()
                && let Err(failure) = open.write(&fragment.bytes).await
            {
                sink = Err(failure);
            }
            if fragment.is_last {
                break;
            }
        }
        if received == 0 && sink.is_ok() {
            return Ok(Err(StoreFailure::new(StoreStatus::CannotUnderstand, "data set is empty")));
        }
        Ok(sink)
    }
}

impl Ending {
    /// Says what a time-out was about.
    fn idle(self, limit: Duration, inside: bool) -> Self {
        match self {
            Self::Abort(AssociationOutcome::TimedOut(_), reason) if !inside => {
                Self::Abort(AssociationOutcome::TimedOut(format!("no message for {limit:?}")), reason)
            }
            other => other,
        }
    }
}

/// Parses a C-STORE-RQ (PS3.7 9.3.1.1).
fn store_request(context: &AcceptedContext, command: &CommandSet) -> Result<StoreRequest, StoreFailure> {
    let uid = |element, status, name| -> Result<Uid, StoreFailure> {
        command.uid(element).map_err(|error| {
            let what = match error {
                CommandError::Value { reason, .. } => reason,
                _ => "missing".to_owned(),
            };
            StoreFailure::new(status, format!("{name}: {what}"))
        })
    };
    let sop_class = uid(tag::AFFECTED_SOP_CLASS, StoreStatus::NoSuchSopClass, "SOP Class UID")?;
    let sop_instance = uid(tag::AFFECTED_SOP_INSTANCE, StoreStatus::InvalidSopInstance, "SOP Instance UID")?;
    let is_service = [uids::VERIFICATION, uids::STORAGE_COMMITMENT].contains(&sop_class.as_str());
    if sop_class != context.abstract_syntax || is_service {
        let comment = "SOP class is not that of the presentation context";
        return Err(StoreFailure::new(StoreStatus::SopClassNotSupported, comment));
    }
    let message_id = command
        .u16(tag::MESSAGE_ID)
        .map_err(|error| StoreFailure::new(StoreStatus::MistypedArgument, error.to_string()))?;
    Ok(StoreRequest { sop_class, sop_instance, transfer_syntax: context.transfer_syntax.clone(), message_id })
}
