//! Retrieval as user (C-MOVE, PS3.4 C.4.2 and C.6.2.2; PS3.7 9.1.4): a peer is asked to send instances to a title that it knows.
//! They come over associations of their own.

use std::pin::{Pin, pin};
use std::time::Duration;

use ichor_core::{AeTitle, Uid};
use tokio::time::{Instant, sleep_until};

use super::{ProposedContext, ScuError, ScuOptions, StorageScu, attribute};
use crate::command::{CommandSet, field, tag};
use crate::commitment::{Reader, Writer};
use crate::exchange::Incoming;
use crate::status::StoreStatus;
use crate::uids;

const LEVEL: (u16, u16) = (0x0008, 0x0052);
const SOP_INSTANCE: (u16, u16) = (0x0008, 0x0018);
/// Failed SOP Instance UID List.
const FAILED: (u16, u16) = (0x0008, 0x0058);

/// Longest identifier of a response that is read, in bytes.
const MAX_IDENTIFIER_BYTES: usize = 4 << 20;
/// Most instances that one request names: as many as fit into an explicit length.
const MOST_NAMED: usize = 500;
/// Time for a peer to end what it was asked to cancel.
const TO_CANCEL: Duration = Duration::from_secs(2);

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct MoveKeys<'a> {
    /// Study Instance UID.
    pub study: &'a Uid,
    /// Series Instance UID; `None`: the whole study.
    pub series: Option<&'a Uid>,
    /// SOP Instance UIDs; none, or more than one request can name: the whole series.
    pub instances: &'a [Uid],
}

/// What a peer says of a retrieval in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Status (0000,0900) of the last response.
    pub status: StoreStatus,
    /// Error Comment (0000,0902), if there is one.
    pub comment: Option<String>,
    /// Number of Completed Sub-operations, as told last.
    pub completed: u16,
    /// Number of Failed Sub-operations, as told last.
    pub failed: u16,
    /// Number of Warning Sub-operations, as told last.
    pub warning: u16,
    /// Failed SOP Instance UID List (0008,0058), as far as it can be read.
    pub failed_instances: Vec<Uid>,
}

impl StorageScu {
    /// Connects to a provider of retrieval by C-MOVE of the Study Root model.
    ///
    /// # Errors
    /// If there is no connection, no answer, or no accepted context.
    pub async fn connect_to_move(options: &ScuOptions) -> Result<Self, ScuError> {
        let syntaxes = [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN].map(uids::known);
        Self::connect(options, &[ProposedContext::new(uids::known(uids::STUDY_ROOT_MOVE), syntaxes)]).await
    }

    /// Has instances sent to `destination`, and waits until the peer is done. When `limit` has passed, or `stop` completes, the peer is
    /// asked to cancel (C-CANCEL-RQ); it answers 0xFE00, or that it was done already.
    ///
    /// # Errors
    /// [`ScuError::ContextNotAccepted`] leaves the association as it was; every other error ends it.
    pub async fn move_to(
        &mut self,
        keys: &MoveKeys<'_>,
        destination: &AeTitle,
        limit: Duration,
        stop: impl Future<Output = ()>,
    ) -> Result<Moved, ScuError> {
        let class = uids::known(uids::STUDY_ROOT_MOVE);
        let Some(context) = self.contexts.iter().find(|context| context.abstract_syntax == class).cloned() else {
            let transfer_syntax = uids::known(uids::IMPLICIT_VR_LITTLE_ENDIAN);
            return Err(ScuError::ContextNotAccepted { sop_class: class, transfer_syntax });
        };
        let message_id = self.next_message_id();
        let command = CommandSet::c_move_request(message_id, &class, destination);
        let identifier = identifier(keys, &context.transfer_syntax);
        let asked = async {
            let longest = self.exchange.as_mut().ok_or(ScuError::Closed)?.wire().max_fragment();
            let (first, mut rest) = identifier.split_at(longest.min(identifier.len()));
            self.send_data_set(context.id, &command, first.to_vec(), &mut rest).await?;
            self.moved(context.id, message_id, &context.transfer_syntax, (limit, stop)).await
        }
        .await;
        if let Err(error) = &asked {
            self.give_up(error).await;
        }
        asked
    }

