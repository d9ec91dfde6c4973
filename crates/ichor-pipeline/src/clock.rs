//! The wall clock, read in one place.

use ichor_store::Timestamp;
use time::OffsetDateTime;

/// The present moment.
#[must_use]
pub fn now() -> Timestamp {
    let milliseconds = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    Timestamp::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX))
}
