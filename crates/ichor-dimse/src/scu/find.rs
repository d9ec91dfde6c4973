//! A query for single instances (C-FIND of the Study Root model at the IMAGE level, PS3.4 C.4.1): are they there?

use ichor_core::Uid;

use super::{ProposedContext, ScuError, ScuOptions, StorageScu, StoreResponse};
use crate::command::{CommandSet, field, tag};
use crate::commitment::{Reader, Writer};
use crate::exchange::Incoming;
use crate::status::StoreStatus;
use crate::uids;

/// Longest match that is read, in bytes.
const MAX_MATCH_BYTES: usize = 1 << 20;
/// Most matches of a query by unique keys that are read.
const MAX_MATCHES: usize = 64;

const SOP_INSTANCE: (u16, u16) = (0x0008, 0x0018);
const LEVEL: (u16, u16) = (0x0008, 0x0052);
const STUDY_INSTANCE: (u16, u16) = (0x0020, 0x000D);
const SERIES_INSTANCE: (u16, u16) = (0x0020, 0x000E);

/// The unique keys of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceKey {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
}

/// What a query came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A match names the instance.
    Yes,
    /// The peer has answered, and no match names it.
    No,
    /// The peer did not answer the query.
    Refused(StoreResponse),
}

impl StorageScu {
    /// Connects to a provider of queries, for [`Self::find`].
    ///
    /// # Errors
    /// If there is no connection, no answer, or no accepted context.
    pub async fn connect_to_find(options: &ScuOptions) -> Result<Self, ScuError> {
        let syntaxes = [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN].map(uids::known);
        Self::connect(options, &[ProposedContext::new(uids::known(uids::STUDY_ROOT_FIND), syntaxes)]).await
    }

    /// Asks whether the peer finds an instance.
    ///
    /// # Errors
    /// [`ScuError::ContextNotAccepted`] leaves the association as it was; every other error ends it.
    pub async fn find(&mut self, key: &InstanceKey) -> Result<Found, ScuError> {
        let class = uids::known(uids::STUDY_ROOT_FIND);
        let Some(context) = self.contexts.iter().find(|context| context.abstract_syntax == class).cloned() else {
            let transfer_syntax = uids::known(uids::IMPLICIT_VR_LITTLE_ENDIAN);
            return Err(ScuError::ContextNotAccepted { sop_class: class, transfer_syntax });
        };
        let message_id = self.next_message_id();
        let command = CommandSet::c_find_request(message_id, &class);
        let identifier = identifier(key, &context.transfer_syntax);
        let asked = async {
            self.send_data_set(context.id, &command, identifier, &mut tokio::io::empty()).await?;
            self.matches(message_id, &key.sop_instance, &context.transfer_syntax).await
        }
        .await;
        if let Err(error) = &asked {
            self.give_up(error).await;
        }
        asked
    }

    /// Reads every match up to the final response.
    async fn matches(&mut self, message_id: u16, wanted: &Uid, transfer_syntax: &Uid) -> Result<Found, ScuError> {
        let limit = self.response_timeout;
        let mut is_found = false;
        for _ in 0..=MAX_MATCHES {
            let exchange = self.exchange.as_mut().ok_or(ScuError::Closed)?;
            let Incoming::Command { context, bytes } = exchange.next_command(limit, limit).await? else {
                return Err(ScuError::Protocol("release instead of a response".to_owned()));
            };
            let command = CommandSet::decode(&bytes)?;
            let found = (command.u16(tag::COMMAND_FIELD)?, command.u16(tag::MESSAGE_ID_RESPONDED_TO)?);
            if found != (field::C_FIND_RSP, message_id) {
                return Err(ScuError::Protocol(format!("command 0x{:04X} instead of a C-FIND-RSP", found.0)));
            }
            let status = StoreStatus::from_code(command.u16(tag::STATUS)?);
            let data = if command.announces_data_set()? {
                self.read_data_set(context, MAX_MATCH_BYTES).await?
            } else {
                Vec::new()
            };
            match status.code() {
                // Pending, with or without a warning about optional keys (PS3.4 table C.4-1).
                0xFF00 | 0xFF01 => is_found |= names(&data, transfer_syntax, wanted),
                0x0000 => return Ok(if is_found { Found::Yes } else { Found::No }),
                _ => return Ok(Found::Refused(StoreResponse { status, comment: command.comment() })),
            }
        }
        Err(ScuError::Protocol(format!("more than {MAX_MATCHES} matches of unique keys")))
    }
}

/// The identifier of the query (PS3.4 C.4.1.1.3), elements in ascending order.
fn identifier(key: &InstanceKey, transfer_syntax: &Uid) -> Vec<u8> {
    let mut writer = Writer::new(transfer_syntax);
    writer.uid(SOP_INSTANCE, &key.sop_instance);
    writer.element(LEVEL, *b"CS", b"IMAGE ");
    writer.uid(STUDY_INSTANCE, &key.study);
    writer.uid(SERIES_INSTANCE, &key.series);
    writer.into_bytes()
}

/// Whether a match is about this instance; one that cannot be read is not.
fn names(data: &[u8], transfer_syntax: &Uid, wanted: &Uid) -> bool {
    let mut reader = Reader::new(data, transfer_syntax);
    while let Ok(Some(header)) = reader.next_element() {
        if header.tag == SOP_INSTANCE {
            return reader.uid(&header, "SOP Instance UID").is_ok_and(|found| found == *wanted);
        }
        if reader.skip(&header, 0).is_err() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_match_that_names_the_instance_is_one() {
        let uid = |text: &str| Uid::parse(text).unwrap();
        let key = InstanceKey { study: uid("1.2"), series: uid("1.2.3"), sop_instance: uid("1.2.3.4") };
        for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN].map(uid) {
            let data = identifier(&key, &syntax);
            assert!(names(&data, &syntax, &key.sop_instance));
            assert!(!names(&data, &syntax, &uid("1.2.3.40")));
            assert!(!names(&data[16..], &syntax, &key.sop_instance), "without its SOP Instance UID");
            for cut in 0..data.len() {
                names(&data[..cut], &syntax, &key.sop_instance);
            }
        }
    }
}
