//! Statements of messages.

mod waiting;

use ichor_core::{AeTitle, MessageStatus, Reason, Subject, Uid};
use serde_json::json;

use super::events::NewEvent;
use super::failure::During;
use super::latency::count;
use super::trace::VERSION_OF_EVENT;
use super::values::{from_json, to_json, uid, unsigned, word};
use super::{Connection, Sqlite, one_row};
use crate::events::peer_text;
use crate::latency::Measure;
use crate::message::{ChannelDepth, MessageClaim, MessageSeries, MessageSummary};
use crate::{StoreError, StudyAttributes, Timestamp};

/// What an event is to a channel. An attempt at an analysis that will be repeated is nothing yet.
pub(super) const SUBJECT: &str = "CASE kind
    WHEN 'alert' THEN 'alert'
    WHEN 'alert-withdrawn' THEN 'alert-withdrawn'
    WHEN 'analysed' THEN json_extract(detail, '$.outcome.finding.verdict')
    WHEN 'not-analysed' THEN 'not-analysed'
    WHEN 'analysis-failed' THEN CASE WHEN json_extract(detail, '$.given_up') THEN 'failed' END
    WHEN 'delivery-dead' THEN 'delivery-dead' END";

/// Whether the dead message `m` was given up for good: no later one of its study has taken its place. The view says when.
const IS_GIVEN_UP: &str = "EXISTS (SELECT 1 FROM given_up_message g WHERE g.id = m.id)";

/// So many events may pass a channel by before it notes where it is: a note is a transaction.
const UNNOTED: i64 = 1_000;

/// Most series of a study that a message names.
const MOST_SERIES: i64 = 1_000;

/// Of one study only the oldest message that is not finished is due.
const IS_FIRST_OF_STUDY: &str = "NOT EXISTS (SELECT 1 FROM message p WHERE p.study_id = m.study_id
    AND p.channel = m.channel AND p.id < m.id AND p.status IN ('queued', 'sending'))";

#[derive(sqlx::FromRow)]
struct ClaimRow {
    id: i64,
    attempts: i64,
    subject: String,
    at: i64,
    text: String,
    detail: String,
    study_instance: String,
    patient_id: Option<String>,
    patient_name: Option<String>,
    accession_number: Option<String>,
    study_date: Option<String>,
    description: Option<String>,
    source_ae: Option<String>,
    last_instance_at: i64,
    version: i64,
}

