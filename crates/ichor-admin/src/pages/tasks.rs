//! The page of tasks: lists of other systems, and what was made of their workitems.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use ichor_core::TaskStatus;
use ichor_store::TaskSummary;

use super::{Frame, Moment, rendered};
use crate::App;
use crate::access::PageViewer;
use crate::api::tasks::{TaskListView, TaskPage, TaskQuery};
use crate::problem::Problem;
use crate::words;

struct List {
    name: String,
    is_configured: bool,
    /// `calm`, `dead` or nothing.
    style: &'static str,
    state: &'static str,
    since: Option<Moment>,
    words: String,
    depths: Vec<String>,
    oldest: String,
}

struct Task {
    id: i64,
    /// Its list does not take our word: somebody has to decide.
    is_refused: bool,
    workitem: String,
    study: String,
    is_here: bool,
    list: String,
    status: TaskStatus,
    is_urgent: bool,
    failures: u32,
    seen: Moment,
    ended: Option<Moment>,
    words: String,
}

#[derive(Template)]
#[template(path = "tasks.html")]
struct Page {
    frame: Frame,
    states: Vec<String>,
    lists: Vec<List>,
    /// Each state, and whether it is the one that is asked for.
    choices: Vec<(TaskStatus, bool)>,
    /// Each list, and whether it is the one that is asked for.
    names: Vec<(String, bool)>,
    study: String,
    status: String,
    list: String,
    tasks: Vec<Task>,
    older: Option<i64>,
}

pub(crate) async fn page(
    State(app): State<Arc<App>>,
    PageViewer(caller): PageViewer,
    query: Result<Query<TaskQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let asked = query.clone();
    let found = TaskPage::read(&app, query).await?;
    let depths = |view: &TaskListView| view.depths.keys().cloned().collect::<Vec<_>>();
    let mut states: Vec<String> = found.lists.iter().flat_map(depths).collect();
    // In the order in which a task goes through them.
    states.sort_by_key(|state| TaskStatus::ALL.iter().position(|known| known.as_str() == state));
    states.dedup();
    let now = (app.facts.now)();
    let page = Page {
        frame: Frame::of(&app, &caller, "tasks"),
        lists: found.lists.iter().map(|view| list(view, &states, now)).collect(),
        states,
        choices: TaskStatus::ALL
            .iter()
            .map(|state| (*state, asked.status.as_deref() == Some(state.as_str())))
            .collect(),
        names: (found.lists.iter())
            .map(|view| (view.name.clone(), asked.list.as_deref() == Some(view.name.as_str())))
            .collect(),
        study: asked.study.unwrap_or_default(),
        status: asked.status.unwrap_or_default(),
        list: asked.list.unwrap_or_default(),
        tasks: found.items.into_iter().map(task).collect(),
        older: found.next,
    };
    Ok(rendered(StatusCode::OK, &page))
}

fn list(view: &TaskListView, states: &[String], now: ichor_store::Timestamp) -> List {
    let (style, state) = match view.is_up {
        Some(true) => ("calm", "answers"),
        Some(false) => ("dead", "does not answer"),
        None => ("", "not asked yet"),
    };
    List {
        name: view.name.clone(),
        is_configured: view.is_configured,
        style,
        state,
        since: view.since.map(Moment::of),
        words: view.last_words.clone().unwrap_or_default(),
        depths: states.iter().map(|state| view.depths.get(state).map_or_else(String::new, u64::to_string)).collect(),
        oldest: view.oldest_open.map_or_else(String::new, |since| {
            words::span(i64::try_from(now.since(since).as_millis()).unwrap_or(i64::MAX))
        }),
    }
}

fn task(task: TaskSummary) -> Task {
    Task {
        id: task.id,
        is_refused: task.status == TaskStatus::Refused,
        workitem: task.workitem.to_string(),
        study: task.study_instance.to_string(),
        is_here: task.study_is_here,
        list: task.list,
        status: task.status,
        is_urgent: task.urgent,
        failures: task.failures,
        seen: Moment::of(task.seen_at),
        ended: task.ended_at.map(Moment::of),
        words: task.last_words.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_under_way_looks_so() {
        let css = include_str!("../../assets/ichor.css");
        for status in TaskStatus::ALL {
            // A name that ends here, so that one is not taken for the beginning of another.
            let has_colour = [",", " {"].iter().any(|end| css.contains(&format!(".s-{}{end}", status.as_str())));
            assert_eq!(has_colour, !status.is_open(), "{}", status.as_str());
        }
    }
}
