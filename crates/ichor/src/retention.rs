//! Retention, from its configuration.

use ichor_pipeline::retain::{self, RetentionOptions};
use ichor_store::{Follower, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// What the configuration asks for; `None`: nothing is ever deleted.
pub(crate) fn options(config: &Config) -> Option<RetentionOptions> {
    let follower = |channel: &crate::config::ChannelConfig| Follower {
        channel: channel.name.clone(),
        subjects: channel.subjects.clone(),
    };
    config.retention.as_ref().map(|section| section.options(config.channels.iter().map(follower).collect()))
}

/// Starts the stage. Without a `[retention]` it still removes what an earlier configuration had doomed, and no more.
pub(crate) fn start(config: &Config, store: &Store, stop: &CancellationToken, tasks: &mut JoinSet<&'static str>) {
    let options = options(config).unwrap_or_else(|| crate::config::RetentionConfig::default().options(Vec::new()));
    let (stage_store, token) = (store.clone(), stop.clone());
    tasks.spawn(async move {
        retain::run(stage_store, options, token).await;
        "retain"
    });
}
