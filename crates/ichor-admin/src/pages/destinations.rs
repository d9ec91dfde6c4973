//! Destinations on the pages: how each stands, and what of a study is forwarded to it.

use ichor_core::{DeliveryStatus, Uid};
use ichor_store::ForwardedDepth;

use super::Moment;
use crate::App;
use crate::api::destinations::DestinationView;
use crate::api::queues::QueueView;
use crate::problem::Problem;

/// How a destination stands.
pub(super) struct StateRow {
    pub(super) is_up: bool,
    pub(super) since: Moment,
    /// Attempts in a row that found nobody.
    pub(super) failures: u32,
    pub(super) next: Option<Moment>,
    pub(super) words: String,
    pub(super) refused: Vec<Refused>,
}

/// What it does not accept.
pub(super) struct Refused {
    pub(super) sop_class: String,
    pub(super) transfer_syntax: String,
    pub(super) until: Moment,
}

impl StateRow {
    pub(super) fn of(view: &DestinationView) -> Self {
        let refused = view.refused.iter().map(|context| Refused {
            sop_class: context.sop_class.to_string(),
            transfer_syntax: context.transfer_syntax.to_string(),
            until: Moment::of(context.until),
        });
        Self {
            is_up: view.is_up,
            since: Moment::of(view.since),
            failures: view.failures,
            next: view.next_probe.map(Moment::of),
            words: view.last_words.clone().unwrap_or_default(),
            refused: refused.collect(),
        }
    }
}

/// Whether there is anything to queue again, or to propose again.
pub(super) fn has_something_dead(queue: &QueueView) -> bool {
    let dead = queue.depths.get(DeliveryStatus::Dead.as_str()).is_some_and(|count| *count > 0);
    dead || queue.state.as_ref().is_some_and(|state| !state.refused.is_empty())
}

/// The address at which what was given up for a destination is queued again. Names may hold any character.
pub(super) fn retry_path(name: &str) -> String {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    format!("/api/destinations/{}/retry", name.replace('+', "%20"))
}

/// Configured destinations that are down, or do not accept something.
pub(super) async fn troubled(app: &App) -> Result<Vec<(String, StateRow)>, Problem> {
    let configured = app.facts.site();
    let states = app.facts.store.destinations((app.facts.now)()).await?;
    let of_interest = states
        .iter()
        .filter(|state| configured.destinations.contains(&state.name) && (!state.is_up || !state.refused.is_empty()));
    Ok(of_interest.map(|state| (state.name.clone(), StateRow::of(&DestinationView::from(state)))).collect())
}

/// Received instances of a study on their way to one destination.
pub(super) struct Forwarded {
    pub(super) destination: String,
    /// Each state, and how many are in it.
    pub(super) depths: Vec<(String, u64)>,
    /// Why the newest of those that were given up was, or of those that wait.
    pub(super) words: String,
    /// Where those that were given up are queued again; empty if none was.
    pub(super) retry: String,
}

/// Depths by destination; they are in its order.
pub(super) fn forwarded(study: &Uid, depths: &[ForwardedDepth]) -> Vec<Forwarded> {
    let mut all: Vec<Forwarded> = Vec::new();
    for depths in depths.chunk_by(|one, next| one.destination == next.destination) {
        let of_status = |status| depths.iter().find(|depth| depth.status == status);
        let dead = of_status(DeliveryStatus::Dead);
        let speaks = dead.or_else(|| of_status(DeliveryStatus::Queued));
        all.push(Forwarded {
            destination: depths[0].destination.clone(),
            depths: depths.iter().map(|depth| (depth.status.to_string(), depth.count)).collect(),
            words: speaks.and_then(|depth| depth.last_words.clone()).unwrap_or_default(),
            retry: dead.map_or_else(String::new, |depth| format!("{}?study={study}", retry_path(&depth.destination))),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_an_address() {
        assert_eq!(retry_path("pacs"), "/api/destinations/pacs/retry");
        assert_eq!(retry_path("a b+c/d?e"), "/api/destinations/a%20b%2Bc%2Fd%3Fe/retry");
    }

    #[test]
    fn what_is_forwarded_is_one_line_a_destination() {
        let depth = |destination: &str, status, count, words: Option<&str>| ForwardedDepth {
            destination: destination.to_owned(),
            status,
            count,
            last_words: words.map(str::to_owned),
        };
        let study = Uid::derive(["study", "a"]);
        let lines = forwarded(
            &study,
            &[
                depth("mirror", DeliveryStatus::Queued, 3, Some("held: no route")),
                depth("vna", DeliveryStatus::Accepted, 7, Some("Success")),
                depth("vna", DeliveryStatus::Dead, 2, Some("no room")),
            ],
        );
        let [mirror, vna] = lines.as_slice() else { panic!("{} lines", lines.len()) };
        assert_eq!((mirror.words.as_str(), mirror.retry.as_str()), ("held: no route", ""));
        assert_eq!(vna.depths, [("accepted".to_owned(), 7), ("dead".to_owned(), 2)]);
        assert_eq!(
            (vna.words.as_str(), vna.retry.clone()),
            ("no room", format!("/api/destinations/vna/retry?study={study}"))
        );
        assert!(forwarded(&study, &[]).is_empty());
    }
}
