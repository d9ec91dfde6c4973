//! Statements of the worklist.

use ichor_core::Uid;

use super::events::NewEvent;
use super::failure::During;
use super::latency::count;
use super::values::{from_json, to_json, uid, unsigned};
use super::{Connection, Sqlite};
use crate::latency::Measure;
use crate::worklist::{NewWorkitem, Subscribed, WorkitemReport, WorkitemRow};
use crate::{StoreError, Timestamp};

/// The well-known UID of all workitems (PS3.4 CC.2.3.1).
const WORKLIST: &str = "1.2.840.10008.5.1.4.34.5";

/// Most reports that are kept for a subscriber who does not come: the oldest go first.
const MOST_REPORTS: i64 = 10_000;

const COLUMNS: &str = "uid, state, transaction_uid, revision, priority, starts, attributes";

#[derive(sqlx::FromRow)]
struct Row {
    uid: String,
    state: String,
    transaction_uid: Option<String>,
    revision: i64,
    priority: i64,
    starts: String,
    attributes: String,
}

impl Subscribed {
    fn target(&self) -> &str {
        match self {
            Self::Workitem(uid) => uid.as_str(),
            Self::Worklist => WORKLIST,
        }
    }
}

impl Sqlite {
    pub(crate) async fn create_workitem(
        &self,
        row: &WorkitemRow,
        reports: &[String],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let during = "recording a workitem";
        let mut tx = self.begin(during).await?;
        let is_new = insert(&mut tx, row, None, now).await?;
        if is_new {
            tell_subscribers(&mut tx, &row.uid, reports, now).await?;
            tx.commit().await.during(during)?;
        }
        Ok(is_new)
    }

    pub(crate) async fn workitem(&self, uid: &Uid) -> Result<Option<WorkitemRow>, StoreError> {
        let row: Option<Row> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM workitem WHERE uid = ?")))
                .bind(uid.as_str())
                .fetch_optional(&self.read)
                .await
                .during("looking for a workitem")?;
        row.map(workitem).transpose()
    }

