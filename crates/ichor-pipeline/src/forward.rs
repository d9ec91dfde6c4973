//! Forward: a study that has closed goes on, as it was received, to where the first forwarding rule that fires says. A study is
//! not sent back to whoever sent it.

use std::time::Duration;

use ichor_core::AeTitle;
use ichor_store::{ClosedStudy, Forwarding, Store, StoreError, Topic};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::now;
use crate::route::{Facts, Rule, read_instance, route};

/// Longest time between two looks, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(2);
/// Studies before somebody asks whether it is time to stop.
const AT_ONCE: u32 = 100;

/// Settings of the stage.
#[derive(Clone, Debug, Default)]
pub struct ForwardOptions {
    /// Rules without verdict; `destinations` names where instances go.
    pub rules: Vec<Rule>,
    /// AE titles of destinations, where they have one.
    pub titles: Vec<(String, AeTitle)>,
}

/// Decides until `shutdown`. Without rules the decision is that nothing is forwarded, so that a rule that is configured later
/// finds new studies only.
pub async fn run(store: Store, options: ForwardOptions, shutdown: CancellationToken) {
    let mut closed = store.changes(Topic::Closed);
    loop {
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = decide_all(&store, &options) => result,
        };
        if let Err(error) = result {
            error!(%error, "studies cannot be forwarded; trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
            () = closed.changed() => {}
        }
    }
}

async fn decide_all(store: &Store, options: &ForwardOptions) -> Result<(), StoreError> {
    loop {
        let undecided = store.undecided_studies(AT_ONCE).await?;
        if undecided.is_empty() {
            return Ok(());
        }
        for study in undecided {
            let forwarding = decide(options, &study).await;
            let queued = store.forward(&study, &forwarding, now()).await?;
            if let Some(words) = &forwarding.words {
                info!(study = %study.study_instance, queued, words, "study forwarded");
            }
        }
    }
}

async fn decide(options: &ForwardOptions, study: &ClosedStudy) -> Forwarding {
    if options.rules.is_empty() {
        return Forwarding::default();
    }
    let path = study.first_instance.clone();
    let read = spawn_blocking(move || path.map(|path| read_instance(&path)).transpose()).await;
    let instance = read.unwrap_or_else(|error| Err(error.to_string())).unwrap_or_else(|error| {
        warn!(study = %study.study_instance, %error, "rules cannot look at the first instance");
        None
    });
    let source = study.source_ae.as_ref();
    let facts = Facts {
        source: source.map(AeTitle::as_str),
        instance: instance.as_ref(),
        outcome: None,
        reason: None,
        now: now(),
    };
    let Some(rule) = route(&options.rules, &facts).fired else { return Forwarding::default() };
    let is_sender = |name: &str| options.titles.iter().any(|(known, title)| known == name && Some(title) == source);
    let (back, on): (Vec<String>, Vec<String>) =
        rule.destinations.iter().flatten().cloned().partition(|name| is_sender(name));
    let mut words = format!(
        "forwarding rule {:?} fires, to {}",
        rule.name,
        if on.is_empty() { "nobody".to_owned() } else { on.join(", ") }
    );
    if !back.is_empty() {
        let names = back.join(", ");
        warn!(study = %study.study_instance, rule = rule.name, destinations = names, "not sent back to its sender");
        words += &format!("; not to {names}, which would be back to its sender");
    }
    Forwarding { destinations: on, urgent: rule.urgent.unwrap_or(false), words: Some(words) }
}
