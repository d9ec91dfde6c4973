//! One request, from its header to its answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, FORWARDED, HeaderMap, HeaderName,
    HeaderValue,
};
use hyper::{Method, Request, StatusCode};
use ichor_core::Uid;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error};

use super::answer::{self, Answer, Places};
use super::body::{BodyError, BodyReader};
use super::handler::{PartFailure, PartOutcome, PartResult, PartSink, Refusal, RequestEnd, Sender, StowHandler};
use super::listener::Shared;
use super::media::{self, AnswerForm, BodyKind, MediaError};
use super::multipart::{Event, MultipartError, MultipartParser, PartHeader};
use super::options::{Right, ServerOptions};
use super::reading;
use super::ups;

/// Parts of one request that are made durable at the same time, while the next ones are read.
const COMMITS_AT_ONCE: usize = 4;

/// Failure reasons (PS3.4 table B.2-1) that are this module's own.
const OUT_OF_RESOURCES: u16 = 0xA700;
const PROCESSING_FAILURE: u16 = 0x0110;

/// What a header asks for.
struct Asked {
    study: Option<Uid>,
    body: BodyKind,
    form: AnswerForm,
    /// What URLs begin with, where what is stored can be retrieved.
    base: Option<String>,
}

/// Serves a request.
pub(super) async fn serve<H: StowHandler>(
    shared: Arc<Shared<H>>,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Answer {
    let address = match client(&shared.options, address, request.headers()) {
        Ok(address) => address,
        Err(refusal) => {
            shared.handler.request_refused(&Sender { address, client: String::new() }, &refusal).await;
            return refused(&refusal, shared.options.retry_after);
        }
    };
    if let Some(options) = shared.options.ups.as_ref().filter(|_| ups::is_ours(&shared.options, request.uri().path())) {
        return ups::serve(&shared, options, address, request).await;
    }
    let origin = reading::origin(&shared.options, &request);
    let (has_origins, has_archive) = (!shared.options.reading.cors_origins.is_empty(), shared.archive.is_some());
    let mut answer = match *request.method() {
        Method::OPTIONS if has_origins => reading::preflight(origin.is_some()),
        Method::GET if has_archive => reading::serve(&shared, address, &request).await,
        _ => store(&shared, address, request).await,
    };
    if has_archive && answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    reading::allow_origin(&mut answer, origin, &shared.options);
    answer
}

/// Where a request comes from: the peer, or whom a trusted proxy speaks for.
fn client(options: &ServerOptions, peer: SocketAddr, headers: &HeaderMap) -> Result<SocketAddr, Refusal> {
    let values = |name: HeaderName| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    let (plain, standard) = (values(HeaderName::from_static("x-forwarded-for")), values(FORWARDED));
    let client = options.trusted_proxies.client(peer.ip(), &plain, &standard);
    let client = client.map_err(|error| not_taken(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(if client == peer.ip() { peer } else { SocketAddr::from((client, 0)) })
}

/// Serves a request to store. Whatever happens, the handler hears of it.
async fn store<H: StowHandler>(shared: &Arc<Shared<H>>, address: SocketAddr, request: Request<Incoming>) -> Answer {
    let mut sender = Sender { address, client: String::new() };
    let authorization = field(request.headers(), &AUTHORIZATION);
    let admitted = shared.options.client(address.ip(), authorization.as_deref()).and_then(|client| {
        sender.client.clone_from(&client.name);
        if shared.stopping.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let asked = read_header(shared, &request)?;
        client.check(Right::Store)?;
        let permit = Arc::clone(&shared.requests).try_acquire_owned().map_err(|_| Refusal::Busy("requests"))?;
        Ok((asked, permit))
    });
    let opened = match admitted {
        Err(refusal) => Err(refusal),
        Ok((asked, permit)) => {
            let opened = shared.handler.request_opened(&sender, asked.study.as_ref()).await;
            opened.map(|open| (open, asked, permit))
        }
    };
    match opened {
        Err(refusal) => {
            shared.handler.request_refused(&sender, &refusal).await;
            refused(&refusal, shared.options.retry_after)
        }
        Ok((open, asked, permit)) => {
            let answer = receive(shared, open, asked, request.into_body()).await;
            drop(permit);
            answer
        }
    }
}

/// The answer to a refusal.
pub(super) fn refused(refusal: &Refusal, after: Duration) -> Answer {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = answer::words(status, &refusal.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer::retry_after(&mut answer, after);
    }
    answer
}

/// The values of a header field, joined; what is no text counts as a value that matches nothing.
pub(super) fn field(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?")).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

pub(super) fn not_taken(status: StatusCode, why: impl Into<String>) -> Refusal {
    Refusal::NotTaken { status: status.as_u16(), why: why.into() }
}

/// Checks everything that can be checked before the body is read.
fn read_header<H>(shared: &Shared<H>, request: &Request<Incoming>) -> Result<Asked, Refusal> {
    let (options, headers) = (&shared.options, request.headers());
    let path = request.uri().path().strip_prefix(options.prefix.as_str());
    let path = path.and_then(|path| path.strip_prefix("/studies")).map(|path| path.trim_end_matches('/'));
    let study = match path {
        Some("") => None,
        Some(path) if path.starts_with('/') && !path[1..].contains('/') => Some(&path[1..]),
        Some(_) | None => {
            return Err(not_taken(StatusCode::NOT_FOUND, "studies are stored at /studies, and nowhere else"));
        }
    };
    if request.method() != Method::POST {
        return Err(not_taken(
            StatusCode::METHOD_NOT_ALLOWED,
            "studies are stored (POST), searched and retrieved (GET) here, and nothing else",
        ));
    }
    let study = study
        .map(Uid::parse)
        .transpose()
        .map_err(|error| not_taken(StatusCode::BAD_REQUEST, format!("the study in the URL is not one: {error}")))?;
    let form = AnswerForm::negotiate(&field(headers, &ACCEPT).unwrap_or_default()).ok_or_else(|| {
        not_taken(StatusCode::NOT_ACCEPTABLE, "answers are application/dicom+json or application/dicom+xml")
    })?;
    if let Some(encoding) = field(headers, &CONTENT_ENCODING)
        && !encoding.eq_ignore_ascii_case("identity")
    {
        return Err(not_taken(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded bodies (Content-Encoding) are not taken"));
    }
    let body = media::body_kind(field(headers, &CONTENT_TYPE).as_deref()).map_err(|error| {
        let status = match error {
            MediaError::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            MediaError::Malformed(_) => StatusCode::BAD_REQUEST,
        };
        not_taken(status, error.to_string())
    })?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > options.max_body_bytes) {
        let why = BodyError::TooLong(options.max_body_bytes).to_string();
        return Err(not_taken(StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    let is_had = options.clients.iter().any(|client| client.check(Right::Retrieve).is_ok());
    let base = shared.archive.as_ref().filter(|_| is_had).map(|_| reading::base(options, headers));
    Ok(Asked { study, body, form, base })
}

/// What ended a request before the end of its body.
struct Problem {
    /// What the peer is told; `None` if it is gone.
    status: Option<StatusCode>,
    words: String,
}

impl Problem {
    fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status: Some(status), words: words.into() }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match &error {
            BodyError::TooLong(_) => Some(StatusCode::PAYLOAD_TOO_LARGE),
            BodyError::Silent(_) | BodyError::Slow(_) => Some(StatusCode::REQUEST_TIMEOUT),
            BodyError::Cut(_) => None,
        };
        Self { status, words: error.to_string() }
    }
}

impl From<MultipartError> for Problem {
    fn from(error: MultipartError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

/// Takes the body of an opened request, and answers.
async fn receive<H: StowHandler>(shared: &Shared<H>, open: H::Request, asked: Asked, body: Incoming) -> Answer {
    let options = &shared.options;
    let mut intake = Intake {
        handler: &shared.handler,
        open: &open,
        max_part: options.max_part_bytes,
        max_parts: options.max_parts,
        current: None,
        results: Vec::new(),
        parts: 0,
        commits: JoinSet::new(),
        bytes: 0,
    };
    let mut body = BodyReader::new(body, options);
    let read = tokio::select! {
        biased;
        () = shared.aborting.cancelled() => Err(Problem { status: None, words: "aborted: shutting down".to_owned() }),
        read = intake.read(&mut body, &asked.body) => read,
    };
    // A part that is not complete leaves nothing; the others have a right to their end.
    intake.current = None;
    intake.settle(0).await;
    // In the order of the parts, whichever commit was through first.
    intake.results.sort_by_key(|(part, _)| *part);
    let (bytes, results) = (intake.bytes, intake.results.into_iter().map(|(_, result)| result).collect::<Vec<_>>());
    let problem = read.err();
    let status = match &problem {
        Some(problem) => problem.status,
        None => Some(answer::status_of(&results)),
    };
    let failures = results.iter().filter(|result| matches!(result.outcome, PartOutcome::Failed(_))).count();
    let problem = problem.map(|problem| problem.words);
    let end = RequestEnd {
        status: status.map(|status| status.as_u16()),
        outcome: outcome(status, problem.as_deref(), &results, failures),
        instances: (results.len() - failures) as u64,
        failures: failures as u64,
        bytes,
    };
    debug!(outcome = %end.outcome, "STOW-RS request ended");
    shared.handler.request_closed(open, end).await;
    let status = status.unwrap_or(StatusCode::BAD_REQUEST);
    let mut answer = match &problem {
        Some(words) if results.is_empty() => answer::words(status, words),
        _ => {
            let places = places(shared, &asked, &results).await;
            answer::of_parts(status, &results, problem.as_deref(), asked.form, &places)
        }
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer::retry_after(&mut answer, options.retry_after);
    }
    answer
}

/// Where what was stored can be had again.
async fn places<H: StowHandler>(shared: &Shared<H>, asked: &Asked, results: &[PartResult]) -> Places {
    let (Some(archive), Some(base)) = (shared.archive.clone(), asked.base.clone()) else { return Places::default() };
    let is_stored = |result: &&PartResult| !matches!(result.outcome, PartOutcome::Failed(_));
    let stored: Vec<Uid> = results.iter().filter(is_stored).filter_map(|result| result.sop_instance.clone()).collect();
    let study = asked.study.as_ref().map(|study| format!("{base}/studies/{study}"));
    let found = tokio::task::spawn_blocking(move || {
        let mut found = HashMap::new();
        for uid in stored {
            match archive.holder_of(&uid) {
                Ok(Some((study, series))) => {
                    let url = format!("{base}/studies/{study}/series/{series}/instances/{uid}");
                    found.insert(uid.to_string(), url);
                }
                Ok(None) => {}
                // It is stored all the same; the answer only does not say where.
                Err(fault) => error!(sop_instance = %uid, reason = %fault, "no Retrieve URL"),
            }
        }
        found
    });
    Places { study, instances: found.await.unwrap_or_default() }
}

/// The end of a request in words, with the first thing that went wrong.
fn outcome(status: Option<StatusCode>, problem: Option<&str>, results: &[PartResult], failures: usize) -> String {
    let mut words = match status {
        Some(status) => format!("answered {}", status.as_u16()),
        None => "not answered".to_owned(),
    };
    if let Some(problem) = problem {
        words = format!("{words}: {problem}");
    }
    if failures > 0 {
        words = format!("{words}: {failures} not stored");
        if let Some(first) = results.iter().find_map(answer::text_of) {
            words = format!("{words}, the first: {first}");
        }
    }
    words
}

/// The parts of one request.
struct Intake<'a, H: StowHandler> {
    handler: &'a H,
    open: &'a H::Request,
    max_part: u64,
    max_parts: usize,
    current: Option<Current<H::Sink>>,
    /// In the order in which the parts became durable or failed.
    /// With the number of its part.
    results: Vec<(usize, PartResult)>,
    /// Parts that have begun.
    parts: usize,
    commits: JoinSet<(usize, PartResult)>,
    /// Bytes of all parts.
    bytes: u64,
}

/// The part that is being read.
struct Current<S> {
    sink: S,
    length: u64,
}

impl<H: StowHandler> Intake<'_, H> {
    /// Reads a body to its end.
    async fn read(&mut self, body: &mut BodyReader, kind: &BodyKind) -> Result<(), Problem> {
        let BodyKind::Multipart { boundary } = kind else { return self.read_single(body).await };
        let mut parser = MultipartParser::new(boundary);
        while let Some(chunk) = body.next().await? {
            parser.push(&chunk);
            while let Some(event) = parser.next()? {
                match event {
                    Event::Part(header) => self.begin(&header)?,
                    Event::Data(data) => self.write(&data).await,
                    Event::PartEnd => self.end().await,
                    Event::End => {}
                }
            }
        }
        parser.finish()?;
        if self.results.is_empty() && self.commits.is_empty() {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "the body has no part"));
        }
        Ok(())
    }

    async fn read_single(&mut self, body: &mut BodyReader) -> Result<(), Problem> {
        self.parts += 1;
        self.current = Some(Current { sink: self.handler.begin(self.open), length: 0 });
        while let Some(chunk) = body.next().await? {
            self.write(&chunk).await;
        }
        self.end().await;
        Ok(())
    }

    fn begin(&mut self, header: &PartHeader) -> Result<(), Problem> {
        let unsupported = |why: String| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
        if self.parts >= self.max_parts {
            let words = format!("the body has more than {} parts", self.max_parts);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, words));
        }
        // Without a type of its own, a part is what the request's type says.
        if let Some(content_type) = &header.content_type {
            media::part_kind(content_type).map_err(|error| unsupported(error.to_string()))?;
        }
        if let Some("base64" | "quoted-printable") = header.transfer_encoding.as_deref() {
            return Err(unsupported("parts with a Content-Transfer-Encoding are not taken".to_owned()));
        }
        self.parts += 1;
        self.current = Some(Current { sink: self.handler.begin(self.open), length: 0 });
        Ok(())
    }

    async fn write(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        // A part that was given up is read to its end and discarded.
        let Some(mut current) = self.current.take() else { return };
        let room = self.max_part - current.length;
        // What fits is handed over, so that the sink can say of which instance there was too much.
        let fits = usize::try_from(room).map_or(data, |room| &data[..room.min(data.len())]);
        current.length += fits.len() as u64;
        current.sink.write(fits).await;
        if fits.len() < data.len() {
            let text = format!("the instance is longer than {} bytes", self.max_part);
            let failure = PartFailure { reason: OUT_OF_RESOURCES, text, is_temporary: false };
            self.results.push((self.parts, current.sink.refuse(failure)));
        } else {
            self.current = Some(current);
        }
    }

    async fn end(&mut self) {
        let Some(Current { sink, .. }) = self.current.take() else { return };
        self.settle(COMMITS_AT_ONCE - 1).await;
        let part = self.parts;
        self.commits.spawn(async move { (part, sink.commit().await) });
    }

    /// Waits until no more than `left` commits are under way.
    async fn settle(&mut self, left: usize) {
        while self.commits.len() > left
            && let Some(ended) = self.commits.join_next().await
        {
            self.results.push(ended.unwrap_or_else(|error| (usize::MAX, panicked(&error))));
        }
    }
}

/// What is said of a part whose commit broke down.
fn panicked(error: &JoinError) -> PartResult {
    error!(%error, "the task of a part panicked");
    let text = "the receiver failed".to_owned();
    let failure = PartFailure { reason: PROCESSING_FAILURE, text, is_temporary: true };
    PartResult { sop_class: None, sop_instance: None, outcome: PartOutcome::Failed(failure) }
}
