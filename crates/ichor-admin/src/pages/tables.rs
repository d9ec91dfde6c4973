//! The pages that are tables: queues, statistics, health, users, one's account, the audit trail.

use std::collections::BTreeSet;
use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use ichor_core::{DeliveryStatus, MessageStatus};
use ichor_store::{DeliveryFilter, Statistics, TokenSummary, Turnaround, User, WaitingAnalysis};
use serde::Deserialize;
use serde_json::Value;

use super::destinations::{StateRow, has_something_dead, retry_path, troubled};
use super::{Frame, Moment, rendered};
use crate::App;
use crate::access::{PageAdmin, PageViewer};
use crate::api::people::AuditQuery;
use crate::api::queues::{QueueView, Queues, waiting};
use crate::api::site::{StatisticsQuery, last_days};
use crate::health::{Readiness, check};
use crate::problem::Problem;
use crate::words;

/// Rows of the lists of what is dead, or waits.
const ROWS: u32 = 100;
/// Analyses on the page of queues.
const ANALYSES: u32 = 50;

/// A queue as a row: a depth under each state.
struct QueueRow {
    name: String,
    is_configured: bool,
    depths: Vec<String>,
    oldest: String,
    state: Option<StateRow>,
    /// Where what was given up is queued again; empty if nothing was.
    retry: String,
}

struct Waiting {
    id: i64,
    to: String,
    what: String,
    study: String,
    status: String,
    attempts: u32,
    since: Moment,
    next: Option<Moment>,
    words: String,
    is_dead: bool,
}

/// A study that waits for its analysis, or is analysed.
struct Analysis {
    study: String,
    state: &'static str,
    since: Moment,
    why: String,
}

async fn analyses(app: &App) -> Result<Vec<Analysis>, Problem> {
    let row = |analysis: WaitingAnalysis| {
        let by_rule = analysis.urgent_by.map(|rule| format!("urgent by rule {rule}"));
        let why = by_rule.into_iter().chain(analysis.alerted_at.map(|_| "alerted".to_owned())).collect::<Vec<_>>();
        Analysis {
            study: analysis.study_instance.to_string(),
            state: if analysis.is_running { "analysing" } else { "queued" },
            since: Moment::of(analysis.queued_at),
            why: why.join(", "),
        }
    };
    Ok(waiting(app, ANALYSES).await?.into_iter().map(row).collect())
}

#[derive(Template)]
#[template(path = "queues.html")]
struct QueuesPage {
    frame: Frame,
    studies: Vec<(String, u64)>,
    oldest_analysis: String,
    analyses: Vec<Analysis>,
    delivery_states: Vec<String>,
    destinations: Vec<QueueRow>,
    message_states: Vec<String>,
    channels: Vec<QueueRow>,
    deliveries: Vec<Waiting>,
    /// The last number of a list of dead deliveries that goes on.
    older: Option<i64>,
    messages: Vec<Waiting>,
}

fn rows(app: &App, queues: &[QueueView]) -> (Vec<String>, Vec<QueueRow>) {
    let states: BTreeSet<&String> = queues.iter().flat_map(|queue| queue.depths.keys()).collect();
    let now = (app.facts.now)();
    let row = |queue: &QueueView| QueueRow {
        name: queue.name.clone(),
        is_configured: queue.is_configured,
        depths: states.iter().map(|state| queue.depths.get(*state).map_or_else(String::new, u64::to_string)).collect(),
        oldest: queue.oldest.map_or_else(String::new, |since| {
            words::span(i64::try_from(now.since(since).as_millis()).unwrap_or(i64::MAX))
        }),
        state: queue.state.as_ref().map(StateRow::of),
        retry: if has_something_dead(queue) { retry_path(&queue.name) } else { String::new() },
    };
    let rows = queues.iter().map(row).collect();
    (states.into_iter().cloned().collect(), rows)
}