#[derive(sqlx::FromRow)]
struct SeriesRow {
    series_instance: String,
    modality: Option<String>,
    description: Option<String>,
    number: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct SummaryRow {
    id: i64,
    channel: String,
    subject: String,
    status: String,
    study_instance: String,
    attempts: i64,
    queued_at: i64,
    next_attempt: i64,
    finished_at: Option<i64>,
    latency_ms: Option<i64>,
    last_words: Option<String>,
}

impl Sqlite {
    pub(crate) async fn follow_events(
        &self,
        channel: &str,
        subjects: &[Subject],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let during = "following the event log";
        let place: Option<(i64, i64)> =
            sqlx::query_as("SELECT event_id, COALESCE((SELECT MAX(id) FROM event), 0) FROM channel WHERE name = ?")
                .bind(channel)
                .fetch_optional(&self.read)
                .await
                .during(during)?;
        let Some((after, newest)) = place else {
            sqlx::query("INSERT INTO channel (name, event_id) SELECT ?, COALESCE(MAX(id), 0) FROM event")
                .bind(channel)
                .execute(self.unwitnessed(during)?)
                .await
                .during(during)?;
            return Ok(0);
        };
        let words = to_json(&subjects)?;
        let any: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT EXISTS (SELECT 1 FROM event WHERE id > ?1 AND id <= ?2 AND study_id IS NOT NULL
                 AND {SUBJECT} IN (SELECT value FROM json_each(?3)))"
        )))
        .bind(after)
        .bind(newest)
        .bind(&words)
        .fetch_one(&self.read)
        .await
        .during(during)?;
        if !any && newest - after < UNNOTED {
            return Ok(0);
        }
        let mut tx = self.begin(during).await?;
        let urgent: Vec<Subject> = Subject::ALL.iter().copied().filter(|subject| subject.is_urgent()).collect();
        let queued = sqlx::query(sqlx::AssertSqlSafe(format!(
            "INSERT INTO message (channel, event_id, study_id, subject, status, urgent, queued_at, next_attempt)
             SELECT ?1, id, study_id, subject, 'queued', subject IN (SELECT value FROM json_each(?5)), at, ?6
             FROM (SELECT id, at, study_id, {SUBJECT} AS subject FROM event
                 WHERE id > ?2 AND id <= ?3 AND study_id IS NOT NULL)
             WHERE subject IN (SELECT value FROM json_each(?4)) ORDER BY id"
        )))
        .bind(channel)
        .bind(after)
        .bind(newest)
        .bind(&words)
        .bind(to_json(&urgent)?)
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        // Whoever was here in between has told it all.
        let moved = sqlx::query("UPDATE channel SET event_id = ? WHERE name = ? AND event_id = ?")
            .bind(newest)
            .bind(channel)
            .bind(after)
            .execute(&mut *tx)
            .await
            .during(during)?
            .rows_affected();
        one_row(moved, || format!("channel {channel}"))?;
        tx.commit().await.during(during)?;
        Ok(queued)
    }

    pub(crate) async fn claim_message(
        &self,
        channel: &str,
        now: Timestamp,
    ) -> Result<Option<MessageClaim>, StoreError> {
        let during = "claiming a message";
        if self.next_message_deadline(channel).await?.is_none_or(|due| due > now) {
            return Ok(None);
        }
        let mut tx = self.begin(during).await?;
        let row: Option<ClaimRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT m.id, m.attempts + 1 AS attempts, m.subject, e.at, e.text, e.detail, s.study_instance,
                 s.patient_id, s.patient_name, s.accession AS accession_number, s.study_date, s.description, s.source_ae,
                 s.last_instance_at, {VERSION_OF_EVENT} AS version
             FROM message m JOIN event e ON e.id = m.event_id JOIN study s ON s.id = m.study_id
             WHERE m.channel = ?1 AND m.status = 'queued' AND m.next_attempt <= ?2 AND {IS_FIRST_OF_STUDY}
             ORDER BY m.urgent DESC, m.id LIMIT 1"
        )))
        .bind(channel)
        .bind(now.as_millis())
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some(row) = row else { return Ok(None) };
        sqlx::query("UPDATE message SET status = 'sending', attempts = ? WHERE id = ?")
            .bind(row.attempts)
            .bind(row.id)
            .execute(&mut *tx)
            .await
            .during(during)?;
        let series: Vec<SeriesRow> = sqlx::query_as(
            "SELECT r.series_instance, r.modality, r.description, r.number FROM series r
             WHERE r.study_id = (SELECT study_id FROM message WHERE id = ?1)
                 AND EXISTS (SELECT 1 FROM instance i WHERE i.study_id = r.study_id AND i.own = 0 AND i.series_id = r.id)
             ORDER BY r.id LIMIT ?2",
        )
        .bind(row.id)
        .bind(MOST_SERIES)
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        tx.commit().await.during(during)?;
        claim(channel, row, series).map(Some)
    }

    pub(crate) async fn message_acknowledged(
        &self,
        claim: &MessageClaim,
        words: &str,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let during = "recording an acknowledgement";
        let words = peer_text(words);
        // A clock that was set back must not make an answer older than its question.
        let latency = (now.as_millis() - claim.since.as_millis()).max(0);
        let mut tx = self.begin(during).await?;
        finish(&mut tx, claim, "acknowledged", now, Some(now), &words).await?;
        sqlx::query("UPDATE message SET latency_ms = ? WHERE id = ?")
            .bind(latency)
            .bind(claim.id)
            .execute(&mut *tx)
            .await
            .during(during)?;
        let (channel, subject) = (&claim.channel, claim.subject);
        count(&mut tx, Measure::Message, channel, subject.as_str(), latency).await?;
        let since = match subject {
            Subject::Alert => "the first suspicious slice",
            Subject::DeliveryDead => "it was given up",
            // The last slice, or the wish for another analysis.
            _ => "what it rests on",
        };
        let text = format!("{channel} acknowledged \"{subject}\": {words}; {latency} ms after {since}");
        write_event(&mut tx, claim, NewEvent::new(now, "message-acknowledged", text), &words, Some(latency)).await?;
        tx.commit().await.during(during)?;
        Ok(latency)
    }

    pub(crate) async fn message_failed(
        &self,
        claim: &MessageClaim,
        reason: &Reason,
        next_attempt: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "recording a failed message";
        let words = peer_text(&reason.to_string());
        let status = if next_attempt.is_some() { "queued" } else { "dead" };
        let mut tx = self.begin(during).await?;
        let finished = next_attempt.is_none().then_some(now);
        finish(&mut tx, claim, status, next_attempt.unwrap_or(now), finished, &words).await?;
        let (kind, consequence) = match next_attempt {
            Some(at) => ("message-failed", format!("next attempt in {} ms", at.since(now).as_millis())),
            None => ("message-dead", "given up".to_owned()),
        };
        let text = format!("telling {} \"{}\" failed: {words}; {consequence}", claim.channel, claim.subject);
        write_event(&mut tx, claim, NewEvent::new(now, kind, text), &words, None).await?;
        tx.commit().await.during(during)
    }

    pub(crate) async fn requeue_messages(&self, channel: Option<&str>, now: Timestamp) -> Result<u64, StoreError> {
        let during = "queueing messages again";
        let requeued = sqlx::query(
            "UPDATE message SET status = 'queued', next_attempt = ?1
             WHERE status = 'sending' AND (?2 IS NULL OR channel = ?2)",
        )
        .bind(now.as_millis())
        .bind(channel)
        .execute(self.unwitnessed(during)?)
        .await
        .during(during)?;
        Ok(requeued.rows_affected())
    }

    pub(crate) async fn next_message_deadline(&self, channel: &str) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT MIN(m.next_attempt) FROM message m
             WHERE m.channel = ? AND m.status = 'queued' AND {IS_FIRST_OF_STUDY}"
        )))
        .bind(channel)
        .fetch_one(&self.read)
        .await
        .during("looking for the next message")?;
        Ok(due.map(Timestamp::from_millis))
    }

    pub(crate) async fn messages(
        &self,
        status: Option<MessageStatus>,
        study: Option<&Uid>,
        limit: u32,
    ) -> Result<Vec<MessageSummary>, StoreError> {
        // Which index serves is decided by what is asked, so each question is a statement of its own.
        let by_status = if status.is_some() { "AND m.status = ?1" } else { "AND ?1 IS NULL" };
        let by_study = match study {
            Some(_) => "AND m.study_id = (SELECT id FROM study WHERE study_instance = ?2)",
            None => "AND ?2 IS NULL",
        };
        let rows: Vec<SummaryRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT m.id, m.channel, m.subject, m.status, s.study_instance, m.attempts, m.queued_at, m.next_attempt,
                 m.finished_at, m.latency_ms, m.last_words
             FROM message m JOIN study s ON s.id = m.study_id
             WHERE TRUE {by_status} {by_study} ORDER BY m.id DESC LIMIT ?3"
        )))
        .bind(status.map(MessageStatus::as_str))
        .bind(study.map(Uid::as_str))
        .bind(limit)
        .fetch_all(&self.read)
        .await
        .during("listing messages")?;
        rows.into_iter().map(summary).collect()
    }

    pub(crate) async fn retry_messages(&self, id: Option<i64>, now: Timestamp) -> Result<u64, StoreError> {
        let during = "queueing dead messages again";
        let mut tx = self.begin(during).await?;
        let superseded: Vec<(i64, String, String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT m.id, m.channel, m.subject, m.study_id FROM message m
             WHERE m.status = 'dead' AND (?1 IS NULL OR m.id = ?1) AND NOT {IS_GIVEN_UP} ORDER BY m.id"
        )))
        .bind(id)
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        let revived: Vec<(String, String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "UPDATE message AS m SET status = 'queued', attempts = 0, next_attempt = ?1, finished_at = NULL
             WHERE m.status = 'dead' AND (?2 IS NULL OR m.id = ?2) AND {IS_GIVEN_UP}
             RETURNING channel, subject, study_id"
        )))
        .bind(now.as_millis())
        .bind(id)
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        for (message, channel, subject, study) in &superseded {
            let why = "a later message of the study was acknowledged";
            let text = format!("the dead message to {channel}, \"{subject}\", is not queued again: {why}");
            NewEvent::new(now, "message-superseded", text)
                .detail(json!({ "message": message, "channel": channel, "subject": subject, "why": why }))
                .study(*study)
                .write(&mut tx)
                .await?;
        }
        if let (Some(id), true) = (id, revived.is_empty()) {
            if superseded.is_empty() {
                let status: Option<String> = sqlx::query_scalar("SELECT status FROM message WHERE id = ?")
                    .bind(id)
                    .fetch_optional(&mut *tx)
                    .await
                    .during(during)?;
                let words = match status.as_deref() {
                    Some("queued") => "is queued already, and will be sent",
                    Some("sending") => "is on its way at this moment",
                    Some("acknowledged") => "was acknowledged: there is nothing to send again",
                    _ => "",
                };
                if !words.is_empty() {
                    return Err(StoreError::Filter { what: format!("message {id} {words}") });
                }
                return Err(StoreError::NotFound { what: format!("a dead message {id}") });
            }
            tx.commit_with(&"superseded").await.during(during)?;
            return Err(StoreError::NotFound { what: format!("a dead message {id} that no later one has replaced") });
        }
        for (channel, subject, study) in &revived {
            let text = format!("the dead message to {channel}, \"{subject}\", is queued again");
            NewEvent::new(now, "message-requeued", text)
                .detail(json!({ "channel": channel, "subject": subject }))
                .study(*study)
                .write(&mut tx)
                .await?;
        }
        if revived.is_empty() && superseded.is_empty() {
            return Ok(0);
        }
        tx.commit_with(&revived.len()).await.during(during)?;
        if !superseded.is_empty() {
            tracing::warn!(
                left_out = superseded.len(),
                "dead messages that later ones have replaced are not queued again"
            );
        }
        Ok(revived.len() as u64)
    }

    pub(crate) async fn channel_depths(&self) -> Result<Vec<ChannelDepth>, StoreError> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT channel, status, COUNT(*) FROM message GROUP BY channel, status ORDER BY channel, status",
        )
        .fetch_all(&self.read)
        .await
        .during("counting messages")?;
        let depth = |(channel, status, count): (String, String, i64)| {
            Ok(ChannelDepth { channel, status: word(&status)?, count: unsigned(count)? })
        };
        rows.into_iter().map(depth).collect()
    }
}

