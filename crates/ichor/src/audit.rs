//! The audit repository, from its configuration; and what ichor itself writes into the audit trail.

use anyhow::Context;
use ichor_audit::{AuditSource, Header, SyslogClient, SyslogOptions, Transport, host_name};
use ichor_pipeline::audit::{self, Repository, Told};
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::now;
use ichor_store::{NewAudit, Store};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::config::{AuditConfig, Config, Endpoint, seconds};
use crate::stages::{Stages, made_of};

/// Name of the stage.
const STAGE: &str = "audit repository";

/// The repository, and what it is made of; `None`: nobody is told.
pub(crate) type Opened = Option<(String, Repository)>;

/// Sets the client up; nothing is sent yet.
///
/// # Errors
/// Certificates that cannot be used.
pub(crate) fn client(section: &AuditConfig) -> anyhow::Result<SyslogClient> {
    let transport = section.tls().map_or(Transport::Udp, |tls| Transport::Tls(Box::new(tls)));
    let (address, timeout) = (section.address.clone(), seconds(section.timeout_s));
    SyslogClient::new(SyslogOptions { address, transport, timeout }).context("[audit]")
}

/// Sets the repository up; nothing is sent yet.
///
/// # Errors
/// As [`client`].
pub(crate) fn open(config: &Config) -> anyhow::Result<Opened> {
    let Some(section) = &config.audit else { return Ok(None) };
    if section.is_exposed() {
        warn!(
            address = section.address,
            "[audit]: names of patients travel in the clear, and may be lost: transport = \"udp\""
        );
    }
    let address = |destination: &crate::config::DestinationConfig| {
        let address = match destination.endpoint() {
            Ok(Endpoint::CStore { address, .. }) => address,
            Ok(Endpoint::StowRs(web)) => web.url,
            _ => return None,
        };
        Some((destination.name.clone(), address))
    };
    let destinations: Vec<(String, String)> = config.destinations.iter().filter_map(address).collect();
    let (ae_title, host) = (config.listen.ae_title.to_string(), host_name());
    let of = format!("{} {ae_title} {destinations:?}", made_of(section)?);
    let repository = Repository {
        client: client(section)?,
        source: AuditSource { site: section.site.clone(), id: section.source_id.clone() },
        header: Header::new(&host),
        told_by: Told { ae_title, host, destinations },
        backoff: Backoff {
            first: seconds(section.first_backoff_s),
            longest: seconds(section.max_backoff_s),
            attempts: 0,
        },
    };
    Ok(Some((of, repository)))
}

/// Tells this repository and no other; what changed, in words.
pub(crate) fn serve(
    opened: Opened,
    store: &Store,
    stop: &CancellationToken,
    (stages, tasks): (&mut Stages, &mut JoinSet<&'static str>),
) -> Option<String> {
    let Some((of, repository)) = opened else {
        let was_told = !stages.retire_others(STAGE, &[]).is_empty();
        return was_told.then(|| "the audit repository is told no more".to_owned());
    };
    if !stages.needs(STAGE, &of) {
        return None;
    }
    let (store, stop) = (store.clone(), stop.clone());
    stages.start(tasks, ("audit", STAGE.to_owned(), of), |retired| audit::run(store, repository, retired, stop));
    Some("the audit repository is told anew".to_owned())
}

/// Notes that ichor has started.
///
/// # Errors
/// The store's.
pub(crate) async fn started(store: &Store, work: &str) -> anyhow::Result<()> {
    let detail = json!({ "version": env!("CARGO_PKG_VERSION"), "process": std::process::id(), "work": work });
    let entry = NewAudit::of_ourselves(now(), "application-started", detail);
    store.audit(&entry).await.context("writing the audit trail")
}

/// Notes that ichor stops. What cannot be noted does not keep it from stopping.
pub(crate) async fn stopped(store: &Store) {
    let detail = json!({ "process": std::process::id() });
    if let Err(error) = store.audit(&NewAudit::of_ourselves(now(), "application-stopped", detail)).await {
        error!(%error, "the audit trail does not say that ichor stops");
    }
}