/// What is dead or waits, and from where on there is more that is dead.
async fn waiting_deliveries(app: &App, before: Option<i64>) -> Result<(Vec<Waiting>, Option<i64>), Problem> {
    let (mut all, mut older) = (Vec::new(), None);
    for status in [DeliveryStatus::Dead, DeliveryStatus::Queued] {
        let is_dead = status == DeliveryStatus::Dead;
        let before = before.filter(|_| is_dead);
        let filter = DeliveryFilter { status: Some(status), before, limit: ROWS, ..DeliveryFilter::default() };
        let found = app.facts.store.deliveries(&filter).await?;
        if is_dead && found.len() >= ROWS as usize {
            older = found.last().map(|delivery| delivery.id);
        }
        all.extend(found.into_iter().map(|delivery| Waiting {
            id: delivery.id,
            to: delivery.destination,
            what: delivery.kind,
            study: delivery.study_instance.to_string(),
            is_dead: delivery.status == DeliveryStatus::Dead,
            status: delivery.status.to_string(),
            attempts: delivery.attempts,
            since: Moment::of(delivery.queued_at),
            next: delivery.next_attempt.map(Moment::of),
            words: delivery.last_words.unwrap_or_default(),
        }));
    }
    Ok((all, older))
}

async fn waiting_messages(app: &App) -> Result<Vec<Waiting>, Problem> {
    let mut all = Vec::new();
    for status in [MessageStatus::Dead, MessageStatus::Queued] {
        all.extend(app.facts.store.messages(Some(status), None, ROWS).await?.into_iter().map(|message| Waiting {
            id: message.id,
            to: message.channel,
            what: message.subject.to_string(),
            study: message.study_instance.to_string(),
            status: message.status.to_string(),
            attempts: message.attempts,
            since: Moment::of(message.queued_at),
            next: message.next_attempt.map(Moment::of),
            words: message.last_words.unwrap_or_default(),
            is_dead: status == MessageStatus::Dead,
        }));
    }
    Ok(all)
}

/// Which part of a list that is longer than a page.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QueuesQuery {
    /// Dead deliveries of numbers below this one.
    dead_before: Option<i64>,
}

pub(crate) async fn queues(
    State(app): State<Arc<App>>,
    PageViewer(caller): PageViewer,
    query: Result<Query<QueuesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let queues = Queues::read(&app).await?;
    let (deliveries, older) = waiting_deliveries(&app, query.dead_before).await?;
    let now = (app.facts.now)();
    let (delivery_states, destinations) = rows(&app, &queues.destinations);
    let (message_states, channels) = rows(&app, &queues.channels);
    let page = QueuesPage {
        frame: Frame::of(&app, &caller, "queues"),
        studies: queues.studies.into_iter().collect(),
        oldest_analysis: queues.oldest_analysis.map_or_else(String::new, |since| {
            words::span(i64::try_from(now.since(since).as_millis()).unwrap_or(i64::MAX))
        }),
        analyses: analyses(&app).await?,
        delivery_states,
        destinations,
        message_states,
        channels,
        deliveries,
        older,
        messages: waiting_messages(&app).await?,
    };
    Ok(rendered(StatusCode::OK, &page))
}

/// A group of studies as a row.
struct Group {
    name: String,
    studies: u64,
    positive: u64,
    not_analysed: u64,
    failed: u64,
    /// Width of the bar, of 96.
    bar: String,
    positive_bar: String,
    p50: String,
    p90: String,
    p99: String,
}

#[derive(Template)]
#[template(path = "statistics.html")]
struct StatisticsPage {
    frame: Frame,
    spans: Vec<(u32, bool)>,
    zone: String,
    whole: Group,
    alerted: u64,
    days: Vec<Group>,
    sources: Vec<Group>,
    reasons: Vec<(String, u64)>,
}

fn group(name: String, counts: [u64; 4], turnaround: &Turnaround, most: u64) -> Group {
    let [studies, positive, not_analysed, failed] = counts;
    let bar = |count: u64| format!("{:.1}", count as f64 / most.max(1) as f64 * 96.0);
    let span = |ms: Option<i64>| ms.map_or_else(String::new, words::span);
    Group {
        name,
        studies,
        positive,
        not_analysed,
        failed,
        bar: bar(studies),
        positive_bar: bar(positive),
        p50: span(turnaround.p50_ms),
        p90: span(turnaround.p90_ms),
        p99: span(turnaround.p99_ms),
    }
}

