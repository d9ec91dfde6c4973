//! Statements of tasks.

mod settle;

use ichor_core::{TaskStatus, Uid};
use serde_json::{Value, json};
use sqlx::QueryBuilder;

use super::events::NewEvent;
use super::failure::During;
use super::values::{from_json, to_json, uid, unsigned, word};
use super::{Connection, Dialect, Sqlite, one_row};
use crate::task::{NewTask, Task, TaskDepth, TaskFilter, TaskListState, TaskStep, TaskSummary};
use crate::{StoreError, Timestamp};

/// The states of tasks that are not over.
const OPEN: &str = "status IN ('claiming', 'claimed', 'waiting', 'ending')";

/// After so long a workitem that was lost may be claimed again, in milliseconds: a server that offers it again means it.
const AGAIN: i64 = 600_000;

const COLUMNS: &str =
    "id, list, workitem, transaction_uid, status, study_instance, urgent, request, ending, cancel_words,
    progress, failures, refusals, asked_since, next_attempt, seen_at, claimed_at, last_words";

#[derive(sqlx::FromRow)]
struct TaskRow {
    id: i64,
    list: String,
    workitem: String,
    transaction_uid: String,
    status: String,
    study_instance: String,
    urgent: bool,
    request: String,
    ending: Option<String>,
    cancel_words: Option<String>,
    progress: i64,
    failures: i64,
    refusals: i64,
    asked_since: i64,
    next_attempt: i64,
    seen_at: i64,
    claimed_at: Option<i64>,
    last_words: Option<String>,
}

impl TaskRow {
    fn task(self) -> Result<Task, StoreError> {
        Ok(Task {
            id: self.id,
            new: NewTask {
                list: self.list,
                workitem: uid(&self.workitem)?,
                transaction: uid(&self.transaction_uid)?,
                study_instance: uid(&self.study_instance)?,
                urgent: self.urgent,
                request: from_json(&self.request)?,
            },
            status: word(&self.status)?,
            ending: self.ending.as_deref().map(from_json).transpose()?,
            cancel_words: self.cancel_words,
            progress: unsigned(self.progress)?,
            failures: unsigned(self.failures)?,
            refusals: unsigned(self.refusals)?,
            asked_since: Timestamp::from_millis(self.asked_since),
            seen_at: Timestamp::from_millis(self.seen_at),
            claimed_at: self.claimed_at.map(Timestamp::from_millis),
            next_attempt: Timestamp::from_millis(self.next_attempt),
            last_words: self.last_words,
        })
    }
}

#[derive(sqlx::FromRow)]
struct SummaryRow {
    id: i64,
    list: String,
    workitem: String,
    study_instance: String,
    study_is_here: bool,
    status: String,
    urgent: bool,
    failures: i64,
    seen_at: i64,
    claimed_at: Option<i64>,
    ended_at: Option<i64>,
    last_words: Option<String>,
}

