//! HTTP for administrators: is it alive, is it ready, and what waits (Prometheus). Nothing here speaks of a patient, and
//! nothing changes anything, so nobody is asked who they are.
//!
//! Architecture Invariant: the store is all that is known here; no libtorch, no DICOM.

mod health;
mod metrics;
mod server;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ichor_store::{Store, Timestamp};
use serde::Serialize;

pub use health::{Check, Readiness};
pub use server::{AdminOptions, AdminServer};

/// What the pages are made of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The store.
    pub store: Store,
    /// The database file.
    pub database: PathBuf,
    /// Below this much free space instances are refused, in bytes.
    pub min_free_bytes: u64,
    /// The model that is loaded, `name@version+hash`; none if the daemon only receives.
    pub model: Option<String>,
    /// Names of the destinations that are configured.
    pub destinations: Vec<String>,
    /// Names of the channels that are configured.
    pub channels: Vec<String>,
    /// Program version.
    pub version: &'static str,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// The routes.
pub fn routes(facts: Facts) -> Router {
    Router::new()
        .route("/health/live", get(|| async { "alive\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(scrape))
        .fallback(
            |uri: Uri| async move { problem(StatusCode::NOT_FOUND, &format!("there is nothing at {}", uri.path())) },
        )
        .method_not_allowed_fallback(|| async { problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here") })
        .with_state(Arc::new(facts))
}

async fn ready(State(facts): State<Arc<Facts>>) -> Response {
    let readiness = health::check(&facts).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(readiness)).into_response()
}

async fn scrape(State(facts): State<Arc<Facts>>) -> Response {
    match metrics::exposition(&facts).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "metrics cannot be given");
            problem(StatusCode::SERVICE_UNAVAILABLE, &error)
        }
    }
}

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = serde_json::to_vec(&Problem { title, status: status.as_u16(), detail }).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}
