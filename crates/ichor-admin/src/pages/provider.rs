//! Coming in by an OpenID provider: to it, and back.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ichor_store::{NewAudit, Provided, ProvidedSession, Role, User, Witness};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::enter::{check_served, come_in, cookie_line, limited, login_refused};
use crate::App;
use crate::access::{Peer, Secret, cookie, stranger};
use crate::oidc::{Oidc, OidcError, Vouched, longest_login};
use crate::problem::Problem;

/// Cookie of the browser that began a login; where connections are encrypted, one that no other host can set.
const COOKIE: &str = "ichor-oidc";
const TLS_COOKIE: &str = "__Host-ichor-oidc";

/// The provider, where there is one and somebody may come in.
pub(super) fn provider(app: &App) -> Result<&Oidc, Problem> {
    check_served(app)?;
    app.oidc.as_ref().ok_or_else(|| Problem::not_found("no OpenID provider is configured"))
}

/// Sends the browser to the provider.
pub(crate) async fn begin(State(app): State<Arc<App>>, peer: Peer) -> Result<Response, Problem> {
    let oidc = provider(&app)?;
    let key = limiter_key(peer);
    if let Some(limited) = limited(&app, peer, (&key, &key)).await? {
        return Ok(limited);
    }
    let browser = Secret::new()?;
    let url = match oidc.begin(&peer.ip().to_string(), browser.digest()).await {
        Ok(url) => url,
        Err(error) => {
            warn!(%error, "nobody can log in by the OpenID provider");
            let words = format!(
                "{} does not answer as it should: nobody can log in by it now. A local password works.",
                oidc.options().label
            );
            return Ok(login_refused(&app, StatusCode::BAD_GATEWAY, words));
        }
    };
    let location = HeaderValue::from_str(&url).map_err(|_| Problem::new(StatusCode::BAD_GATEWAY, "no URL"))?;
    let set = cookie_line(&app, cookie_name(&app), browser.reveal(), longest_login().as_secs())?;
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location), (header::SET_COOKIE, set)]).into_response())
}

