//! Look-ups, from their configuration: one task each.
//!
//! One whose section has changed asks again what was in flight; one that is gone asks nothing more, and a study that waits by its word
//! waits no longer than its bound.

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
use crate::stages::{Stages, made_of};

/// What the names of look-ups' stages begin with.
const STAGE: &str = "look-up ";

/// A look-up that is set up and asks nothing yet: the name of its stage, what it is made of, and itself.
pub(crate) type Opened = (String, String, Arc<LookupOptions>);

/// Sets every peer up; nothing is asked yet.
///
/// # Errors
/// As [`open`].
pub(crate) async fn open_all(config: &Config) -> anyhow::Result<Vec<Opened>> {
    let mut opened = Vec::new();
    for (rank, section) in (0..).zip(&config.lookups) {
        let options = Arc::new(open(config, section, rank).await?);
        let of = made_of(&(rank, section, &config.listen.ae_title))?;
        opened.push((format!("{STAGE}{}", section.name), of, options));
    }
    Ok(opened)
}

/// Asks these peers and no others; nothing is sent before a study arrives. What changed, in words.
pub(crate) fn serve(
    opened: Vec<Opened>,
    store: &Store,
    stop: &CancellationToken,
    (stages, tasks): (&mut Stages, &mut JoinSet<&'static str>),
) -> Vec<String> {
    let wanted: Vec<String> = opened.iter().map(|(stage, _, _)| stage.clone()).collect();
    let mut changed: Vec<String> =
        stages.retire_others(STAGE, &wanted).into_iter().map(|name| format!("{name} is asked no more")).collect();
    for (stage, of, options) in opened {
        if !stages.needs(&stage, &of) {
            continue;
        }
        changed.push(format!("{stage} is asked anew"));
        let (store, stop) = (store.clone(), stop.clone());
        stages.start(tasks, ("look-up", stage, of), |retired| async move {
            tokio::select! {
                () = lookup::run(store, options, stop) => {}
                // A question in flight is asked again by whoever takes over.
                () = retired.cancelled() => {}
            }
        });
    }
    changed
}

/// Sets one peer up.
///
/// # Errors
/// With the look-up's name: a secret or certificate that cannot be used, or an address that is ours.
pub(crate) async fn open(config: &Config, section: &LookupConfig, rank: u32) -> anyhow::Result<LookupOptions> {
    let named = || format!("lookup {:?}", section.name);
    let place = section.endpoint().map_err(|message| anyhow::anyhow!("{}: {message}", named()))?;
    destinations::refuse_ourselves(config, &place).await.with_context(named)?;
    let timeout = seconds(section.timeout_s);
    let inquiry = match destinations::transport(place, timeout, &config.listen.ae_title).with_context(named)? {
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
        timeout,
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
