//! Statements of what an audit repository is told.

use std::collections::VecDeque;

use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::failure::During;
use super::values::{from_json, signed, uid, unsigned};
use super::{Connection, Sqlite};
use crate::access::AuditEntry;
use crate::audit_feed::{AuditBatch, AuditFeedFigures, AuditMatter, AuditPlace, AuditRecord, AuditedStudy, ClassCount};
use crate::events::peer_text;
use crate::{StoreError, Timestamp};

const DURING: &str = "following the audit trail";

/// The events that a repository hears of: not those of associations that brought nothing, nor of studies of which nothing was
/// accepted.
const HEARD: &str =
    "event.kind IN ('association-closed', 'association-refused', 'delivery-accepted', 'forwarding-done',
        'pixels-removed', 'results-removed')
    AND (event.kind <> 'association-closed'
        OR EXISTS (SELECT 1 FROM instance i WHERE i.association_id = event.association_id))
    AND (event.kind <> 'forwarding-done' OR EXISTS (
        SELECT 1 FROM outbox o WHERE o.study_id = event.study_id AND o.instance_id IS NOT NULL
            AND o.destination = json_extract(event.detail, '$.destination')
            AND o.status IN ('accepted', 'committed', 'visible')))";

/// Study and patient of a row.
const STUDY: &str = "s.id AS study_row, s.study_instance, s.patient_id, s.patient_name, s.accession_number";

/// A row of one of the logs with what it says.
struct Found {
    id: i64,
    at: i64,
    records: Vec<(Option<AuditedStudy>, AuditMatter)>,
}

impl Sqlite {
    pub(crate) async fn feed_audit(&self, is_fed: bool) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        sqlx::query(
            "INSERT INTO audit_feed (only_row, audit_id, event_id, is_fed)
             SELECT 1, (SELECT COALESCE(MAX(id), 0) FROM audit), (SELECT COALESCE(MAX(id), 0) FROM event), 1 WHERE ?1
             ON CONFLICT DO UPDATE SET is_fed = 1",
        )
        .bind(is_fed)
        .execute(&mut *tx)
        .await
        .during(DURING)?;
        if !is_fed {
            sqlx::query("UPDATE audit_feed SET is_fed = 0").execute(&mut *tx).await.during(DURING)?;
        }
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn audit_place(&self) -> Result<AuditPlace, StoreError> {
        let place: Option<(i64, i64)> = sqlx::query_as("SELECT audit_id, event_id FROM audit_feed")
            .fetch_optional(&self.read)
            .await
            .during(DURING)?;
        let (audit, event) =
            place.ok_or_else(|| StoreError::NotFound { what: "the place of the audit repository".to_owned() })?;
        Ok(AuditPlace { audit, event })
    }

    pub(crate) async fn audit_after(&self, place: AuditPlace, most: u32) -> Result<AuditBatch, StoreError> {
        // One snapshot of both logs.
        let mut tx = self.read.begin().await.during(DURING)?;
        let newest: i64 =
            sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM event").fetch_one(&mut *tx).await.during(DURING)?;
        let entries = entries(&mut tx, place.audit, most).await?;
        let events = events(&mut tx, place.event, most).await?;
        let limit = most as usize;
        let (entries_end, events_end) = (entries.len() < limit, events.len() < limit);
        let (mut entries, mut events) = (VecDeque::from(entries), VecDeque::from(events));
        let (mut records, mut place) = (Vec::new(), place);
        loop {
            let event_first = match (entries.front(), events.front()) {
                (Some(entry), Some(event)) => event.at <= entry.at,
                (Some(_), None) if events_end => false,
                (None, Some(_)) if entries_end => true,
                // The next of one log may be earlier than that of the other.
                _ => break,
            };
            let next = if event_first { events.pop_front() } else { entries.pop_front() };
            let Some(Found { id, at, records: said }) = next else { break };
            let before = place;
            if event_first {
                place.event = id
            } else {
                place.audit = id
            }
            let last = said.len();
            records.extend(said.into_iter().enumerate().map(|(number, (study, matter))| AuditRecord {
                // A row that says several things is told once all of them are.
                after: if number + 1 == last { place } else { before },
                at: Timestamp::from_millis(at),
                study,
                matter,
            }));
        }
        if events_end && events.is_empty() {
            place.event = newest.max(place.event);
        }
        Ok(AuditBatch { records, place })
    }

