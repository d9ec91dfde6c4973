//! Statements of traces.

use std::time::Duration;

use super::failure::During;
use super::values::{from_json, signed, uid, unsigned};
use super::{Connection, Sqlite};
use crate::events::peer_text;
use crate::trace::{TraceArrival, TraceClaim, TraceEvent, TraceFigures, TracePace};
use crate::{StoreError, Timestamp};

/// Events looked at in one transaction.
const EVENTS_AT_ONCE: i64 = 1_000;

/// Most events of a study that a trace is made of: the newest.
const MOST_EVENTS: i64 = 20_000;

/// Most versions of a study of which is told what was received: the newest.
const MOST_VERSIONS: usize = 100;

/// Kinds of events that are part of a trace.
const KINDS: &str = "'reopened', 'closed', 'alert', 'analysis-started', 'analysed', 'not-analysed', 'not-analysed-again',
    'analysis-failed', 'analysis-interrupted', 'retried', 'object-created', 'object-kept', 'object-differs',
    'blob-restored', 'delivery-started', 'delivery-accepted', 'delivery-failed', 'delivery-dead', 'delivery-interrupted',
    'delivery-requeued', 'deliveries-requeued', 'delivery-held', 'delivery-sent-again', 'delivery-committed',
    'delivery-visible', 'delivery-lost', 'forwarding-done', 'message-acknowledged', 'message-failed', 'message-dead'";

/// Whether nothing of the study `t.study_id` is on its way.
const IS_SETTLED: &str = "(SELECT status NOT IN ('receiving', 'queued', 'analysing') FROM study WHERE id = t.study_id)
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE study_id = t.study_id AND (status IN ('queued', 'sending')
        OR proof IS NOT NULL AND status IN ('accepted', 'committed')))
    AND NOT EXISTS (SELECT 1 FROM message WHERE study_id = t.study_id AND status IN ('queued', 'sending'))";

/// The version that the event `e` belongs to: what it says itself, that of its object, or by what
/// was closed and opened before it. So does who makes spans of events.
pub(super) const VERSION_OF_EVENT: &str = "COALESCE(json_extract(e.detail, '$.version'),
    (SELECT a.version FROM object o JOIN analysis a ON a.id = o.analysis_id
        WHERE o.sop_instance = json_extract(e.detail, '$.sop_instance')),
    COALESCE((SELECT json_extract(c.detail, '$.version') FROM event c
        WHERE c.study_id = e.study_id AND c.id < e.id AND c.kind = 'closed' ORDER BY c.id DESC LIMIT 1), 0)
    + COALESCE((SELECT c.kind = 'reopened' FROM event c
        WHERE c.study_id = e.study_id AND c.id < e.id AND c.kind IN ('closed', 'reopened') ORDER BY c.id DESC LIMIT 1), 1))";

const DURING: &str = "exporting traces";

#[derive(sqlx::FromRow)]
struct DueRow {
    study_id: i64,
    study_instance: String,
    after_event: i64,
    through_event: Option<i64>,
    waiting_since: Option<i64>,
    attempts: i64,
    is_settled: bool,
}

