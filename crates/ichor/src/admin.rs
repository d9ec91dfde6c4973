//! The service for administrators, from its configuration.

use anyhow::Context;
use ichor_admin::{AdminOptions, AdminServer, Facts};
use ichor_store::Store;
use tracing::info;

use crate::config::{Config, seconds};

/// Binds the service, if there is one. `model`: the one that is loaded.
pub(crate) async fn bind(config: &Config, store: &Store, model: Option<String>) -> anyhow::Result<Option<AdminServer>> {
    let Some(section) = &config.admin else { return Ok(None) };
    let facts = Facts {
        store: store.clone(),
        database: config.store.database.clone(),
        min_free_bytes: config.store.min_free_mib.saturating_mul(1 << 20),
        model,
        destinations: config.destinations.iter().map(|destination| destination.name.clone()).collect(),
        channels: config.channels.iter().map(|channel| channel.name.clone()).collect(),
        version: env!("CARGO_PKG_VERSION"),
        now: ichor_pipeline::now,
    };
    let options = AdminOptions { max_connections: section.max_connections, timeout: seconds(section.timeout_s) };
    let server = AdminServer::bind(section.address, ichor_admin::routes(facts), options)
        .await
        .with_context(|| format!("listening on {} (health and metrics)", section.address))?;
    info!(address = %server.local_addr().context("local address")?, "listening for health and metrics");
    Ok(Some(server))
}
