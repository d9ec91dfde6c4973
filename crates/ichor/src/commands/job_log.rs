//! What every query of the job log needs.

use ichor_store::{Store, Timestamp};

use crate::cli::StoreArg;
use crate::config::Config;
use crate::daemon::open_store;

/// Opens the store that a configuration names.
pub(super) async fn open(args: &StoreArg) -> anyhow::Result<Store> {
    let config = Config::load(&args.config)?;
    // A query must not leave an empty database where a mistyped path points to.
    anyhow::ensure!(config.store.database.is_file(), "no database at {}", config.store.database.display());
    open_store(&config).await
}

/// A moment as people read it, in UTC.
pub(super) fn clock(at: Timestamp) -> String {
    let seconds = at.as_millis().div_euclid(1000);
    time::OffsetDateTime::from_unix_timestamp(seconds).map_or_else(
        |_| seconds.to_string(),
        |t| {
            let (date, hour, minute, second) = (t.date(), t.hour(), t.minute(), t.second());
            format!("{date} {hour:02}:{minute:02}:{second:02}")
        },
    )
}
