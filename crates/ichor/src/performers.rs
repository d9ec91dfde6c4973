//! Task lists of a configuration: whose workitems we perform.

use std::sync::Arc;

use anyhow::Context;
use ichor_core::AeTitle;
use ichor_dicomweb::{RetrieveLimits, StowClient};
use ichor_dimse::scp::SopClassRule;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::ingest::{Ingest, StowClientRule, StowIngest};
use ichor_pipeline::tasks::{self, InputSource, Place, TaskList};
use ichor_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{Config, Endpoint, TaskListConfig, WebEndpoint, seconds};
use crate::destinations::web_options;

/// Starts a performer for each list. What they fetch goes through the stage that everything comes in by, and is taken as from
/// associations (`sop_classes`).
///
/// # Errors
/// With the list's name: a secret or certificate that cannot be used.
pub(crate) fn start(
    config: &Config,
    store: &Store,
    (ingest, sop_classes): (&Ingest, &[SopClassRule]),
    stop: &CancellationToken,
    tasks: &mut JoinSet<&'static str>,
) -> anyhow::Result<()> {
    for section in &config.task_lists {
        let list = open(config, section).with_context(|| format!("task list {:?}", section.name.as_str()))?;
        let rule = StowClientRule { name: section.name.clone(), quiet_period: seconds(section.quiet_period_s) };
        let ingest = StowIngest::new(ingest.clone(), vec![rule], sop_classes.to_vec());
        let (store, stop) = (store.clone(), stop.clone());
        tasks.spawn(async move {
            tasks::run(store, ingest, Arc::new(list), stop).await;
            "task list"
        });
    }
    Ok(())
}

fn open(config: &Config, section: &TaskListConfig) -> anyhow::Result<TaskList> {
    let endpoint = section.endpoint().map_err(anyhow::Error::msg)?;
    let sources: Vec<WebEndpoint> = if section.sources.is_empty() {
        vec![endpoint.clone()]
    } else {
        section.sources.iter().map(|source| source.endpoint().map_err(anyhow::Error::msg)).collect::<Result<_, _>>()?
    };
    let source = |endpoint: WebEndpoint| {
        let url = endpoint.url.clone();
        Ok(InputSource { url, client: client(endpoint, section)? })
    };
    Ok(TaskList {
        name: section.name.clone(),
        server: client(endpoint, section)?,
        performer: section.ae_title.clone().unwrap_or_else(|| config.listen.ae_title.clone()),
        ours: section.ours(),
        sources: sources.into_iter().map(source).collect::<anyhow::Result<_>>()?,
        limits: RetrieveLimits {
            max_bytes: section.max_input_mib.saturating_mul(1 << 20),
            max_part_bytes: config.listen.max_instance_mib.saturating_mul(1 << 20),
            max_parts: config.limits.study_instances as usize,
            idle: seconds(section.timeout_s),
        },
        poll: seconds(section.poll_s),
        events: section.events,
        at_once: section.at_once,
        most_found: section.max_found,
        give_up_after: seconds(section.give_up_after_s),
        most_refusals: section.most_refusals,
        tell_within: seconds(section.tell_within_s),
        backoff: Backoff {
            first: seconds(section.first_backoff_s),
            longest: seconds(section.max_backoff_s),
            attempts: 0,
        },
        places: places(config),
        own_place: own_place(config),
    })
}

fn client(endpoint: WebEndpoint, section: &TaskListConfig) -> anyhow::Result<StowClient> {
    if endpoint.credentials.is_some() && endpoint.url.starts_with("http://") {
        warn!(list = section.name.as_str(), url = endpoint.url, "credentials travel in the clear: the url is http://");
    }
    let mut options = web_options(endpoint)?;
    options.timeout = seconds(section.timeout_s);
    options.max_response_bytes = section.max_answer_mib << 20;
    Ok(StowClient::new(options)?)
}

/// Where results can be had from that a destination accepted. A folder is no place that DICOM has a name for.
fn places(config: &Config) -> Vec<(String, Place)> {
    let place = |title: Option<&AeTitle>, endpoint| match endpoint {
        Endpoint::CStore { .. } => title.cloned().map(Place::AeTitle),
        Endpoint::StowRs(endpoint) => Some(Place::WadoRs(endpoint.url)),
        Endpoint::Folder(_) => None,
    };
    let destinations = config.destinations.iter();
    destinations
        .filter_map(|section| {
            let endpoint = section.endpoint().ok()?;
            Some((section.name.clone(), place(section.ae_title.as_ref(), endpoint)?))
        })
        .collect()
}

/// Where results can be had here, if others know the address.
fn own_place(config: &Config) -> Option<Place> {
    let section = config.dicomweb.as_ref()?;
    section.url.as_ref().map(|url| Place::WadoRs(format!("{url}{}", section.prefix)))
}
