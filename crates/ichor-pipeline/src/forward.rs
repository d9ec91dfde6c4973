//! Forward: a study that has closed goes on, as it was received, to where the first forwarding rule that fires says. A study is
//! not sent back to whoever sent it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ichor_core::{AeTitle, IpNetwork, Uid};
use ichor_store::{ClosedStudy, Forwarding, Store, StoreError, Topic};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::route::{Facts, Routing, Rule, look_into, route};
use crate::{Live, now};

/// Longest time between two looks, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(2);
/// Studies before somebody asks whether it is time to stop.
const AT_ONCE: u32 = 100;

/// Settings of the stage.
#[derive(Clone, Debug, Default)]
pub struct ForwardOptions {
    /// Rules without verdict; `destinations` names where instances go.
    pub rules: Vec<Rule>,
    /// How the systems of destinations are known when they send.
    pub systems: Vec<System>,
}

/// How the system of a destination is known when it sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// Name of the destination.
    pub destination: String,
    /// AE titles that it calls itself, and names by which it is known where it has none (DICOMweb).
    pub titles: Vec<AeTitle>,
    /// Addresses that nobody else sends from.
    pub networks: Vec<IpNetwork>,
}

impl System {
    fn sent(&self, title: Option<&str>, address: Option<IpAddr>) -> bool {
        title.is_some_and(|title| self.titles.iter().any(|known| known.as_str() == title))
            || address.is_some_and(|address| self.networks.iter().any(|network| network.contains(address)))
    }
}

/// What the forwarding rules come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The rule that fired, and those before it.
    pub routing: Routing<'a>,
    /// Destinations that it goes on to.
    pub on: Vec<String>,
    /// Destinations that the rule names and that have sent it: it does not go back.
    pub back: Vec<String>,
}

