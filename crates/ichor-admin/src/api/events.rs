//! The event log as a stream of server-sent events.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::App;
use crate::access::{AsViewer, Caller};
use crate::problem::Problem;

/// Pause between two looks at the log.
const LOOK: Duration = Duration::from_millis(500);
/// Looks between two signs of life.
const SIGN_OF_LIFE: u32 = 20;
/// Events read at once.
const BATCH: u32 = 200;

/// Most streams of one user at once: each holds a connection.
const MOST_STREAMS: usize = 8;
/// After how many seconds it is worth another try.
const TRY_AGAIN: u64 = 10;

/// How many streams each user hears.
#[derive(Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<i64, usize>>>);

impl Streams {
    /// A place for one more; `None`: the user has as many as may be.
    fn open(&self, user: i64) -> Option<OpenStream> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(user).or_default();
        if *count >= MOST_STREAMS {
            return None;
        }
        *count += 1;
        Some(OpenStream { open: Arc::clone(&self.0), user })
    }
}

/// A stream that is open, until it is dropped.
struct OpenStream {
    open: Arc<Mutex<HashMap<i64, usize>>>,
    user: i64,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}

/// Where to begin.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StreamQuery {
    /// Events behind this number; left out: what happens from now on. `Last-Event-ID` goes before it.
    after: Option<i64>,
}

/// A stream in the making.
struct Feed {
    app: Arc<App>,
    caller: Caller,
    last: i64,
    pending: VecDeque<String>,
    until: Instant,
    looks: u32,
    _place: OpenStream,
}

/// What happens, as server-sent events
///
/// Each event's data is a JSON object without patient data, its id the number in the log: whoever comes back with
/// `Last-Event-ID` misses nothing, a restart of the daemon in between included.
#[utoipa::path(get, path = "/api/events", tag = "events",
    params(StreamQuery, ("Last-Event-ID" = Option<i64>, Header, description = "The last event that was heard")),
    responses((status = 200, content_type = "text/event-stream", body = ichor_store::LoggedEvent)))]
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    AsViewer(caller): AsViewer,
    headers: HeaderMap,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let last = match headers.get("last-event-id") {
        Some(value) => {
            let number = value.to_str().ok().and_then(|text| text.trim().parse::<i64>().ok());
            Some(number.ok_or_else(|| Problem::bad("Last-Event-ID is not the number of an event"))?)
        }
        None => query.after,
    };
    let last = match last {
        Some(last) => last,
        None => app.facts.store.newest_event().await?,
    };
    let place = app.seen.streams.open(caller.admitted.user).ok_or_else(|| {
        let what = format!("{} hears {MOST_STREAMS} event streams already", caller.admitted.name);
        Problem { retry_after: Some(TRY_AGAIN), ..Problem::new(StatusCode::TOO_MANY_REQUESTS, what) }
    })?;
    let until = Instant::now() + app.facts.access.stream;
    let pending = VecDeque::from([format!("retry: 1000\nid: {last}\n: ichor\n\n")]);
    let feed = Feed { app, caller, last, pending, until, looks: 0, _place: place };
    let body = Body::from_stream(stream::try_unfold(feed, next));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

async fn next(mut feed: Feed) -> Result<Option<(Bytes, Feed)>, std::io::Error> {
    loop {
        if let Some(text) = feed.pending.pop_front() {
            return Ok(Some((Bytes::from(text), feed)));
        }
        if Instant::now() >= feed.until {
            return Ok(None);
        }
        let store = &feed.app.facts.store;
        let events = store.events_after(feed.last, BATCH).await.map_err(|error| {
            tracing::warn!(%error, "an event stream is broken off");
            std::io::Error::other(error.to_string())
        })?;
        for event in events {
            feed.last = event.id;
            let data = serde_json::to_string(&event).map_err(std::io::Error::other)?;
            feed.pending.push_back(format!("id: {}\ndata: {data}\n\n", event.id));
        }
        if feed.pending.is_empty() {
            tokio::time::sleep(LOOK).await;
            feed.looks += 1;
        }
        if feed.looks >= SIGN_OF_LIFE {
            feed.looks = 0;
            // Whoever was put out hears nothing more.
            if !feed.caller.is_still_admitted(&feed.app).await {
                return Ok(None);
            }
            feed.pending.push_back(": still here\n\n".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_hears_so_many_streams() {
        let streams = Streams::default();
        let mut open: Vec<_> = (0..MOST_STREAMS).map(|_| streams.open(1).unwrap()).collect();
        assert!(streams.open(1).is_none());
        assert!(streams.open(2).is_some(), "somebody else");
        open.pop();
        assert!(streams.open(1).is_some(), "one has ended");
        open.clear();
        assert!(streams.0.lock().unwrap().is_empty(), "nothing is left behind");
    }
}
