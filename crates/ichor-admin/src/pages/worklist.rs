//! The worklist: the most urgent first, live.

use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use ichor_core::StudyStatus;
use ichor_store::{StudyOrder, StudySummary};

use super::{Frame, Moment, rendered};
use crate::App;
use crate::access::{Caller, PageViewer, audit};
use crate::api::site::last_days;
use crate::api::studies::StudyQuery;
use crate::problem::Problem;
use crate::seen::View;
use crate::words;

/// Days that are listed, if not said otherwise.
const DAYS: &str = "3";

/// One row.
struct Row {
    href: String,
    uid: String,
    urgency: u8,
    verdict: &'static str,
    name: String,
    patient_id: String,
    date: String,
    description: String,
    accession: String,
    source: String,
    status: String,
    reason: String,
    probability: String,
    /// Width of the bar, of 48.
    bar: String,
    volume: String,
    received: Moment,
    turnaround: String,
}

/// The day in numbers.
struct Today {
    studies: u64,
    positive: u64,
    not_analysed: u64,
    failed: u64,
    median: String,
}

struct Choice {
    value: &'static str,
    label: &'static str,
    is_chosen: bool,
}

#[derive(Template)]
#[template(path = "worklist_rows.html")]
struct Rows {
    rows: Vec<Row>,
    today: Today,
    problem: String,
    note: String,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "worklist.html")]
struct Page {
    frame: Frame,
    query: StudyQuery,
    days: Vec<Choice>,
    statuses: Vec<Choice>,
    verdicts: Vec<Choice>,
    sorts: Vec<Choice>,
    marks: Vec<Choice>,
    has_more: bool,
    list: String,
}

/// The search: of the last days and by priority, if not said otherwise.
fn asked(query: Result<Query<StudyQuery>, QueryRejection>) -> Result<StudyQuery, Problem> {
    let Query(mut query) = query?;
    query.sort.get_or_insert_with(|| "priority".to_owned());
    query.days.get_or_insert_with(|| DAYS.to_owned());
    Ok(query)
}

fn row(study: StudySummary) -> Row {
    let verdict = match (study.positive, study.alerted_at, study.status) {
        (Some(true), _, _) => "positive",
        (None, Some(_), _) => "alert",
        (_, _, StudyStatus::Failed) => "failed",
        (_, _, StudyStatus::NotAnalysed) => "not analysed",
        (_, _, StudyStatus::Receiving | StudyStatus::Queued | StudyStatus::Analysing) => "",
        (Some(false), _, _) => "negative",
        (None, None, StudyStatus::Analysed) => "",
    };
    let spread = study.volume_sd_ml.map_or_else(String::new, |sd| format!(" ± {sd:.1}"));
    let turnaround = study.analysed_at.map(|at| at.as_millis() - study.last_instance_at.as_millis());
    Row {
        href: format!("/studies/{}", study.study_instance),
        uid: study.study_instance.to_string(),
        urgency: study.urgency,
        verdict,
        name: study.patient_name.as_deref().map(words::name).unwrap_or_default(),
        patient_id: study.patient_id.unwrap_or_default(),
        date: study.study_date.as_deref().map(words::day).unwrap_or_default(),
        description: study.description.unwrap_or_default(),
        accession: study.accession_number.unwrap_or_default(),
        source: study.source_ae.unwrap_or_default(),
        status: study.status.to_string(),
        reason: study.reason.map(|reason| reason.text).unwrap_or_default(),
        probability: study.probability.map_or_else(String::new, |p| format!("{:.0} %", p * 100.0)),
        bar: study.probability.map_or_else(String::new, |p| format!("{:.1}", p * 48.0)),
        volume: study.volume_ml.filter(|ml| *ml > 0.0).map_or_else(String::new, |ml| format!("{ml:.1}{spread} mL")),
        received: Moment::of(study.last_instance_at),
        turnaround: turnaround.filter(|ms| *ms >= 0).map(words::span).unwrap_or_default(),
    }
}

