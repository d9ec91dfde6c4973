//! Messages: one queue a channel, filled from the event log. What happens to a study is written as an event in the
//! transaction in which it happens; each channel follows the log from where it was, so nothing is told twice and nothing
//! is forgotten, whenever the process ends.

use ichor_core::{AeTitle, MessageStatus, Reason, Subject, Uid};
use serde::Serialize;
use serde_json::Value;

use crate::{Store, StoreError, StudyAttributes, Timestamp, Topic};

/// The right to tell one channel of one event, held by one task.
#[derive(Clone, Debug)]
pub struct MessageClaim {
    /// Number of the message: the same at every attempt.
    pub id: i64,
    /// Whom.
    pub channel: String,
    /// What it is about.
    pub subject: Subject,
    /// When that happened.
    pub at: Timestamp,
    /// The event in one line.
    pub text: String,
    /// The same for machines.
    pub detail: Value,
    /// The study.
    pub study: StudyAttributes,
    /// Who sent it.
    pub source_ae: Option<AeTitle>,
    /// Its series, as far as they have arrived, without our own results.
    pub series: Vec<MessageSeries>,
    /// The version of the study that it belongs to; before the study is complete, the one that arrives.
    pub version: u32,
    /// What its latency is counted from: of an alert the first suspicious slice, of a delivery that was given up that moment, else the
    /// last slice of the version, or the wish for another analysis.
    pub since: Timestamp,
    /// Attempts, this one included.
    pub attempts: u32,
}

/// A series of the study that a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageSeries {
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Modality.
    pub modality: Option<String>,
    /// Series Description.
    pub description: Option<String>,
    /// Series Number.
    pub number: Option<i64>,
}

/// A message, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MessageSummary {
    /// Number of the message.
    pub id: i64,
    /// Whom.
    pub channel: String,
    /// What it is about.
    pub subject: Subject,
    /// Where it stands.
    pub status: MessageStatus,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Attempts so far.
    pub attempts: u32,
    /// When the event happened.
    pub queued_at: Timestamp,
    /// When the next attempt is due; absent unless it is queued.
    pub next_attempt: Option<Timestamp>,
    /// When it was acknowledged or given up.
    pub finished_at: Option<Timestamp>,
    /// From what it rests on to the peer's word that it has it, in milliseconds: of an alert from the first suspicious slice, of a
    /// delivery from when it was given up, else from the last slice, or from when somebody asked for another analysis. Absent of what
    /// is not acknowledged, or was before this was kept.
    pub latency_ms: Option<u64>,
    /// What the peer, or the last failed attempt, said.
    pub last_words: Option<String>,
}

/// How many messages of one channel are in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelDepth {
    /// Name of the channel.
    pub channel: String,
    /// The state.
    pub status: MessageStatus,
    /// How many.
    pub count: u64,
}

impl Store {
    /// Queues what happened since the last call, as far as `subjects` go; how many messages. A channel that was not known
    /// begins with what happens from now on.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn follow_events(&self, channel: &str, subjects: &[Subject], now: Timestamp) -> Result<u64, StoreError> {
        self.index().follow_events(channel, subjects, now).await
    }

    /// Claims the next due message of a channel: alerts and positives first, then the oldest; those of one study one after
    /// the other.
    ///
    /// # Errors
    /// As [`Self::follow_events`], and [`StoreError::Corrupt`].
    pub async fn claim_message(&self, channel: &str, now: Timestamp) -> Result<Option<MessageClaim>, StoreError> {
        self.index().claim_message(channel, now).await
    }

    /// Records that the peer said it has the message, in its words; the time since what it is about, in milliseconds.
    ///
    /// # Errors
    /// [`StoreError::StaleClaim`] if the claim is no longer held; else as [`Self::follow_events`].
    pub async fn message_acknowledged(
        &self,
        claim: MessageClaim,
        words: &str,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        self.index().message_acknowledged(&claim, words, now).await
    }

    /// Records a failed attempt. With `next_attempt` the message is queued for that moment; without, it is dead until
    /// somebody asks for a retry, and the study's next message is no longer held up.
    ///
    /// # Errors
    /// As [`Self::message_acknowledged`].
    pub async fn message_failed(
        &self,
        claim: MessageClaim,
        reason: &Reason,
        next_attempt: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().message_failed(&claim, reason, next_attempt, now).await
    }

    /// Puts off a message that lacks something which may still come: no attempt is counted, and it is said once.
    ///
    /// # Errors
    /// As [`Self::message_acknowledged`].
    pub async fn message_waits(
        &self,
        claim: MessageClaim,
        reason: &Reason,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().message_waits(&claim, reason, until, now).await
    }

    /// Has the messages of a channel that were put off for a reason looked at now; how many. For whoever takes the channel
    /// up: how long they wait may be another matter than when they were put off.
    ///
    /// # Errors
    /// As [`Self::follow_events`].
    pub async fn release_waiting_messages(
        &self,
        channel: &str,
        reason: &Reason,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.index().release_waiting_messages(channel, reason, now).await
    }

    /// Queues again the messages of a channel that were put off for a reason or died of it, and whose study's accession
    /// number is known by now; how many. Of the dead, one that a later message of its study has replaced stays as it is.
    /// Where there is none nothing is written.
    ///
    /// # Errors
    /// As [`Self::follow_events`].
    pub async fn revive_messages(&self, channel: &str, reason: &Reason, now: Timestamp) -> Result<u64, StoreError> {
        self.index().revive_messages(channel, reason, now).await
    }

    /// Queues again the messages of a channel that are under way, or those of all channels. For the one task that serves
    /// it, when an answer could not be recorded and nothing is being sent.
    ///
    /// # Errors
    /// As [`Self::follow_events`].
    pub async fn requeue_messages(&self, channel: Option<&str>, now: Timestamp) -> Result<u64, StoreError> {
        self.index().requeue_messages(channel, now).await
    }

    /// When the next queued message of a channel is due.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn next_message_deadline(&self, channel: &str) -> Result<Option<Timestamp>, StoreError> {
        self.index().next_message_deadline(channel).await
    }

    /// Messages, the newest first; `status` and `study` narrow them down.
    ///
    /// # Errors
    /// As [`Self::next_message_deadline`], and [`StoreError::Corrupt`].
    pub async fn messages(
        &self,
        status: Option<MessageStatus>,
        study: Option<&Uid>,
        limit: u32,
    ) -> Result<Vec<MessageSummary>, StoreError> {
        self.index().messages(status, study, limit).await
    }

    /// Queues dead messages again, with all attempts before them: one by its number, or all; how many. One that a later
    /// message of its study has replaced is left out, with an event.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the one that was named is not there, not dead, or replaced; else as [`Self::follow_events`].
    pub async fn retry_messages(&self, id: Option<i64>, now: Timestamp) -> Result<u64, StoreError> {
        let revived = self.index().retry_messages(id, now).await?;
        self.topics().notify(Topic::Messages);
        Ok(revived)
    }

    /// How many messages are in which state, by channel.
    ///
    /// # Errors
    /// As [`Self::next_message_deadline`].
    pub async fn channel_depths(&self) -> Result<Vec<ChannelDepth>, StoreError> {
        self.index().channel_depths().await
    }
}
