//! Models: which there are, how far they agree, and which one is to be active.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use ichor_core::{ActivationStatus, ModelId, Zone};
use ichor_store::{Activation, AgreementReport, ReanalysisWish, RetryOutcome, Timestamp, study_day};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::actions::Done;
use super::uid;
use crate::App;
use crate::access::{AsAdmin, AsOperator, AsViewer, store_of, store_telling};
use crate::models::{ModelView, views};
use crate::problem::Problem;

/// Lines of the history in one answer.
const HISTORY: u32 = 200;
/// How long the daemon is waited for; what takes longer is answered with 202.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Longest reason, in characters.
const LONGEST_WHY: usize = 500;

/// The models, what each does, and why one cannot be used
#[utoipa::path(get, path = "/api/models", tag = "models", responses((status = 200, body = Vec<ModelView>)))]
pub(crate) async fn models(State(app): State<Arc<App>>, _: AsViewer) -> Result<Json<Vec<ModelView>>, Problem> {
    views(&app).await.map(Json)
}

/// Which model was active from when to when, by whose word and why; newest first
#[utoipa::path(get, path = "/api/models/history", tag = "models", responses((status = 200, body = Vec<Activation>)))]
pub(crate) async fn history(State(app): State<Arc<App>>, _: AsViewer) -> Result<Json<Vec<Activation>>, Problem> {
    Ok(Json(app.facts.store.activations(HISTORY).await?))
}

/// Since when.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AgreementQuery {
    /// The first day (YYYY-MM-DD) in the site's time zone; everything if left out.
    pub(crate) since: Option<String>,
}

impl AgreementQuery {
    pub(crate) fn since(&self, zone: &Zone) -> Result<Timestamp, Problem> {
        let Some(text) = self.since.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(Timestamp::from_millis(0));
        };
        let bad = || Problem::bad(format!("since {text:?} is no day of the form YYYY-MM-DD"));
        let day = study_day(text).ok_or_else(bad)?;
        zone.beginning_of(&day).map(Timestamp::from_millis).ok_or_else(bad)
    }
}

/// How far a model in the shadow agrees with the active one
#[utoipa::path(get, path = "/api/models/{id}/agreement", tag = "models",
    params(("id" = String, Path, description = "name@version+hash; the hash may be left out"), AgreementQuery),
    responses((status = 200, body = AgreementReport),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn agreement(
    State(app): State<Arc<App>>,
    _: AsViewer,
    Path(id): Path<String>,
    query: Result<Query<AgreementQuery>, QueryRejection>,
) -> Result<Json<AgreementReport>, Problem> {
    let Query(query) = query?;
    let since = query.since(&app.facts.site().zone)?;
    let model = named(&app, &id).await?;
    Ok(Json(app.facts.store.agreement(&model, since).await?))
}

/// The model that a path names: one that is configured, or one that was.
async fn named(app: &App, text: &str) -> Result<ModelId, Problem> {
    match (app.facts.store.offered_model(text).await, ModelId::parse(text)) {
        (Ok(offered), _) => Ok(offered),
        (Err(_), Ok(former)) => Ok(former),
        (Err(error), Err(_)) => Err(error.into()),
    }
}

/// Why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    /// Why, in 1 to 500 characters; it stands in the audit trail.
    pub(crate) why: String,
}

/// Makes a model the active one, without a restart
///
/// For admins. The daemon loads it and repeats its self-test first; if that fails, the active one stays.
#[utoipa::path(post, path = "/api/models/{id}/activate", tag = "models", request_body = Because,
    params(("id" = String, Path, description = "name@version+hash; the hash may be left out")),
    responses((status = 200, body = Done), (status = 202, description = "The daemon is still at it", body = Done),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It cannot be used, and the active one stays", body = Problem,
         content_type = "application/problem+json")))]