async fn list(app: &App, query: &StudyQuery) -> Result<Rows, Problem> {
    let day = last_days(app, Some(1)).await?;
    let today = Today {
        studies: day.studies,
        positive: day.positive,
        not_analysed: day.sources.iter().map(|source| source.not_analysed).sum(),
        failed: day.sources.iter().map(|source| source.failed).sum(),
        median: day.turnaround.p50_ms.map_or_else(String::new, words::span),
    };
    let empty = |problem| Rows { rows: Vec::new(), today, problem, note: String::new(), next: None };
    let mut asked = match query.filter((app.facts.now)(), &app.facts.site().zone) {
        Ok(filter) => filter,
        Err(problem) => return Ok(empty(problem.detail)),
    };
    let mut found = app.facts.store.studies(&asked).await;
    let mut note = String::new();
    if let (Err(ichor_store::StoreError::Filter { .. }), Some(_), StudyOrder::Priority) =
        (&found, &asked.patient_name, asked.order)
    {
        asked.order = StudyOrder::Time;
        found = app.facts.store.studies(&asked).await;
        "Many have such a name: newest first.".clone_into(&mut note);
    }
    match found {
        Ok(page) => {
            let rows = page.items.into_iter().map(row).collect();
            Ok(Rows { rows, note, next: page.next.map(|next| next.to_string()), ..empty(String::new()) })
        }
        Err(error @ (ichor_store::StoreError::Filter { .. } | ichor_store::StoreError::PageToken { .. })) => {
            Ok(empty(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

fn choices(chosen: Option<&str>, all: &[(&'static str, &'static str)]) -> Vec<Choice> {
    let chosen = chosen.unwrap_or_default();
    all.iter().map(|(value, label)| Choice { value, label, is_chosen: *value == chosen }).collect()
}

/// The page.
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    PageViewer(caller): PageViewer,
    query: Result<Query<StudyQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = asked(query)?;
    let list = list(&app, &query).await?;
    write_down(&app, &caller, &query).await?;
    let has_more = [
        &query.patient_id,
        &query.accession,
        &query.source,
        &query.date_from,
        &query.date_to,
        &query.reason,
        &query.mark,
    ]
    .into_iter()
    .any(|value| value.as_ref().is_some_and(|value| !value.is_empty()));
    let page = Page {
        frame: Frame::of(&app, &caller, "worklist"),
        days: choices(
            query.days.as_deref(),
            &[("1", "1 day"), ("3", "3 days"), ("7", "7 days"), ("30", "30 days"), ("all", "all")],
        ),
        statuses: choices(
            query.status.as_deref(),
            &[
                ("", "any state"),
                ("receiving", "receiving"),
                ("queued", "queued"),
                ("analysing", "analysing"),
                ("analysed", "analysed"),
                ("not-analysed", "not analysed"),
                ("failed", "failed"),
            ],
        ),
        verdicts: choices(
            query.verdict.as_deref(),
            &[("", "any verdict"), ("positive", "positive"), ("negative", "negative")],
        ),
        sorts: choices(query.sort.as_deref(), &[("priority", "by priority"), ("time", "newest first")]),
        marks: choices(
            query.mark.as_deref(),
            &[("", "any"), ("alerted", "alerted"), ("on-hold", "on hold"), ("given-up", "something given up")],
        ),
        has_more,
        query,
        list: list.render().map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?,
    };
    Ok(rendered(StatusCode::OK, &page))
}

/// Writes that the list is shown.
async fn write_down(app: &App, caller: &Caller, query: &StudyQuery) -> Result<(), Problem> {
    let asked = query.asked();
    let view = View::list(&asked);
    audit(app, caller, "worklist-viewed", None, asked).await?;
    app.seen.written(caller.admitted.user, view, Instant::now());
    Ok(())
}

/// The list alone, for a page that is open. Its question stands in the audit trail since the page was opened, and once an
/// hour; one that was not asked by the page is written down like any.
pub(crate) async fn rows(
    State(app): State<Arc<App>>,
    PageViewer(caller): PageViewer,
    query: Result<Query<StudyQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = asked(query)?;
    let list = list(&app, &query).await?;
    if app.seen.is_new(caller.admitted.user, &View::list(&query.asked()), Instant::now()) {
        write_down(&app, &caller, &query).await?;
    }
    Ok(rendered(StatusCode::OK, &list))
}
