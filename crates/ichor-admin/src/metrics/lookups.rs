//! Look-ups: how often peers were asked about studies, and what came of it.

use ichor_store::LookupFigures;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Name, count};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    name: String,
    outcome: &'static str,
}

pub(super) fn lookups(registry: &mut Registry, figures: &[LookupFigures]) {
    let (asked, due) = (Family::<Outcome, Counter>::default(), Family::<Name, Gauge>::default());
    for figure in figures {
        let name = figure.peer.clone();
        if figure.outcome == "due" {
            due.get_or_create(&Name { name }).set(count(figure.count));
        } else {
            // A peer that was asked and has nothing due says so.
            drop(due.get_or_create(&Name { name: name.clone() }));
            asked.get_or_create(&Outcome { name, outcome: figure.outcome }).inc_by(figure.count);
        }
    }
    registry.register(
        "lookups",
        "Questions about studies to a peer since the database was made, by what came of them",
        asked,
    );
    registry.register("lookups_due", "Studies that a peer is to be asked about", due);
}