    /// Reads responses up to the last.
    async fn moved(
        &mut self,
        context: u8,
        message_id: u16,
        transfer_syntax: &Uid,
        (limit, stop): (Duration, impl Future<Output = ()>),
    ) -> Result<Moved, ScuError> {
        tokio::pin!(stop);
        let (within, mut deadline) = (self.response_timeout, Instant::now() + limit);
        let (mut is_cancelled, mut is_stopped, mut counts) = (false, false, Counts::default());
        loop {
            let exchange = self.exchange.as_mut().ok_or(ScuError::Closed)?;
            // The wait for the next response is bounded by the deadline: a peer need not tell how far it is.
            let wait = deadline.saturating_duration_since(Instant::now()) + within;
            let incoming = tokio::select! {
                incoming = exchange.next_command(wait, within) => incoming?,
                () = sleep_until(deadline) => {
                    if is_cancelled {
                        return Err(ScuError::TimedOut(format!("no end of the retrieval within {limit:?}, nor of its cancellation")));
                    }
                    (is_cancelled, deadline) = (true, Instant::now() + TO_CANCEL);
                    exchange.send_command(context, &CommandSet::c_cancel_request(message_id), within).await?;
                    continue;
                }
                () = async { if !is_stopped { stop.as_mut().await } }, if !is_cancelled => {
                    (is_cancelled, deadline) = (true, Instant::now() + TO_CANCEL);
                    exchange.send_command(context, &CommandSet::c_cancel_request(message_id), within).await?;
                    continue;
                }
            };
            let Incoming::Command { context: on, bytes } = incoming else {
                return Err(ScuError::Protocol("release instead of a response".to_owned()));
            };
            let command = CommandSet::decode(&bytes)?;
            let found = (command.u16(tag::COMMAND_FIELD)?, command.u16(tag::MESSAGE_ID_RESPONDED_TO)?);
            if found != (field::C_MOVE_RSP, message_id) {
                return Err(ScuError::Protocol(format!("command 0x{:04X} instead of a C-MOVE-RSP", found.0)));
            }
            counts.read(&command);
            let status = StoreStatus::from_code(command.u16(tag::STATUS)?);
            let data = if command.announces_data_set()? {
                let may_stop = !is_cancelled && !is_stopped;
                let (data, was_stopped) = self.identifier_of(on, deadline + within, (may_stop, stop.as_mut())).await?;
                is_stopped |= was_stopped;
                data
            } else {
                Vec::new()
            };
            if !matches!(status.code(), 0xFF00 | 0xFF01) {
                let Counts { completed, failed, warning } = counts;
                let failed_instances = failed_instances(&data, transfer_syntax);
                return Ok(Moved { status, comment: command.comment(), completed, failed, warning, failed_instances });
            }
        }
    }

    /// The data set behind a response, which must end by `end`, and soon after `stop`: between its fragments nothing can be said. With
    /// whether `stop` has completed.
    async fn identifier_of(
        &mut self,
        context: u8,
        mut end: Instant,
        (may_stop, mut stop): (bool, Pin<&mut impl Future<Output = ()>>),
    ) -> Result<(Vec<u8>, bool), ScuError> {
        let mut was_stopped = false;
        let mut reading = pin!(self.read_data_set(context, MAX_IDENTIFIER_BYTES));
        loop {
            tokio::select! {
                data = &mut reading => return Ok((data?, was_stopped)),
                () = sleep_until(end) => {
                    return Err(ScuError::TimedOut("the data set of a response does not end".to_owned()));
                }
                () = stop.as_mut(), if may_stop && !was_stopped => {
                    (was_stopped, end) = (true, end.min(Instant::now() + TO_CANCEL));
                }
            }
        }
    }
}

/// How far a peer is (PS3.7 table 9.1-4); what it does not tell stays.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    completed: u16,
    failed: u16,
    warning: u16,
}

