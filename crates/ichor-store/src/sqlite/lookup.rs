//! Statements of look-ups: who is due, what was told, what failed.

mod complete;

use serde_json::json;

use super::events::NewEvent;
use super::failure::During;
use super::values::{to_json, uid, unsigned};
use super::{Connection, Sqlite};
use crate::events::peer_text;
use crate::lookup::{Completeness, DueLookup, LookupAnswer, LookupFigures, LookupPeer};
use crate::{StoreError, Timestamp};

#[derive(sqlx::FromRow)]
struct DueRow {
    study_id: i64,
    study_instance: String,
    patient_id: Option<String>,
    study_date: Option<String>,
    has_accession: bool,
    is_receiving: bool,
    last_instance_at: i64,
    version: i64,
    asks: i64,
    failures: i64,
}

/// Receiving studies without a row of this peer, or with one of an earlier version; `?4`: the senders, as JSON.
const UNKNOWN: &str = "FROM study s WHERE s.status = 'receiving' AND (?2 OR (?3 AND s.accession IS NULL))
    AND (?4 IS NULL OR s.source_ae IN (SELECT value FROM json_each(?4)))
    AND NOT EXISTS (SELECT 1 FROM lookup l WHERE l.study_id = s.id AND l.peer = ?1 AND l.version >= s.version)";

