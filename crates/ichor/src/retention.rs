//! Retention, from its configuration.

use ichor_pipeline::retain::{self, RetentionOptions};
use ichor_store::{Follower, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::stages::Stages;

/// Name of the stage.
const STAGE: &str = "retention";

/// What the configuration asks for; `None`: nothing is ever deleted.
pub(crate) fn options(config: &Config) -> Option<RetentionOptions> {
    let follower = |channel: &crate::config::ChannelConfig| Follower {
        channel: channel.name.clone(),
        subjects: channel.subjects.clone(),
    };
    config.retention.as_ref().map(|section| section.options(config.channels.iter().map(follower).collect()))
}

/// Sweeps by these settings from now on. Without a `[retention]` what an earlier configuration had doomed is still removed, and
/// no more. What changed, in words.
pub(crate) fn serve(
    config: &Config,
    store: &Store,
    stop: &CancellationToken,
    (stages, tasks): (&mut Stages, &mut JoinSet<&'static str>),
) -> Option<String> {
    let options = options(config).unwrap_or_else(|| crate::config::RetentionConfig::default().options(Vec::new()));
    let of = format!("{options:?}");
    if !stages.needs(STAGE, &of) {
        return None;
    }
    let (own_store, stop) = (store.clone(), stop.clone());
    stages.start(tasks, ("retain", STAGE.to_owned(), of), |retired| async move {
        tokio::select! {
            () = retain::run(own_store, options, stop) => {}
            // A sweep may be cut short at any point.
            () = retired.cancelled() => {}
        }
    });
    Some("retention sweeps by other rules".to_owned())
}
