//! Metrics in the OpenMetrics text format. They are read from the store at every scrape: a restart forgets nothing.

mod audit;
mod latencies;
mod lookups;
mod models;
mod tasks;

use std::collections::BTreeSet;
use std::time::Duration;

use ichor_core::{DeliveryStatus, MessageStatus, StudyStatus};
use ichor_store::{DestinationState, Figures, RetentionFigures, Timestamp, TraceFigures};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::Facts;

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What counts as recent.
const RECENT: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Queue {
    name: String,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Name {
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Verdict {
    verdict: &'static str,
}

/// The exposition, or why there is none.
pub(crate) async fn exposition(facts: &Facts) -> Result<String, String> {
    let now = (facts.now)();
    let since = Timestamp::from_millis(now.as_millis() - RECENT.as_millis() as i64);
    let figures = facts.store.figures(since).await.map_err(|error| error.to_string())?;
    let states = facts.store.destinations(now).await.map_err(|error| error.to_string())?;
    let known = models::Known::read(facts, now).await.map_err(|error| error.to_string())?;
    let mut registry = Registry::with_prefix("ichor");
    let build = [("version", facts.version.to_owned()), ("model", facts.model().unwrap_or_default())];
    registry.register("build", "Program and model", Info::new(build.to_vec()));
    studies(&mut registry, &figures);
    queues(&mut registry, facts, &figures, now);
    destinations(&mut registry, facts, &states);
    retention(&mut registry, &facts.store.retention_figures().await.map_err(|error| error.to_string())?);
    traces(&mut registry, &facts.store.trace_figures().await.map_err(|error| error.to_string())?, now);
    lookups::lookups(&mut registry, &facts.store.lookup_figures().await.map_err(|error| error.to_string())?);
    disk(&mut registry, facts);
    let feed = facts.store.audit_feed_figures().await.map_err(|error| error.to_string())?;
    audit::audit(&mut registry, feed.as_ref(), now);
    tasks::tasks(&mut registry, facts, now).await.map_err(|error| error.to_string())?;
    let measured = facts.store.latencies().await.map_err(|error| error.to_string())?;
    registry.register_collector(Box::new(latencies::Latencies::new(&facts.site(), &measured)));
    models::models(&mut registry, facts, &known);
    models::scores(&mut registry, &known);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| error.to_string())?;
    Ok(text)
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn studies(registry: &mut Registry, figures: &Figures) {
    let family = Family::<Status, Gauge>::default();
    for status in StudyStatus::ALL {
        let known = figures.studies.iter().find(|(found, _)| found == status);
        let studies = known.map_or(0, |(_, studies)| count(*studies));
        family.get_or_create(&Status { status: status.as_str() }).set(studies);
    }
    registry.register("studies", "Studies by state", family);
    // A gauge: the number of the newest row, which a database that is made anew begins again.
    gauge(registry, "instances_received", "Instances recorded since the database was made", count(figures.instances));
    gauge(
        registry,
        "associations_open",
        "Associations and STOW-RS requests that are open",
        count(figures.open_associations),
    );
    let verdicts = Family::<Verdict, Gauge>::default();
    for (verdict, studies) in [("positive", figures.recent.positive), ("negative", figures.recent.negative)] {
        verdicts.get_or_create(&Verdict { verdict }).set(count(studies));
    }
    registry.register("verdicts_24h", "Studies that arrived within 24 hours, by verdict", verdicts);
    let alerted = count(figures.recent.alerted);
    gauge(
        registry,
        "alerts_24h",
        "Studies that arrived within 24 hours and were alerted before they were complete",
        alerted,
    );
}

fn queues(registry: &mut Registry, facts: &Facts, figures: &Figures, now: Timestamp) {
    let site = facts.site();
    let waits = |since: Timestamp| count(now.since(since).as_secs());
    let longest = figures.oldest_analysis.map_or(0, waits);
    gauge(registry, "analysis_wait_seconds", "How long the oldest analysis has waited", longest);

    let rows = figures.deliveries.iter().map(|depth| (depth.destination.as_str(), depth.status.as_str(), depth.count));
    let all: Vec<&'static str> = DeliveryStatus::ALL.iter().map(|status| status.as_str()).collect();
    let (depths, waiting) =
        queue(&site.destinations, &rows.collect::<Vec<_>>(), &all, &figures.oldest_deliveries, waits);
    registry.register("deliveries", "Deliveries by destination and state", depths);
    registry.register("delivery_wait_seconds", "How long the oldest delivery to a destination has waited", waiting);
    let unproven = Family::<Name, Gauge>::default();
    for name in site.destinations.iter().chain(figures.unproven.iter().map(|(name, _)| name)) {
        let known = figures.unproven.iter().find(|(found, _)| found == name);
        unproven.get_or_create(&Name { name: name.clone() }).set(known.map_or(0, |(_, depth)| count(*depth)));
    }
    registry.register("deliveries_unproven", "Deliveries that were accepted and are still to be proven", unproven);

    let rows = figures.messages.iter().map(|depth| (depth.channel.as_str(), depth.status.as_str(), depth.count));
    let all: Vec<&'static str> = MessageStatus::ALL.iter().map(|status| status.as_str()).collect();
    let (depths, waiting) = queue(&site.channels, &rows.collect::<Vec<_>>(), &all, &figures.oldest_messages, waits);
    registry.register("messages", "Messages by channel and state", depths);
    registry.register("message_wait_seconds", "How long the oldest message to a channel has waited", waiting);
}

/// Who is there, of those that are configured; one that was never tried counts as there.
fn destinations(registry: &mut Registry, facts: &Facts, states: &[DestinationState]) {
    let (up, refused) = (Family::<Name, Gauge>::default(), Family::<Name, Gauge>::default());
    for name in &facts.site().destinations {
        let state = states.iter().find(|state| state.name == *name);
        let labels = Name { name: name.clone() };
        up.get_or_create(&labels).set(i64::from(state.is_none_or(|state| state.is_up)));
        refused.get_or_create(&labels).set(state.map_or(0, |state| count(state.refused.len() as u64)));
    }
    registry.register("destination_up", "Whether somebody was there at the last attempt", up);
    let help = "SOP classes with transfer syntaxes that a destination does not accept; what is queued of them is held";
    registry.register("destination_refused_contexts", help, refused);
}

/// Depths by name and state, and how long the oldest of a name has waited: of what is configured, so that a series is there
/// before its first value, and of what still waits for a name that is configured no more.
fn queue(
    configured: &[String],
    rows: &[(&str, &str, u64)],
    statuses: &[&'static str],
    oldest: &[(String, Timestamp)],
    waits: impl Fn(Timestamp) -> i64,
) -> (Family<Queue, Gauge>, Family<Name, Gauge>) {
    let (depths, waiting) = (Family::<Queue, Gauge>::default(), Family::<Name, Gauge>::default());
    let names: BTreeSet<String> =
        rows.iter().map(|(name, _, _)| (*name).to_owned()).chain(configured.to_vec()).collect();
    for name in names {
        for status in statuses {
            let row = rows.iter().find(|(found, state, _)| *found == name && state == status);
            let labels = Queue { name: name.clone(), status };
            depths.get_or_create(&labels).set(row.map_or(0, |(_, _, depth)| count(*depth)));
        }
        let since = oldest.iter().find(|(found, _)| *found == name).map(|(_, since)| *since);
        waiting.get_or_create(&Name { name }).set(since.map_or(0, &waits));
    }
    (depths, waiting)
}

/// What was given up, and what the last sweep could not give up.
fn retention(registry: &mut Registry, figures: &RetentionFigures) {
    let counters = [
        ("retention_files", "Files removed by retention since the database was made", figures.files),
        ("retention_bytes", "Bytes of files removed by retention since the database was made", figures.bytes),
        ("retention_studies", "Studies of which retention gave up files, once a kind of file", figures.studies),
    ];
    for (name, help, value) in counters {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    let swept = figures.swept_at.map_or(0, |at| at.as_millis() / 1_000);
    gauge(registry, "retention_last_sweep_timestamp_seconds", "When the last sweep ended; 0: never", swept);
    gauge(registry, "retention_spared_studies", "Studies whose time had come and that stay", count(figures.spared));
    let short = count(figures.short_bytes);
    gauge(registry, "retention_short_bytes", "Bytes that should be free and that no study may give", short);
    gauge(registry, "retention_doomed_files", "Files that are to be removed and still there", count(figures.doomed));
}

/// What the collector of traces took, and what waits for it.
fn traces(registry: &mut Registry, figures: &TraceFigures, now: Timestamp) {
    let counters = [
        ("trace_spans", "Spans that the collector took since the database was made", figures.spans),
        ("trace_exports", "Studies of which the collector took spans, once an export", figures.exports),
        ("trace_export_failures", "Attempts at exporting traces that failed", figures.failures),
        ("trace_spans_refused", "Spans that the collector refused for good", figures.refused),
    ];
    for (name, help, value) in counters {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    gauge(registry, "traces_waiting", "Studies whose export failed and is to be tried again", count(figures.waiting));
    let waits = figures.oldest.map_or(0, |since| count(now.since(since).as_secs()));
    gauge(registry, "trace_wait_seconds", "Age of the oldest event of those", waits);
}

fn disk(registry: &mut Registry, facts: &Facts) {
    if let Ok(free) = facts.store.blobs().free_bytes() {
        gauge(registry, "disk_free_bytes", "Free space where instances are kept", count(free));
    }
    let kept = count(facts.min_free_bytes);
    gauge(registry, "disk_kept_free_bytes", "Below this much free space instances are refused", kept);
    let mut log = facts.database.clone().into_os_string();
    log.push("-wal");
    let bytes = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let size = count(bytes(&facts.database) + bytes(log.as_ref()));
    gauge(registry, "database_bytes", "Size of the database with its log", size);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}
