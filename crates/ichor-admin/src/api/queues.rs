//! Queues: destinations and channels with what waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use ichor_core::{DeliveryStatus, MessageStatus};
use ichor_store::{
    DeliveryFilter, DeliverySummary, DestinationState, Figures, MessageSummary, Timestamp, WaitingAnalysis,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::destinations::DestinationView;
use crate::App;
use crate::access::AsViewer;
use crate::problem::Problem;

/// Rows of a list of deliveries or messages, if not said otherwise.
const ROWS: u32 = 200;
/// The most of them.
const MOST_ROWS: u32 = 1_000;

/// A queue.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct QueueView {
    /// Name of the destination or channel.
    pub(crate) name: String,
    /// Whether it is configured: what is queued for one that is not waits for ever.
    pub(crate) is_configured: bool,
    /// How many are in which state.
    pub(crate) depths: BTreeMap<String, u64>,
    /// Since when the oldest waits.
    pub(crate) oldest: Option<Timestamp>,
    /// What is known of a destination as a whole; absent of channels, and before the first attempt.
    pub(crate) state: Option<DestinationView>,
}

/// All queues.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Queues {
    /// Studies by state.
    pub(crate) studies: BTreeMap<String, u64>,
    /// Since when the oldest analysis waits.
    pub(crate) oldest_analysis: Option<Timestamp>,
    /// Destinations.
    pub(crate) destinations: Vec<QueueView>,
    /// Channels.
    pub(crate) channels: Vec<QueueView>,
}

impl Queues {
    pub(crate) async fn read(app: &App) -> Result<Self, Problem> {
        // Nothing recent is asked for: the depths alone.
        let now = (app.facts.now)();
        let figures = app.facts.store.figures(now).await?;
        let states = app.facts.store.destinations(now).await?;
        let site = app.facts.site();
        let Figures { studies, oldest_analysis, deliveries, oldest_deliveries, messages, oldest_messages, .. } =
            figures;
        let deliveries =
            deliveries.into_iter().map(|row| (row.destination, row.status.to_string(), row.count)).collect();
        let messages = messages.into_iter().map(|row| (row.channel, row.status.to_string(), row.count)).collect();
        Ok(Self {
            studies: studies.into_iter().map(|(status, count)| (status.to_string(), count)).collect(),
            oldest_analysis,
            destinations: queues(&site.destinations, deliveries, &oldest_deliveries, &states),
            channels: queues(&site.channels, messages, &oldest_messages, &[]),
        })
    }
}

fn queues(
    configured: &[String],
    rows: Vec<(String, String, u64)>,
    oldest: &[(String, Timestamp)],
    states: &[DestinationState],
) -> Vec<QueueView> {
    let names: BTreeSet<&String> = configured.iter().chain(rows.iter().map(|(name, _, _)| name)).collect();
    let view = |name: &String| QueueView {
        name: name.clone(),
        is_configured: configured.contains(name),
        depths: rows.iter().filter(|row| row.0 == *name).map(|row| (row.1.clone(), row.2)).collect(),
        oldest: oldest.iter().find(|(found, _)| found == name).map(|(_, since)| *since),
        state: states.iter().find(|state| state.name == *name).map(DestinationView::from),
    };
    names.into_iter().map(view).collect()
}

/// Queues, destinations and channels with their states and depths
#[utoipa::path(get, path = "/api/queues", tag = "queues", responses((status = 200, body = Queues)))]
pub(crate) async fn overview(State(app): State<Arc<App>>, _: AsViewer) -> Result<Json<Queues>, Problem> {
    Queues::read(&app).await.map(Json)
}

/// Analyses that wait or are under way, in the order in which they are taken
///
/// Urgent ones first, by rule or by an alert, with those that have waited longer than `analysis.longest_overtaken_s`; then
/// the oldest.
#[utoipa::path(get, path = "/api/analyses", tag = "queues", responses((status = 200, body = Vec<WaitingAnalysis>)))]
pub(crate) async fn analyses(State(app): State<Arc<App>>, _: AsViewer) -> Result<Json<Vec<WaitingAnalysis>>, Problem> {
    waiting(&app, MOST_ROWS).await.map(Json)
}

/// The queue of analyses, at most so many.
pub(crate) async fn waiting(app: &App, most: u32) -> Result<Vec<WaitingAnalysis>, Problem> {
    let now = (app.facts.now)();
    let wait = i64::try_from(app.facts.site().longest_overtaken.as_millis()).unwrap_or(i64::MAX);
    let overdue = Timestamp::from_millis(now.as_millis().saturating_sub(wait));
    Ok(app.facts.store.analysis_queue(overdue, most, now).await?)
}

/// Which deliveries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DeliveryQuery {
    /// State by its name, such as `dead`.
    status: Option<String>,
    /// Name of the destination.
    destination: Option<String>,
    /// Study Instance UID.
    study: Option<String>,
    /// Whether received instances that are forwarded are meant, or result objects; both if left out.
    forwarded: Option<bool>,
    /// Numbers below this one: a list goes on where it ended.
    before: Option<i64>,
    /// Rows; 200 if left out, 1,000 at most.
    limit: Option<u32>,
}

/// Deliveries, the newest first
#[utoipa::path(get, path = "/api/deliveries", tag = "queues", params(DeliveryQuery),
    responses((status = 200, body = Vec<DeliverySummary>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn deliveries(
    State(app): State<Arc<App>>,
    _: AsViewer,
    query: Result<Query<DeliveryQuery>, QueryRejection>,
) -> Result<Json<Vec<DeliverySummary>>, Problem> {
    let Query(query) = query?;
    let status = query.status.map(|status| status.parse::<DeliveryStatus>()).transpose();
    let filter = DeliveryFilter {
        status: status.map_err(|error| Problem::bad(error.to_string()))?,
        destination: query.destination,
        study: query.study.as_deref().map(super::uid).transpose()?,
        forwarded: query.forwarded,
        before: query.before,
        limit: rows(query.limit)?,
    };
    Ok(Json(app.facts.store.deliveries(&filter).await?))
}

fn rows(limit: Option<u32>) -> Result<u32, Problem> {
    let limit = limit.unwrap_or(ROWS);
    if (1..=MOST_ROWS).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::bad(format!("limit {limit} is not from 1 to {MOST_ROWS}")))
}

/// Which messages.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MessageQuery {
    /// State by its name, such as `dead`.
    status: Option<String>,
    /// Study Instance UID.
    study: Option<String>,
    /// Rows; 200 if left out, 1,000 at most.
    limit: Option<u32>,
}

/// Messages to channels, the newest first
#[utoipa::path(get, path = "/api/messages", tag = "queues", params(MessageQuery),
    responses((status = 200, body = Vec<MessageSummary>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn messages(
    State(app): State<Arc<App>>,
    _: AsViewer,
    query: Result<Query<MessageQuery>, QueryRejection>,
) -> Result<Json<Vec<MessageSummary>>, Problem> {
    let Query(query) = query?;
    let status = query.status.map(|status| status.parse::<MessageStatus>()).transpose();
    let status = status.map_err(|error| Problem::bad(error.to_string()))?;
    let study = query.study.as_deref().map(super::uid).transpose()?;
    Ok(Json(app.facts.store.messages(status, study.as_ref(), rows(query.limit)?).await?))
}