impl Sqlite {
    pub(crate) async fn open_lookups(&self, peer: &LookupPeer, now: Timestamp) -> Result<u64, StoreError> {
        let during = "opening look-ups";
        let sources = if peer.sources.is_empty() { None } else { Some(to_json(&peer.sources)?) };
        // Asked often; the write lock is for when there is something to do.
        let any: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 {UNKNOWN})")))
            .bind(&peer.name)
            .bind(peer.counts)
            .bind(peer.accession)
            .bind(&sources)
            .fetch_one(&self.read)
            .await
            .during(during)?;
        if !any {
            return Ok(0);
        }
        let mut tx = self.begin(during).await?;
        let opened = sqlx::query(sqlx::AssertSqlSafe(format!(
            "INSERT INTO lookup (study_id, peer, rank, version, next_ask) SELECT s.id, ?1, ?5, s.version, ?6 {UNKNOWN}
             ON CONFLICT (study_id, peer) DO UPDATE SET rank = excluded.rank, version = excluded.version,
                 next_ask = excluded.next_ask, asks = 0, failures = 0, told = NULL, told_since = NULL, expected = NULL,
                 hold_until = NULL"
        )))
        .bind(&peer.name)
        .bind(peer.counts)
        .bind(peer.accession)
        .bind(&sources)
        .bind(peer.rank)
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        tx.commit().await.during(during)?;
        Ok(opened)
    }

    pub(crate) async fn due_lookups(
        &self,
        peer: &str,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<DueLookup>, StoreError> {
        let rows: Vec<DueRow> = sqlx::query_as(
            "SELECT l.study_id, s.study_instance, s.patient_id, s.study_date, s.accession IS NOT NULL AS has_accession,
                 s.status = 'receiving' AND s.version = l.version AS is_receiving, s.last_instance_at, l.version, l.asks,
                 l.failures
             FROM lookup l JOIN study s ON s.id = l.study_id
             WHERE l.peer = ? AND l.next_ask <= ? ORDER BY l.next_ask LIMIT ?",
        )
        .bind(peer)
        .bind(now.as_millis())
        .bind(limit)
        .fetch_all(&self.read)
        .await
        .during("looking for due look-ups")?;
        let due = |row: DueRow| {
            Ok(DueLookup {
                study: row.study_id,
                peer: peer.to_owned(),
                study_instance: uid(&row.study_instance)?,
                patient_id: row.patient_id,
                study_date: row.study_date,
                has_accession: row.has_accession,
                is_receiving: row.is_receiving,
                last_instance_at: Timestamp::from_millis(row.last_instance_at),
                version: unsigned(row.version)?,
                asks: unsigned(row.asks)?,
                failures: unsigned(row.failures)?,
            })
        };
        rows.into_iter().map(due).collect()
    }

    pub(crate) async fn next_lookup(&self, peer: &str) -> Result<Option<Timestamp>, StoreError> {
        let next: Option<i64> =
            sqlx::query_scalar("SELECT MIN(next_ask) FROM lookup WHERE peer = ? AND next_ask IS NOT NULL")
                .bind(peer)
                .fetch_one(&self.read)
                .await
                .during("looking for the next look-up")?;
        Ok(next.map(Timestamp::from_millis))
    }

    pub(crate) async fn postpone_lookup(&self, due: &DueLookup, next: Option<Timestamp>) -> Result<(), StoreError> {
        let during = "putting a look-up off";
        let mut tx = self.begin(during).await?;
        // One that was opened anew in between is due.
        sqlx::query("UPDATE lookup SET next_ask = ? WHERE study_id = ? AND peer = ? AND version = ?")
            .bind(next.map(Timestamp::as_millis))
            .bind(due.study)
            .bind(&due.peer)
            .bind(due.version)
            .execute(&mut *tx)
            .await
            .during(during)?;
        tx.commit().await.during(during)
    }

    /// Whether a deadline of the study may have moved.
    pub(crate) async fn record_lookup(
        &self,
        due: &DueLookup,
        (answer, completeness): (&LookupAnswer, Completeness),
        next: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let during = "recording a look-up";
        let mut tx = self.begin(during).await?;
        let is_empty = answer.accession_number.is_none() && answer.instances.is_none();
        let outcome = match (answer.doubts.is_empty(), is_empty) {
            (false, _) => "doubtful",
            (true, true) => "nothing",
            (true, false) => "answered",
        };
        let before: Option<(Option<String>, Option<String>)> = sqlx::query_as(
            "UPDATE lookup SET next_ask = ?4, asks = asks + 1, failures = CASE WHEN ?5 THEN failures + 1 ELSE 0 END,
                 answered_at = ?6, last_words = CASE WHEN ?7 THEN NULL ELSE last_words END
             WHERE study_id = ?1 AND peer = ?2 AND version = ?3 RETURNING accession_number, last_words",
        )
        .bind(due.study)
        .bind(&due.peer)
        .bind(due.version)
        .bind(next.map(Timestamp::as_millis))
        .bind(is_empty)
        .bind(now.as_millis())
        .bind(answer.doubts.is_empty())
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        // Opened anew in between: it is asked again.
        let Some((accession, last_words)) = before else { return Ok(false) };
        count(&mut tx, &due.peer, outcome).await?;
        say_doubts(&mut tx, due, &answer.doubts, last_words.as_deref(), now).await?;
        if let (None, Some(told)) = (&accession, &answer.accession_number) {
            take_accession(&mut tx, due, told, now).await?;
        }
        let has_moved = match &answer.instances {
            Some(told) => complete::weigh(&mut tx, due, told, completeness, now).await?,
            None => false,
        };
        tx.commit().await.during(during)?;
        Ok(has_moved)
    }

    pub(crate) async fn lookup_failed(
        &self,
        due: &DueLookup,
        words: &str,
        next: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "recording a failed look-up";
        let words = peer_text(words);
        let mut tx = self.begin(during).await?;
        let changed = sqlx::query(
            "UPDATE lookup SET next_ask = ?4, asks = asks + 1, failures = failures + 1, last_words = ?5
             WHERE study_id = ?1 AND peer = ?2 AND version = ?3",
        )
        .bind(due.study)
        .bind(&due.peer)
        .bind(due.version)
        .bind(next.map(Timestamp::as_millis))
        .bind(&words)
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        if changed == 0 {
            return Ok(());
        }
        count(&mut tx, &due.peer, "failed").await?;
        // The first of a row of failures, and the last: a peer that is away for long must not fill the log.
        if due.failures == 0 || next.is_none() {
            let consequence = if next.is_some() { "it is asked again" } else { "it is not asked any more" };
            NewEvent::new(now, "look-up-failed", format!("look-up at {} failed: {words}; {consequence}", due.peer))
                .detail(json!({ "peer": due.peer, "words": words, "next": next }))
                .study(due.study)
                .write(&mut tx)
                .await?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn lookup_figures(&self) -> Result<Vec<LookupFigures>, StoreError> {
        let during = "counting look-ups";
        let counts: Vec<(String, String, i64)> = sqlx::query_as("SELECT peer, outcome, count FROM lookup_count")
            .fetch_all(&self.read)
            .await
            .during(during)?;
        let due: Vec<(String, i64)> =
            sqlx::query_as("SELECT peer, COUNT(*) FROM lookup WHERE next_ask IS NOT NULL GROUP BY peer")
                .fetch_all(&self.read)
                .await
                .during(during)?;
        let mut figures = Vec::with_capacity(counts.len() + due.len());
        for (peer, outcome, count) in counts {
            let known = ["answered", "nothing", "doubtful", "failed"].into_iter().find(|known| *known == outcome);
            let outcome = known.ok_or_else(|| StoreError::corrupt(format!("{outcome:?} as what came of a look-up")))?;
            figures.push(LookupFigures { peer, outcome, count: unsigned(count)? });
        }
        for (peer, count) in due {
            figures.push(LookupFigures { peer, outcome: "due", count: unsigned(count)? });
        }
        Ok(figures)
    }
}

async fn count(connection: &mut Connection, peer: &str, outcome: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO lookup_count (peer, outcome, count) VALUES (?, ?, 1)
         ON CONFLICT (peer, outcome) DO UPDATE SET count = count + 1",
    )
    .bind(peer)
    .bind(outcome)
    .execute(connection)
    .await
    .during("counting look-ups")?;
    Ok(())
}

/// Says once what of an answer was not used.
async fn say_doubts(
    connection: &mut Connection,
    due: &DueLookup,
    doubts: &[String],
    last_words: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let words = peer_text(&doubts.join("; "));
    if words.is_empty() || last_words == Some(words.as_str()) {
        return Ok(());
    }
    sqlx::query("UPDATE lookup SET last_words = ? WHERE study_id = ? AND peer = ?")
        .bind(&words)
        .bind(due.study)
        .bind(&due.peer)
        .execute(&mut *connection)
        .await
        .during("recording a look-up")?;
    NewEvent::new(now, "look-up-doubtful", format!("{} answers, and it is not used: {words}", due.peer))
        .detail(json!({ "peer": due.peer, "words": words }))
        .study(due.study)
        .write(connection)
        .await
}

/// Keeps an accession number beside the received one; of several peers the first one's is shown.
async fn take_accession(
    connection: &mut Connection,
    due: &DueLookup,
    told: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let during = "recording a look-up";
    sqlx::query("UPDATE lookup SET accession_number = ? WHERE study_id = ? AND peer = ?")
        .bind(told)
        .bind(due.study)
        .bind(&due.peer)
        .execute(&mut *connection)
        .await
        .during(during)?;
    let (received, shown): (bool, Option<String>) =
        sqlx::query_as("SELECT accession_number IS NOT NULL, looked_up_accession FROM study WHERE id = ?")
            .bind(due.study)
            .fetch_one(&mut *connection)
            .await
            .during(during)?;
    if received {
        return Ok(());
    }
    sqlx::query(
        "UPDATE study SET (looked_up_accession, accession_source) = (SELECT accession_number, peer FROM lookup
             WHERE study_id = ?1 AND accession_number IS NOT NULL ORDER BY rank, peer LIMIT 1)
         WHERE id = ?1",
    )
    .bind(due.study)
    .execute(&mut *connection)
    .await
    .during(during)?;
    let differs = shown.is_some_and(|shown| shown != told);
    let text = match differs {
        true => {
            format!("{} tells another accession number than the peer before; the first of [[lookup]] counts", due.peer)
        }
        false => format!("{} tells the accession number", due.peer),
    };
    NewEvent::new(now, "looked-up", text)
        .detail(json!({ "peer": due.peer, "what": "accession-number", "differs": differs }))
        .study(due.study)
        .write(connection)
        .await
}

/// Fixes what objects of an analysis say of the order, at its first claim and for good: another attempt makes the same objects,
/// whatever a peer tells in between. The number that was looked up, for a study that came without, and the received one; `None`
/// if they are fixed already.
pub(super) async fn fix_accession(
    connection: &mut Connection,
    analysis: i64,
) -> Result<Option<(Option<String>, Option<String>)>, StoreError> {
    sqlx::query_as(
        "UPDATE analysis SET accession_fixed = 1, looked_up_accession = (SELECT looked_up_accession FROM study
             WHERE id = study_id AND accession_number IS NULL)
         WHERE id = ? AND accession_fixed = 0
         RETURNING looked_up_accession, (SELECT accession_number FROM study WHERE id = study_id)",
    )
    .bind(analysis)
    .fetch_optional(connection)
    .await
    .during("claiming an analysis")
}
