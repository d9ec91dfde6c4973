//! Destinations as a whole: who is away since when and why, what is not taken where, and what was given up, sent again.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use ichor_core::Uid;
use ichor_store::{DestinationState, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::actions::{Done, done};
use crate::App;
use crate::access::{AsOperator, store_telling};
use crate::problem::Problem;

/// What is known of a destination that something was sent to.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DestinationView {
    /// Whether somebody was there at the last attempt.
    pub(crate) is_up: bool,
    /// Since when that is so.
    pub(crate) since: Timestamp,
    /// Attempts in a row that found nobody.
    pub(crate) failures: u32,
    /// While it is down: when somebody looks again.
    pub(crate) next_probe: Option<Timestamp>,
    /// Why it is down.
    pub(crate) last_words: Option<String>,
    /// What it does not accept.
    pub(crate) refused: Vec<RefusedContext>,
}

/// A SOP class in a transfer syntax that a destination does not accept.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RefusedContext {
    /// SOP Class UID.
    pub(crate) sop_class: Uid,
    /// Transfer Syntax UID.
    pub(crate) transfer_syntax: Uid,
    /// When it is proposed again.
    pub(crate) until: Timestamp,
}

impl From<&DestinationState> for DestinationView {
    fn from(state: &DestinationState) -> Self {
        let refused = state.refused.iter().map(|(context, until)| RefusedContext {
            sop_class: context.sop_class.clone(),
            transfer_syntax: context.transfer_syntax.clone(),
            until: *until,
        });
        Self {
            is_up: state.is_up,
            since: state.since,
            failures: state.failures,
            next_probe: state.next_probe,
            last_words: state.last_words.clone(),
            refused: refused.collect(),
        }
    }
}

/// Whose deliveries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryQuery {
    /// Study Instance UID; all studies if left out.
    study: Option<String>,
}

/// Queues again what was given up for a destination, of all studies or of one
///
/// What it did not accept is proposed again at once.
#[utoipa::path(post, path = "/api/destinations/{name}/retry", tag = "actions",
    params(("name" = String, Path, description = "Name of the destination"), RetryQuery),
    responses((status = 200, body = Done), (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nothing was ever queued for such a destination, nor is it configured", body = Problem,
         content_type = "application/problem+json")))]
pub(crate) async fn retry_destination(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(name): Path<String>,
    query: Result<Query<RetryQuery>, QueryRejection>,
) -> Result<Json<Done>, Problem> {
    let Query(query) = query?;
    let study = query.study.as_deref().map(super::uid).transpose()?;
    let is_configured = app.facts.site().destinations.contains(&name);
    let depths = app.facts.store.queue_depths().await?;
    if !is_configured && !depths.iter().any(|depth| depth.destination == name) {
        return Err(Problem::not_found(format!("there is no destination {name:?}")));
    }
    let detail = json!({ "destination": name });
    let store = store_telling(&app, &caller, ("deliveries-retried", "what"), study.as_ref(), detail);
    Ok(match store.retry_destination(&name, study.as_ref(), (app.facts.now)()).await? {
        0 => done(format!("nothing for {name} is given up; what it did not accept is proposed again")),
        1 => done(format!("one delivery to {name} is queued again")),
        queued => done(format!("{queued} deliveries to {name} are queued again")),
    })
}
