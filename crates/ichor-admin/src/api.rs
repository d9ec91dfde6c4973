//! The HTTP API, described by `/api/openapi.json`.

pub(crate) mod actions;
pub(crate) mod destinations;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod maps;
pub(crate) mod models;
pub(crate) mod people;
pub(crate) mod queues;
pub(crate) mod site;
pub(crate) mod slices;
pub(crate) mod studies;
pub(crate) mod tasks;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::App;
use crate::problem::Problem;

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ichor",
        description = "Studies, results, queues and access of an ichor daemon. Errors are application/problem+json (RFC 9457). \
                       Times are milliseconds since 1970-01-01 UTC unless they say otherwise."
    ),
    paths(
        studies::list, studies::detail, export::export,
        slices::picture, maps::map, slices::object,
        events::stream,
        queues::overview, queues::analyses, queues::deliveries, queues::messages,
        tasks::tasks, tasks::retry, tasks::give_up,
        site::statistics, site::configuration,
        models::models, models::history, models::agreement, models::activate, models::rollback, models::reanalyse,
        actions::retry_study, actions::release_study, actions::retry_delivery, actions::release_delivery,
        actions::retry_message, actions::release_message, destinations::retry_destination,
        people::me, people::users, people::add_user, people::change_user, people::invite,
        people::tokens, people::add_token, people::revoke_token, people::audited,
    ),
    components(schemas(Problem)),
    modifiers(&Security),
    security(("token" = []), ("session" = []))
)]
struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let cookie = ApiKey::Cookie(ApiKeyValue::with_description(
            crate::access::COOKIE,
            "a browser's session; a change repeats the session's word in X-CSRF-Token",
        ));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// The OpenAPI 3.1 document, as it is checked in.
#[must_use]
pub fn document() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/openapi.json", get(|| async { ([("content-type", "application/json")], document()) }))
        .route("/api/studies", get(studies::list))
        .route("/api/studies/export", get(export::export))
        .route("/api/studies/{study}", get(studies::detail))
        .route("/api/studies/{study}/retry", post(actions::retry_study))
        .route("/api/studies/{study}/release", post(actions::release_study))
        .route("/api/studies/{study}/slices/{instance}/picture", get(slices::picture))
        .route("/api/studies/{study}/slices/{instance}/map", get(maps::map))
        .route("/api/studies/{study}/objects/{instance}", get(slices::object))
        .route("/api/events", get(events::stream))
        .route("/api/queues", get(queues::overview))
        .route("/api/analyses", get(queues::analyses))
        .route("/api/deliveries", get(queues::deliveries))
        .route("/api/deliveries/{id}/retry", post(actions::retry_delivery))
        .route("/api/deliveries/{id}/release", post(actions::release_delivery))
        .route("/api/destinations/{name}/retry", post(destinations::retry_destination))
        .route("/api/messages", get(queues::messages))
        .route("/api/messages/{id}/retry", post(actions::retry_message))
        .route("/api/messages/{id}/release", post(actions::release_message))
        .route("/api/tasks", get(tasks::tasks))
        .route("/api/tasks/{id}/retry", post(tasks::retry))
        .route("/api/tasks/{id}/give-up", post(tasks::give_up))
        .route("/api/statistics", get(site::statistics))
        .route("/api/models", get(models::models))
        .route("/api/models/history", get(models::history))
        .route("/api/models/rollback", post(models::rollback))
        .route("/api/models/{id}/agreement", get(models::agreement))
        .route("/api/models/{id}/activate", post(models::activate))
        .route("/api/studies/{study}/reanalyse", post(models::reanalyse))
        .route("/api/configuration", get(site::configuration))
        .route("/api/me", get(people::me))
        .route("/api/users", get(people::users).post(people::add_user))
        .route("/api/users/{id}", axum::routing::patch(people::change_user))
        .route("/api/users/{id}/invitation", post(people::invite))
        .route("/api/tokens", get(people::tokens).post(people::add_token))
        .route("/api/tokens/{id}", axum::routing::delete(people::revoke_token))
        .route("/api/audit", get(people::audited))
}

/// A study as a path names it.
pub(crate) fn uid(text: &str) -> Result<ichor_core::Uid, Problem> {
    ichor_core::Uid::parse(text).map_err(|error| Problem::bad(format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ICHOR_WRITE_OPENAPI=1 cargo test -p ichor-admin openapi` writes it anew.
    #[test]
    fn the_openapi_document_that_is_checked_in_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("ICHOR_WRITE_OPENAPI").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap();
        assert!(
            kept == document(),
            "docs/openapi.json has drifted: ICHOR_WRITE_OPENAPI=1 cargo test -p ichor-admin openapi"
        );
        let parsed: serde_json::Value = serde_json::from_str(&kept).unwrap();
        assert_eq!(parsed["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
    }
}