    pub(crate) async fn audit_told(&self, place: AuditPlace, told: u64, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE audit_feed SET audit_id = ?, event_id = ?, told = told + ?, words = NULL, told_at = ?")
            .bind(place.audit)
            .bind(place.event)
            .bind(signed(told))
            .bind(now.as_millis())
            .execute(self.unwitnessed(DURING)?)
            .await
            .during(DURING)?;
        Ok(())
    }

    pub(crate) async fn audit_untold(&self, why: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE audit_feed SET failures = failures + 1, words = ?")
            .bind(peer_text(why))
            .execute(self.unwitnessed(DURING)?)
            .await
            .during(DURING)?;
        Ok(())
    }

    pub(crate) async fn audit_feed_figures(&self) -> Result<Option<AuditFeedFigures>, StoreError> {
        let statement = format!(
            "SELECT f.told, f.failures, f.words, f.told_at, a.entries, a.entries_since, e.events, e.events_since
             FROM audit_feed f
             JOIN (SELECT COUNT(*) AS entries, MIN(at) AS entries_since FROM audit
                   WHERE id > (SELECT audit_id FROM audit_feed WHERE is_fed = 1)) a
             JOIN (SELECT COUNT(*) AS events, MIN(at) AS events_since FROM event
                   WHERE id > (SELECT event_id FROM audit_feed WHERE is_fed = 1) AND {HEARD}) e
             WHERE f.is_fed = 1"
        );
        // Words of this file only.
        let row = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_optional(&self.read).await.during(DURING)?;
        let Some(row) = row else { return Ok(None) };
        let number = |name: &str| row.try_get::<i64, _>(name).during(DURING);
        let moment = |name: &str| row.try_get::<Option<i64>, _>(name).during(DURING);
        let since = [moment("entries_since")?, moment("events_since")?].into_iter().flatten().min();
        Ok(Some(AuditFeedFigures {
            told: unsigned(number("told")?)?,
            failures: unsigned(number("failures")?)?,
            waiting: unsigned(number("entries")?.saturating_add(number("events")?))?,
            waiting_since: since.map(Timestamp::from_millis),
            words: row.try_get("words").during(DURING)?,
            told_at: moment("told_at")?.map(Timestamp::from_millis),
        }))
    }
}

fn study_of(row: &SqliteRow) -> Result<Option<AuditedStudy>, StoreError> {
    let Some(study) = text(row, "study_instance")? else { return Ok(None) };
    Ok(Some(AuditedStudy {
        study_instance: uid(&study)?,
        patient_id: text(row, "patient_id")?,
        patient_name: text(row, "patient_name")?,
        accession_number: text(row, "accession_number")?,
    }))
}

fn text(row: &SqliteRow, column: &str) -> Result<Option<String>, StoreError> {
    row.try_get(column).during(DURING)
}

fn number(row: &SqliteRow, column: &str) -> Result<i64, StoreError> {
    row.try_get(column).during(DURING)
}

