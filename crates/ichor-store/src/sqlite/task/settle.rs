//! What people decide about tasks: tried again, or given up.

use super::super::failure::During;
use super::super::{Connection, Sqlite};
use super::{COLUMNS, OPEN, TaskRow, say};
use crate::task::Task;
use crate::{StoreError, Timestamp};

impl Sqlite {
    pub(crate) async fn retry_tasks(&self, id: Option<i64>, now: Timestamp) -> Result<u64, StoreError> {
        let during = "having tasks tried again";
        let mut tx = self.begin(during).await?;
        let rows: Vec<TaskRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "UPDATE task SET status = CASE WHEN ending IS NULL THEN 'claiming' ELSE 'ending' END, failures = 0,
                 refusals = 0, next_attempt = ?1, asked_since = ?1
             WHERE status = 'refused' AND (?2 IS NULL OR id = ?2) RETURNING {COLUMNS}"
        )))
        .bind(now.as_millis())
        .bind(id)
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        if let (Some(id), true) = (id, rows.is_empty()) {
            return Err(refuse(&mut tx, id, "is not one that its list has refused").await);
        }
        let tasks: Vec<Task> = rows.into_iter().map(TaskRow::task).collect::<Result<_, _>>()?;
        for Task { new, .. } in &tasks {
            let text =
                format!("workitem {} of task list {:?} is tried again, as somebody asks", new.workitem, new.list);
            say(&mut tx, new, "task-retried", text, now).await?;
        }
        tx.commit().await.during(during)?;
        Ok(tasks.len() as u64)
    }

    pub(crate) async fn give_up_task(&self, id: i64, why: &str, now: Timestamp) -> Result<Task, StoreError> {
        let during = "giving up a task";
        let mut tx = self.begin(during).await?;
        let row: Option<TaskRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "UPDATE task SET status = 'given-up', ended_at = ?1, last_words = ?2
             WHERE id = ?3 AND (status = 'refused' OR {OPEN}) RETURNING {COLUMNS}"
        )))
        .bind(now.as_millis())
        .bind(format!("given up: {why}"))
        .bind(id)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some(row) = row else { return Err(refuse(&mut tx, id, "is over").await) };
        let task = row.task()?;
        // Free words may be about the patient: they stand in the row alone.
        let (workitem, list) = (&task.new.workitem, &task.new.list);
        let text =
            format!("workitem {workitem} of task list {list:?} was given up by somebody; it stands there as ours");
        say(&mut tx, &task.new, "task-given-up", text, now).await?;
        tx.commit().await.during(during)?;
        Ok(task)
    }
}

/// Why nothing could be done with a task.
async fn refuse(connection: &mut Connection, id: i64, why: &str) -> StoreError {
    let status: Result<Option<String>, StoreError> = sqlx::query_scalar("SELECT status FROM task WHERE id = ?")
        .bind(id)
        .fetch_optional(connection)
        .await
        .during("looking for a task");
    match status {
        Ok(Some(status)) => StoreError::Filter { what: format!("task {id} {why}: it is {status}") },
        Ok(None) => StoreError::NotFound { what: format!("task {id}") },
        Err(error) => error,
    }
}
