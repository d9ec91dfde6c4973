//! The pages: HTML made here, one script and one style sheet of ours, nothing from elsewhere.

mod backchannel;
mod destinations;
mod enter;
mod models;
mod provider;
mod study;
mod tables;
mod tasks;
mod worklist;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use ichor_store::{Role, Timestamp};

use crate::App;
use crate::access::Caller;
use crate::problem::Problem;
use crate::words;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(worklist::page))
        .route("/worklist/rows", get(worklist::rows))
        .route("/studies/{study}", get(study::page))
        .route("/queues", get(tables::queues))
        .route("/tasks", get(tasks::page))
        .route("/statistics", get(tables::statistics))
        .route("/models", get(models::page))
        .route("/health", get(tables::health))
        .route("/users", get(tables::users))
        .route("/account", get(tables::account))
        .route("/audit", get(tables::audited))
        .route("/login", get(enter::login_page).post(enter::login))
        .route("/oidc/login", get(provider::begin))
        .route(crate::oidc::CALLBACK, get(provider::callback))
        .route(crate::oidc::BACKCHANNEL, post(backchannel::logout))
        .route("/welcome", get(enter::welcome_page).post(enter::welcome))
        .route("/logout", post(enter::logout))
        .route("/assets/ichor.svg", get(|| async { asset("image/svg+xml", include_str!("../assets/ichor.svg")) }))
        .route(
            "/assets/ichor.css",
            get(|| async { asset("text/css; charset=utf-8", include_str!("../assets/ichor.css")) }),
        )
        .route(
            "/assets/ichor.js",
            get(|| async { asset("text/javascript; charset=utf-8", include_str!("../assets/ichor.js")) }),
        )
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=300")], text).into_response()
}

/// What stands around every page.
pub(crate) struct Frame {
    /// Name and role of who is there; empty for strangers.
    pub(crate) user: String,
    pub(crate) role: String,
    pub(crate) csrf: String,
    /// Which page, for the navigation.
    pub(crate) here: &'static str,
    /// What must stand wherever results of these weights do.
    pub(crate) notice: Option<String>,
    pub(crate) is_admin: bool,
    pub(crate) is_operator: bool,
    pub(crate) version: &'static str,
}

impl Frame {
    pub(crate) fn of(app: &App, caller: &Caller, here: &'static str) -> Self {
        Self {
            user: caller.admitted.name.clone(),
            role: caller.admitted.role.to_string(),
            csrf: caller.admitted.csrf.clone().unwrap_or_default(),
            here,
            is_admin: caller.admitted.role >= Role::Admin,
            is_operator: caller.admitted.role >= Role::Operator,
            ..Self::stranger(app)
        }
    }

    pub(crate) fn stranger(app: &App) -> Self {
        Self {
            user: String::new(),
            role: String::new(),
            csrf: String::new(),
            here: "",
            notice: notice(app),
            is_admin: false,
            is_operator: false,
            version: app.facts.version,
        }
    }
}

fn notice(app: &App) -> Option<String> {
    app.facts.active.get().and_then(|model| model.notice)
}

fn rendered(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be made");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be made").into_response()
        }
    }
}

/// A moment, for programs and for people.
pub(crate) struct Moment {
    pub(crate) iso: String,
    pub(crate) text: String,
}

impl Moment {
    pub(crate) fn of(at: Timestamp) -> Self {
        Self { iso: words::moment(at), text: words::clock(at) }
    }
}

#[cfg(test)]
mod contrast;