impl ForwardOptions {
    /// Asks the rules about a study that came from `facts.source` at an address.
    #[must_use]
    pub fn decide(&self, facts: &Facts<'_>, address: Option<IpAddr>) -> Decision<'_> {
        let routing = route(&self.rules, facts);
        let named = routing.fired.and_then(|rule| rule.destinations.clone()).unwrap_or_default();
        let is_sender = |name: &String| {
            self.systems.iter().any(|system| system.destination == *name && system.sent(facts.source, address))
        };
        let (back, on) = named.into_iter().partition(is_sender);
        Decision { routing, on, back }
    }
}

/// Decides until `shutdown`. Without rules the decision is that nothing is forwarded, so that a rule that is configured later
/// finds new studies only.
pub async fn run(store: Store, options: Live<ForwardOptions>, shutdown: CancellationToken) {
    let mut closed = store.changes(Topic::Closed);
    let mut unread = HashSet::new();
    loop {
        let present = Arc::clone(&options.borrow());
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = decide_all(&store, &present, &mut unread) => result,
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

/// `unread` are the studies that were left undecided at the last look, and then those of this one.
async fn decide_all(store: &Store, options: &ForwardOptions, unread: &mut HashSet<Uid>) -> Result<(), StoreError> {
    let mut left = HashSet::new();
    loop {
        // Those that are left are the first to be found, and keep no other from its turn.
        let most = AT_ONCE.saturating_add(u32::try_from(left.len()).unwrap_or(u32::MAX));
        let mut undecided = store.undecided_studies(most).await?;
        undecided.retain(|study| !left.contains(&study.study_instance));
        if undecided.is_empty() {
            *unread = left;
            return Ok(());
        }
        for study in undecided {
            let forwarding = match decide(options, &study).await {
                Ok(forwarding) => forwarding,
                Err(error) => {
                    if !unread.contains(&study.study_instance) {
                        error!(study = %study.study_instance, error,
                            "not forwarded yet: rules cannot look at the first instance; trying again");
                        store.forwarding_waits(&study, &error, now()).await?;
                    }
                    left.insert(study.study_instance);
                    continue;
                }
            };
            let queued = store.forward(&study, &forwarding, now()).await?;
            if let Some(words) = &forwarding.words {
                info!(study = %study.study_instance, queued, words, "study forwarded");
            }
        }
    }
}

/// The decision, or why there can be none at present.
async fn decide(options: &ForwardOptions, study: &ClosedStudy) -> Result<Forwarding, String> {
    let instance = look_into(&options.rules, study.first_instance.clone()).await?;
    let source = study.source_ae.as_ref();
    let facts = Facts {
        source: source.map(AeTitle::as_str),
        instance: instance.as_ref(),
        outcome: None,
        reason: None,
        now: now(),
    };
    let Decision { routing, on, back } = options.decide(&facts, study.source_address);
    let Some(rule) = routing.fired else { return Ok(Forwarding::default()) };
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
    Ok(Forwarding { destinations: on, urgent: rule.urgent.unwrap_or(false), words: Some(words) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::tests::received;
    use crate::route::Pattern;

    #[test]
    fn what_a_system_sent_does_not_go_back_to_it() {
        let names = ["pacs", "vna", "bridge"].map(str::to_owned);
        let title = |text: &str| AeTitle::parse(text).unwrap();
        let system = |destination: &str, titles: &[&str], networks: &[&str]| System {
            destination: destination.to_owned(),
            titles: titles.iter().map(|text| title(text)).collect(),
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let options = ForwardOptions {
            rules: vec![Rule { name: "all".to_owned(), destinations: Some(names.to_vec()), ..Rule::default() }],
            systems: vec![
                system("pacs", &["PACS", "PACS_SCU"], &[]),
                system("vna", &["VNA_WEB"], &["10.1.2.3"]),
                system("bridge", &[], &["10.9.0.0/16", "2001:db8::/32"]),
            ],
        };
        for (source, address, back) in [
            (Some("CT_1"), Some("192.0.2.7"), &[][..]),
            (Some("PACS"), None, &["pacs"]),
            (Some("PACS_SCU"), Some("192.0.2.7"), &["pacs"]),
            (Some("VNA_WEB"), Some("127.0.0.1"), &["vna"]),
            (Some("CT_1"), Some("10.1.2.3"), &["vna"]),
            (Some("CT_1"), Some("::ffff:10.9.7.7"), &["bridge"]),
            (Some("CT_1"), Some("2001:db8::5"), &["bridge"]),
            (Some("PACS"), Some("10.1.2.3"), &["pacs", "vna"]),
            // Nobody's title is not the title of a system without one.
            (None, None, &[]),
        ] {
            let facts = Facts { source, instance: None, outcome: None, reason: None, now: now() };
            let decision = options.decide(&facts, address.map(|text| text.parse().unwrap()));
            assert_eq!(decision.back, back, "{source:?} at {address:?}");
            let on: Vec<&String> = names.iter().filter(|name| !back.contains(&name.as_str())).collect();
            assert_eq!(decision.on.iter().collect::<Vec<_>>(), on, "{source:?} at {address:?}");
        }
    }

    #[tokio::test]
    async fn study_that_cannot_be_looked_at_waits_for_its_decision() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = received(&folder, 2).await;
        let rule = Rule { name: "vna".to_owned(), destinations: Some(vec!["vna".to_owned()]), ..Rule::default() };
        let looks = Rule { tags: vec![("StationName".to_owned(), Pattern::new("ER*"))], ..rule.clone() };
        let options = |rule: Rule| ForwardOptions { rules: vec![rule], systems: Vec::new() };
        let mut unread = HashSet::new();
        for _ in 0..2 {
            decide_all(&store, &options(looks.clone()), &mut unread).await.unwrap();
            assert_eq!((store.undecided_studies(10).await.unwrap().len(), unread.len()), (1, 1));
            // As after a restart.
            unread.clear();
        }
        let study = store.undecided_studies(10).await.unwrap()[0].study_instance.clone();
        let told = store.timeline(&study).await.unwrap();
        assert_eq!(told.iter().filter(|event| event.kind == "forwarding-waits").count(), 1, "once: {told:?}");
        decide_all(&store, &options(rule), &mut unread).await.unwrap();
        assert!(store.undecided_studies(10).await.unwrap().is_empty() && unread.is_empty());
        assert!(store.claim_delivery("vna", now()).await.unwrap().is_some());
    }
}
