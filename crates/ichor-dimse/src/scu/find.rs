//! Queries as user (C-FIND, PS3.4 Annex C and K; PS3.7 9.1.2): single instances, studies with their numbers, worklists.

mod instance;
mod matches;
mod study;
mod worklist;

use ichor_core::Uid;

pub use instance::{Found, InstanceKey};
pub use matches::{Match, attribute};
pub use worklist::WorklistKeys;

use super::{ProposedContext, ScuError, ScuOptions, StorageScu, StoreResponse};
use crate::command::{CommandSet, field, tag};
use crate::exchange::Incoming;
use crate::status::StoreStatus;
use crate::uids;

/// Longest match that is read, in bytes.
const MAX_MATCH_BYTES: usize = 1 << 20;
/// Longest answer that is read: all matches together, in bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryModel {
    /// Studies, series and instances (Study Root, PS3.4 C.6.2).
    StudyRoot,
    /// Scheduled procedure steps (Modality Worklist, PS3.4 Annex K).
    Worklist,
}

impl QueryModel {
    fn sop_class(self) -> Uid {
        uids::known(match self {
            Self::StudyRoot => uids::STUDY_ROOT_FIND,
            Self::Worklist => uids::MODALITY_WORKLIST_FIND,
        })
    }
}

/// What a peer answered to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queried<M> {
    /// What fits, in its order; nothing, if nothing does.
    Matches(Vec<M>),
    /// The peer did not answer the query.
    Refused(StoreResponse),
}

impl<M> Queried<M> {
    fn map<N>(self, each: impl Fn(M) -> N) -> Queried<N> {
        match self {
            Self::Matches(matches) => Queried::Matches(matches.into_iter().map(each).collect()),
            Self::Refused(response) => Queried::Refused(response),
        }
    }
}

/// The identifier of one response, and what it is written in.
struct RawMatch {
    data: Vec<u8>,
    transfer_syntax: Uid,
}

impl StorageScu {
    /// Connects to a provider of queries of the Study Root model, for [`Self::find`], [`Self::find_study`] and
    /// [`Self::find_series`].
    ///
    /// # Errors
    /// If there is no connection, no answer, or no accepted context.
    pub async fn connect_to_find(options: &ScuOptions) -> Result<Self, ScuError> {
        Self::connect_to_query(options, QueryModel::StudyRoot).await
    }

    /// Connects to a provider of queries of one model.
    ///
    /// # Errors
    /// If there is no connection, no answer, or no accepted context.
    pub async fn connect_to_query(options: &ScuOptions, model: QueryModel) -> Result<Self, ScuError> {
        let syntaxes = [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN].map(uids::known);
        Self::connect(options, &[ProposedContext::new(model.sop_class(), syntaxes)]).await
    }

    /// Asks one question. More than `most` matches are an error: nobody asked for all there is.
    async fn query(
        &mut self,
        model: QueryModel,
        most: usize,
        identifier: impl FnOnce(&Uid) -> Vec<u8>,
    ) -> Result<Queried<RawMatch>, ScuError> {
        let class = model.sop_class();
        let Some(context) = self.contexts.iter().find(|context| context.abstract_syntax == class).cloned() else {
            let transfer_syntax = uids::known(uids::IMPLICIT_VR_LITTLE_ENDIAN);
            return Err(ScuError::ContextNotAccepted { sop_class: class, transfer_syntax });
        };
        let message_id = self.next_message_id();
        let command = CommandSet::c_find_request(message_id, &class);
        let identifier = identifier(&context.transfer_syntax);
        let asked = async {
            self.send_data_set(context.id, &command, identifier, &mut tokio::io::empty()).await?;
            self.matches(message_id, most, &context.transfer_syntax).await
        }
        .await;
        if let Err(error) = &asked {
            self.give_up(error).await;
        }
        asked
    }

    /// Reads every match up to the final response.
    async fn matches(
        &mut self,
        message_id: u16,
        most: usize,
        transfer_syntax: &Uid,
    ) -> Result<Queried<RawMatch>, ScuError> {
        let limit = self.response_timeout;
        let (mut matches, mut total) = (Vec::new(), 0);
        loop {
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
                0xFF00 | 0xFF01 if matches.len() >= most => {
                    return Err(ScuError::Protocol(format!("more than {most} matches")));
                }
                0xFF00 | 0xFF01 if total + data.len() > MAX_ANSWER_BYTES => {
                    return Err(ScuError::Protocol(format!("matches of more than {MAX_ANSWER_BYTES} bytes")));
                }
                0xFF00 | 0xFF01 => {
                    total += data.len();
                    matches.push(RawMatch { data, transfer_syntax: transfer_syntax.clone() });
                }
                0x0000 => return Ok(Queried::Matches(matches)),
                _ => return Ok(Queried::Refused(StoreResponse { status, comment: command.comment() })),
            }
        }
    }
}
