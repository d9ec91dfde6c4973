//! Statements of messages that lack the number of their order.

use ichor_core::Reason;
use serde_json::json;

use super::super::Sqlite;
use super::super::events::NewEvent;
use super::super::failure::During;
use super::{IS_GIVEN_UP, finish, write_event};
use crate::events::peer_text;
use crate::message::MessageClaim;
use crate::{StoreError, Timestamp};

/// The messages `m` of the channel `?1` whose last words are `?2`, in the words of the index of those.
const OF_THE_WORDS: &str = "m.channel = ?1 AND m.last_words = ?2 AND m.status != 'acknowledged'";

/// And which are put off beyond now, `?3`.
const WAITS: &str = "m.status = 'queued' AND m.next_attempt > ?3";

impl Sqlite {
    pub(crate) async fn message_waits(
        &self,
        claim: &MessageClaim,
        reason: &Reason,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "putting off a message";
        let words = peer_text(&reason.to_string());
        let mut tx = self.begin(during).await?;
        let is_said: bool = sqlx::query_scalar("SELECT COALESCE(last_words = ?, 0) FROM message WHERE id = ?")
            .bind(&words)
            .bind(claim.id)
            .fetch_one(&mut *tx)
            .await
            .during(during)?;
        finish(&mut tx, claim, "queued", until, None, &words).await?;
        sqlx::query("UPDATE message SET attempts = attempts - 1 WHERE id = ?")
            .bind(claim.id)
            .execute(&mut *tx)
            .await
            .during(during)?;
        if !is_said {
            let text = format!("telling {} \"{}\" waits: {words}", claim.channel, claim.subject);
            write_event(&mut tx, claim, NewEvent::new(now, "message-waits", text), &words, None).await?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn release_waiting_messages(
        &self,
        channel: &str,
        reason: &Reason,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let during = "having waiting messages looked at again";
        let released = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE message AS m SET next_attempt = ?3 WHERE {OF_THE_WORDS} AND {WAITS}"
        )))
        .bind(channel)
        .bind(peer_text(&reason.to_string()))
        .bind(now.as_millis())
        .execute(self.unwitnessed(during)?)
        .await
        .during(during)?;
        Ok(released.rows_affected())
    }

    pub(crate) async fn revive_messages(
        &self,
        channel: &str,
        reason: &Reason,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let during = "queueing messages whose order is known by now";
        let words = peer_text(&reason.to_string());
        let of_them =
            format!("{OF_THE_WORDS} AND EXISTS (SELECT 1 FROM study s WHERE s.id = m.study_id AND s.accession <> '')");
        let dead = format!("m.status = 'dead' AND {IS_GIVEN_UP}");
        let any: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT EXISTS (SELECT 1 FROM message m WHERE {of_them} AND (({WAITS}) OR ({dead})))"
        )))
        .bind(channel)
        .bind(&words)
        .bind(now.as_millis())
        .fetch_one(&self.read)
        .await
        .during(during)?;
        if !any {
            return Ok(0);
        }
        let mut tx = self.begin(during).await?;
        // What waited goes on; it was never said that it had ended.
        let released = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE message AS m SET next_attempt = ?3 WHERE {of_them} AND {WAITS}"
        )))
        .bind(channel)
        .bind(&words)
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        let revived: Vec<(String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "UPDATE message AS m SET status = 'queued', attempts = 0, next_attempt = ?3, finished_at = NULL
             WHERE {of_them} AND {dead} RETURNING subject, study_id"
        )))
        .bind(channel)
        .bind(&words)
        .bind(now.as_millis())
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        for (subject, study) in &revived {
            let again = format!("the dead message to {channel}, \"{subject}\", is queued again");
            let text = format!("the accession number is known now: {again}");
            NewEvent::new(now, "message-requeued", text)
                .detail(json!({ "channel": channel, "subject": subject }))
                .study(*study)
                .write(&mut tx)
                .await?;
        }
        tx.commit().await.during(during)?;
        Ok(released + revived.len() as u64)
    }
}
