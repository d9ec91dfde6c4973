//! Users, invitations, tokens, the audit trail.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use ichor_store::{AuditEntry, AuditFilter, Role, TokenSummary, User};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::App;
use crate::access::{AsAdmin, AsViewer, Secret, check_name, store_of, store_telling};
use crate::problem::Problem;

/// Longest label of a token, in characters.
const LONGEST_LABEL: usize = 100;
/// Longest life of a token, in days.
const MOST_DAYS: u32 = 3_650;

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// Name.
    name: String,
    /// What they may do.
    role: Role,
}

/// Who is asking
#[utoipa::path(get, path = "/api/me", tag = "access", responses((status = 200, body = Me)))]
pub(crate) async fn me(AsViewer(caller): AsViewer) -> Json<Me> {
    Json(Me { name: caller.admitted.name, role: caller.admitted.role })
}

/// All users
#[utoipa::path(get, path = "/api/users", tag = "access", responses((status = 200, body = Vec<User>)))]
pub(crate) async fn users(State(app): State<Arc<App>>, _: AsAdmin) -> Result<Json<Vec<User>>, Problem> {
    Ok(Json(app.facts.store.users().await?))
}

/// A user to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// Name: letters, digits, `.`, `-`, `_`, `@`.
    name: String,
    /// What they may do.
    role: Role,
}

/// A one-time link with which a user chooses a password.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Invitation {
    /// Number of the user.
    user: i64,
    /// The link; it is shown this once.
    link: String,
}

/// Makes a user, with a one-time link to choose a password by
#[utoipa::path(post, path = "/api/users", tag = "access", request_body = NewUser,
    responses((status = 201, body = Invitation), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn add_user(
    State(app): State<Arc<App>>,
    AsAdmin(caller): AsAdmin,
    new: Result<Json<NewUser>, JsonRejection>,
) -> Result<(StatusCode, Json<Invitation>), Problem> {
    let Json(new) = new?;
    check_name(&new.name)?;
    let detail = json!({ "name": new.name, "role": new.role });
    let store = store_telling(&app, &caller, ("user-added", "user"), None, detail);
    let user = store.add_user(&new.name, new.role, (app.facts.now)()).await?;
    let store = store_of(&app, &caller, "user-invited", None, json!({ "user": user }));
    let link = app.invitation(&store, Some(user)).await?;
    Ok((StatusCode::CREATED, Json(Invitation { user, link })))
}

/// What becomes of a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserChange {
    /// What they may do.
    role: Role,
    /// Whether they may come in.
    enabled: bool,
}

