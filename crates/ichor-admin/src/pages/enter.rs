//! Coming in and going out: login, one-time links, logout.

use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::Json;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use ichor_store::{NewSession, ProvidedSession, SecretDigest, StoreError, User, Witness};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Frame, rendered};
use crate::App;
use crate::access::{
    AsViewer, Peer, Secret, audit, audit_stranger, check_name, check_origin, check_password, cookie_name, store_of,
    stranger,
};
use crate::problem::Problem;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    error: String,
    has_admin: bool,
    /// What the provider is called; empty: there is none.
    provider: String,
    /// Whether a password can be typed.
    has_form: bool,
}

impl LoginPage {
    fn new(app: &App, error: String, has_admin: bool, is_local: bool) -> Self {
        let provider = app.oidc.as_ref().map(|oidc| oidc.options());
        Self {
            frame: Frame::stranger(app),
            error,
            has_admin,
            provider: provider.map_or_else(String::new, |options| options.label.clone()),
            has_form: is_local || provider.is_none_or(|options| !options.hide_local_login),
        }
    }
}

/// The login page with what went wrong. After that a local password can be typed, whatever is hidden.
pub(super) fn login_refused(app: &App, status: StatusCode, error: String) -> Response {
    rendered(status, &LoginPage::new(app, error, true, true))
}

#[derive(Template)]
#[template(path = "welcome.html")]
struct WelcomePage {
    frame: Frame,
    error: String,
    code: String,
    /// Whose password is chosen; empty: the first admin's, who also chooses a name.
    name: String,
    is_first: bool,
    is_good: bool,
}

/// Only where patients may be shown there is anything to come in to.
pub(super) fn check_served(app: &App) -> Result<(), Problem> {
    if app.facts.access.serves_patients {
        return Ok(());
    }
    Err(Problem::forbidden(
        "patients are shown on loopback or behind TLS only: set admin.tls_certificate_file and admin.tls_key_file, or \
         admin.allow_clear_text if a proxy encrypts",
    ))
}

/// Whether somebody asks for the form of passwords that the site hides.
#[derive(Deserialize)]
pub(crate) struct Wish {
    #[serde(default)]
    local: bool,
}

