//! The story of one study: its own events, those of the associations that carried it, and its instances summed up.

use std::collections::HashMap;

use ichor_core::Uid;
use serde_json::{Value, json};

use super::failure::During;
use super::values::from_json;
use super::{Connection, Sqlite};
use crate::events::Event;
use crate::query::StudyKey;
use crate::{StoreError, Timestamp};

/// Kinds of which a peer can cause any number: one line for each association.
const SUMMED_UP: [&str; 3] = ["duplicate", "conflict", "own-result-returned"];

#[derive(sqlx::FromRow)]
struct EventRow {
    at: i64,
    kind: String,
    text: String,
    detail: String,
    association_id: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct ArrivalRow {
    association_id: Option<i64>,
    source_ae: Option<String>,
    instances: i64,
    bytes: i64,
    first: i64,
    last: i64,
}

/// An event and its place among those of the same moment.
type Ranked = (Timestamp, u8, Event);

impl Sqlite {
    pub(crate) async fn timeline(&self, study: &Uid) -> Result<Vec<Event>, StoreError> {
        let id = self.find_study(&StudyKey::Uid(study.clone())).await?;
        let mut tx = self.read.begin().await.during("reading a timeline")?;
        let mut ranked = own_events(&mut tx, id).await?;
        ranked.extend(association_events(&mut tx, id).await?);
        ranked.extend(arrivals(&mut tx, id).await?);
        // Stable: what was written first comes first among equals.
        ranked.sort_by_key(|(at, rank, _)| (*at, *rank));
        Ok(ranked.into_iter().map(|(_, _, event)| event).collect())
    }

    pub(crate) async fn recent_events(&self, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<EventRow> =
            sqlx::query_as("SELECT at, kind, text, detail, association_id FROM event ORDER BY id DESC LIMIT ?")
                .bind(limit)
                .fetch_all(&self.read)
                .await
                .during("reading the last events")?;
        rows.into_iter().map(event).collect()
    }
}

/// Within one moment: the association opens, instances arrive, the study's own events, the association closes.
fn rank(kind: &str) -> u8 {
    match kind {
        "association-opened" => 0,
        "study-opened" | "reopened" => 1,
        "instances-received" => 2,
        "association-closed" => 3,
        _ => 4,
    }
}

fn ranked(event: Event) -> Ranked {
    (event.at, rank(&event.kind), event)
}

fn event(row: EventRow) -> Result<Event, StoreError> {
    Ok(Event { at: Timestamp::from_millis(row.at), kind: row.kind, text: row.text, detail: from_json(&row.detail)? })
}

async fn own_events(connection: &mut Connection, study: i64) -> Result<Vec<Ranked>, StoreError> {
    let rows: Vec<EventRow> =
        sqlx::query_as("SELECT at, kind, text, detail, association_id FROM event WHERE study_id = ? ORDER BY at, id")
            .bind(study)
            .fetch_all(connection)
            .await
            .during("reading the events of a study")?;
    let mut groups: HashMap<(String, Option<i64>), usize> = HashMap::new();
    let mut events: Vec<(Event, u64, i64)> = Vec::with_capacity(rows.len());
    for row in rows {
        let at = row.at;
        let summed_up = SUMMED_UP.contains(&row.kind.as_str());
        let key = (row.kind.clone(), row.association_id);
        match groups.get(&key).filter(|_| summed_up) {
            Some(&position) => {
                let (_, count, last) = &mut events[position];
                *count += 1;
                *last = at;
            }
            None => {
                groups.insert(key, events.len());
                events.push((event(row)?, 1, at));
            }
        }
    }
    Ok(events.into_iter().map(|(event, count, last)| ranked(sum_up(event, count, last))).collect())
}

/// The first of several events, saying how many there were.
fn sum_up(mut event: Event, count: u64, last: i64) -> Event {
    if count > 1 {
        event.text = format!("{count} times, first: {}", event.text);
        if let Value::Object(detail) = &mut event.detail {
            detail.insert("count".to_owned(), json!(count));
            detail.insert("last".to_owned(), json!(last));
        }
    }
    event
}

async fn association_events(connection: &mut Connection, study: i64) -> Result<Vec<Ranked>, StoreError> {
    let rows: Vec<EventRow> = sqlx::query_as(
        "SELECT at, kind, text, detail, association_id FROM event
         WHERE study_id IS NULL AND association_id IN (
             SELECT association_id FROM instance WHERE study_id = ?1 AND association_id IS NOT NULL
             UNION SELECT association_id FROM event WHERE study_id = ?1 AND association_id IS NOT NULL)
         ORDER BY at, id",
    )
    .bind(study)
    .fetch_all(connection)
    .await
    .during("reading the events of associations")?;
    rows.into_iter().map(|row| event(row).map(ranked)).collect()
}

async fn arrivals(connection: &mut Connection, study: i64) -> Result<Vec<Ranked>, StoreError> {
    let rows: Vec<ArrivalRow> = sqlx::query_as(
        "SELECT association_id, MIN(source_ae) AS source_ae, COUNT(*) AS instances, SUM(size) AS bytes,
             MIN(received_at) AS first, MAX(received_at) AS last
         FROM instance WHERE study_id = ? AND own = 0 GROUP BY association_id",
    )
    .bind(study)
    .fetch_all(connection)
    .await
    .during("summing up the instances of a study")?;
    Ok(rows.into_iter().map(|row| ranked(arrival(&row))).collect())
}

/// Stands at the last instance: from there on, waiting counts.
fn arrival(row: &ArrivalRow) -> Event {
    let source = row.source_ae.as_deref().unwrap_or("an unnamed source");
    let text = format!("{} instances from {source} within {} ms", row.instances, row.last - row.first);
    let detail = json!({
        "association": row.association_id, "instances": row.instances, "bytes": row.bytes,
        "first": row.first, "last": row.last,
    });
    Event { at: Timestamp::from_millis(row.last), kind: "instances-received".to_owned(), text, detail }
}
