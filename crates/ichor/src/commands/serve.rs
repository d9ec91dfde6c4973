//! `ichor serve`.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::cli::ConfigArg;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::logging;

/// Runs the daemon until SIGTERM or SIGINT.
pub(crate) fn run(args: &ConfigArg) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    logging::start(&config.log)?;
    info!(version = env!("CARGO_PKG_VERSION"), config = %args.config.display(), "ichor starts");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM handler")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT handler")?;
        let daemon = Daemon::start(&config).await?;
        daemon
            .run_until(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await
    })
}
