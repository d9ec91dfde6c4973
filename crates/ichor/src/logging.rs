//! Log lines on standard error, as text or JSON. No patient data above debug.

use std::io::IsTerminal;
use std::sync::OnceLock;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// What replaces the filter in force.
type Replace = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

static REPLACE: OnceLock<Replace> = OnceLock::new();

/// Starts logging. `RUST_LOG`, where set, wins over the configured level.
pub(crate) fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter = match environment() {
        Some(filter) => EnvFilter::try_new(&filter).with_context(|| format!("RUST_LOG {filter:?}"))?,
        None => filter(config)?,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let replace: Replace = match config.format {
        LogFormat::Text => {
            // The filter last: its type holds those of what is below it.
            let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| Ok(handle.reload(filter)?))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| Ok(handle.reload(filter)?))
        }
    };
    // A second start has failed above.
    let _ = REPLACE.set(replace);
    Ok(())
}

/// The filter of a configuration.
///
/// # Errors
/// With the filter: it cannot be understood.
pub(crate) fn filter(config: &LogConfig) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&config.level).with_context(|| format!("log.level {:?}", config.level))
}

/// Puts another filter in force, unless `RUST_LOG` says what is logged; whether it is.
///
/// # Errors
/// If logging has ended.
pub(crate) fn replace(filter: EnvFilter) -> anyhow::Result<bool> {
    match REPLACE.get() {
        Some(replace) if environment().is_none() => replace(filter).map(|()| true),
        _ => Ok(false),
    }
}

fn environment() -> Option<String> {
    std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty())
}
