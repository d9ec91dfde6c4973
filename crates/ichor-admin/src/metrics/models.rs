//! Metrics of models: which one is active, what the others do, and the distribution of scores.

use std::sync::atomic::AtomicU64;

use ichor_core::{ModelId, OfferState, ShadowStatus, stability_index};
use ichor_store::{Activation, BINS, Histogram, Offer, Scores, ShadowDepth, StoreError, Timestamp};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{count, gauge};
use crate::Facts;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Model {
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Run {
    model: String,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Bin {
    window: &'static str,
    upto: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    of: &'static str,
}

/// What the store knows of models.
pub(super) struct Known {
    offers: Vec<Offer>,
    active: Option<Activation>,
    runs: Vec<ShadowDepth>,
    scores: Option<Scores>,
}

impl Known {
    pub(super) async fn read(facts: &Facts, now: Timestamp) -> Result<Self, StoreError> {
        let store = &facts.store;
        let active = store.active_model().await?;
        let scores = match &active {
            Some(active) => Some(store.scores(&active.model, now).await?),
            None => None,
        };
        Ok(Self { offers: store.offers().await?, active, runs: store.shadow_depths().await?, scores })
    }
}

pub(super) fn models(registry: &mut Registry, facts: &Facts, known: &Known) {
    let usable = Family::<Model, Gauge>::default();
    for offer in &known.offers {
        let model = offer.model.as_ref().map_or_else(|| offer.weights.clone(), ModelId::to_string);
        usable.get_or_create(&Model { model }).set(i64::from(offer.state != OfferState::Failed));
    }
    registry.register("model_usable", "Whether a configured model can be used", usable);
    let missing = i64::from(facts.active.is_missing());
    gauge(registry, "model_missing", "Whether the active model cannot be used, so that studies wait", missing);
    let since = known.active.as_ref().and_then(|active| active.from_at).map_or(0, |at| at.as_millis() / 1000);
    gauge(registry, "model_active_since_seconds", "Since when the active model is, in seconds since 1970", since);
    let runs = Family::<Run, Gauge>::default();
    let shadows = known.offers.iter().filter_map(|offer| offer.model.as_ref());
    let shadows = shadows.filter(|id| known.active.as_ref().is_none_or(|active| active.model != **id));
    for model in shadows {
        for status in ShadowStatus::ALL {
            let depth = known.runs.iter().find(|depth| depth.model == *model && depth.status == *status);
            let labels = Run { model: model.to_string(), status: status.as_str() };
            runs.get_or_create(&labels).set(depth.map_or(0, |depth| count(depth.count)));
        }
    }
    registry.register("shadow_studies", "Studies by model in the shadow and state", runs);
}

/// The distribution of what the active model says.
pub(super) fn scores(registry: &mut Registry, known: &Known) {
    let scores = known.scores.unwrap_or_default();
    let histogram = |windows: [(&'static str, Histogram); 2]| {
        let family = Family::<Bin, Gauge>::default();
        for (window, bins) in windows {
            for (number, studies) in (1u32..).zip(bins) {
                let upto = format!("{:.1}", f64::from(number) / BINS as f64);
                family.get_or_create(&Bin { window, upto }).set(count(studies));
            }
        }
        family
    };
    let studies = histogram([("24h", scores.studies_24h), ("30d", scores.studies_30d)]);
    registry.register("score_studies", "Studies by the tenth of their probability that the active model gave", studies);
    let slices = histogram([("24h", scores.slices_24h), ("30d", scores.slices_30d)]);
    registry.register("score_slices", "Slices by the tenth of their probability that the active model gave", slices);
    let stability = Family::<Of, Gauge<f64, AtomicU64>>::default();
    for (of, day, month) in
        [("study", scores.studies_24h, scores.studies_30d), ("slice", scores.slices_24h, scores.slices_30d)]
    {
        if let Some(index) = stability_index(&day, &month) {
            stability.get_or_create(&Of { of }).set(index);
        }
    }
    let help = "Population stability index of the last 24 hours' scores against the last 30 days'";
    registry.register("score_stability_index", help, stability);
}