impl Sqlite {
    pub(crate) async fn leave_task(&self, new: &NewTask, why: &str, now: Timestamp) -> Result<(), StoreError> {
        let during = "leaving a workitem";
        // Asked at every look at the list: nothing is written if nothing is new.
        let known: Option<(String, Option<String>)> =
            sqlx::query_as("SELECT status, last_words FROM task WHERE list = ? AND workitem = ?")
                .bind(&new.list)
                .bind(new.workitem.as_str())
                .fetch_optional(&self.read)
                .await
                .during(during)?;
        if known.is_some_and(|(status, words)| status != "left" || words.as_deref() == Some(why)) {
            return Ok(());
        }
        let mut tx = self.begin(during).await?;
        let left = sqlx::query(
            "INSERT INTO task (list, workitem, transaction_uid, status, study_instance, urgent, request, asked_since,
                 next_attempt, seen_at, last_words)
             VALUES (?1, ?2, ?3, 'left', ?4, ?5, ?6, ?7, ?7, ?7, ?8)
             ON CONFLICT (list, workitem) DO UPDATE SET last_words = excluded.last_words WHERE status = 'left'",
        )
        .bind(&new.list)
        .bind(new.workitem.as_str())
        .bind(new.transaction.as_str())
        .bind(new.study_instance.as_str())
        .bind(new.urgent)
        .bind(to_json(&new.request)?)
        .bind(now.as_millis())
        .bind(why)
        .execute(&mut *tx)
        .await
        .during(during)?;
        if left.rows_affected() > 0 {
            let text =
                format!("workitem {} of task list {:?} is left to others for now: {why}", new.workitem, new.list);
            say(&mut tx, new, "task-left", text, now).await?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn begin_task(&self, new: &NewTask, now: Timestamp) -> Result<Option<Task>, StoreError> {
        let during = "beginning a task";
        let mut tx = self.begin(during).await?;
        let row: Option<TaskRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "INSERT INTO task (list, workitem, transaction_uid, status, study_instance, urgent, request, asked_since,
                 next_attempt, seen_at)
             VALUES (?1, ?2, ?3, 'claiming', ?4, ?5, ?6, ?7, ?7, ?7)
             ON CONFLICT (list, workitem) DO UPDATE SET transaction_uid = excluded.transaction_uid, status = 'claiming',
                 study_instance = excluded.study_instance, urgent = excluded.urgent, request = excluded.request,
                 asked_since = excluded.asked_since,
                 next_attempt = excluded.next_attempt, failures = 0, refusals = 0, progress = 0, ending = NULL, cancel_words = NULL,
                 claimed_at = NULL, ended_at = NULL, last_words = NULL
                 WHERE status = 'left' OR (status = 'lost' AND ended_at <= ?7 - ?8)
             RETURNING {COLUMNS}"
        )))
        .bind(&new.list)
        .bind(new.workitem.as_str())
        .bind(new.transaction.as_str())
        .bind(new.study_instance.as_str())
        .bind(new.urgent)
        .bind(to_json(&new.request)?)
        .bind(now.as_millis())
        .bind(AGAIN)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        tx.commit().await.during(during)?;
        row.map(TaskRow::task).transpose()
    }

    pub(crate) async fn open_tasks(&self, list: &str) -> Result<Vec<Task>, StoreError> {
        let rows: Vec<TaskRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM task WHERE list = ? AND {OPEN} ORDER BY urgent DESC, id"
        )))
        .bind(list)
        .fetch_all(&self.read)
        .await
        .during("looking for tasks")?;
        rows.into_iter().map(TaskRow::task).collect()
    }

    pub(crate) async fn task_status(&self, list: &str, workitem: &Uid) -> Result<Option<TaskStatus>, StoreError> {
        let status: Option<String> = sqlx::query_scalar("SELECT status FROM task WHERE list = ? AND workitem = ?")
            .bind(list)
            .bind(workitem.as_str())
            .fetch_optional(&self.read)
            .await
            .during("looking for a task")?;
        status.as_deref().map(word).transpose()
    }

    pub(crate) async fn advance_task(
        &self,
        task: &Task,
        step: &TaskStep,
        words: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "taking a task on";
        let status = match step {
            TaskStep::Claimed => TaskStatus::Claimed,
            TaskStep::InputHere => TaskStatus::Waiting,
            TaskStep::Ending(_) => TaskStatus::Ending,
            TaskStep::Ended(status) => *status,
            TaskStep::LeftToPeople => TaskStatus::Refused,
            TaskStep::Again(_) | TaskStep::AgainRefused(_) | TaskStep::Progress(_) | TaskStep::CancelDeclined => {
                task.status
            }
        };
        let ending = match step {
            TaskStep::Ending(ending) => Some(to_json(ending)?),
            _ => None,
        };
        let progress = if let TaskStep::Progress(percent) = step { *percent } else { task.progress };
        let (failures, refusals, next) = match step {
            TaskStep::Again(at) => (task.failures + 1, task.refusals, *at),
            TaskStep::AgainRefused(at) => (task.failures + 1, task.refusals + 1, *at),
            // As it stood: what it had come to is seen in lists.
            TaskStep::LeftToPeople => (task.failures + 1, task.refusals, now),
            _ => (0, 0, now),
        };
        let mut tx = self.begin(during).await?;
        // Cancellation that was asked for while this step was under way is not put off by it.
        let changed = sqlx::query(
            "UPDATE task SET status = ?1, ending = COALESCE(?2, ending), progress = ?3, failures = ?4,
                 next_attempt = CASE WHEN ?14 AND cancel_words IS NOT NULL THEN MIN(?5, next_attempt) ELSE ?5 END,
                 claimed_at = CASE WHEN ?6 THEN ?7 ELSE claimed_at END,
                 ended_at = CASE WHEN ?8 THEN ?7 ELSE ended_at END, last_words = ?9,
                 cancel_words = CASE WHEN ?13 THEN NULL ELSE cancel_words END, refusals = ?15,
                 asked_since = CASE WHEN ?16 THEN ?7 ELSE asked_since END
             WHERE id = ?10 AND status = ?11 AND transaction_uid = ?12",
        )
        .bind(status.as_str())
        .bind(ending)
        .bind(progress)
        .bind(failures)
        .bind(next.as_millis())
        .bind(matches!(step, TaskStep::Claimed))
        .bind(now.as_millis())
        .bind(matches!(step, TaskStep::Ended(_)))
        .bind(words)
        .bind(task.id)
        .bind(task.status.as_str())
        .bind(task.new.transaction.as_str())
        .bind(matches!(step, TaskStep::CancelDeclined))
        .bind(task.cancel_words.is_none())
        .bind(refusals)
        .bind(matches!(step, TaskStep::Ending(_)))
        .execute(&mut *tx)
        .await
        .during(during)?;
        one_row(changed.rows_affected(), || format!("task {}", task.id))?;
        let kind = kind(step);
        // The same failure again and again is said once.
        let is_again = matches!(step, TaskStep::Again(_) | TaskStep::AgainRefused(_));
        if !(is_again && task.last_words.as_deref() == Some(words)) {
            let text = format!("workitem {} of task list {:?}: {words}", task.new.workitem, task.new.list);
            say(&mut tx, &task.new, kind, text, now).await?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn ask_task_cancel(
        &self,
        list: &str,
        workitem: &Uid,
        words: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let during = "noting that a task is to be canceled";
        let mut tx = self.begin(during).await?;
        let row: Option<TaskRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "UPDATE task SET cancel_words = ?1, next_attempt = ?2
             WHERE list = ?3 AND workitem = ?4 AND {OPEN} AND cancel_words IS NULL RETURNING {COLUMNS}"
        )))
        .bind(words)
        .bind(now.as_millis())
        .bind(list)
        .bind(workitem.as_str())
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some(task) = row.map(TaskRow::task).transpose()? else { return Ok(false) };
        // Free words may be about the patient: they stand in the row alone.
        let text = format!("somebody asks for the cancellation of workitem {workitem} of task list {list:?}");
        say(&mut tx, &task.new, "task-cancel-requested", text, now).await?;
        tx.commit().await.during(during)?;
        Ok(true)
    }

    pub(crate) async fn make_tasks_urgent(&self, now: Timestamp) -> Result<u64, StoreError> {
        let during = "putting tasks in order";
        let waiting = "FROM task t JOIN study s ON s.study_instance = t.study_instance
                 JOIN analysis a ON a.study_id = s.id
             WHERE t.urgent = 1 AND t.status IN ('claimed', 'waiting') AND a.status = 'queued' AND a.urgent IS NOT 1";
        let any: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 {waiting})")))
            .fetch_one(&self.read)
            .await
            .during(during)?;
        if !any {
            return Ok(0);
        }
        let mut tx = self.begin(during).await?;
        let rows: Vec<(i64, i64, String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT a.id, s.id, t.list, t.workitem {waiting} GROUP BY a.id"
        )))
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        for (analysis, study, list, workitem) in &rows {
            let by = format!("task list {list}");
            sqlx::query("UPDATE analysis SET urgent = 1, urgent_by = ? WHERE id = ?")
                .bind(&by)
                .bind(analysis)
                .execute(&mut *tx)
                .await
                .during(during)?;
            let text =
                format!("urgent by {by}, whose workitem {workitem} has the priority HIGH: analysed before others");
            NewEvent::new(now, "analysis-order", text)
                .detail(json!({ "urgent": true, "task_list": list, "workitem": workitem }))
                .study(*study)
                .write(&mut tx)
                .await?;
        }
        tx.commit().await.during(during)?;
        Ok(rows.len() as u64)
    }

    pub(crate) async fn missing_instances(&self, study: &Uid, instances: &[Uid]) -> Result<Vec<Uid>, StoreError> {
        let missing: Vec<String> = sqlx::query_scalar(
            "SELECT value FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM instance i JOIN study s ON s.id = i.study_id
                 WHERE i.sop_instance = value AND s.study_instance = ?2 AND i.removed_at IS NULL)",
        )
        .bind(to_json(&instances)?)
        .bind(study.as_str())
        .fetch_all(&self.read)
        .await
        .during("looking for the input of a task")?;
        missing.iter().map(|text| uid(text)).collect()
    }

    pub(crate) async fn instances_come(
        &self,
        study: &Uid,
        series: Option<&Uid>,
        since: Timestamp,
    ) -> Result<u64, StoreError> {
        // What replaces a file that was gone keeps the moment of its first arrival, and is counted by association.
        let (held, came, restored): (i64, i64, i64) = sqlx::query_as(
            "WITH told AS (SELECT e.kind, e.detail FROM event e JOIN study s ON s.id = e.study_id
                 WHERE s.study_instance = ?1 AND e.at >= ?3 AND e.kind IN ('duplicate', 'conflict', 'blob-restored')),
             here AS (SELECT i.sop_instance, i.received_at FROM study s JOIN instance i ON i.study_id = s.id
                 JOIN series r ON r.id = i.series_id
                 WHERE s.study_instance = ?1 AND (?2 IS NULL OR r.series_instance = ?2) AND i.removed_at IS NULL)
             SELECT (SELECT COUNT(*) FROM here),
                 (SELECT COUNT(*) FROM here WHERE received_at >= ?3 OR sop_instance IN
                     (SELECT json_extract(detail, '$.sop_instance') FROM told WHERE kind <> 'blob-restored')),
                 (SELECT COALESCE(SUM(json_extract(detail, '$.files')), 0) FROM told WHERE kind = 'blob-restored')",
        )
        .bind(study.as_str())
        .bind(series.map(Uid::as_str))
        .bind(since.as_millis())
        .fetch_one(&self.read)
        .await
        .during("counting what has come of a study")?;
        unsigned(held.min(came.saturating_add(restored)))
    }

    pub(crate) async fn task_list_looked_at(
        &self,
        name: &str,
        failure: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let during = "noting whether a task list answers";
        let known: Option<(bool, Option<String>)> =
            sqlx::query_as("SELECT is_up, last_words FROM task_list WHERE name = ?")
                .bind(name)
                .fetch_optional(&self.read)
                .await
                .during(during)?;
        let was_up = known.as_ref().map(|(is_up, _)| *is_up);
        if known == Some((failure.is_none(), failure.map(str::to_owned))) {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO task_list (name, is_up, since, last_words) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET since = CASE WHEN is_up = excluded.is_up THEN since ELSE excluded.since END,
                 is_up = excluded.is_up, last_words = excluded.last_words",
        )
        .bind(name)
        .bind(failure.is_none())
        .bind(now.as_millis())
        .bind(failure)
        .execute(&self.write)
        .await
        .during(during)?;
        Ok(was_up != Some(failure.is_none()))
    }

    pub(crate) async fn task_lists(&self) -> Result<Vec<TaskListState>, StoreError> {
        let rows: Vec<(String, bool, i64, Option<String>)> =
            sqlx::query_as("SELECT name, is_up, since, last_words FROM task_list ORDER BY name")
                .fetch_all(&self.read)
                .await
                .during("listing task lists")?;
        let state = |(name, is_up, since, last_words): (String, bool, i64, Option<String>)| TaskListState {
            name,
            is_up,
            since: Timestamp::from_millis(since),
            last_words,
        };
        Ok(rows.into_iter().map(state).collect())
    }

    pub(crate) async fn tasks(&self, filter: &TaskFilter) -> Result<Vec<TaskSummary>, StoreError> {
        let mut statement = QueryBuilder::<Dialect>::new(
            "SELECT id, list, workitem, study_instance, status, urgent, failures, seen_at, claimed_at, ended_at, last_words,
                 EXISTS (SELECT 1 FROM study WHERE study.study_instance = task.study_instance) AS study_is_here
             FROM task WHERE id < ",
        );
        statement.push_bind(filter.before.unwrap_or(i64::MAX));
        if let Some(status) = filter.status {
            statement.push(" AND status = ").push_bind(status.as_str());
        }
        if let Some(list) = &filter.list {
            statement.push(" AND list = ").push_bind(list.clone());
        }
        if let Some(study) = &filter.study {
            statement.push(" AND study_instance = ").push_bind(study.as_str().to_owned());
        }
        statement.push(" ORDER BY id DESC LIMIT ").push_bind(filter.limit);
        let rows: Vec<SummaryRow> = statement.build_query_as().fetch_all(&self.read).await.during("listing tasks")?;
        let summary = |row: SummaryRow| {
            Ok(TaskSummary {
                id: row.id,
                list: row.list,
                workitem: uid(&row.workitem)?,
                study_instance: uid(&row.study_instance)?,
                study_is_here: row.study_is_here,
                status: word(&row.status)?,
                urgent: row.urgent,
                failures: unsigned(row.failures)?,
                seen_at: Timestamp::from_millis(row.seen_at),
                claimed_at: row.claimed_at.map(Timestamp::from_millis),
                ended_at: row.ended_at.map(Timestamp::from_millis),
                last_words: row.last_words,
            })
        };
        rows.into_iter().map(summary).collect()
    }

    pub(crate) async fn task_depths(&self) -> Result<Vec<TaskDepth>, StoreError> {
        let rows: Vec<(String, String, i64, i64)> =
            sqlx::query_as("SELECT list, status, COUNT(*), MIN(seen_at) FROM task GROUP BY list, status")
                .fetch_all(&self.read)
                .await
                .during("counting tasks")?;
        let depth = |(list, status, count, oldest): (String, String, i64, i64)| {
            let oldest = Timestamp::from_millis(oldest);
            Ok(TaskDepth { list, status: word(&status)?, count: unsigned(count)?, oldest })
        };
        rows.into_iter().map(depth).collect()
    }
}