/// Changes what a user may do, or puts them out
#[utoipa::path(patch, path = "/api/users/{id}", tag = "access", params(("id" = i64, Path)), request_body = UserChange,
    responses((status = 204), (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn change_user(
    State(app): State<Arc<App>>,
    AsAdmin(caller): AsAdmin,
    Path(id): Path<i64>,
    change: Result<Json<UserChange>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let Json(change) = change?;
    let detail = json!({ "user": id, "role": change.role, "enabled": change.enabled });
    let store = store_of(&app, &caller, "user-changed", None, detail);
    store.change_user(id, change.role, change.enabled, (app.facts.now)()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A new one-time link for a user: a new password ends their sessions and tokens
#[utoipa::path(post, path = "/api/users/{id}/invitation", tag = "access", params(("id" = i64, Path)),
    responses((status = 201, body = Invitation), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn invite(
    State(app): State<Arc<App>>,
    AsAdmin(caller): AsAdmin,
    Path(id): Path<i64>,
) -> Result<(StatusCode, Json<Invitation>), Problem> {
    if !app.facts.store.users().await?.iter().any(|user| user.id == id) {
        return Err(Problem::not_found(format!("user {id}")));
    }
    let store = store_of(&app, &caller, "user-invited", None, json!({ "user": id }));
    let link = app.invitation(&store, Some(id)).await?;
    Ok((StatusCode::CREATED, Json(Invitation { user: id, link })))
}

/// One's own tokens; an admin's answer holds everybody's
#[utoipa::path(get, path = "/api/tokens", tag = "access", responses((status = 200, body = Vec<TokenSummary>)))]
pub(crate) async fn tokens(
    State(app): State<Arc<App>>,
    AsViewer(caller): AsViewer,
) -> Result<Json<Vec<TokenSummary>>, Problem> {
    let whose = (caller.admitted.role < Role::Admin).then_some(caller.admitted.user);
    Ok(Json(app.facts.store.tokens(whose).await?))
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// What it is for.
    label: String,
    /// In how many days it ends; left out: not by itself.
    days: Option<u32>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeToken {
    /// Its number.
    id: i64,
    /// The token; it is shown this once.
    token: String,
}

/// Makes a token with one's own role
#[utoipa::path(post, path = "/api/tokens", tag = "access", request_body = NewToken,
    responses((status = 201, body = MadeToken), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn add_token(
    State(app): State<Arc<App>>,
    AsViewer(caller): AsViewer,
    new: Result<Json<NewToken>, JsonRejection>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    let Json(NewToken { label, days }) = new?;
    let label = label.trim();
    if label.is_empty() || label.chars().count() > LONGEST_LABEL || label.chars().any(char::is_control) {
        return Err(Problem::bad(format!("a label has 1 to {LONGEST_LABEL} characters")));
    }
    if days.is_some_and(|days| !(1..=MOST_DAYS).contains(&days)) {
        return Err(Problem::bad(format!("days is from 1 to {MOST_DAYS}")));
    }
    if caller.session().is_none() {
        return Err(Problem::forbidden("a token does not make tokens: log in"));
    }
    let (secret, now) = (Secret::new()?, (app.facts.now)());
    let expires = days.map(|days| now.after(Duration::from_secs(u64::from(days) * 86_400)));
    let detail = json!({ "label": label, "days": days });
    let store = store_telling(&app, &caller, ("token-added", "token"), None, detail);
    let id = store.add_token(secret.digest(), caller.admitted.user, label, now, expires).await?;
    Ok((StatusCode::CREATED, Json(MadeToken { id, token: secret.reveal().to_owned() })))
}

/// Takes a token back: one's own, or as an admin anybody's
#[utoipa::path(delete, path = "/api/tokens/{id}", tag = "access", params(("id" = i64, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn revoke_token(
    State(app): State<Arc<App>>,
    AsViewer(caller): AsViewer,
    Path(id): Path<i64>,
) -> Result<StatusCode, Problem> {
    let whose = (caller.admitted.role < Role::Admin).then_some(caller.admitted.user);
    let store = store_of(&app, &caller, "token-revoked", None, json!({ "token": id }));
    store.revoke_token(id, whose, (app.facts.now)()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which rows of the audit trail.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuditQuery {
    /// Name of a user.
    pub(crate) actor: Option<String>,
    /// Study Instance UID.
    pub(crate) study: Option<String>,
    /// Rows before this number.
    pub(crate) before: Option<i64>,
    /// Rows, 1 to 1,000; 100 if left out.
    pub(crate) limit: Option<u32>,
}

impl AuditQuery {
    pub(crate) fn filter(self) -> Result<AuditFilter, Problem> {
        let text = |value: Option<String>| value.filter(|text| !text.trim().is_empty());
        Ok(AuditFilter {
            actor: text(self.actor),
            study: text(self.study).as_deref().map(super::uid).transpose()?,
            before: self.before,
            limit: self.limit.unwrap_or(100),
        })
    }
}

/// The audit trail, the newest first
#[utoipa::path(get, path = "/api/audit", tag = "access", params(AuditQuery),
    responses((status = 200, body = Vec<AuditEntry>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn audited(
    State(app): State<Arc<App>>,
    _: AsAdmin,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<Vec<AuditEntry>>, Problem> {
    let Query(query) = query?;
    Ok(Json(app.facts.store.audited(&query.filter()?).await?))
}