    pub(crate) async fn workitems(
        &self,
        states: &[&str],
        offset: u64,
        limit: u32,
    ) -> Result<Vec<WorkitemRow>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM workitem
             WHERE ?1 = '[]' OR state IN (SELECT value FROM json_each(?1))
             ORDER BY priority, starts, id LIMIT ?2 OFFSET ?3"
        )))
        .bind(to_json(&states)?)
        .bind(limit)
        .bind(i64::try_from(offset).unwrap_or(i64::MAX))
        .fetch_all(&self.read)
        .await
        .during("listing workitems")?;
        rows.into_iter().map(workitem).collect()
    }

    pub(crate) async fn change_workitem(
        &self,
        row: &WorkitemRow,
        reports: &[String],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let during = "changing a workitem";
        let mut tx = self.begin(during).await?;
        let changed = sqlx::query(
            "UPDATE workitem SET state = ?1, transaction_uid = ?2, revision = revision + 1, priority = ?3, starts = ?4,
                 attributes = ?5, changed_at = ?6
             WHERE uid = ?7 AND revision = ?8",
        )
        .bind(&row.state)
        .bind(row.transaction.as_ref().map(Uid::as_str))
        .bind(row.priority)
        .bind(&row.starts)
        .bind(row.attributes.to_string())
        .bind(now.as_millis())
        .bind(row.uid.as_str())
        .bind(row.revision)
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        if changed == 0 {
            return Ok(false);
        }
        tell_subscribers(&mut tx, &row.uid, reports, now).await?;
        tx.commit().await.during(during)?;
        Ok(true)
    }

    pub(crate) async fn subscribe_workitems(
        &self,
        subscriber: &str,
        what: &Subscribed,
        deletion_lock: bool,
        reports: &[String],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "recording a subscription";
        let mut tx = self.begin(during).await?;
        sqlx::query(
            "INSERT INTO workitem_subscription (subscriber, target, deletion_lock) VALUES (?, ?, ?)
             ON CONFLICT DO UPDATE SET deletion_lock = excluded.deletion_lock",
        )
        .bind(subscriber)
        .bind(what.target())
        .bind(deletion_lock)
        .execute(&mut *tx)
        .await
        .during(during)?;
        for body in reports {
            sqlx::query("INSERT INTO workitem_report (subscriber, body, created_at) VALUES (?, ?, ?)")
                .bind(subscriber)
                .bind(body)
                .bind(now.as_millis())
                .execute(&mut *tx)
                .await
                .during(during)?;
        }
        bound_reports(&mut tx).await?;
        tx.commit().await.during(during)
    }

    pub(crate) async fn unsubscribe_workitems(&self, subscriber: &str, what: &Subscribed) -> Result<bool, StoreError> {
        let during = "ending a subscription";
        let mut tx = self.begin(during).await?;
        let gone = sqlx::query(
            // Whoever leaves the list leaves every workitem, also after a suspension.
            "DELETE FROM workitem_subscription WHERE subscriber = ?1 AND (target = ?2 OR ?2 = ?3)",
        )
        .bind(subscriber)
        .bind(what.target())
        .bind(WORKLIST)
        .execute(&mut *tx)
        .await
        .during(during)?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        tx.commit().await.during(during)?;
        Ok(true)
    }

    pub(crate) async fn suspend_worklist(&self, subscriber: &str) -> Result<bool, StoreError> {
        let during = "suspending a subscription";
        let mut tx = self.begin(during).await?;
        let lock: Option<bool> = sqlx::query_scalar(
            "DELETE FROM workitem_subscription WHERE subscriber = ? AND target = ? RETURNING deletion_lock",
        )
        .bind(subscriber)
        .bind(WORKLIST)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some(lock) = lock else { return Ok(false) };
        sqlx::query(
            "INSERT INTO workitem_subscription (subscriber, target, deletion_lock)
             SELECT ?1, uid, ?2 FROM workitem WHERE state IN ('SCHEDULED', 'IN PROGRESS') ON CONFLICT DO NOTHING",
        )
        .bind(subscriber)
        .bind(lock)
        .execute(&mut *tx)
        .await
        .during(during)?;
        tx.commit().await.during(during)?;
        Ok(true)
    }

    pub(crate) async fn has_workitem_subscriber(&self, uid: &Uid) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM workitem_subscription WHERE target IN (?, ?))")
            .bind(uid.as_str())
            .bind(WORKLIST)
            .fetch_one(&self.read)
            .await
            .during("looking for subscribers")
    }

    pub(crate) async fn workitem_reports(
        &self,
        subscriber: &str,
        limit: u32,
    ) -> Result<Vec<WorkitemReport>, StoreError> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT id, body FROM workitem_report WHERE subscriber = ? ORDER BY id LIMIT ?")
                .bind(subscriber)
                .bind(limit)
                .fetch_all(&self.read)
                .await
                .during("reading reports of workitems")?;
        Ok(rows.into_iter().map(|(id, body)| WorkitemReport { id, body }).collect())
    }

    pub(crate) async fn workitem_report_heard(
        &self,
        subscriber: &str,
        id: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "forgetting a report of a workitem";
        self.check_unwitnessed(during)?;
        let mut tx = self.begin(during).await?;
        let made: Option<i64> =
            sqlx::query_scalar("DELETE FROM workitem_report WHERE subscriber = ? AND id = ? RETURNING created_at")
                .bind(subscriber)
                .bind(id)
                .fetch_optional(&mut *tx)
                .await
                .during(during)?;
        let Some(made) = made else { return Ok(()) };
        count(&mut tx, Measure::Report, "", "", now.as_millis() - made).await?;
        tx.commit().await.during(during)
    }
}

/// Names that are tried for a workitem of ours.
const MOST_NAMES: u32 = 100;

