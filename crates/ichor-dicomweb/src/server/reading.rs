//! A request that searches or retrieves, from its header to its answer; and what pages of other origins may read.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, HOST,
    HeaderMap, HeaderValue, IF_NONE_MATCH, ORIGIN, VARY,
};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, error};

use super::answer::{self, Answer};
use super::archive::{Access, Archive};
use super::handler::{Refusal, Sender, StowHandler};
use super::listener::Shared;
use super::options::{ReadingOptions, Right, ServerOptions};
use super::request::{field, not_taken, refused};
use super::retrieve::{Refused, Reply, ReplyBody, Retrieval, Stopped, accept};
use super::route::{self, Resource, RouteError};
use super::search::{self, Found, Limits, query};
use super::stream::{AnswerBody, Pipe};

/// What a request asks for, everything of its header read.
struct Asked {
    sender: Sender,
    resource: Resource,
    base: String,
    query: String,
    accept: String,
    /// If-None-Match.
    known: Option<String>,
    options: ReadingOptions,
}

/// What came of it.
enum Outcome {
    Found(Found, bool),
    Reply(Reply),
}

/// Serves a GET. The handler hears of those who may not ask.
pub(super) async fn serve<H: StowHandler>(
    shared: &Arc<Shared<H>>,
    address: SocketAddr,
    request: &Request<Incoming>,
) -> Answer {
    let mut sender = Sender { address, client: String::new() };
    let admitted = admit(shared, &mut sender, request);
    let (asked, archive) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            match &refusal {
                Refusal::NotTaken { why, .. } => debug!(%address, client = sender.client, why, "request refused"),
                _ => shared.handler.request_refused(&sender, &refusal).await,
            }
            return refused(&refusal, shared.options.retry_after);
        }
    };
    let waiting = timeout(shared.options.retry_after, Arc::clone(&shared.readings).acquire_owned());
    let Ok(Ok(permit)) = waiting.await else {
        let refusal = Refusal::Busy("searches and retrievals");
        shared.handler.request_refused(&sender, &refusal).await;
        return refused(&refusal, shared.options.retry_after);
    };
    let worked = spawn_blocking(move || work(&asked, &archive));
    match worked.await {
        Ok(Ok(outcome)) => answered(outcome, permit),
        Ok(Err(Refused { status, why })) => {
            if status.is_server_error() {
                error!(%address, client = sender.client, why, "a request for what is kept failed");
            }
            let mut answer = answer::words(status, &why);
            if status == StatusCode::SERVICE_UNAVAILABLE {
                answer::retry_after(&mut answer, shared.options.retry_after);
            }
            answer
        }
        Err(error) => {
            error!(%error, "the task of a request panicked");
            answer::words(StatusCode::INTERNAL_SERVER_ERROR, "the server failed")
        }
    }
}

/// Who asks, for what, and may they?
fn admit<H: StowHandler>(
    shared: &Shared<H>,
    sender: &mut Sender,
    request: &Request<Incoming>,
) -> Result<(Asked, Arc<dyn Archive>), Refusal> {
    let (options, headers) = (&shared.options, request.headers());
    let authorization = field(headers, &AUTHORIZATION);
    let client = options.client(sender.address.ip(), authorization.as_deref())?;
    sender.client.clone_from(&client.name);
    if shared.stopping.is_cancelled() {
        return Err(Refusal::Stopping);
    }
    let Some(archive) = shared.archive.clone() else {
        return Err(not_taken(StatusCode::METHOD_NOT_ALLOWED, "studies can be stored here (POST), and nothing else"));
    };
    let no_resource = || not_taken(StatusCode::NOT_FOUND, "there is no such resource here");
    let path = request.uri().path().strip_prefix(options.prefix.as_str()).ok_or_else(no_resource)?;
    let resource = route::resource(path, options.reading.max_frames).map_err(|error| {
        let status = match &error {
            RouteError::Malformed(_) => StatusCode::BAD_REQUEST,
            RouteError::Unknown(_) => StatusCode::NOT_FOUND,
        };
        not_taken(status, error.to_string())
    })?;
    let right = if matches!(resource, Resource::Search(..)) { Right::Search } else { Right::Retrieve };
    client.check(right)?;
    let asked = Asked {
        sender: sender.clone(),
        resource,
        base: base(options, request.headers()),
        query: request.uri().query().unwrap_or_default().to_owned(),
        accept: field(headers, &ACCEPT).unwrap_or_default(),
        known: field(headers, &IF_NONE_MATCH),
        options: options.reading.clone(),
    };
    Ok((asked, archive))
}