/// Rows of the audit trail.
async fn entries(connection: &mut Connection, after: i64, most: u32) -> Result<Vec<Found>, StoreError> {
    let statement = format!(
        "SELECT a.id, a.at, a.actor, a.role, a.address, a.action, a.detail, {STUDY}
         FROM audit a LEFT JOIN study s ON s.id = a.study_id WHERE a.id > ? ORDER BY a.id LIMIT ?"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(after)
        .bind(most)
        .fetch_all(connection)
        .await
        .during(DURING)?;
    let found = |row: SqliteRow| {
        let (id, at, study) = (number(&row, "id")?, number(&row, "at")?, study_of(&row)?);
        let entry = AuditEntry {
            id,
            at: Timestamp::from_millis(at),
            actor: text(&row, "actor")?.unwrap_or_default(),
            role: text(&row, "role")?,
            address: text(&row, "address")?.unwrap_or_default(),
            action: text(&row, "action")?.unwrap_or_default(),
            study_instance: study.as_ref().map(|study| study.study_instance.clone()),
            detail: from_json(&text(&row, "detail")?.unwrap_or_default())?,
        };
        Ok(Found { id, at, records: vec![(study, AuditMatter::Entry(entry))] })
    };
    rows.into_iter().map(found).collect()
}

/// Rows of the event log that a repository hears of.
async fn events(connection: &mut Connection, after: i64, most: u32) -> Result<Vec<Found>, StoreError> {
    let statement = format!(
        "SELECT event.id, event.at, event.kind, event.text, event.detail, event.association_id, {STUDY}
         FROM event LEFT JOIN study s ON s.id = event.study_id
         WHERE event.id > ? AND {HEARD} ORDER BY event.id LIMIT ?"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(after)
        .bind(most)
        .fetch_all(&mut *connection)
        .await
        .during(DURING)?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let (id, at) = (number(&row, "id")?, number(&row, "at")?);
        all.push(Found { id, at, records: said(connection, &row).await? });
    }
    Ok(all)
}

/// What an event says.
async fn said(
    connection: &mut Connection,
    row: &SqliteRow,
) -> Result<Vec<(Option<AuditedStudy>, AuditMatter)>, StoreError> {
    let kind = text(row, "kind")?.unwrap_or_default();
    let detail: Value = from_json(&text(row, "detail")?.unwrap_or_default())?;
    let word = |key: &str| detail[key].as_str().unwrap_or_default().to_owned();
    let matter = match kind.as_str() {
        "association-closed" => return received(connection, row.try_get("association_id").during(DURING)?).await,
        "association-refused" => AuditMatter::Refused {
            peer_address: word("peer"),
            calling_ae: word("calling_ae"),
            called_ae: word("called_ae"),
            reason: word("reason"),
        },
        "delivery-accepted" => {
            let classes = class_of_object(connection, &word("sop_instance")).await?;
            AuditMatter::Delivered { destination: word("destination"), classes }
        }
        "forwarding-done" => {
            let destination = word("destination");
            let classes = forwarded(connection, number(row, "study_row")?, &destination).await?;
            AuditMatter::Delivered { destination, classes }
        }
        _ => AuditMatter::Removed { what: kind, text: text(row, "text")?.unwrap_or_default() },
    };
    Ok(vec![(study_of(row)?, matter)])
}

/// The new instances of an association, study by study.
async fn received(
    connection: &mut Connection,
    association: Option<i64>,
) -> Result<Vec<(Option<AuditedStudy>, AuditMatter)>, StoreError> {
    let statement = format!(
        "SELECT a.peer_address, a.calling_ae, a.called_ae, i.sop_class, COUNT(*) AS instances, {STUDY}
         FROM instance i JOIN association a ON a.id = i.association_id JOIN study s ON s.id = i.study_id
         WHERE i.association_id = ? GROUP BY i.study_id, i.sop_class ORDER BY i.study_id, i.sop_class"
    );
    let rows =
        sqlx::query(sqlx::AssertSqlSafe(statement)).bind(association).fetch_all(connection).await.during(DURING)?;
    let mut all: Vec<(Option<AuditedStudy>, AuditMatter)> = Vec::new();
    for row in rows {
        let (study, count) = (study_of(&row)?, class_count(&row)?);
        match all.last_mut() {
            Some((last, AuditMatter::Received { classes, .. })) if *last == study => classes.push(count),
            _ => {
                let word = |column| text(&row, column).map(Option::unwrap_or_default);
                let matter = AuditMatter::Received {
                    peer_address: word("peer_address")?,
                    calling_ae: word("calling_ae")?,
                    called_ae: word("called_ae")?,
                    classes: vec![count],
                };
                all.push((study, matter));
            }
        }
    }
    Ok(all)
}

fn class_count(row: &SqliteRow) -> Result<ClassCount, StoreError> {
    Ok((uid(&text(row, "sop_class")?.unwrap_or_default())?, unsigned(number(row, "instances")?)?))
}

async fn class_of_object(connection: &mut Connection, sop_instance: &str) -> Result<Vec<ClassCount>, StoreError> {
    let rows = sqlx::query("SELECT sop_class, 1 AS instances FROM object WHERE sop_instance = ?")
        .bind(sop_instance)
        .fetch_all(connection)
        .await
        .during(DURING)?;
    rows.iter().map(class_count).collect()
}

/// The received instances of a study that a destination has.
async fn forwarded(connection: &mut Connection, study: i64, destination: &str) -> Result<Vec<ClassCount>, StoreError> {
    let rows = sqlx::query(
        "SELECT i.sop_class, COUNT(*) AS instances FROM outbox o JOIN instance i ON i.id = o.instance_id
         WHERE o.study_id = ? AND o.destination = ? AND o.status IN ('accepted', 'committed', 'visible')
         GROUP BY i.sop_class ORDER BY i.sop_class",
    )
    .bind(study)
    .bind(destination)
    .fetch_all(connection)
    .await
    .during(DURING)?;
    rows.iter().map(class_count).collect()
}
