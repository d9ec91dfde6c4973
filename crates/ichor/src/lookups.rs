//! Look-ups, from their configuration: one task each.

use std::sync::Arc;

use anyhow::Context;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::deliver::Transport;
use ichor_pipeline::lookup::{self, Inquiry, LookupOptions, Match};
use ichor_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, LookupConfig, seconds};
use crate::destinations;

/// Sets every peer up and starts to ask; nothing is sent before a study arrives.
///
/// # Errors
/// With the look-up's name: a secret or certificate that cannot be used, or an address that is ours.
pub(crate) async fn serve(
    config: &Config,
    store: &Store,
    stop: &CancellationToken,
    tasks: &mut JoinSet<&'static str>,
) -> anyhow::Result<()> {
    for (rank, section) in (0..).zip(&config.lookups) {
        let options = Arc::new(open(config, section, rank).await?);
        let (store, stop) = (store.clone(), stop.clone());
        tasks.spawn(async move {
            lookup::run(store, options, stop).await;
            "look-up"
        });
    }
    Ok(())
}

/// Sets one peer up.
///
/// # Errors
/// As [`serve`].
pub(crate) async fn open(config: &Config, section: &LookupConfig, rank: u32) -> anyhow::Result<LookupOptions> {
    let named = || format!("lookup {:?}", section.name);
    let place = section.place().map_err(|message| anyhow::anyhow!("{}: {message}", named()))?;
    destinations::refuse_ourselves(config, &place).await.with_context(named)?;
    let inquiry = match destinations::transport(&place, &config.listen.ae_title).with_context(named)? {
        Transport::CStore(scu) if section.kind == crate::config::LookupKind::Mwl => {
            Inquiry::Worklist(scu, Match { by: section.matching(), station: section.scheduled_ae_title.clone() })
        }
        Transport::CStore(scu) => Inquiry::Find(scu, section.counting()),
        Transport::StowRs(client) => Inquiry::Web(Box::new(client), section.counting()),
        Transport::Folder(path) => anyhow::bail!("{}: the folder {} answers no question", named(), path.display()),
    };
    Ok(LookupOptions {
        name: section.name.clone(),
        rank,
        inquiry,
        accession: section.accession,
        modalities: section.modalities.clone(),
        sources: section.sources.clone(),
        timeout: seconds(section.timeout_s),
        backoff: Backoff {
            first: seconds(section.first_backoff_s),
            longest: seconds(section.max_backoff_s),
            attempts: section.attempts,
        },
        settle: seconds(section.settle_s),
        interval: seconds(section.interval_s),
        most_questions: section.most_questions,
        per_minute: section.per_minute,
        most_matches: section.max_matches,
        most_instances: config.limits.study_instances,
        close_when_complete: section.close_when_complete,
        stable: seconds(section.stable_s),
        wait_for_missing: seconds(section.wait_for_missing_s),
    })
}