/// Does what is asked, on a thread that may block.
fn work(asked: &Asked, archive: &Arc<dyn Archive>) -> Result<Outcome, Refused> {
    let bad = |why: String| Refused::new(StatusCode::BAD_REQUEST, why);
    let pairs = query::pairs(&asked.query, asked.options.max_parameters).map_err(bad)?;
    // A query's own Accept stands for the field (PS3.18 8.3.3.1): links cannot have fields.
    let of_query = pairs.iter().find(|(name, _)| name.eq_ignore_ascii_case("accept")).map(|(_, value)| value.clone());
    let accept = accept::ranges(of_query.as_ref().unwrap_or(&asked.accept))
        .map_err(|why| Refused::new(StatusCode::NOT_ACCEPTABLE, why))?;
    let Resource::Search(level, study, series) = &asked.resource else {
        let retrieval = Retrieval {
            archive,
            who: &asked.sender,
            base: &asked.base,
            accept,
            pairs,
            known: asked.known.clone(),
            most_instances: asked.options.max_instances,
        };
        return retrieval.answer(&asked.resource).map(Outcome::Reply);
    };
    accept::json(&accept).map_err(|why| Refused::new(StatusCode::NOT_ACCEPTABLE, why))?;
    let search = query::parse(*level, study.clone(), series.clone(), pairs).map_err(bad)?;
    let limits = Limits { results: asked.options.max_results, examined: asked.options.max_examined };
    let found = search::search(&**archive, &search, &asked.base, limits)?;
    if found.is_too_broad {
        let why = format!(
            "more than {} instances would have to be looked at; ask for a study, a patient or a date",
            limits.examined
        );
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    let action = match level {
        route::Level::Study => "studies-searched",
        route::Level::Series => "series-searched",
        route::Level::Instance => "instances-searched",
    };
    let detail = json!({ "query": asked.query, "found": found.items.len(), "by": "qido-rs" });
    archive.audit(&asked.sender, &Access { action, study: study.clone(), detail, is_part: false })?;
    Ok(Outcome::Found(found, search.is_fuzzy))
}

fn answered(outcome: Outcome, permit: OwnedSemaphorePermit) -> Answer {
    match outcome {
        Outcome::Found(found, is_fuzzy) => found_answer(found, is_fuzzy, permit),
        Outcome::Reply(reply) => reply_answer(reply, permit),
    }
}

/// Bytes that wait for the peer. The permit goes with them: they count as long as they are in memory.
struct Waiting {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn whole(bytes: Vec<u8>, permit: OwnedSemaphorePermit) -> AnswerBody {
    Full::new(Bytes::from_owner(Waiting { bytes, _permit: permit })).into()
}

fn found_answer(found: Found, is_fuzzy: bool, permit: OwnedSemaphorePermit) -> Answer {
    let Found { items, has_more, .. } = found;
    let is_empty = items.is_empty();
    let body = Value::Array(items.into_iter().map(Value::Object).collect()).to_string();
    let mut answer: Answer = if is_empty {
        let mut answer: Answer = Response::new(Full::default().into());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer
    } else {
        let mut answer: Answer = Response::new(whole(body.into_bytes(), permit));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/dicom+json"));
        answer
    };
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if has_more {
        answer::warn_of(&mut answer, "There are additional results that can be requested");
    }
    if is_fuzzy {
        let text = "The fuzzymatching parameter is not supported. Only literal matching has been performed.";
        answer::warn_of(&mut answer, text);
    }
    answer
}

fn reply_answer(reply: Reply, permit: OwnedSemaphorePermit) -> Answer {
    let Reply { content_type, tag, body, warning } = reply;
    let mut status = StatusCode::OK;
    let body = match body {
        ReplyBody::Whole(bytes) => whole(bytes, permit),
        ReplyBody::NotModified => {
            status = StatusCode::NOT_MODIFIED;
            Full::default().into()
        }
        ReplyBody::Stream(produce) => {
            let (body, mut pipe) = AnswerBody::stream(permit);
            spawn_blocking(move || match produce(&mut pipe) {
                Ok(()) => drop(Pipe::finish(pipe)),
                // The pipe ends without having been finished: the answer is cut, and the peer knows it for incomplete.
                Err(Stopped::Fault(fault)) => error!(reason = %fault, "an answer breaks off"),
                Err(Stopped::Gone) => debug!("the peer did not want the rest of its answer"),
            });
            body
        }
    };
    let mut answer: Answer = Response::new(body);
    *answer.status_mut() = status;
    if status == StatusCode::OK
        && let Ok(value) = HeaderValue::from_str(&content_type)
    {
        answer.headers_mut().insert(CONTENT_TYPE, value);
    }
    // A cache may keep it, and asks each time whether it may still show it.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&format!("\"{tag}\"")).ok()) {
        answer.headers_mut().insert(ETAG, tag);
    }
    if let Some(warning) = warning {
        answer::warn_of(&mut answer, &warning);
    }
    answer
}

/// What URLs in answers begin with.
pub(in crate::server) fn base(options: &ServerOptions, headers: &HeaderMap) -> String {
    let prefix = &options.prefix;
    if let Some(url) = &options.reading.url {
        return format!("{url}{prefix}");
    }
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let is_plain = |host: &&str| {
        !host.is_empty()
            && host.len() <= 255
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b))
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).filter(is_plain);
    // HTTP/1.0 may say no host: a path alone is a URL, too.
    host.map_or_else(|| prefix.clone(), |host| format!("{scheme}://{host}{prefix}"))
}

/// The origin of the page that asks, if its scripts may read the answer.
pub(super) fn origin(options: &ServerOptions, request: &Request<Incoming>) -> Option<HeaderValue> {
    let origin = request.headers().get(ORIGIN)?;
    let is_allowed = options.reading.cors_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
    is_allowed.then(|| origin.clone())
}

/// The answer to a browser that asks whether a page may ask.
pub(super) fn preflight(is_allowed: bool) -> Answer {
    if !is_allowed {
        return answer::words(StatusCode::FORBIDDEN, "no pages of this origin");
    }
    let mut answer: Answer = Response::new(Full::default().into());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    let fields = "Accept, Authorization, Content-Type, If-None-Match";
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(fields));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    answer
}

/// Lets the scripts of a page read an answer.
pub(super) fn allow_origin(answer: &mut Answer, origin: Option<HeaderValue>, options: &ServerOptions) {
    if options.reading.cors_origins.is_empty() {
        return;
    }
    answer.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag, Retry-After, Warning"));
    }
}