/// What the provider sends back with the browser.
#[derive(Deserialize)]
pub(crate) struct Back {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// Lets somebody in whom the provider vouches for. Whatever was asked for, the worklist comes next.
pub(crate) async fn callback(
    State(app): State<Arc<App>>,
    peer: Peer,
    headers: HeaderMap,
    query: Result<Query<Back>, QueryRejection>,
) -> Result<Response, Problem> {
    let oidc = provider(&app)?;
    let Query(back) = query?;
    let key = limiter_key(peer);
    if let Some(limited) = limited(&app, peer, (&key, &key)).await? {
        return Ok(limited);
    }
    let browser = cookie(&headers, cookie_name(&app)).map(|secret| secret.digest());
    let kept = browser.zip(back.state.as_deref());
    let Some(kept) = kept.and_then(|(browser, state)| oidc.take(state, browser)) else {
        return refuse_state(&app, peer).await;
    };
    // Counted before it is known what comes of it: attempts at once do not slip through.
    app.limiter.failed(&key, &key, Instant::now());
    if back.iss.is_some_and(|issuer| issuer != oidc.options().issuer) {
        let detail = json!({ "by": "oidc", "why": "the answer is another provider's (iss)" });
        return refuse(&app, peer, ("-", detail), StatusCode::BAD_REQUEST, "The answer is another provider's.").await;
    }
    let Some(code) = back.code.filter(|_| back.error.is_none()) else {
        let detail = json!({ "by": "oidc", "why": "the provider refused" });
        return refuse(&app, peer, ("-", detail), StatusCode::FORBIDDEN, "The provider did not let you in.").await;
    };
    let (vouched, session) = match oidc.finish(&code, kept, (app.facts.now)()).await {
        Ok(finished) => finished,
        Err(error) => {
            warn!(%error, "a login by the OpenID provider came to nothing");
            let status = match &error {
                OidcError::Provider(_) => StatusCode::BAD_GATEWAY,
                _ => StatusCode::UNAUTHORIZED,
            };
            let words = match &error {
                OidcError::Claim(words) => format!("You cannot come in: {words}."),
                _ => format!(
                    "What {} says cannot be believed, or not be understood. The log says why.",
                    oidc.options().label
                ),
            };
            return refuse(&app, peer, ("-", json!({ "by": "oidc", "why": error.to_string() })), status, &words).await;
        }
    };
    let Some(user) = vouched.user() else {
        let detail = json!({ "by": "oidc", "subject": vouched.subject });
        let row = entry(&app, peer, (&vouched.name, None), "user-withdrawn", detail);
        let store = app.facts.store.witnessed(Witness::new(row));
        store.withdraw_provided(&vouched.subject, (app.facts.now)()).await?;
        let detail = json!({ "by": "oidc", "why": "nothing gives this user a role here", "subject": vouched.subject });
        let words = "You are known, and have no role here. Ask whoever looks after ichor.";
        return refuse(&app, peer, (&vouched.name, detail), StatusCode::FORBIDDEN, words).await;
    };
    let detail = json!({ "by": "oidc", "subject": user.subject });
    let row = entry(&app, peer, (&user.name, Some(user.role)), "user-admitted", detail);
    let store = app.facts.store.witnessed(Witness::new(row));
    let (why, words) = match store.admit_provided(&user, (app.facts.now)()).await? {
        Provided::Admitted(user) => {
            app.limiter.succeeded(&key, &key);
            return let_in(&app, peer, oidc, &user, (&vouched, session)).await;
        }
        Provided::PutOut => ("this user was put out", "You were put out. Ask whoever looks after ichor."),
        Provided::NameTaken => {
            ("another user has this name", "Another user has your name here. Ask whoever looks after ichor.")
        }
    };
    let detail = json!({ "by": "oidc", "why": why, "subject": vouched.subject });
    refuse(&app, peer, (&vouched.name, detail), StatusCode::FORBIDDEN, words).await
}

/// Begins the session of somebody who may come in, unless the provider has said meanwhile that they logged out there.
async fn let_in(
    app: &App,
    peer: Peer,
    oidc: &Oidc,
    user: &User,
    (vouched, session): (&Vouched, ProvidedSession),
) -> Result<Response, Problem> {
    if !oidc.is_logged_out(vouched) {
        let (mut response, digest) = come_in(app, peer, user, Some(session)).await?;
        // Once more: a logout that came before the session was there has not found it.
        if !oidc.is_logged_out(vouched) {
            info!(role = %user.role, "somebody came in by the OpenID provider");
            response.headers_mut().append(header::SET_COOKIE, cookie_line(app, cookie_name(app), "", 0)?);
            return Ok(response);
        }
        let detail = json!({ "by": "oidc", "subject": vouched.subject });
        let row = entry(app, peer, (&user.name, Some(user.role)), "logged-out", detail);
        app.facts.store.witnessed(Witness::new(row)).end_session(digest).await?;
    }
    let why = "this user has logged out at the provider since this login began";
    let detail = json!({ "by": "oidc", "why": why, "subject": vouched.subject });
    let words = format!("You have logged out at {} since this login began. Begin it anew.", oidc.options().label);
    refuse(app, peer, (&user.name, detail), StatusCode::UNAUTHORIZED, &words).await
}

/// What is counted: of one address only, and not with its wrong passwords, so that nobody locks others out, nor out of the local
/// login.
fn limiter_key(peer: Peer) -> String {
    format!("oidc {}", peer.ip())
}

/// Writes down who does not come in and why, and says so.
async fn refuse(
    app: &App,
    peer: Peer,
    (actor, detail): (&str, Value),
    status: StatusCode,
    words: &str,
) -> Result<Response, Problem> {
    app.facts.store.audit(&entry(app, peer, (actor, None), "login-failed", detail)).await?;
    refused(app, status, words)
}

/// A state that is unknown comes from any page elsewhere that sends a browser here: it counts for nobody, and is written down
/// once a window.
async fn refuse_state(app: &App, peer: Peer) -> Result<Response, Problem> {
    let words = "This login was used, took too long, or was begun elsewhere. Begin it anew.";
    let key = format!("{} state", limiter_key(peer));
    if !app.limiter.is_refusal_new(&key, Instant::now()) {
        return refused(app, StatusCode::BAD_REQUEST, words);
    }
    let why = "no login of this browser that is under way has this state";
    let detail = json!({ "by": "oidc", "why": why });
    let response = refuse(app, peer, ("-", detail), StatusCode::BAD_REQUEST, words).await?;
    app.limiter.refusal_written(&key, Instant::now());
    Ok(response)
}

/// A row about somebody whom the provider vouches for, or does not.
fn entry(app: &App, peer: Peer, (name, role): (&str, Option<Role>), action: &'static str, detail: Value) -> NewAudit {
    NewAudit { detail, ..stranger(app, peer, (Some(name), role), action) }
}

/// The login page with these words; the login that was under way is over.
fn refused(app: &App, status: StatusCode, words: &str) -> Result<Response, Problem> {
    let mut response = login_refused(app, status, words.to_owned());
    response.headers_mut().insert(header::SET_COOKIE, cookie_line(app, cookie_name(app), "", 0)?);
    Ok(response)
}

fn cookie_name(app: &App) -> &'static str {
    if app.facts.access.is_tls { TLS_COOKIE } else { COOKIE }
}