pub(crate) async fn login_page(
    State(app): State<Arc<App>>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Problem> {
    check_served(&app)?;
    let is_local = wish.is_ok_and(|Query(wish)| wish.local);
    let has_admin = app.facts.store.has_admin().await?;
    Ok(rendered(StatusCode::OK, &LoginPage::new(&app, String::new(), has_admin, is_local)))
}

#[derive(Deserialize)]
pub(crate) struct LoginForm {
    name: String,
    password: String,
}

pub(crate) async fn login(
    State(app): State<Arc<App>>,
    peer: Peer,
    headers: HeaderMap,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Result<Response, Problem> {
    check_served(&app)?;
    check_origin(&headers)?;
    let Form(LoginForm { name, password }) = form?;
    let (name, address) = (name.trim().to_owned(), peer.ip().to_string());
    let refused = |status, error: String| login_refused(&app, status, error);
    if let Some(limited) = limited(&app, peer, (&address, &name)).await? {
        return Ok(limited);
    }
    // Counted before it is known: attempts at once do not slip through.
    app.limiter.failed(&address, &name, Instant::now());
    let (user, hash) = app.facts.store.password_of(&name).await?.unzip();
    let is_right = password.len() <= 1_024 && app.passwords.fits(password, hash).await?;
    let Some(user) = user.filter(|_| is_right) else {
        // The name that was typed may be a password.
        audit_stranger(&app, peer, "login-failed").await?;
        return Ok(refused(StatusCode::UNAUTHORIZED, "Name or password is not right.".to_owned()));
    };
    app.limiter.succeeded(&address, &name);
    come_in(&app, peer, &user, None).await.map(|(response, _)| response)
}

/// The answer to who has failed too often, as the limiter knows them; `None`: not yet.
pub(super) async fn limited(app: &App, peer: Peer, (address, name): (&str, &str)) -> Result<Option<Response>, Problem> {
    let Some(wait) = app.limiter.wait(address, name, Instant::now()) else { return Ok(None) };
    // Once: whoever goes on shall not fill the trail.
    if app.limiter.is_refusal_new(address, Instant::now()) {
        audit_stranger(app, peer, "login-limited").await?;
        app.limiter.refusal_written(address, Instant::now());
    }
    let error = format!("Too many failed logins. Try again in {} min.", wait.as_secs().div_ceil(60));
    let mut response = login_refused(app, StatusCode::TOO_MANY_REQUESTS, error);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    Ok(Some(response))
}

/// Begins a session; `provided`: what the provider calls it, if it brought the user. The answer, and the
/// session's digest.
pub(super) async fn come_in(
    app: &App,
    peer: Peer,
    user: &User,
    provided: Option<ProvidedSession>,
) -> Result<(Response, SecretDigest), Problem> {
    let (cookie, csrf, now) = (Secret::new()?, Secret::new()?, (app.facts.now)());
    let session = NewSession {
        digest: cookie.digest(),
        user: user.id,
        csrf: csrf.reveal().to_owned(),
        expires_at: now.after(app.facts.access.session),
        provided,
    };
    let entry = stranger(app, peer, (Some(&user.name), Some(user.role)), "logged-in");
    app.facts.store.witnessed(Witness::new(entry)).begin_session(&session, now).await?;
    let mut response = Redirect::to("/").into_response();
    let set = session_line(app, cookie.reveal(), app.facts.access.session.as_secs());
    response.headers_mut().insert(header::SET_COOKIE, set?);
    Ok((response, session.digest))
}

fn session_line(app: &App, value: &str, seconds: u64) -> Result<HeaderValue, Problem> {
    cookie_line(app, cookie_name(app.facts.access.is_tls), value, seconds)
}

/// A cookie that no script reads and no other site sends along, but by a link.
pub(super) fn cookie_line(app: &App, name: &str, value: &str, seconds: u64) -> Result<HeaderValue, Problem> {
    let secure = if app.facts.access.is_tls { "; Secure" } else { "" };
    let line = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&line).map_err(|error| Problem::bad(error.to_string()))
}

/// Where a browser goes on to after logging out here: the provider, which it came from.
#[derive(Serialize)]
struct LoggedOut {
    location: String,
}

pub(crate) async fn logout(State(app): State<Arc<App>>, AsViewer(caller): AsViewer) -> Result<Response, Problem> {
    let mut provided = None;
    match caller.session() {
        Some(session) => {
            provided = app.facts.store.provided_session(session).await?;
            store_of(&app, &caller, "logged-out", None, json!({})).end_session(session).await?;
        }
        None => audit(&app, &caller, "logged-out", None, json!({})).await?,
    }
    let location = match app.oidc.as_ref().zip(provided) {
        Some((oidc, session)) => oidc.logout_url(&session).await,
        None => None,
    };
    let mut response = match location {
        Some(location) => Json(LoggedOut { location }).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    };
    response.headers_mut().insert(header::SET_COOKIE, session_line(&app, "", 0)?);
    Ok(response)
}

#[derive(Deserialize)]
pub(crate) struct Code {
    code: String,
}

pub(crate) async fn welcome_page(
    State(app): State<Arc<App>>,
    query: Result<Query<Code>, QueryRejection>,
) -> Result<Response, Problem> {
    check_served(&app)?;
    let Query(Code { code }) = query?;
    let invitation = app.facts.store.invitation(Secret::brought(&code).digest(), (app.facts.now)()).await;
    welcome_form(&app, code, invitation, String::new())
}

fn welcome_form(
    app: &App,
    code: String,
    invitation: Result<Option<String>, StoreError>,
    error: String,
) -> Result<Response, Problem> {
    let status = if error.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let page = |name, is_first, is_good, error| WelcomePage {
        frame: Frame::stranger(app),
        error,
        code,
        name,
        is_first,
        is_good,
    };
    match invitation {
        Ok(Some(name)) => Ok(rendered(status, &page(name, false, true, error))),
        Ok(None) => Ok(rendered(status, &page(String::new(), true, true, error))),
        Err(StoreError::NotFound { .. }) => {
            let error = "This link was used, has ended, or was replaced by another.".to_owned();
            Ok(rendered(StatusCode::NOT_FOUND, &page(String::new(), false, false, error)))
        }
        Err(other) => Err(other.into()),
    }
}

#[derive(Deserialize)]
pub(crate) struct WelcomeForm {
    code: String,
    #[serde(default)]
    name: String,
    password: String,
    again: String,
}

pub(crate) async fn welcome(
    State(app): State<Arc<App>>,
    peer: Peer,
    headers: HeaderMap,
    form: Result<Form<WelcomeForm>, FormRejection>,
) -> Result<Response, Problem> {
    check_served(&app)?;
    check_origin(&headers)?;
    let Form(form) = form?;
    let (digest, now) = (Secret::brought(&form.code).digest(), (app.facts.now)());
    let invitation = app.facts.store.invitation(digest, now).await;
    let name = match &invitation {
        Ok(Some(name)) => name.clone(),
        Ok(None) => form.name.trim().to_owned(),
        Err(_) => return welcome_form(&app, form.code, invitation, String::new()),
    };
    let checked = check_name(&name).and_then(|()| check_password(&name, &form.password));
    let error = match checked {
        Err(problem) => Some(problem.detail),
        Ok(()) => (form.password != form.again).then(|| "the two passwords differ".to_owned()),
    };
    if let Some(error) = error {
        return welcome_form(&app, form.code, invitation, error);
    }
    let hash = app.passwords.hash(form.password).await?;
    let entry = stranger(&app, peer, (Some(&name), None), "password-chosen");
    let store = app.facts.store.witnessed(Witness::new(entry));
    let user = match store.accept_invitation(digest, &name, &hash, now).await {
        Ok(user) => user,
        Err(error @ (StoreError::NotFound { .. } | StoreError::Filter { .. })) => {
            let words = error.to_string();
            return welcome_form(&app, form.code, app.facts.store.invitation(digest, now).await, words);
        }
        Err(error) => return Err(error.into()),
    };
    come_in(&app, peer, &user, None).await.map(|(response, _)| response)
}