async fn finish(
    connection: &mut Connection,
    claim: &MessageClaim,
    status: &str,
    next_attempt: Timestamp,
    finished: Option<Timestamp>,
    words: &str,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE message SET status = ?, next_attempt = ?, finished_at = ?, last_words = ?
         WHERE id = ? AND status = 'sending' AND attempts = ?",
    )
    .bind(status)
    .bind(next_attempt.as_millis())
    .bind(finished.map(Timestamp::as_millis))
    .bind(words)
    .bind(claim.id)
    .bind(claim.attempts)
    .execute(connection)
    .await
    .during("recording what became of a message")?
    .rows_affected();
    one_row(changed, || format!("message {} for {}", claim.id, claim.channel))
}

async fn write_event(
    connection: &mut Connection,
    claim: &MessageClaim,
    event: NewEvent,
    words: &str,
    latency_ms: Option<i64>,
) -> Result<(), StoreError> {
    let study: i64 = sqlx::query_scalar("SELECT study_id FROM message WHERE id = ?")
        .bind(claim.id)
        .fetch_one(&mut *connection)
        .await
        .during("recording what became of a message")?;
    event
        .detail(json!({
            "message": claim.id, "channel": claim.channel, "subject": claim.subject, "attempt": claim.attempts,
            "words": words, "latency_ms": latency_ms,
        }))
        .study(study)
        .write(connection)
        .await
}

