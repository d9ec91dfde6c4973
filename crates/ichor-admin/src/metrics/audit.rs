//! How the audit repository fares.

use ichor_store::{AuditFeedFigures, Timestamp};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{count, gauge};

/// Nothing where no repository is configured.
pub(super) fn audit(registry: &mut Registry, figures: Option<&AuditFeedFigures>, now: Timestamp) {
    let Some(figures) = figures else { return };
    gauge(
        registry,
        "audit_waiting",
        "Rows of the audit trail and events that the audit repository is not yet sure to have",
        count(figures.waiting),
    );
    let age = figures.waiting_since.map_or(0, |since| count(now.since(since).as_secs()));
    gauge(registry, "audit_oldest_waiting_seconds", "Age of the oldest of them", age);
    let words = i64::from(figures.words.is_some());
    gauge(registry, "audit_failing", "Whether the audit repository could not be told last", words);
    let told = Counter::<u64>::default();
    told.inc_by(figures.told);
    registry.register("audit_messages", "Audit messages that were told, repetitions included", told);
    let failures = Counter::<u64>::default();
    failures.inc_by(figures.failures);
    registry.register("audit_failures", "Failed attempts at telling the audit repository", failures);
}