pub(crate) async fn activate(
    State(app): State<Arc<App>>,
    AsAdmin(caller): AsAdmin,
    Path(id): Path<String>,
    because: Result<Json<Because>, JsonRejection>,
) -> Result<(StatusCode, Json<Done>), Problem> {
    let why = reason(&because?.0.why)?;
    let model = app.facts.store.offered_model(&id).await?;
    let detail = json!({ "model": model, "why": why });
    let store = store_of(&app, &caller, "model-activation-requested", None, detail);
    let requested = store.request_model(&model, &caller.admitted.name, &why, (app.facts.now)()).await?;
    outcome(&app, requested).await
}

/// Makes the model that was active before the active one again
///
/// For admins. As `activate`.
#[utoipa::path(post, path = "/api/models/rollback", tag = "models", request_body = Because,
    responses((status = 200, body = Done), (status = 202, description = "The daemon is still at it", body = Done),
        (status = 404, description = "There was none", body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn rollback(
    State(app): State<Arc<App>>,
    AsAdmin(caller): AsAdmin,
    because: Result<Json<Because>, JsonRejection>,
) -> Result<(StatusCode, Json<Done>), Problem> {
    let why = reason(&because?.0.why)?;
    let store = store_of(&app, &caller, "model-rollback-requested", None, json!({ "why": why }));
    let requested = store.request_rollback(&caller.admitted.name, &why, (app.facts.now)()).await?;
    outcome(&app, requested).await
}

pub(super) fn reason(why: &str) -> Result<String, Problem> {
    let why = why.trim();
    if why.is_empty() || why.chars().count() > LONGEST_WHY {
        return Err(Problem::bad(format!("why is 1 to {LONGEST_WHY} characters")));
    }
    Ok(why.to_owned())
}

async fn outcome(app: &App, requested: Activation) -> Result<(StatusCode, Json<Done>), Problem> {
    let limit = tokio::time::Instant::now() + PATIENCE;
    let mut seen = requested;
    while seen.status == ActivationStatus::Requested && tokio::time::Instant::now() < limit {
        tokio::time::sleep(LOOK).await;
        seen = app.facts.store.activation(seen.id).await?;
    }
    let Activation { model, words, .. } = &seen;
    let (status, done) = match seen.status {
        ActivationStatus::Refused => {
            let words = words.as_deref().unwrap_or("no reason is recorded");
            return Err(Problem::conflict(format!("{model} does not become active: {words}")));
        }
        ActivationStatus::Requested => {
            (StatusCode::ACCEPTED, format!("{model} is asked for; the daemon loads and tests it"))
        }
        ActivationStatus::Active | ActivationStatus::Former => (StatusCode::OK, format!("{model} is the active model")),
    };
    Ok((status, Json(Done { done })))
}

/// Which model, and why.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reanalysis {
    /// `name@version+hash`; the hash may be left out.
    pub(crate) model: String,
    /// Why, in 1 to 500 characters; it stands in the study's timeline.
    pub(crate) why: String,
}

/// Has a study analysed by a model of somebody's choice
///
/// A new version of its result, which is sent as any other.
#[utoipa::path(post, path = "/api/studies/{study}/reanalyse", tag = "actions", request_body = Reanalysis,
    params(("study" = String, Path, description = "Study Instance UID")),
    responses((status = 200, body = Done), (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn reanalyse(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    Path(study): Path<String>,
    wish: Result<Json<Reanalysis>, JsonRejection>,
) -> Result<Json<Done>, Problem> {
    let (Json(wish), study) = (wish?, uid(&study)?);
    let (why, model) = (reason(&wish.why)?, app.facts.store.offered_model(&wish.model).await?);
    let wish = ReanalysisWish {
        study: study.clone(),
        model: model.clone(),
        actor: caller.admitted.name.clone(),
        why: why.clone(),
    };
    let detail = json!({ "model": model, "why": why });
    let store = store_telling(&app, &caller, ("study-reanalysed", "what"), Some(&study), detail);
    let outcome = store.reanalyse(&wish, (app.facts.now)()).await?;
    match outcome {
        RetryOutcome::Queued { .. } => Ok(Json(Done { done: outcome.to_string() })),
        RetryOutcome::UnderWay { .. } | RetryOutcome::NothingToAnalyse | RetryOutcome::PixelsRemoved { .. } => {
            Err(Problem::conflict(outcome.to_string()))
        }
    }
}
