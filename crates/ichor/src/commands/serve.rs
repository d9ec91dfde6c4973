//! `ichor serve`.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::cli::ServeArgs;
use crate::config::Config;
use crate::daemon::{Daemon, Work};
use crate::engine::Engine;
use crate::{logging, supervisor};

/// Runs the daemon until SIGTERM or SIGINT.
pub(crate) fn run<E: Engine>(args: &ServeArgs) -> anyhow::Result<()> {
    let path = &args.config.config;
    let config = Config::load(path)?;
    logging::start(&config.log)?;
    info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "ichor starts");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM handler")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT handler")?;
        // Asks for the configuration to be read again, and for the certificates.
        let mut hangup = signal(SignalKind::hangup()).context("SIGHUP handler")?;
        let work = if args.receive_only { Work::ReceiveOnly } else { Work::Everything };
        let daemon = Daemon::start::<E>(&config, work).await?;
        supervisor::ready();
        let watch = tokio::spawn(supervisor::watch(daemon.store().clone()));
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            supervisor::stopping();
        };
        let reload = async || match hangup.recv().await {
            Some(()) => path.clone(),
            None => std::future::pending().await,
        };
        let ended = Box::pin(daemon.run_reloading(stop, reload)).await;
        watch.abort();
        ended
    })
}
