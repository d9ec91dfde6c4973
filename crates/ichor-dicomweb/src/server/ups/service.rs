//! Requests for workitems: from URL and method to a change on the shelf, and to the answer.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_LOCATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    UPGRADE, WARNING,
};
use hyper::{Method, Request, Response, StatusCode};
use ichor_core::{AeTitle, Uid};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{debug, error};

use super::attributes::{self, DataSet};
use super::channel::{Channels, MOST_CHANNELS, Upgrade};
use super::fault::Fault;
use super::query::Search;
use super::resource::Resource;
use super::shelf::{By, Deed, ShelfError, Target};
use super::workitem::{self, Next, UpsState, Workitem};
use super::{UpsOptions, report};
use crate::server::answer::{self, Answer};
use crate::server::handler::{Refusal, Sender, StowHandler};
use crate::server::listener::Shared;
use crate::server::options::{Right, ServerOptions};
use crate::server::reading;
use crate::server::request::{field, refused};

/// All workitems (PS3.4 CC.2.3.1).
const WORKLIST: &str = "1.2.840.10008.5.1.4.34.5";
/// Those that match a filter.
const FILTERED: &str = "1.2.840.10008.5.1.4.34.5.1";
/// Attempts at a change that others are making too.
const ATTEMPTS: usize = 16;
/// Workitems that are read from the shelf at a time.
const PAGE: u32 = 16;
/// A workitem grows by updates to so many times the longest body, and no further.
const MOST_BODIES: usize = 4;
/// An answer to a search ends behind the workitem with which it is longer, in bytes.
const LONG_ANSWER: usize = 16 << 20;

/// Referenced Request Sequence, whose items name a study, too.
const REQUESTS: &str = "0040A370";
/// Study Instance UID.
const STUDY: &str = "0020000D";

const JSON: &str = "application/dicom+json";

/// Whether a path leads here.
pub(in crate::server) fn is_ours(options: &ServerOptions, path: &str) -> bool {
    let rest = path.strip_prefix(options.prefix.as_str());
    let first = rest.and_then(|rest| rest.strip_prefix('/')).map(|rest| rest.split('/').next().unwrap_or_default());
    matches!(first, Some("workitems" | "subscribers"))
}