#[derive(sqlx::FromRow)]
struct EventRow {
    id: i64,
    at: i64,
    kind: String,
    detail: String,
    version: Option<i64>,
    about: Option<i64>,
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

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Sqlite {
    pub(crate) async fn follow_for_traces(&self, pace: TracePace) -> Result<u64, StoreError> {
        let (cursor, newest): (Option<i64>, i64) =
            sqlx::query_as("SELECT (SELECT event_id FROM trace_cursor), COALESCE((SELECT MAX(id) FROM event), 0)")
                .fetch_one(&self.read)
                .await
                .during(DURING)?;
        let Some(after) = cursor else {
            let insert = "INSERT INTO trace_cursor (only_row, event_id) SELECT 1, COALESCE(MAX(id), 0) FROM event";
            sqlx::query(insert).execute(&self.write).await.during(DURING)?;
            return Ok(0);
        };
        let upto = newest.min(after.saturating_add(EVENTS_AT_ONCE));
        let any: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT EXISTS (SELECT 1 FROM event WHERE id > ?1 AND id <= ?2 AND study_id IS NOT NULL AND kind IN ({KINDS}))"
        )))
        .bind(after)
        .bind(upto)
        .fetch_one(&self.read)
        .await
        .during(DURING)?;
        // A note of the place is a transaction: not for events that are nothing.
        if !any && upto - after < EVENTS_AT_ONCE {
            return Ok(0);
        }
        let mut tx = self.begin(DURING).await?;
        let noted = sqlx::query(sqlx::AssertSqlSafe(format!(
            "INSERT INTO study_trace (study_id, waiting_since, due_at)
             SELECT study_id, MIN(at), MAX(at) + ?3 FROM event
             WHERE id > ?1 AND id <= ?2 AND study_id IS NOT NULL AND kind IN ({KINDS}) GROUP BY study_id
             ON CONFLICT (study_id) DO UPDATE SET
                 waiting_since = COALESCE(waiting_since, excluded.waiting_since),
                 due_at = CASE WHEN through_event IS NULL THEN excluded.due_at ELSE due_at END"
        )))
        .bind(after)
        .bind(upto)
        .bind(millis(pace.settle))
        .execute(&mut *tx)
        .await
        .during(DURING)?
        .rows_affected();
        sqlx::query("UPDATE trace_cursor SET event_id = ? WHERE event_id = ?")
            .bind(upto)
            .bind(after)
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        tx.commit().await.during(DURING)?;
        Ok(noted)
    }

    pub(crate) async fn claim_trace(&self, pace: TracePace, now: Timestamp) -> Result<Option<TraceClaim>, StoreError> {
        loop {
            let row: Option<DueRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT t.study_id, s.study_instance, t.after_event, t.through_event, t.waiting_since, t.attempts,
                     {IS_SETTLED} AS is_settled
                 FROM study_trace t JOIN study s ON s.id = t.study_id
                 WHERE t.due_at <= ? ORDER BY t.due_at, t.study_id LIMIT 1"
            )))
            .bind(now.as_millis())
            .fetch_optional(&self.read)
            .await
            .during(DURING)?;
            let Some(row) = row else { return Ok(None) };
            let through = match row.through_event {
                Some(through) => through,
                None => match self.begin_export(&row, pace, now).await? {
                    Some(through) => through,
                    None => continue,
                },
            };
            return self.trace(row, through).await.map(Some);
        }
    }

    /// Fixes what is exported, if it is time; else the study is looked at when it is, or when something happens.
    async fn begin_export(&self, row: &DueRow, pace: TracePace, now: Timestamp) -> Result<Option<i64>, StoreError> {
        let latest = row.waiting_since.map_or(now.as_millis(), |at| at.saturating_add(millis(pace.longest_wait)));
        if !row.is_settled && latest > now.as_millis() {
            self.look_again(row.study_id, Some(latest)).await?;
            return Ok(None);
        }
        let through: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "UPDATE study_trace SET through_event =
                 (SELECT MAX(id) FROM event WHERE study_id = ?1 AND id > after_event AND kind IN ({KINDS}))
             WHERE study_id = ?1 RETURNING through_event"
        )))
        .bind(row.study_id)
        .fetch_one(&self.write)
        .await
        .during(DURING)?;
        if through.is_none() {
            self.look_again(row.study_id, None).await?;
        }
        Ok(through)
    }

    /// Sets when a study is looked at next; `None`: when something happens.
    async fn look_again(&self, study: i64, at: Option<i64>) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE study_trace SET due_at = ?1, waiting_since = CASE WHEN ?1 IS NULL THEN NULL ELSE waiting_since END
             WHERE study_id = ?2",
        )
        .bind(at)
        .bind(study)
        .execute(&self.write)
        .await
        .during(DURING)?;
        Ok(())
    }

    async fn trace(&self, row: DueRow, through: i64) -> Result<TraceClaim, StoreError> {
        let mut tx = self.read.begin().await.during(DURING)?;
        let events = events(&mut tx, row.study_id, through).await?;
        let arrivals = arrivals(&mut tx, row.study_id, &events).await?;
        Ok(TraceClaim {
            study: row.study_id,
            study_instance: uid(&row.study_instance)?,
            after: row.after_event,
            through,
            attempts: unsigned(row.attempts)?,
            events,
            arrivals,
        })
    }

    pub(crate) async fn trace_exported(
        &self,
        claim: &TraceClaim,
        (taken, refused): (u64, u64),
        pace: TracePace,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        let left: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT MIN(at) FROM event WHERE study_id = ? AND id > ? AND kind IN ({KINDS})"
        )))
        .bind(claim.study)
        .bind(claim.through)
        .fetch_one(&mut *tx)
        .await
        .during(DURING)?;
        sqlx::query(
            "UPDATE study_trace SET after_event = ?1, through_event = NULL, attempts = 0, exported_at = ?2,
                 last_words = NULL, waiting_since = ?3, due_at = ?4
             WHERE study_id = ?5 AND through_event = ?1",
        )
        .bind(claim.through)
        .bind(now.as_millis())
        .bind(left)
        .bind(left.map(|_| now.as_millis().saturating_add(millis(pace.settle))))
        .bind(claim.study)
        .execute(&mut *tx)
        .await
        .during(DURING)?;
        sqlx::query("UPDATE trace_total SET spans = spans + ?, exports = exports + ?, refused = refused + ?")
            .bind(signed(taken))
            .bind(i64::from(taken > 0))
            .bind(signed(refused))
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn trace_failed(
        &self,
        claim: &TraceClaim,
        words: &str,
        next: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        sqlx::query("UPDATE study_trace SET attempts = attempts + 1, due_at = ?, last_words = ? WHERE study_id = ?")
            .bind(next.as_millis())
            .bind(peer_text(words))
            .bind(claim.study)
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        sqlx::query("UPDATE trace_total SET failures = failures + 1").execute(&mut *tx).await.during(DURING)?;
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn trace_figures(&self) -> Result<TraceFigures, StoreError> {
        let (spans, exports, failures, refused, waiting, oldest): (i64, i64, i64, i64, i64, Option<i64>) =
            sqlx::query_as(
                "SELECT spans, exports, failures, refused,
                     (SELECT COUNT(*) FROM study_trace WHERE waiting_since IS NOT NULL AND attempts > 0),
                     (SELECT MIN(waiting_since) FROM study_trace WHERE waiting_since IS NOT NULL AND attempts > 0)
                 FROM trace_total",
            )
            .fetch_one(&self.read)
            .await
            .during(DURING)?;
        Ok(TraceFigures {
            spans: unsigned(spans)?,
            exports: unsigned(exports)?,
            failures: unsigned(failures)?,
            refused: unsigned(refused)?,
            waiting: unsigned(waiting)?,
            oldest: oldest.map(Timestamp::from_millis),
        })
    }
}

