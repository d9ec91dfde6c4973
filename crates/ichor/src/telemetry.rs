//! Traces for OpenTelemetry, from their configuration.

use anyhow::Context;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::telemetry::{self, TelemetryOptions, Tracing};
use ichor_store::{Store, TracePace};
use ichor_telemetry::{HeaderSource, OtlpClient, OtlpOptions, Resource};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{Config, TelemetryConfig, seconds};
use crate::http::{Trust, client};
use crate::secrets;
use crate::stages::{Stages, made_of};

/// Name of the stage.
const STAGE: &str = "telemetry";

/// An exporter that is set up and does not work yet: what it is made of, and its settings.
pub(crate) type Opened = (String, TelemetryOptions);

/// Sets the exporter up, if there is one; nothing is sent yet.
///
/// # Errors
/// A URL, certificate or file of headers that cannot be used.
pub(crate) fn open(config: &Config) -> anyhow::Result<Option<Opened>> {
    let Some(section) = &config.telemetry else { return Ok(None) };
    let options = options(config, section).context("[telemetry]")?;
    Ok(Some((made_of(section)?, options)))
}

/// How requests about a study say to which trace they belong, if there are traces.
pub(crate) fn tracing(config: &Config) -> Option<Tracing> {
    config.telemetry.as_ref().map(|section| Tracing { ratio: section.sampling_ratio })
}

fn options(config: &Config, section: &TelemetryConfig) -> anyhow::Result<TelemetryOptions> {
    let (is_secure, timeout) = (section.endpoint.starts_with("https://"), seconds(section.timeout_s));
    let identity = section.tls_certificate_file.as_deref().zip(section.tls_key_file.as_deref());
    let http = client(is_secure, timeout, Trust { ca_file: section.tls_ca_file.as_deref(), identity })?;
    if section.headers_file.is_some() && !is_secure {
        warn!("[telemetry]: its headers travel in the clear: the endpoint is http://");
    }
    // Read at each attempt: a token that was renewed needs no restart.
    let headers = section
        .headers_file
        .clone()
        .map(|file| -> HeaderSource { Box::new(move || secrets::read(&file).map_err(|error| format!("{error:#}"))) });
    let instance = section.service_instance.clone().unwrap_or_else(|| config.listen.ae_title.to_string());
    Ok(TelemetryOptions {
        client: OtlpClient::new(OtlpOptions { url: section.endpoint.clone(), http, headers, timeout })?,
        resource: Resource {
            service: section.service_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance,
        },
        pace: TracePace { settle: seconds(section.settle_s), longest_wait: seconds(section.longest_wait_s) },
        ratio: section.sampling_ratio,
        spans_a_request: section.spans_a_request,
        backoff: Backoff {
            first: seconds(section.first_backoff_s),
            longest: seconds(section.max_backoff_s),
            attempts: 0,
        },
    })
}

/// Exports by these settings from now on, or not at all. What changed, in words.
pub(crate) fn serve(
    opened: Option<Opened>,
    store: &Store,
    stop: &CancellationToken,
    (stages, tasks): (&mut Stages, &mut JoinSet<&'static str>),
) -> Option<String> {
    let Some((of, options)) = opened else {
        let retired = stages.retire_others(STAGE, &[]);
        return (!retired.is_empty()).then(|| "traces are exported no more".to_owned());
    };
    if !stages.needs(STAGE, &of) {
        return None;
    }
    let (own_store, stop) = (store.clone(), stop.clone());
    let work = |retired| telemetry::run_until_retired(own_store, options, retired, stop);
    stages.start(tasks, ("telemetry", STAGE.to_owned(), of), work);
    Some("traces are exported anew".to_owned())
}