fn statistics_page(frame: Frame, days: u32, all: Statistics) -> StatisticsPage {
    let most_of_day = all.days.iter().map(|day| day.studies).max().unwrap_or(0);
    let most_of_source = all.sources.iter().map(|source| source.studies).max().unwrap_or(0);
    let not_analysed = all.days.iter().map(|day| day.not_analysed).sum();
    let failed = all.days.iter().map(|day| day.failed).sum();
    let whole = [all.studies, all.positive, not_analysed, failed];
    StatisticsPage {
        frame,
        spans: [1, 7, 30, 90, 365].into_iter().map(|span| (span, span == days)).collect(),
        zone: all.time_zone,
        whole: group("All".to_owned(), whole, &all.turnaround, all.studies),
        alerted: all.alerted,
        days: (all.days.into_iter().rev())
            .map(|day| {
                let counts = [day.studies, day.positive, day.not_analysed, day.failed];
                group(day.day, counts, &day.turnaround, most_of_day)
            })
            .collect(),
        sources: (all.sources.into_iter())
            .map(|source| {
                let counts = [source.studies, source.positive, source.not_analysed, source.failed];
                let name = source.source_ae.unwrap_or_else(|| "(unnamed)".to_owned());
                group(name, counts, &source.turnaround, most_of_source)
            })
            .collect(),
        reasons: all.reasons.into_iter().map(|reason| (reason.code, reason.studies)).collect(),
    }
}

pub(crate) async fn statistics(
    State(app): State<Arc<App>>,
    PageViewer(caller): PageViewer,
    query: Result<Query<StatisticsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let all = last_days(&app, query.days).await?;
    let page = statistics_page(Frame::of(&app, &caller, "statistics"), query.days.unwrap_or(30), all);
    Ok(rendered(StatusCode::OK, &page))
}

#[derive(Template)]
#[template(path = "health.html")]
struct HealthPage {
    frame: Frame,
    readiness: Readiness,
    /// Destinations that are not as they should be, and why.
    troubled: Vec<(String, StateRow)>,
    events: Vec<(Moment, String, String)>,
}

pub(crate) async fn health(State(app): State<Arc<App>>, PageViewer(caller): PageViewer) -> Result<Response, Problem> {
    let events = app.facts.store.recent_events(60).await?;
    let page = HealthPage {
        frame: Frame::of(&app, &caller, "health"),
        readiness: check(&app.facts).await,
        troubled: troubled(&app).await?,
        events: events.into_iter().map(|event| (Moment::of(event.at), event.kind, event.text)).collect(),
    };
    Ok(rendered(StatusCode::OK, &page))
}

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    frame: Frame,
    users: Vec<User>,
}

pub(crate) async fn users(State(app): State<Arc<App>>, PageAdmin(caller): PageAdmin) -> Result<Response, Problem> {
    let users = app.facts.store.users().await?;
    Ok(rendered(StatusCode::OK, &UsersPage { frame: Frame::of(&app, &caller, "users"), users }))
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    frame: Frame,
    tokens: Vec<(TokenSummary, Moment, Option<Moment>)>,
}

pub(crate) async fn account(State(app): State<Arc<App>>, PageViewer(caller): PageViewer) -> Result<Response, Problem> {
    let tokens = app.facts.store.tokens(Some(caller.admitted.user)).await?;
    let row = |token: TokenSummary| {
        let (made, ends) = (Moment::of(token.created_at), token.expires_at.map(Moment::of));
        (token, made, ends)
    };
    let tokens = tokens.into_iter().filter(|token| token.revoked_at.is_none()).map(row).collect();
    Ok(rendered(StatusCode::OK, &AccountPage { frame: Frame::of(&app, &caller, "account"), tokens }))
}

struct Audited {
    at: Moment,
    actor: String,
    role: String,
    address: String,
    action: String,
    study: String,
    detail: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    actor: String,
    study: String,
    rows: Vec<Audited>,
    older: Option<i64>,
}

pub(crate) async fn audited(
    State(app): State<Arc<App>>,
    PageAdmin(caller): PageAdmin,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let (actor, study) = (query.actor.clone().unwrap_or_default(), query.study.clone().unwrap_or_default());
    let filter = query.filter()?;
    let entries = app.facts.store.audited(&filter).await?;
    let is_full = entries.len() >= filter.limit as usize;
    let older = entries.last().map(|entry| entry.id).filter(|_| is_full);
    let row = |entry: ichor_store::AuditEntry| Audited {
        at: Moment::of(entry.at),
        actor: entry.actor,
        role: entry.role.unwrap_or_default(),
        address: entry.address,
        action: entry.action,
        study: entry.study_instance.map_or_else(String::new, |study| study.to_string()),
        detail: match entry.detail {
            Value::Null => String::new(),
            Value::Object(fields) if fields.is_empty() => String::new(),
            other => other.to_string(),
        },
    };
    let rows = entries.into_iter().map(row).collect();
    let page = AuditPage { frame: Frame::of(&app, &caller, "audit"), actor, study, rows, older };
    Ok(rendered(StatusCode::OK, &page))
}
