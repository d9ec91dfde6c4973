//! Tasks: workitems of other systems that are performed here, and the lists that they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use ichor_core::TaskStatus;
use ichor_store::{StoreError, TaskFilter, TaskSummary, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::actions::{Done, done};
use super::models::{Because, reason};
use crate::App;
use crate::access::{AsOperator, AsViewer, store_of};
use crate::problem::Problem;

/// Rows of a page, if not said otherwise.
const ROWS: u32 = 100;
/// The most of them.
const MOST_ROWS: u32 = 1_000;

/// A list of tasks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TaskListView {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is configured: what was begun for one that is not is gone on with by nobody.
    pub(crate) is_configured: bool,
    /// Whether it answered when it was asked last; absent before it was asked.
    pub(crate) is_up: Option<bool>,
    /// Since when that is so.
    pub(crate) since: Option<Timestamp>,
    /// What went wrong, if it does not answer.
    pub(crate) last_words: Option<String>,
    /// How many tasks are in which state.
    pub(crate) depths: BTreeMap<String, u64>,
    /// When the oldest that is not over was first seen.
    pub(crate) oldest_open: Option<Timestamp>,
}

/// Lists, and a page of tasks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TaskPage {
    /// Every list that is configured, or that tasks came from.
    pub(crate) lists: Vec<TaskListView>,
    /// The tasks, the newest first.
    pub(crate) items: Vec<TaskSummary>,
    /// Where the next page begins, for `before`; absent if this is the last.
    pub(crate) next: Option<i64>,
}

/// Which tasks.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TaskQuery {
    /// State by its name, such as `waiting`.
    pub(crate) status: Option<String>,
    /// Name of the task list.
    pub(crate) list: Option<String>,
    /// Study Instance UID of the input.
    pub(crate) study: Option<String>,
    /// Rows before this number.
    pub(crate) before: Option<i64>,
    /// Rows, 1 to 1,000; 100 if left out.
    pub(crate) limit: Option<u32>,
}

impl TaskQuery {
    fn filter(self) -> Result<TaskFilter, Problem> {
        let text = |value: Option<String>| value.filter(|text| !text.trim().is_empty());
        let status = text(self.status).map(|status| status.parse::<TaskStatus>()).transpose();
        let limit = self.limit.unwrap_or(ROWS);
        if !(1..=MOST_ROWS).contains(&limit) {
            return Err(Problem::bad(format!("limit {limit} is not from 1 to {MOST_ROWS}")));
        }
        Ok(TaskFilter {
            status: status.map_err(|error| Problem::bad(error.to_string()))?,
            list: text(self.list),
            study: text(self.study).as_deref().map(super::uid).transpose()?,
            before: self.before,
            limit,
        })
    }
}

impl TaskPage {
    pub(crate) async fn read(app: &App, query: TaskQuery) -> Result<Self, Problem> {
        let filter = query.filter()?;
        let items = app.facts.store.tasks_of(&filter).await?;
        let is_full = items.len() >= filter.limit as usize;
        let next = items.last().map(|task| task.id).filter(|_| is_full);
        Ok(Self { lists: lists(app).await?, items, next })
    }
}

async fn lists(app: &App) -> Result<Vec<TaskListView>, Problem> {
    let (states, depths) = (app.facts.store.task_lists().await?, app.facts.store.task_depths().await?);
    let configured = &app.facts.site().task_lists;
    let names: BTreeSet<&String> = (configured.iter())
        .chain(states.iter().map(|state| &state.name))
        .chain(depths.iter().map(|d| &d.list))
        .collect();
    let view = |name: &String| {
        let state = states.iter().find(|state| state.name == *name);
        let of_list = || depths.iter().filter(|depth| depth.list == *name);
        TaskListView {
            name: name.clone(),
            is_configured: configured.contains(name),
            is_up: state.map(|state| state.is_up),
            since: state.map(|state| state.since),
            last_words: state.and_then(|state| state.last_words.clone()),
            depths: of_list().map(|depth| (depth.status.to_string(), depth.count)).collect(),
            oldest_open: of_list().filter(|depth| depth.status.is_open()).map(|depth| depth.oldest).min(),
        }
    };
    Ok(names.into_iter().map(view).collect())
}

/// Tasks, the newest first, and the lists that they come from
#[utoipa::path(get, path = "/api/tasks", tag = "queues", params(TaskQuery),
    responses((status = 200, body = TaskPage),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn tasks(
    State(app): State<Arc<App>>,
    _: AsViewer,
    query: Result<Query<TaskQuery>, QueryRejection>,
) -> Result<Json<TaskPage>, Problem> {
    let Query(query) = query?;
    TaskPage::read(&app, query).await.map(Json)
}

/// Has a task tried again whose list did not take our word for good
#[utoipa::path(post, path = "/api/tasks/{id}/retry", tag = "actions", params(("id" = i64, Path)),
    responses((status = 200, body = Done), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is in another state, perhaps by somebody else's word", body = Problem,
         content_type = "application/problem+json")))]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(id): Path<i64>,
) -> Result<Json<Done>, Problem> {
    let store = store_of(&app, &caller, "tasks-retried", None, json!({ "task": id }));
    store.retry_tasks(Some(id), (app.facts.now)()).await.map_err(in_another_state)?;
    Ok(done("the task is tried again"))
}

/// Gives up a task that is not over, for good
///
/// Its list is told no more, where it may stand as IN PROGRESS: the answer has the Transaction UID by which whoever cares for
/// the list ends it. The study goes its way.
#[utoipa::path(post, path = "/api/tasks/{id}/give-up", tag = "actions", request_body = Because, params(("id" = i64, Path)),
    responses((status = 200, body = Done), (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is over, perhaps by somebody else's word", body = Problem,
         content_type = "application/problem+json")))]
pub(crate) async fn give_up(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(id): Path<i64>,
    because: Result<Json<Because>, JsonRejection>,
) -> Result<Json<Done>, Problem> {
    let why = reason(&because?.0.why)?;
    let store = store_of(&app, &caller, "task-given-up", None, json!({ "task": id, "why": why }));
    let task = store.give_up_task(id, &why, (app.facts.now)()).await.map_err(in_another_state)?;
    let (workitem, transaction) = (&task.new.workitem, &task.new.transaction);
    Ok(done(format!("workitem {workitem} is given up; where it is IN PROGRESS, Transaction UID {transaction} ends it")))
}

/// Of two operators at once the second is told that it is done.
fn in_another_state(error: StoreError) -> Problem {
    match error {
        StoreError::Filter { .. } => Problem::conflict(error.to_string()),
        other => other.into(),
    }
}