/// What a step is called in the timeline.
const fn kind(step: &TaskStep) -> &'static str {
    match step {
        TaskStep::Claimed => "task-claimed",
        TaskStep::InputHere => "task-input",
        TaskStep::Ending(_) => "task-ending",
        TaskStep::Ended(_) => "task-ended",
        TaskStep::Again(_) | TaskStep::AgainRefused(_) => "task-delayed",
        TaskStep::LeftToPeople => "task-refused",
        TaskStep::Progress(_) => "task-progress",
        TaskStep::CancelDeclined => "task-cancel-declined",
    }
}

/// Writes an event into the timeline of the task's study, if that is here.
async fn say(
    connection: &mut Connection,
    task: &NewTask,
    kind: &'static str,
    text: String,
    now: Timestamp,
) -> Result<(), StoreError> {
    let study: Option<i64> = sqlx::query_scalar("SELECT id FROM study WHERE study_instance = ?")
        .bind(task.study_instance.as_str())
        .fetch_optional(&mut *connection)
        .await
        .during("looking for the study of a task")?;
    let detail: Value = json!({ "list": task.list, "workitem": task.workitem, "study": task.study_instance });
    let event = NewEvent::new(now, kind, text).detail(detail);
    let event = if let Some(study) = study { event.study(study) } else { event };
    event.write(connection).await
}