/// The workitem of an analysis, in its transaction: one to be read for each version. If the version was analysed again, one
/// that nobody has begun is replaced, else there is another. Those of earlier versions that nobody has begun are canceled.
pub(super) async fn of_analysis(
    connection: &mut Connection,
    study: i64,
    version: u32,
    new: &NewWorkitem,
    was_analysed: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut own = new.clone();
    if !was_analysed && own.row.priority > 0 && stays_urgent(connection, study).await? {
        own.row.priority = 0;
        own.row.attributes["00741200"] = serde_json::json!({ "vr": "CS", "Value": ["HIGH"] });
    }
    keep(connection, study, version, &mut own, now).await?;
    tell_subscribers(connection, &own.row.uid, std::slice::from_ref(&own.report), now).await?;
    let progress = serde_json::json!({ "vr": "SQ", "Value": [
        { "00741238": { "vr": "LT", "Value": [new.supersedes] } }
    ] });
    let during = "canceling the workitem of an earlier version";
    let over: Vec<String> = sqlx::query_scalar(
        "UPDATE workitem SET state = 'CANCELED', revision = revision + 1, changed_at = ?1,
             attributes = json_set(attributes, '$.00741000.Value[0]', 'CANCELED', '$.00741002', json(?2))
         WHERE study_id = ?3 AND version < ?4 AND state = 'SCHEDULED' RETURNING uid",
    )
    .bind(now.as_millis())
    .bind(progress.to_string())
    .bind(study)
    .bind(version)
    .fetch_all(&mut *connection)
    .await
    .during(during)?;
    for name in over {
        let mut report: serde_json::Value = from_json(&new.report)?;
        report["00001000"]["Value"][0] = serde_json::json!(name);
        report["00741000"]["Value"][0] = serde_json::json!("CANCELED");
        tell_subscribers(connection, &uid(&name)?, &[report.to_string()], now).await?;
    }
    Ok(())
}

/// Whether a study that was not analysed is read as urgently as before: there was an alert, or a positive version.
async fn stays_urgent(connection: &mut Connection, study: i64) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM study WHERE id = ?1 AND alerted_at IS NOT NULL)
             OR EXISTS (SELECT 1 FROM analysis WHERE study_id = ?1
                 AND json_extract(finding, '$.verdict') = 'positive')
             OR EXISTS (SELECT 1 FROM workitem WHERE study_id = ?1 AND priority = 0)",
    )
    .bind(study)
    .fetch_one(connection)
    .await
    .during("looking for an alert")
}

/// Keeps a workitem of ours under a name that is free, and gives it that name.
async fn keep(
    connection: &mut Connection,
    study: i64,
    version: u32,
    own: &mut NewWorkitem,
    now: Timestamp,
) -> Result<(), StoreError> {
    let during = "recording a workitem";
    let before: Option<(i64, String, String)> =
        sqlx::query_as("SELECT id, uid, state FROM workitem WHERE study_id = ? AND version = ?")
            .bind(study)
            .bind(version)
            .fetch_optional(&mut *connection)
            .await
            .during(during)?;
    match before {
        Some((id, name, state)) if state == "SCHEDULED" => {
            rename(own, uid(&name)?);
            sqlx::query(
                "UPDATE workitem SET revision = revision + 1, priority = ?, starts = ?, attributes = ?, changed_at = ?
                 WHERE id = ?",
            )
            .bind(own.row.priority)
            .bind(&own.row.starts)
            .bind(own.row.attributes.to_string())
            .bind(now.as_millis())
            .bind(id)
            .execute(connection)
            .await
            .during(during)?;
            return Ok(());
        }
        // Begun or over: it stays as it is, and is no longer the one of its version.
        Some((id, ..)) => {
            sqlx::query("UPDATE workitem SET version = NULL WHERE id = ?")
                .bind(id)
                .execute(&mut *connection)
                .await
                .during(during)?;
        }
        None => {}
    }
    let first = own.row.uid.clone();
    for attempt in 1..=MOST_NAMES {
        if insert(connection, &own.row, Some((study, version)), now).await? {
            return Ok(());
        }
        let taken = own.row.uid.clone();
        let is_foreign: bool = sqlx::query_scalar("SELECT study_id IS NOT ? FROM workitem WHERE uid = ?")
            .bind(study)
            .bind(taken.as_str())
            .fetch_one(&mut *connection)
            .await
            .during(during)?;
        let moment = now.as_millis().to_string();
        rename(own, Uid::derive([first.as_str(), moment.as_str(), attempt.to_string().as_str()]));
        if is_foreign {
            tracing::error!(workitem = %taken, "the name of our workitem is taken by another's; ours gets a new one");
            let text = format!("workitem {taken} is another's; ours is {}", own.row.uid);
            NewEvent::new(now, "workitem-taken", text)
                .detail(serde_json::json!({ "taken": taken, "workitem": own.row.uid, "version": version }))
                .study(study)
                .write(&mut *connection)
                .await?;
        }
    }
    Err(StoreError::corrupt(format!("no name is free for the workitem of study row {study}")))
}