/// Serves a request from its header to its answer. What is refused is told to the handler, as with studies.
pub(in crate::server) async fn serve<H: StowHandler>(
    shared: &Shared<H>,
    options: &UpsOptions,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Answer {
    let mut sender = Sender { address, client: String::new() };
    let authorization = field(request.headers(), &AUTHORIZATION);
    let admitted = shared.options.client(address.ip(), authorization.as_deref()).and_then(|client| {
        sender.client.clone_from(&client.name);
        if shared.stopping.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        client.check(Right::Worklist)?;
        Arc::clone(&shared.requests).try_acquire_owned().map_err(|_| Refusal::Busy("requests"))
    });
    let permit = match admitted {
        Ok(permit) => permit,
        Err(refusal) => {
            shared.handler.request_refused(&sender, &refusal).await;
            return refused(&refusal, shared.options.retry_after);
        }
    };
    let desk = Desk { options, server: &shared.options, sender: &sender, channels: &shared.channels };
    let answer = match desk.answer(request).await {
        Ok(answer) => answer,
        Err(Failure::Fault(fault)) => {
            debug!(client = sender.client, %fault, "request for a workitem refused");
            let why = fault.words.clone();
            shared.handler.request_refused(&sender, &Refusal::NotTaken { status: fault.status, why }).await;
            desk.fault(&fault)
        }
        Err(Failure::Shelf(failure)) => {
            error!(error = %failure, "workitems");
            refused(
                &Refusal::Unavailable("workitems are not available just now".to_owned()),
                shared.options.retry_after,
            )
        }
    };
    drop(permit);
    answer
}

enum Failure {
    Fault(Fault),
    Shelf(ShelfError),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ShelfError> for Failure {
    fn from(error: ShelfError) -> Self {
        Self::Shelf(error)
    }
}

struct Desk<'a> {
    options: &'a UpsOptions,
    server: &'a ServerOptions,
    sender: &'a Sender,
    channels: &'a Arc<Channels>,
}

impl Desk<'_> {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Failure> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().strip_prefix(self.server.prefix.as_str()).unwrap_or_default().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let resource = Resource::parse(&path).ok_or_else(|| Fault::new(404, "there is no such resource"))?;
        let method = &head.method;
        let answers_json = matches!(resource, Resource::Workitems | Resource::Workitem(_)) && method == Method::GET;
        if answers_json && !accepts_json(&head.headers) {
            return Err(Fault::new(406, "answers are application/dicom+json").into());
        }
        match (&resource, method.as_str()) {
            (Resource::Workitems, "GET") => self.search(&query).await,
            (Resource::Workitems, "POST") => {
                let set = self.body(&head.headers, body, false).await?;
                self.create(&query, set, &head.headers).await
            }
            (Resource::Workitem(uid), "GET") => self.retrieve(&named(uid)?).await,
            (Resource::Workitem(uid), "POST") => {
                let (uid, set) = (named(uid)?, self.body(&head.headers, body, false).await?);
                let shown = transaction_of(&query)?;
                let change = |item: &Workitem, now| {
                    let next = workitem::update(item, set.clone(), shown.as_ref(), now)?;
                    workitem::check_size(&next, self.options.max_body_bytes.saturating_mul(MOST_BODIES))?;
                    Ok(next)
                };
                self.change(&uid, "workitem-updated", StatusCode::OK, change).await
            }
            (Resource::State(uid), "PUT") => {
                let (uid, set) = (named(uid)?, self.body(&head.headers, body, false).await?);
                let change = |item: &Workitem, now| workitem::change_state(item, &set, now);
                self.change(&uid, "workitem-state-changed", StatusCode::OK, change).await
            }
            (Resource::CancelRequest(uid), "POST") => {
                let (uid, set) = (named(uid)?, self.body(&head.headers, body, true).await?);
                self.request_cancel(&uid, &set).await
            }
            (Resource::Subscription { target, subscriber }, "POST") => {
                self.subscribe(target, subscriber, &query, &head.headers).await
            }
            (Resource::Subscription { target, subscriber }, "DELETE") => {
                let subscriber = self.subscriber(subscriber)?;
                let by = self.by_subscriber("workitems-unsubscribed", &subscriber);
                let is_gone = self.options.shelf.unsubscribe(by, &subscriber, &target_of(target)?).await?;
                if is_gone { Ok(self.empty(StatusCode::OK, None)) } else { Err(no_subscription().into()) }
            }
            (Resource::Suspension { target, subscriber }, "POST") => {
                if target_of(target)? != Target::Worklist {
                    return Err(Fault::bad_request("only the subscription to the worklist can be suspended").into());
                }
                let subscriber = self.subscriber(subscriber)?;
                let by = self.by_subscriber("workitems-suspended", &subscriber);
                let is_suspended = self.options.shelf.suspend(by, &subscriber).await?;
                if is_suspended { Ok(self.empty(StatusCode::OK, None)) } else { Err(no_subscription().into()) }
            }
            (Resource::Channel(subscriber), "GET") => {
                let subscriber = self.subscriber(subscriber)?;
                let answer = self.open_channel(&subscriber, &head.headers)?;
                self.options.shelf.audit(self.by_subscriber("workitem-events-opened", &subscriber)).await?;
                Ok(answer)
            }
            _ => {
                let mut answer = self.fault(&Fault::new(405, "this resource takes other methods"));
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static(resource.methods()));
                Ok(answer)
            }
        }
    }

    async fn create(&self, query: &str, set: DataSet, headers: &HeaderMap) -> Result<Answer, Failure> {
        // `?{uid}` in older editions, `?workitem={uid}` since.
        let asked = query.strip_prefix("workitem=").unwrap_or(query);
        let asked = (!asked.is_empty()).then(|| named(asked)).transpose()?;
        let item = workitem::create(asked.as_ref(), set, now())?;
        let by = self.by("workitem-created", &item);
        if !self.options.shelf.insert(by, &item, &[report::of_state(&item)]).await? {
            return Err(Fault::conflict("there is a workitem of this name").into());
        }
        let mut answer = self.empty(StatusCode::CREATED, None);
        let place = format!("{}/workitems/{}", self.base(headers, "http"), item.uid);
        locate(&mut answer, &place);
        Ok(answer)
    }

    /// Who does what with a workitem, for the audit trail.
    fn by(&self, action: &'static str, item: &Workitem) -> By<'_> {
        let requests = attributes::items(&item.attributes, REQUESTS);
        let sets = std::iter::once(&item.attributes).chain(requests);
        let study = sets.filter_map(|set| attributes::uid(set, STUDY).ok().flatten()).next();
        let detail = json!({ "workitem": item.uid, "study": study });
        By { who: self.sender, deed: Deed { action, study, detail } }
    }

    /// The title of a subscriber, unless it is another client's.
    fn subscriber(&self, text: &str) -> Result<String, Fault> {
        let title = title(text)?;
        let owner = self.server.clients.iter().find(|client| client.subscribers.contains(&title));
        if owner.is_some_and(|owner| owner.name != self.sender.client) {
            return Err(Fault::new(403, "this subscriber is another client's"));
        }
        Ok(title.as_str().to_owned())
    }

    /// Who does what about a subscriber.
    fn by_subscriber(&self, action: &'static str, subscriber: &str) -> By<'_> {
        let detail = json!({ "subscriber": subscriber });
        By { who: self.sender, deed: Deed { action, study: None, detail } }
    }

    async fn retrieve(&self, uid: &Uid) -> Result<Answer, Failure> {
        let item = self.options.shelf.get(uid).await?.ok_or_else(Fault::unknown)?;
        self.options.shelf.audit(self.by("workitem-viewed", &item)).await?;
        Ok(listed(&[json_of(item)]))
    }

    async fn search(&self, query: &str) -> Result<Answer, Failure> {
        let search = Search::parse(query).map_err(Fault::bad_request)?;
        let most = search.limit.map_or(self.options.max_results, |limit| {
            u32::try_from(limit).unwrap_or(u32::MAX).min(self.options.max_results)
        });
        let (mut found, mut length, mut passed, mut place, mut is_more) = (Vec::new(), 0, 0, 0, false);
        'pages: loop {
            let page = self.options.shelf.list(&search.states, place, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            place += page.len() as u64;
            for item in page.into_iter().filter(|item| search.matches(&item.attributes)) {
                if passed < search.offset {
                    passed += 1;
                } else if found.len() < most as usize && length <= LONG_ANSWER {
                    let text = json_of(item);
                    length += text.len();
                    found.push(text);
                } else {
                    is_more = true;
                    break 'pages;
                }
            }
            if is_last {
                break;
            }
        }
        let detail = json!({ "query": query, "found": found.len() });
        let deed = Deed { action: "workitems-searched", study: None, detail };
        self.options.shelf.audit(By { who: self.sender, deed }).await?;
        let mut answer = if found.is_empty() { self.empty(StatusCode::NO_CONTENT, None) } else { listed(&found) };
        if search.is_fuzzy {
            self.warn(
                &mut answer,
                "The fuzzymatching parameter is not supported. Only literal matching has been performed.",
            );
        }
        if is_more {
            self.warn(&mut answer, "There are additional results that can be requested.");
        }
        Ok(answer)
    }

    /// Changes a workitem; whoever is second sees what the first has made of it.
    async fn change(
        &self,
        uid: &Uid,
        action: &'static str,
        done: StatusCode,
        change: impl Fn(&Workitem, OffsetDateTime) -> Result<Next, Fault>,
    ) -> Result<Answer, Failure> {
        for _ in 0..ATTEMPTS {
            let item = self.options.shelf.get(uid).await?.ok_or_else(Fault::unknown)?;
            match change(&item, now())? {
                Next::Same(warning) => return Ok(self.empty(done, Some(warning))),
                Next::Changed(next, reports) => {
                    if self.options.shelf.replace(self.by(action, &item), &next, &reports).await? {
                        return Ok(self.empty(done, None));
                    }
                }
            }
        }
        Err(ShelfError("it is being changed by too many at once".to_owned()).into())
    }

    async fn request_cancel(&self, uid: &Uid, set: &DataSet) -> Result<Answer, Failure> {
        let item = self.options.shelf.get(uid).await?.ok_or_else(Fault::unknown)?;
        if item.state == UpsState::InProgress && !self.options.shelf.has_subscriber(uid).await? {
            return Err(Fault::conflict("The performer cannot be contacted.").into());
        }
        let cancel = |item: &Workitem, now| workitem::request_cancel(item, set, &self.sender.client, now);
        self.change(uid, "workitem-cancel-requested", StatusCode::ACCEPTED, cancel).await
    }

    async fn subscribe(
        &self,
        target: &str,
        subscriber: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, Failure> {
        if target == FILTERED {
            return Err(Fault::new(403, "Filtered Worklist Subscriptions are not supported.").into());
        }
        let (subscriber, target) = (self.subscriber(subscriber)?, target_of(target)?);
        let deletion_lock = query.split('&').any(|pair| pair.eq_ignore_ascii_case("deletionlock=true"));
        let shelf = &self.options.shelf;
        // The present state is told at once (CC.2.3.3).
        let known = match &target {
            Target::Workitem(uid) => vec![report::of_state(&shelf.get(uid).await?.ok_or_else(Fault::unknown)?)],
            Target::Worklist => self.open_items().await?,
        };
        let detail = json!({ "subscriber": subscriber, "told": known.len() });
        let by = By { who: self.sender, deed: Deed { action: "workitems-subscribed", study: None, detail } };
        shelf.subscribe(by, &subscriber, &target, deletion_lock, &known).await?;
        let mut answer = self.empty(StatusCode::CREATED, None);
        locate(&mut answer, &format!("{}/subscribers/{subscriber}", self.base(headers, "ws")));
        Ok(answer)
    }

    /// The states of all that are not over.
    async fn open_items(&self) -> Result<Vec<DataSet>, Failure> {
        let (mut all, states) = (Vec::new(), [UpsState::Scheduled, UpsState::InProgress]);
        loop {
            let page = self.options.shelf.list(&states, all.len() as u64, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            all.extend(page.iter().map(report::of_state));
            if is_last {
                return Ok(all);
            }
        }
    }

    /// The answer 101, with what becomes of the connection after it (RFC 6455).
    fn open_channel(&self, subscriber: &str, headers: &HeaderMap) -> Result<Answer, Failure> {
        let has = |name: &HeaderName, word: &str| {
            field(headers, name)
                .is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
        };
        let key = field(headers, &HeaderName::from_static("sec-websocket-key"));
        let version = field(headers, &HeaderName::from_static("sec-websocket-version"));
        let (Some(key), true, true) = (key, has(&UPGRADE, "websocket"), has(&CONNECTION, "upgrade")) else {
            return Err(Fault::bad_request("this is a WebSocket (RFC 6455)").into());
        };
        if version.as_deref() != Some("13") {
            return Err(Fault::new(426, "this is a WebSocket of version 13").into());
        }
        let place = self.channels.take(&self.sender.client).ok_or_else(|| {
            Fault::new(503, format!("this client has {MOST_CHANNELS} event channels open, and may not have more"))
        })?;
        let mut answer = Response::new(Full::new(Bytes::new()).into());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields = answer.headers_mut();
        fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(value) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
            fields.insert("sec-websocket-accept", value);
        }
        let (subscriber, shelf) = (subscriber.to_owned(), Arc::clone(&self.options.shelf));
        answer.extensions_mut().insert(Upgrade { subscriber, shelf, _place: Arc::new(place) });
        Ok(answer)
    }

    /// Reads a body; `may_be_empty`: none at all is an empty data set.
    async fn body(&self, headers: &HeaderMap, body: Incoming, may_be_empty: bool) -> Result<DataSet, Failure> {
        let limited = Limited::new(body, self.options.max_body_bytes).collect();
        let bytes = match tokio::time::timeout(self.server.body_idle_timeout, limited).await {
            Err(_) => return Err(Fault::new(408, "the body did not come in time").into()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let why = format!("the body is longer than {} bytes", self.options.max_body_bytes);
                return Err(Fault::new(413, why).into());
            }
            Ok(Err(_)) => return Err(Fault::bad_request("the body was cut").into()),
            Ok(Ok(body)) => body.to_bytes(),
        };
        if bytes.is_empty() && may_be_empty {
            return Ok(DataSet::new());
        }
        let media = field(headers, &CONTENT_TYPE).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !matches!(media.as_str(), JSON | "application/json") {
            return Err(Fault::new(415, "workitems are taken as application/dicom+json").into());
        }
        Ok(attributes::parse(&bytes).map_err(Fault::bad_request)?)
    }

    /// The URL before `/workitems`, as the peer calls us.
    fn base(&self, headers: &HeaderMap, scheme: &str) -> String {
        let base = reading::base(self.server, headers);
        base.strip_prefix("http").map_or_else(|| base.clone(), |rest| format!("{scheme}{rest}"))
    }

    fn empty(&self, status: StatusCode, warning: Option<&str>) -> Answer {
        let mut answer = Response::new(Full::new(Bytes::new()).into());
        *answer.status_mut() = status;
        if let Some(warning) = warning {
            self.warn(&mut answer, warning);
        }
        answer
    }

    fn fault(&self, fault: &Fault) -> Answer {
        let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = answer::words(status, &fault.words);
        self.warn(&mut answer, &fault.words);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer::retry_after(&mut answer, self.server.retry_after);
        }
        answer
    }

    /// `299 <service>: words` (PS3.18 8.4).
    fn warn(&self, answer: &mut Answer, words: &str) {
        let plain: String = words.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 {}: {plain}", self.server.prefix)) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn named(text: &str) -> Result<Uid, Fault> {
    Uid::parse(text).map_err(|error| Fault::bad_request(format!("the workitem in the URL is not one: {error}")))
}

fn title(text: &str) -> Result<AeTitle, Fault> {
    let text = text.replace("%20", " ");
    AeTitle::parse(&text).map_err(|error| Fault::bad_request(format!("the subscriber: {error}")))
}

fn target_of(text: &str) -> Result<Target, Fault> {
    match text {
        WORKLIST => Ok(Target::Worklist),
        FILTERED => Err(Fault::new(403, "Filtered Worklist Subscriptions are not supported.")),
        uid => Ok(Target::Workitem(named(uid)?)),
    }
}

/// The Transaction UID in the query of an update: `?transaction-uid=…`, `?transaction=…`, or alone as in older editions.
fn transaction_of(query: &str) -> Result<Option<Uid>, Fault> {
    let value =
        ["transaction-uid=", "transaction=", "TransactionUID="].iter().find_map(|name| query.strip_prefix(name));
    let value = value.unwrap_or(query);
    let uid = (!value.is_empty()).then(|| Uid::parse(value)).transpose();
    uid.map_err(|error| Fault::bad_request(format!("the Transaction UID in the URL is not one: {error}")))
}

fn no_subscription() -> Fault {
    Fault::new(404, "there is no such subscription")
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let Some(accept) = field(headers, &ACCEPT) else { return true };
    let media = |part: &str| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    accept
        .split(',')
        .any(|part| matches!(media(part).as_str(), JSON | "application/json" | "application/*" | "*/*" | ""))
}

fn locate(answer: &mut Answer, place: &str) {
    if let Ok(value) = HeaderValue::from_str(place) {
        answer.headers_mut().insert(CONTENT_LOCATION, value);
    }
}

fn json_of(item: Workitem) -> String {
    Value::Object(item.attributes).to_string()
}

/// Workitems, each as JSON, as an array.
fn listed(items: &[String]) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("[{}]", items.join(",")))).into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    answer
}