/// The newest events of a study, in their order.
async fn events(connection: &mut Connection, study: i64, through: i64) -> Result<Vec<TraceEvent>, StoreError> {
    let rows: Vec<EventRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT id, at, kind, detail,
             COALESCE(json_extract(detail, '$.version'), (SELECT a.version FROM object o JOIN analysis a
                 ON a.id = o.analysis_id WHERE o.sop_instance = json_extract(e.detail, '$.sop_instance'))) AS version,
             (SELECT event_id FROM message WHERE id = json_extract(e.detail, '$.message')) AS about
         FROM (SELECT * FROM event WHERE study_id = ? AND id <= ? AND kind IN ({KINDS}) ORDER BY id DESC LIMIT ?) e
         ORDER BY id"
    )))
    .bind(study)
    .bind(through)
    .bind(MOST_EVENTS)
    .fetch_all(connection)
    .await
    .during(DURING)?;
    let event = |row: EventRow| {
        Ok(TraceEvent {
            id: row.id,
            at: Timestamp::from_millis(row.at),
            kind: row.kind,
            detail: from_json(&row.detail)?,
            version: row.version.map(unsigned).transpose()?,
            about: row.about,
        })
    };
    rows.into_iter().map(event).collect()
}

/// What came to each of the newest versions: between the close before, and theirs.
async fn arrivals(
    connection: &mut Connection,
    study: i64,
    events: &[TraceEvent],
) -> Result<Vec<TraceArrival>, StoreError> {
    let (mut found, mut from) = (Vec::new(), i64::MIN);
    let closes: Vec<&TraceEvent> = events.iter().filter(|event| event.kind == "closed").collect();
    for (place, closed) in closes.iter().enumerate() {
        let (until, version) = (closed.at.as_millis(), closed.version.unwrap_or(0));
        if place + MOST_VERSIONS >= closes.len() {
            let rows: Vec<ArrivalRow> = sqlx::query_as(
                "SELECT association_id, MIN(source_ae) AS source_ae, COUNT(*) AS instances, SUM(size) AS bytes,
                     MIN(received_at) AS first, MAX(received_at) AS last
                 FROM instance WHERE study_id = ? AND own = 0 AND received_at > ? AND received_at <= ?
                 GROUP BY association_id ORDER BY first",
            )
            .bind(study)
            .bind(from)
            .bind(until)
            .fetch_all(&mut *connection)
            .await
            .during(DURING)?;
            for row in rows {
                found.push(TraceArrival {
                    version,
                    association: row.association_id,
                    source_ae: row.source_ae,
                    instances: unsigned(row.instances)?,
                    bytes: unsigned(row.bytes)?,
                    first: Timestamp::from_millis(row.first),
                    last: Timestamp::from_millis(row.last),
                });
            }
        }
        from = until;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::options;
    use super::*;
    use crate::folder;

    const PACE: TracePace = TracePace { settle: Duration::from_secs(5), longest_wait: Duration::from_secs(3_600) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    async fn run(index: &Sqlite, statement: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&index.write).await.unwrap();
    }

    async fn event(index: &Sqlite, seconds: i64, kind: &str, detail: &str) {
        let at = seconds * 1_000;
        let row =
            format!("INSERT INTO event (at, kind, text, detail, study_id) VALUES ({at}, '{kind}', '', '{detail}', 1)");
        run(index, &row).await;
    }

    /// A store that is followed from its beginning, with a study that has closed.
    async fn followed() -> (tempfile::TempDir, Sqlite) {
        let folder = folder();
        let index = Sqlite::open(&options(&folder)).await.unwrap();
        assert_eq!(index.follow_for_traces(PACE).await.unwrap(), 0, "from now on");
        run(
            &index,
            "INSERT INTO study (id, study_instance, status, received_at, last_instance_at) VALUES (1, '1.2', 'queued', 1, 1);
             INSERT INTO series (id, study_id, series_instance) VALUES (1, 1, '1.3');
             INSERT INTO instance (study_id, series_id, sop_instance, sop_class, transfer_syntax, received_at, own, blob, size,
                 digest) VALUES (1, 1, '1.4', '1.5', '1.6', 1000, 0, 'a', 10, x'00'), (1, 1, '1.7', '1.5', '1.6', 2000, 0, 'b', 5, x'00'),
                 (1, 1, '1.8', '1.5', '1.6', 30000, 0, 'c', 5, x'00');",
        )
        .await;
        event(&index, 10, "closed", r#"{"version":1}"#).await;
        (folder, index)
    }

    #[tokio::test]
    async fn what_one_export_holds_is_fixed_until_it_is_taken() {
        let (_folder, index) = followed().await;
        event(&index, 11, "analysis-started", r#"{"version":1,"attempt":1}"#).await;
        assert_eq!(index.follow_for_traces(PACE).await.unwrap(), 1);
        assert!(index.claim_trace(PACE, at(60)).await.unwrap().is_none(), "it is not settled");
        event(&index, 12, "analysed", r#"{"version":1}"#).await;
        event(&index, 12, "commitment-judged", "{}").await;
        run(&index, "UPDATE study SET status = 'analysed'").await;
        index.follow_for_traces(PACE).await.unwrap();
        assert!(index.claim_trace(PACE, at(16)).await.unwrap().is_none(), "something may follow");
        let claim = index.claim_trace(PACE, at(17)).await.unwrap().unwrap();
        assert_eq!((claim.after, claim.through, claim.events.len()), (0, 3, 3));
        assert_eq!((claim.arrivals.len(), claim.arrivals[0].instances, claim.arrivals[0].bytes), (1, 2, 15));
        assert_eq!((claim.arrivals[0].version, claim.arrivals[0].first, claim.arrivals[0].last), (1, at(1), at(2)));

        index.trace_failed(&claim, "no answer\n", at(40)).await.unwrap();
        let figures = index.trace_figures().await.unwrap();
        assert_eq!((figures.failures, figures.waiting, figures.oldest), (1, 1, Some(at(10))));
        event(&index, 31, "reopened", "{}").await;
        index.follow_for_traces(PACE).await.unwrap();
        assert!(index.claim_trace(PACE, at(39)).await.unwrap().is_none(), "what happens brings no attempt forward");
        let again = index.claim_trace(PACE, at(40)).await.unwrap().unwrap();
        assert_eq!((&again.events, again.through, again.attempts), (&claim.events, 3, 1), "the same as before");
        index.trace_exported(&again, (7, 1), PACE, at(41)).await.unwrap();
        let figures = index.trace_figures().await.unwrap();
        assert_eq!((figures.spans, figures.refused, figures.exports, figures.waiting), (7, 1, 1, 0));

        // The rest, when its time has come; and then nothing more.
        event(&index, 45, "closed", r#"{"version":2}"#).await;
        index.follow_for_traces(PACE).await.unwrap();
        let next = index.claim_trace(PACE, at(50)).await.unwrap().unwrap();
        assert_eq!((next.after, next.through, next.attempts), (3, 6, 0));
        assert_eq!(next.arrivals.iter().map(|arrival| arrival.instances).collect::<Vec<_>>(), [2, 1]);
        index.trace_exported(&next, (1, 0), PACE, at(51)).await.unwrap();
        assert!(index.claim_trace(PACE, at(10_000)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_never_settles_is_exported_as_far_as_it_has_come() {
        let (_folder, index) = followed().await;
        index.follow_for_traces(PACE).await.unwrap();
        assert!(index.claim_trace(PACE, at(20)).await.unwrap().is_none());
        assert!(index.claim_trace(PACE, at(3_609)).await.unwrap().is_none());
        let claim = index.claim_trace(PACE, at(3_610)).await.unwrap().unwrap();
        assert_eq!(claim.through, 1);
    }
}
