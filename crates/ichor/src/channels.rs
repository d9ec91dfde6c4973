//! Channels, from their configuration.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ichor_core::MessageStatus;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::telemetry::Tracing;
use ichor_pipeline::tell::{self, Channel, Transport};
use ichor_store::Store;
use ichor_worklist::fhir::{FhirClient, FhirOptions, TokenSource};
use ichor_worklist::hl7::{Hl7Client, Hl7Options};
use ichor_worklist::webhook::{Secret, WebhookClient, WebhookOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::seconds;
use crate::config::{ChannelConfig, ChannelEnd, Config};
use crate::secrets;
use crate::stages::{Stages, made_of};
use crate::telemetry;

/// Program and version, as messages name them.
const SOFTWARE: &str = concat!("ichor ", env!("CARGO_PKG_VERSION"));

/// What the names of channels' stages begin with.
const STAGE: &str = "channel ";

/// A channel that is set up and not served yet: the name of its stage, what it is made of, and itself.
pub(crate) type Opened = (String, String, Channel);

/// Sets every channel up; nothing is sent yet.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_all(config: &Config) -> anyhow::Result<Vec<Opened>> {
    let traced = telemetry::tracing(config);
    let one = |channel: &ChannelConfig| {
        let of = made_of(&(channel, traced.map(|tracing| tracing.ratio)))?;
        Ok((format!("{STAGE}{}", channel.name), of, open(channel, traced)?))
    };
    config.channels.iter().map(one).collect()
}

/// Serves these channels and no others; what changed, in words.
pub(crate) fn serve(
    opened: Vec<Opened>,
    store: &Store,
    stop: &CancellationToken,
    (stages, tasks): (&mut Stages, &mut JoinSet<&'static str>),
) -> Vec<String> {
    let wanted: Vec<String> = opened.iter().map(|(stage, _, _)| stage.clone()).collect();
    let mut changed: Vec<String> =
        stages.retire_others(STAGE, &wanted).into_iter().map(|name| format!("{name} is told no more")).collect();
    for (stage, of, channel) in opened {
        if stages.needs(&stage, &of) {
            changed.push(format!("{stage} is told anew"));
            let (own_store, stop) = (store.clone(), stop.clone());
            let work = |retired| tell::run_until_retired(own_store, channel, retired, stop);
            stages.start(tasks, ("tell", stage, of), work);
        }
    }
    changed
}

/// Sets a channel up; nothing is sent yet.
///
/// # Errors
/// With the channel's name: a secret, certificate or template that cannot be used.
pub(crate) fn open(config: &ChannelConfig, traced: Option<Tracing>) -> anyhow::Result<Channel> {
    let transport = transport(config).with_context(|| format!("channel {:?}", config.name))?;
    let backoff = Backoff {
        first: seconds(config.first_backoff_s),
        longest: seconds(config.max_backoff_s),
        attempts: config.attempts,
    };
    let (name, subjects) = (config.name.clone(), config.subjects.clone());
    let order_wait = seconds(config.order_wait());
    Ok(Channel { name, subjects, transport, backoff, order_wait, software: SOFTWARE.to_owned(), traced })
}

fn transport(config: &ChannelConfig) -> anyhow::Result<Transport> {
    let timeout = seconds(config.timeout_s);
    Ok(match config.end().map_err(anyhow::Error::msg)? {
        ChannelEnd::Hl7 { address, template, sending, receiving, processing_id, charset, tls } => {
            let options = Hl7Options { address, template, sending, receiving, processing_id, charset, timeout, tls };
            Transport::Hl7(Hl7Client::new(options)?)
        }
        ChannelEnd::Webhook { url, secret_file, tls, with_patient } => {
            Transport::Webhook(WebhookClient::new(WebhookOptions {
                url,
                secret: Secret::parse(&secrets::read(&secret_file)?)?,
                root_certificates: tls.ca_file.as_deref().map(read).transpose()?,
                identity: tls.identity.map(identity).transpose()?,
                with_patient,
                timeout,
            })?)
        }
        ChannelEnd::Fhir { url, token_file, tls, naming } => {
            if token_file.is_some() && url.starts_with("http://") {
                warn!(channel = config.name, "its bearer token travels in the clear: the url is http://");
            }
            Transport::Fhir(FhirClient::new(FhirOptions {
                url,
                token: token_file.map(token),
                root_certificates: tls.ca_file.as_deref().map(read).transpose()?,
                identity: tls.identity.map(identity).transpose()?,
                naming,
                timeout,
            })?)
        }
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Certificate and key as one text; a key that anybody may read is refused.
fn identity((certificate, key): (PathBuf, PathBuf)) -> anyhow::Result<Vec<u8>> {
    Ok([read(&certificate)?, b"\n".to_vec(), secrets::read(&key)?.into_bytes(), b"\n".to_vec()].concat())
}

/// Reads the file at each attempt: a token that was renewed needs no restart.
fn token(file: PathBuf) -> TokenSource {
    Box::new(move || secrets::read(&file).map_err(|error| format!("{error:#}")))
}

/// Says which channels have messages and are not configured any more.
///
/// # Errors
/// The store's.
pub(crate) async fn warn_of_orphans(store: &Store, channels: &[ChannelConfig]) -> anyhow::Result<()> {
    for depth in store.channel_depths().await.context("messages")? {
        let is_served = channels.iter().any(|channel| channel.name == depth.channel);
        if !is_served && matches!(depth.status, MessageStatus::Queued | MessageStatus::Sending) {
            let (channel, waiting) = (&depth.channel, depth.count);
            warn!(channel, waiting, "messages wait for a channel that is not configured any more");
        }
    }
    Ok(())
}
