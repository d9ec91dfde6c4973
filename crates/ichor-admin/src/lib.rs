//! HTTP for administrators and those who read: the API, the pages, who may use them, and for everybody health and metrics.
//!
//! What shows a patient or changes anything asks who is there (`access`) and stands in the audit trail. Health and metrics
//! speak of no patient and ask nobody.
//!
//! Architecture Invariant: the store is all that is known here; no libtorch, no DICOM. Pictures are drawn by whoever
//! implements [`Pictures`].

mod access;
mod api;
mod health;
mod metrics;
mod models;
mod oidc;
mod pages;
mod picture;
mod problem;
mod seen;
mod server;
mod words;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ichor_store::{NewAudit, Store, StoreError, Timestamp, Witness};
use tokio::sync::Semaphore;

pub use access::AccessOptions;
pub use api::document as openapi_document;
pub use health::{Check, Readiness};
pub use models::{ActiveModel, ModelFacts};
pub use oidc::{OidcError, OidcOptions, check_provider};
pub use picture::{Overlay, PictureFault, Pictures, WantedPicture};
pub use problem::Problem;
pub use server::{AdminOptions, AdminServer};

use access::{Limiter, Passwords, Secret};

/// Largest body of a request, in bytes.
const LARGEST_BODY: usize = 64 << 10;

/// What a page's browser may load, and from where: nothing but ours, and no line of script or style within a page.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                              form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What is configured, and may be configured otherwise while the service runs.
#[derive(Clone, Debug)]
pub struct Site {
    /// Whose days statistics are counted by, and searches go back by.
    pub zone: ichor_core::Zone,
    /// A study that has waited longer than this for its analysis is as urgent as any.
    pub longest_overtaken: std::time::Duration,
    /// Names of the destinations that are configured.
    pub destinations: Vec<String>,
    /// Names of the channels that are configured.
    pub channels: Vec<String>,
    /// Names of the task lists that are performed.
    pub task_lists: Vec<String>,
    /// The configuration in force; secrets are hidden before it is shown.
    pub configuration: serde_json::Value,
}

/// What the pages are made of.
#[derive(Clone)]
pub struct Facts {
    /// The store.
    pub store: Store,
    /// The database file.
    pub database: PathBuf,
    /// Below this much free space instances are refused, in bytes.
    pub min_free_bytes: u64,
    /// The model whose results are sent.
    pub active: ActiveModel,
    /// What may change while the service runs.
    pub site: tokio::sync::watch::Receiver<Arc<Site>>,
    /// Who draws slices.
    pub pictures: Arc<dyn Pictures>,
    /// How access is given.
    pub access: AccessOptions,
    /// The OpenID provider that people may come in by, if there is one.
    pub oidc: Option<OidcOptions>,
    /// Where people reach the service, such as `https://ichor.example:9110`; links begin with it.
    pub url: String,
    /// Program version.
    pub version: &'static str,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl Facts {
    /// What is configured at present.
    pub(crate) fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.borrow())
    }
}

impl Facts {
    /// The model whose results are sent.
    pub(crate) fn model(&self) -> Option<String> {
        self.active.get().map(|model| model.id)
    }
}

/// The facts, and what is remembered between requests.
pub(crate) struct App {
    pub(crate) facts: Facts,
    pub(crate) limiter: Limiter,
    pub(crate) passwords: Passwords,
    pub(crate) oidc: Option<oidc::Oidc>,
    pub(crate) easels: Arc<Semaphore>,
    pub(crate) seen: seen::Seen,
}

impl App {
    /// Makes a one-time link: for a user, or for the first admin. The store is in the hands of whoever gives it.
    pub(crate) async fn invitation(&self, store: &Store, user: Option<i64>) -> Result<String, Problem> {
        let (secret, now) = (Secret::new()?, (self.facts.now)());
        let expires = now.after(self.facts.access.invitation);
        store.invite(secret.digest(), user, now, expires).await?;
        Ok(format!("{}/welcome?code={}", self.facts.url, secret.reveal()))
    }
}

/// The service: its routes, and the link of the first admin while there is none.
pub struct Admin {
    app: Arc<App>,
}

impl Admin {
    /// Puts it together.
    ///
    /// # Errors
    /// [`OidcError::Url`] for a provider's settings that no URL can be made of.
    pub fn new(facts: Facts) -> Result<Self, OidcError> {
        let provider = facts.oidc.clone().map(|options| oidc::Oidc::new(options, &facts.url)).transpose()?;
        let app = App {
            oidc: provider,
            limiter: Limiter::new(facts.access.login_attempts, facts.access.login_window),
            passwords: Passwords::new(),
            easels: Arc::new(Semaphore::new(facts.access.max_pictures.max(1))),
            seen: seen::Seen::default(),
            facts,
        };
        Ok(Self { app: Arc::new(app) })
    }

    /// A one-time link with which the first admin is made; `None` if there is an admin, or nobody may come in. A link of
    /// before is no longer good.
    ///
    /// # Errors
    /// What the store says.
    pub async fn first_link(&self) -> Result<Option<String>, StoreError> {
        if !self.app.facts.access.serves_patients || self.app.facts.store.has_admin().await? {
            return Ok(None);
        }
        let link = self.app.invitation(&self.app.facts.store, None).await;
        link.map(Some).map_err(|problem| StoreError::Filter { what: problem.detail })
    }

    /// A one-time link for a user, who chooses a new password with it; sessions and tokens of before end then. For whoever may
    /// read the configuration on the machine itself: the way back in when the only admin has forgotten a password.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such user; else what the store says.
    pub async fn link_for(&self, name: &str) -> Result<String, StoreError> {
        let store = &self.app.facts.store;
        let users = store.users().await?;
        let user = users.iter().find(|user| user.name == name);
        let user = user.ok_or_else(|| StoreError::NotFound { what: format!("user {name}") })?;
        let entry = NewAudit {
            at: (self.app.facts.now)(),
            actor: "-".to_owned(),
            role: None,
            address: "command line".to_owned(),
            action: "user-invited",
            study: None,
            detail: serde_json::json!({ "user": user.id }),
        };
        let store = store.witnessed(Witness::new(entry));
        let link = self.app.invitation(&store, Some(user.id)).await;
        link.map_err(|problem| StoreError::Filter { what: problem.detail })
    }

    /// The routes.
    pub fn routes(&self) -> Router {
        let app = Arc::clone(&self.app);
        Router::new()
            .route("/health/live", get(|| async { "alive\n" }))
            .route("/health/ready", get(ready))
            .route("/metrics", get(scrape))
            .merge(api::routes())
            .merge(pages::routes())
            .fallback(|uri: Uri| async move { Problem::not_found(format!("there is nothing at {}", uri.path())) })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not answered here")
            })
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), guarded))
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .with_state(app)
    }
}

/// Headers that keep a browser from what it need not do.
async fn guarded(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = problem::told(next.run(request).await).await;
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    // Nothing of ours is told to others; and to ourselves forms say where they come from, which "no-referrer" keeps from them.
    set(header::REFERRER_POLICY, "same-origin");
    set(header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(header::HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()");
    if app.facts.access.is_tls {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let readiness = health::check(&app.facts).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(readiness)).into_response()
}

async fn scrape(State(app): State<Arc<App>>) -> Response {
    match metrics::exposition(&app.facts).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "metrics cannot be given");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error).into_response()
        }
    }
}
