//! What an operator may have done: again, or now. Of two at once one wins, and the other is told so.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use ichor_store::{ReleaseOutcome, RetryOutcome, StoreError};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::uid;
use crate::App;
use crate::access::{AsOperator, store_of, store_telling};
use crate::problem::Problem;

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    /// In words.
    pub(crate) done: String,
}

pub(super) fn done(words: impl Into<String>) -> Json<Done> {
    Json(Done { done: words.into() })
}

/// Has a study analysed again, and its dead deliveries sent again
#[utoipa::path(post, path = "/api/studies/{study}/retry", tag = "actions",
    params(("study" = String, Path, description = "Study Instance UID")),
    responses((status = 200, body = Done), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is under way already, perhaps by somebody else's word, or its files are no longer kept", body = Problem,
         content_type = "application/problem+json")))]
pub(crate) async fn retry_study(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(study): Path<String>,
) -> Result<Json<Done>, Problem> {
    let study = uid(&study)?;
    let store = store_telling(&app, &caller, ("study-retried", "what"), Some(&study), json!({}));
    let outcome = store.retry(&study, (app.facts.now)()).await?;
    match outcome {
        RetryOutcome::Queued { .. } => Ok(done(outcome.to_string())),
        RetryOutcome::UnderWay { deliveries, .. } if deliveries > 0 => Ok(done(outcome.to_string())),
        RetryOutcome::UnderWay { .. } | RetryOutcome::NothingToAnalyse | RetryOutcome::PixelsRemoved { .. } => {
            Err(Problem::conflict(outcome.to_string()))
        }
    }
}

/// Has a study's analysis, which waits for its next attempt, tried now
#[utoipa::path(post, path = "/api/studies/{study}/release", tag = "actions",
    params(("study" = String, Path, description = "Study Instance UID")),
    responses((status = 200, body = Done), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn release_study(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(study): Path<String>,
) -> Result<Json<Done>, Problem> {
    let study = uid(&study)?;
    let store = store_telling(&app, &caller, ("analysis-released", "what"), Some(&study), json!({}));
    let outcome = store.release_analysis(&study, (app.facts.now)()).await?;
    told(outcome, "the analysis is due now", "the study is")
}

/// Queues a dead delivery again
#[utoipa::path(post, path = "/api/deliveries/{id}/retry", tag = "actions", params(("id" = i64, Path)),
    responses((status = 200, body = Done), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn retry_delivery(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(id): Path<i64>,
) -> Result<Json<Done>, Problem> {
    let store = store_telling(&app, &caller, ("delivery-retried", "what"), None, json!({ "delivery": id }));
    let outcome = store.retry_delivery(id, (app.facts.now)()).await?;
    told(outcome, "the delivery is queued again", "only a dead delivery is queued again; this one is")
}

/// Has a delivery that waits for its next attempt tried now
#[utoipa::path(post, path = "/api/deliveries/{id}/release", tag = "actions", params(("id" = i64, Path)),
    responses((status = 200, body = Done), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn release_delivery(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(id): Path<i64>,
) -> Result<Json<Done>, Problem> {
    let store = store_telling(&app, &caller, ("delivery-released", "what"), None, json!({ "delivery": id }));
    let outcome = store.release_delivery(id, (app.facts.now)()).await?;
    told(outcome, "the delivery is due now", "the delivery is")
}

/// Queues a dead message again
#[utoipa::path(post, path = "/api/messages/{id}/retry", tag = "actions", params(("id" = i64, Path)),
    responses((status = 200, body = Done),
        (status = 409, description = "There is no such dead message, perhaps by somebody else's word", body = Problem,
         content_type = "application/problem+json")))]
pub(crate) async fn retry_message(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(id): Path<i64>,
) -> Result<Json<Done>, Problem> {
    let store = store_of(&app, &caller, "message-retried", None, json!({ "message": id }));
    match store.retry_messages(Some(id), (app.facts.now)()).await {
        Err(error @ StoreError::NotFound { .. }) => return Err(Problem::conflict(error.to_string())),
        other => drop(other?),
    }
    Ok(done("the message is queued again"))
}

/// Has a message that waits for its next attempt tried now
#[utoipa::path(post, path = "/api/messages/{id}/release", tag = "actions", params(("id" = i64, Path)),
    responses((status = 200, body = Done), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn release_message(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(id): Path<i64>,
) -> Result<Json<Done>, Problem> {
    let store = store_telling(&app, &caller, ("message-released", "what"), None, json!({ "message": id }));
    let outcome = store.release_message(id, (app.facts.now)()).await?;
    told(outcome, "the message is due now", "the message is")
}

fn told(outcome: ReleaseOutcome, good: &str, refusal: &str) -> Result<Json<Done>, Problem> {
    match outcome {
        ReleaseOutcome::Done => Ok(done(good)),
        ReleaseOutcome::Refused { status } => Err(Problem::conflict(format!("nothing to do: {refusal} {status}"))),
    }
}
