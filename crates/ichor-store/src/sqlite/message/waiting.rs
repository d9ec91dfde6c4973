//! Statements of messages that lack the number of their order.

use ichor_core::Reason;
use serde_json::json;

use super::super::Sqlite;
use super::super::events::NewEvent;
use super::super::failure::During;
use super::{SUPERSEDED, finish, write_event};
use crate::events::peer_text;
use crate::message::MessageClaim;
use crate::{StoreError, Timestamp};

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

    pub(crate) async fn revive_messages(
        &self,
        channel: &str,
        reason: &Reason,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let during = "queueing messages whose order is known by now";
        let words = peer_text(&reason.to_string());
        let dead = format!(
            "m.channel = ?1 AND m.status = 'dead' AND m.last_words = ?2 AND NOT {SUPERSEDED}
             AND EXISTS (SELECT 1 FROM study s WHERE s.id = m.study_id AND s.accession <> '')"
        );
        let any: bool =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 FROM message m WHERE {dead})")))
                .bind(channel)
                .bind(&words)
                .fetch_one(&self.read)
                .await
                .during(during)?;
        if !any {
            return Ok(0);
        }
        let mut tx = self.begin(during).await?;
        let revived: Vec<(String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "UPDATE message AS m SET status = 'queued', attempts = 0, next_attempt = ?3, finished_at = NULL
             WHERE {dead} RETURNING subject, study_id"
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
        Ok(revived.len() as u64)
    }
}
