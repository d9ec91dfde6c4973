//! The provider's word that somebody has logged out there (OpenID Connect Back-Channel Logout 1.0, section 2.5).

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ichor_store::{NewAudit, Witness};
use serde::Deserialize;
use serde_json::json;
use tracing::{info, warn};

use super::provider::provider;
use crate::App;
use crate::access::{Peer, stranger};
use crate::oidc::OidcError;
use crate::problem::Problem;

#[derive(Deserialize)]
pub(crate) struct LogoutForm {
    logout_token: String,
}

/// Ends the sessions that the provider's token names. Nobody but the provider can make one, so that no other proof is asked for.
pub(crate) async fn logout(
    State(app): State<Arc<App>>,
    peer: Peer,
    form: Result<Form<LogoutForm>, FormRejection>,
) -> Result<Response, Problem> {
    let oidc = provider(&app)?;
    let Ok(Form(LogoutForm { logout_token })) = form else {
        return Ok(refusal(StatusCode::BAD_REQUEST, "there is no logout_token"));
    };
    let (logout, token) = match oidc.logout_asked(&logout_token, (app.facts.now)()).await {
        Ok(asked) => asked,
        Err(error) => return refused(&app, peer, &error).await,
    };
    let detail = json!({ "by": "oidc", "subject": logout.subject, "sid": logout.sid });
    let entry = NewAudit { detail, ..stranger(&app, peer, (None, None), "logged-out") };
    let store = app.facts.store.witnessed(Witness::with_outcome(entry, "users"));
    let ended = store.end_provided_sessions(&logout).await?;
    // Only now: what could not be recorded must be said again.
    oidc.logout_heard(token);
    info!(sessions = ended.len(), "the OpenID provider says that somebody has logged out");
    Ok((StatusCode::OK, [(header::CACHE_CONTROL, "no-store")]).into_response())
}

/// Says no, and writes it down once a window and address: anybody can send anything here.
async fn refused(app: &App, peer: Peer, error: &OidcError) -> Result<Response, Problem> {
    let key = format!("oidc logout {}", peer.ip());
    if app.limiter.is_refusal_new(&key, Instant::now()) {
        warn!(%error, "a logout by the OpenID provider is refused");
        let detail = json!({ "by": "oidc", "why": error.to_string() });
        let entry = NewAudit { detail, ..stranger(app, peer, (None, None), "logout-refused") };
        app.facts.store.audit(&entry).await?;
        app.limiter.refusal_written(&key, Instant::now());
    }
    let status = match error {
        OidcError::Provider(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    Ok(refusal(status, &error.to_string()))
}

/// As section 2.8 has it.
fn refusal(status: StatusCode, why: &str) -> Response {
    let body = Json(json!({ "error": "invalid_request", "error_description": why }));
    (status, [(header::CACHE_CONTROL, "no-store")], body).into_response()
}
