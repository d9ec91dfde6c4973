//! The body of a request, chunk by chunk, from a peer that may be slow, silent or gone.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Instant, timeout};

use super::options::ServerOptions;

/// Why a body was not read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum BodyError {
    /// More than the cap: 413.
    #[error("the body is longer than {0} bytes")]
    TooLong(u64),
    /// Nothing came for too long: 408.
    #[error("nothing of the body came for {0:?}")]
    Silent(Duration),
    /// Too little came: 408.
    #[error("the body came at less than {0} bytes a second")]
    Slow(u64),
    /// The connection broke, or the framing of the body is broken.
    #[error("the body was cut: {0}")]
    Cut(String),
}

/// A body that is being read.
pub(super) struct BodyReader {
    body: Incoming,
    max_bytes: u64,
    idle: Duration,
    min_rate: u64,
    received: u64,
    /// Whether more came than may be handed over.
    is_over: bool,
    /// Time spent waiting for the peer, and what came in it. Time that we take ourselves is not the peer's fault.
    waited: Duration,
    in_window: u64,
}

impl BodyReader {
    pub(super) fn new(body: Incoming, options: &ServerOptions) -> Self {
        Self {
            body,
            max_bytes: options.max_body_bytes,
            idle: options.body_idle_timeout,
            min_rate: options.min_bytes_per_second,
            received: 0,
            is_over: false,
            waited: Duration::ZERO,
            in_window: 0,
        }
    }

    /// The next bytes; `None` at the end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.is_over {
            return Err(BodyError::TooLong(self.max_bytes));
        }
        loop {
            let begun = Instant::now();
            let frame = timeout(self.idle, self.body.frame()).await.map_err(|_| BodyError::Silent(self.idle))?;
            let Some(frame) = frame else { return Ok(None) };
            // Trailer fields say nothing here.
            let Ok(chunk) = frame.map_err(|error| BodyError::Cut(cause(&error)))?.into_data() else { continue };
            self.check_rate(begun.elapsed(), chunk.len() as u64)?;
            let room = self.max_bytes - self.received;
            if chunk.is_empty() {
                continue;
            }
            if room == 0 {
                return Err(BodyError::TooLong(self.max_bytes));
            }
            // What fits is handed over first: it may hold whole parts, however the bytes were cut on their way.
            let fits = usize::try_from(room).map_or(chunk.len(), |room| room.min(chunk.len()));
            self.received += fits as u64;
            self.is_over = fits < chunk.len();
            return Ok(Some(chunk.slice(..fits)));
        }
    }

    fn check_rate(&mut self, waited: Duration, bytes: u64) -> Result<(), BodyError> {
        self.waited += waited;
        self.in_window += bytes;
        if self.waited < self.idle {
            return Ok(());
        }
        let wanted = u128::from(self.min_rate) * self.waited.as_millis() / 1000;
        if u128::from(self.in_window) < wanted {
            return Err(BodyError::Slow(self.min_rate));
        }
        (self.waited, self.in_window) = (Duration::ZERO, 0);
        Ok(())
    }
}

/// The innermost words of an error.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    if innermost.to_string() == error.to_string() { error.to_string() } else { format!("{error}: {innermost}") }
}