fn rename(own: &mut NewWorkitem, name: Uid) {
    let old = own.row.uid.as_str();
    own.report = own.report.replace(&format!("\"{old}\""), &format!("\"{name}\""));
    if let Some(value) = own.row.attributes.pointer_mut("/00080018/Value/0") {
        *value = serde_json::json!(name);
    }
    own.row.uid = name;
}

async fn insert(
    connection: &mut Connection,
    row: &WorkitemRow,
    study: Option<(i64, u32)>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO workitem (uid, state, transaction_uid, priority, starts, study_id, version, attributes, created_at,
             changed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9) ON CONFLICT DO NOTHING",
    )
    .bind(row.uid.as_str())
    .bind(&row.state)
    .bind(row.transaction.as_ref().map(Uid::as_str))
    .bind(row.priority)
    .bind(&row.starts)
    .bind(study.map(|(study, _)| study))
    .bind(study.map(|(_, version)| version))
    .bind(row.attributes.to_string())
    .bind(now.as_millis())
    .execute(connection)
    .await
    .during("recording a workitem")?;
    Ok(inserted.rows_affected() > 0)
}

async fn tell_subscribers(
    connection: &mut Connection,
    uid: &Uid,
    reports: &[String],
    now: Timestamp,
) -> Result<(), StoreError> {
    for body in reports {
        sqlx::query(
            "INSERT INTO workitem_report (subscriber, body, created_at)
             SELECT DISTINCT subscriber, ?1, ?2 FROM workitem_subscription WHERE target IN (?3, ?4)",
        )
        .bind(body)
        .bind(now.as_millis())
        .bind(uid.as_str())
        .bind(WORKLIST)
        .execute(&mut *connection)
        .await
        .during("recording a report of a workitem")?;
    }
    bound_reports(connection).await
}

/// Whoever never comes does not fill the disk.
async fn bound_reports(connection: &mut Connection) -> Result<(), StoreError> {
    let during = "bounding reports of workitems";
    let full: Vec<(String, i64)> =
        sqlx::query_as("SELECT subscriber, COUNT(*) FROM workitem_report GROUP BY subscriber HAVING COUNT(*) > ?")
            .bind(MOST_REPORTS)
            .fetch_all(&mut *connection)
            .await
            .during(during)?;
    for (subscriber, count) in full {
        sqlx::query(
            "DELETE FROM workitem_report WHERE id IN
                 (SELECT id FROM workitem_report WHERE subscriber = ? ORDER BY id LIMIT ?)",
        )
        .bind(&subscriber)
        .bind(count - MOST_REPORTS)
        .execute(&mut *connection)
        .await
        .during(during)?;
    }
    Ok(())
}

fn workitem(row: Row) -> Result<WorkitemRow, StoreError> {
    Ok(WorkitemRow {
        uid: uid(&row.uid)?,
        state: row.state,
        transaction: row.transaction_uid.as_deref().map(uid).transpose()?,
        revision: row.revision,
        priority: unsigned(row.priority)?,
        starts: row.starts,
        attributes: from_json(&row.attributes)?,
    })
}