impl Counts {
    fn read(&mut self, command: &CommandSet) {
        for (count, element) in [
            (&mut self.completed, tag::COMPLETED_SUB_OPERATIONS),
            (&mut self.failed, tag::FAILED_SUB_OPERATIONS),
            (&mut self.warning, tag::WARNING_SUB_OPERATIONS),
        ] {
            *count = command.u16(element).unwrap_or(*count);
        }
    }
}

/// The identifier of the request (PS3.4 C.4.2.1.4), elements in ascending order.
fn identifier(keys: &MoveKeys<'_>, transfer_syntax: &Uid) -> Vec<u8> {
    let mut writer = Writer::new(transfer_syntax);
    let named = keys.series.filter(|_| (1..=MOST_NAMED).contains(&keys.instances.len()));
    if named.is_some() {
        let list: Vec<&str> = keys.instances.iter().map(Uid::as_str).collect();
        let mut list = list.join("\\").into_bytes();
        if list.len() % 2 == 1 {
            list.push(0);
        }
        writer.element(SOP_INSTANCE, *b"UI", &list);
    }
    let level: &[u8] = match (named, keys.series) {
        (Some(_), _) => b"IMAGE ",
        (None, Some(_)) => b"SERIES",
        (None, None) => b"STUDY ",
    };
    writer.element(LEVEL, *b"CS", level);
    writer.uid(attribute::STUDY_INSTANCE, keys.study);
    if let Some(series) = keys.series {
        writer.uid(attribute::SERIES_INSTANCE, series);
    }
    writer.into_bytes()
}

/// Failed SOP Instance UID List of a response, as far as it can be read.
fn failed_instances(data: &[u8], transfer_syntax: &Uid) -> Vec<Uid> {
    let mut reader = Reader::new(data, transfer_syntax);
    while let Ok(Some(header)) = reader.next_element() {
        if header.tag == FAILED {
            let value = reader.value(&header).unwrap_or_default();
            let parts = value.split(|byte| *byte == b'\\').filter_map(|part| std::str::from_utf8(part).ok());
            return parts.filter_map(|part| Uid::parse(part).ok()).collect();
        }
        if reader.skip(&header, 0).is_err() {
            break;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    #[test]
    fn the_level_is_that_of_what_is_named() {
        let (study, series) = (uid("1.2"), uid("1.2.3"));
        let many: Vec<Uid> = (0..=MOST_NAMED).map(|number| uid(&format!("1.2.3.{number}"))).collect();
        for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN].map(uid) {
            let text = |series, instances: &[Uid]| {
                let bytes = identifier(&MoveKeys { study: &study, series, instances }, &syntax);
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let whole = text(None, &many[..2]);
            assert!(whole.contains("STUDY ") && !whole.contains("1.2.3"), "instances need their series: {whole}");
            assert!(text(Some(&series), &[]).contains("SERIES"));
            let named = text(Some(&series), &many[..2]);
            assert!(named.contains("IMAGE ") && named.contains("1.2.3.0\\1.2.3.1"), "{named}");
            assert!(text(Some(&series), &many).contains("SERIES"), "more than a request can name");
        }
    }

    #[test]
    fn failed_instances_are_read_as_far_as_they_can_be() {
        for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN].map(uid) {
            let mut writer = Writer::new(&syntax);
            writer.element(FAILED, *b"UI", b"1.2.3\\x\\1.2.30\0");
            let data = writer.into_bytes();
            assert_eq!(failed_instances(&data, &syntax), [uid("1.2.3"), uid("1.2.30")]);
            for cut in 0..data.len() {
                failed_instances(&data[..cut], &syntax);
            }
        }
    }

    #[test]
    fn counts_that_are_not_told_stay() {
        let mut counts = Counts::default();
        counts.read(&CommandSet::default().with_u16(tag::COMPLETED_SUB_OPERATIONS, 7));
        counts.read(&CommandSet::default().with_u16(tag::FAILED_SUB_OPERATIONS, 2));
        assert_eq!((counts.completed, counts.failed, counts.warning), (7, 2, 0));
    }
}
