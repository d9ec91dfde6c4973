//! Destinations, from their configuration: one task each that sends, and one that asks for proof.

use std::sync::Arc;

use anyhow::Context;
use ichor_core::{AeTitle, DeliveryStatus, Proof};
use ichor_dicomweb::{Credentials, StowClient, StowOptions};
use ichor_dimse::scu::ScuOptions;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::deliver::{Destination, Transport};
use ichor_pipeline::{deliver, prove};
use ichor_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{Config, CredentialFiles, DestinationConfig, Endpoint, seconds};
use crate::secrets;

/// Starts the tasks of every destination, and says what waits for none.
pub(crate) async fn start(
    config: &Config,
    store: &Store,
    stop: &CancellationToken,
    tasks: &mut JoinSet<&'static str>,
) -> anyhow::Result<()> {
    for section in &config.destinations {
        let destination = Arc::new(open(section, &config.listen.ae_title)?);
        warn_of_unheard_reports(config, section);
        let (stage_store, own, token) = (store.clone(), Arc::clone(&destination), stop.clone());
        tasks.spawn(async move {
            prove::run(stage_store, own, token).await;
            "prove"
        });
        let (stage_store, token) = (store.clone(), stop.clone());
        tasks.spawn(async move {
            deliver::run(stage_store, destination, token).await;
            "deliver"
        });
    }
    for queue in store.queue_depths().await.context("outbox")? {
        let is_served = config.destinations.iter().any(|destination| destination.name == queue.destination);
        if !is_served && matches!(queue.status, DeliveryStatus::Queued | DeliveryStatus::Sending) {
            let (destination, waiting) = (&queue.destination, queue.count);
            warn!(destination, waiting, "deliveries wait for a destination that is not configured any more");
        }
    }
    if config.destinations.is_empty() {
        warn!("no [[destination]] is configured: results stay here");
    }
    Ok(())
}

/// A peer that reports on an association of its own must be let in.
fn warn_of_unheard_reports(config: &Config, section: &DestinationConfig) {
    let Some(title) = &section.ae_title else { return };
    let may_come = config.sources.iter().any(|source| source.ae_title.as_ref().is_none_or(|known| known == title));
    if section.proof.ask.contains(&Proof::Commitment) && !may_come {
        let (destination, ae_title) = (&section.name, title.as_str());
        warn!(
            destination,
            ae_title, "no [[source]] has its AE title: commitment reports on associations of its own are refused"
        );
    }
}

fn open(config: &DestinationConfig, own_title: &AeTitle) -> anyhow::Result<Destination> {
    let timeout = seconds(config.timeout_s);
    let endpoint = config.endpoint().map_err(|message| anyhow::anyhow!("destination {:?}: {message}", config.name))?;
    let transport = match endpoint {
        Endpoint::CStore { address, ae_title, calling_ae_title, tls } => {
            let mut options = ScuOptions::new(calling_ae_title.unwrap_or_else(|| own_title.clone()), ae_title, address);
            options.connect_timeout = timeout;
            options.response_timeout = timeout;
            if let Some(tls) = &tls {
                tls.check().with_context(|| format!("destination {:?}", config.name))?;
            }
            options.tls = tls;
            Transport::CStore(options)
        }
        Endpoint::StowRs { url, credentials } => {
            let mut options = StowOptions::new(&url);
            options.timeout = timeout;
            options.credentials = credentials.map(read_credentials).transpose()?;
            Transport::StowRs(StowClient::new(options)?)
        }
    };
    let backoff = Backoff {
        first: seconds(config.first_backoff_s),
        longest: seconds(config.max_backoff_s),
        attempts: config.attempts,
    };
    Ok(Destination { name: config.name.clone(), transport, backoff, proof: config.proof.options() })
}

fn read_credentials(files: CredentialFiles) -> anyhow::Result<Credentials> {
    Ok(match files {
        CredentialFiles::Bearer(file) => Credentials::Bearer(secrets::read(&file)?),
        CredentialFiles::Basic(user, file) => Credentials::Basic { user, password: secrets::read(&file)? },
    })
}