fn claim(channel: &str, row: ClaimRow, series: Vec<SeriesRow>) -> Result<MessageClaim, StoreError> {
    let series = series.into_iter().map(|row| {
        Ok(MessageSeries {
            series_instance: uid(&row.series_instance)?,
            modality: row.modality,
            description: row.description,
            number: row.number,
        })
    });
    let subject = word(&row.subject)?;
    let detail: serde_json::Value = from_json(&row.detail)?;
    let ago = |key: &str| detail[key].as_i64().map(|ms| row.at - ms);
    let since = match subject {
        Subject::Alert => ago("latency_ms"),
        Subject::DeliveryDead => Some(row.at),
        _ => ago("turnaround_ms"),
    };
    // Of an event of before that is not said. What came later than the event is nothing that it rests on.
    let since = since.unwrap_or_else(|| row.last_instance_at.min(row.at));
    Ok(MessageClaim {
        id: row.id,
        channel: channel.to_owned(),
        subject,
        at: Timestamp::from_millis(row.at),
        text: row.text,
        detail,
        study: StudyAttributes {
            study_instance: uid(&row.study_instance)?,
            patient_id: row.patient_id,
            patient_name: row.patient_name,
            accession_number: row.accession_number,
            study_date: row.study_date,
            description: row.description,
        },
        source_ae: (row.source_ae.map(|title| AeTitle::parse(&title)).transpose())
            .map_err(|error| StoreError::corrupt(error.to_string()))?,
        series: series.collect::<Result<_, StoreError>>()?,
        version: unsigned(row.version)?,
        since: Timestamp::from_millis(since),
        attempts: unsigned(row.attempts)?,
    })
}

fn summary(row: SummaryRow) -> Result<MessageSummary, StoreError> {
    let status = word(&row.status)?;
    Ok(MessageSummary {
        id: row.id,
        channel: row.channel,
        subject: word(&row.subject)?,
        status,
        study_instance: uid(&row.study_instance)?,
        attempts: unsigned(row.attempts)?,
        queued_at: Timestamp::from_millis(row.queued_at),
        next_attempt: (status == MessageStatus::Queued).then(|| Timestamp::from_millis(row.next_attempt)),
        finished_at: row.finished_at.map(Timestamp::from_millis),
        latency_ms: row.latency_ms.map(unsigned).transpose()?,
        last_words: row.last_words,
    })
}
