//! Telemetry: follows the event log and sends the story of each version of a study to a collector as one trace. No other stage
//! knows of it, and none waits for it: what cannot be sent stays noted in the store.

mod names;
mod spans;
mod version;

use std::time::Duration;

use ichor_core::chain;
use ichor_store::{Store, StoreError, TraceClaim, TracePace};
use ichor_telemetry::{OtlpClient, Resource, Span};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::backoff::Backoff;
use crate::now;

pub use names::{Tracing, root};

/// Longest time between two looks at the event log.
const POLL: Duration = Duration::from_secs(1);

/// Settings of the stage.
#[derive(Debug)]
pub struct TelemetryOptions {
    /// Who takes the traces.
    pub client: OtlpClient,
    /// Who says it.
    pub resource: Resource,
    /// When a study is exported.
    pub pace: TracePace,
    /// The part of the versions that is exported, 0 to 1; chosen by the number of the trace.
    pub ratio: f64,
    /// Spans of one request.
    pub spans_a_request: usize,
    /// Waits after a failure; it never gives up.
    pub backoff: Backoff,
}

/// Exports until `shutdown`, or until `retired`. A request in flight at that moment is dropped; its study is exported at the next
/// start, under the same numbers.
pub async fn run_until_retired(
    store: Store,
    options: TelemetryOptions,
    retired: CancellationToken,
    shutdown: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            () = retired.cancelled() => return,
            result = export_due(&store, &options, &mut failures) => result,
        };
        let wait = result.unwrap_or_else(|error| {
            error!(%error, "the job log failed; traces wait");
            POLL
        });
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = retired.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Exports everything that is due and says how long to wait. A collector that is away is met by one request a wait, however many
/// studies there are.
async fn export_due(store: &Store, options: &TelemetryOptions, failures: &mut u32) -> Result<Duration, StoreError> {
    // Begun before the first study arrives, and kept up while the collector is away.
    while store.follow_for_traces(options.pace).await? > 0 {}
    while let Some(claim) = store.claim_trace(options.pace, now()).await? {
        match export(options, &claim).await {
            Ok((taken, refused)) => {
                if *failures > 0 {
                    info!(failures, "the collector of traces is back");
                    *failures = 0;
                }
                store.trace_exported(&claim, (taken, refused), options.pace, now()).await?;
                debug!(study = %claim.study_instance, spans = taken, refused, "trace exported");
            }
            Err(words) => {
                *failures = failures.saturating_add(1);
                let wait = options.backoff.after(*failures).unwrap_or(options.backoff.longest);
                if *failures == 1 {
                    warn!(study = %claim.study_instance, why = words, "traces are not taken; they wait");
                }
                store.trace_failed(&claim, &words, now().after(wait)).await?;
                return Ok(wait);
            }
        }
    }
    Ok(POLL)
}

/// Sends what is to be exported of one study; how many spans were taken, and refused for good.
async fn export(options: &TelemetryOptions, claim: &TraceClaim) -> Result<(u64, u64), String> {
    let spans: Vec<Span> =
        (spans::of(claim).into_iter()).filter(|span| names::is_sampled(&span.context.trace, options.ratio)).collect();
    let (mut taken, mut refused) = (0, 0);
    for chunk in spans.chunks(options.spans_a_request.max(1)) {
        let sent = chunk.len() as u64;
        match options.client.export(&options.resource, chunk).await {
            Ok(said) => {
                if said.refused > 0 {
                    error!(study = %claim.study_instance, refused = said.refused, words = said.words, "the collector refused spans");
                }
                (taken, refused) = (taken + sent.saturating_sub(said.refused), refused + said.refused);
            }
            Err(error) if error.is_permanent() => {
                error!(study = %claim.study_instance, %error, spans = sent, "the collector refused spans; they are not sent again");
                refused += sent;
            }
            Err(error) => return Err(chain(&error)),
        }
    }
    Ok((taken, refused))
}
