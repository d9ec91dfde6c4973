//! The models of a configuration: which one is active at the start, what loads others, and the process of the shadow.

mod shadow;

use std::sync::Arc;

use anyhow::Context;
use ichor_admin::{ActiveModel, ModelFacts};
use ichor_core::{ActivationKind, ModelId, OfferState, chain};
use ichor_pipeline::analyse::SliceModel;
use ichor_pipeline::models::{Loader, Roster};
use ichor_pipeline::now;
use ichor_store::{NewOffer, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::model_facts;
use crate::config::{Config, ModelConfig};
use crate::engine::Engine;

pub(crate) use shadow::work;

/// Writes into the store what the configuration names, and loads the model that is the active one.
///
/// That is the one that somebody chose last (`ichor model activate`, `rollback`, the pages); where nobody has chosen, the one of
/// `[model]`. If somebody's choice is not configured any more, or cannot be loaded, no other takes its place: the daemon receives
/// and delivers, studies wait, and everything says so.
///
/// # Errors
/// If the model of `[model]` is to be the active one and cannot be loaded, and what the store says.
pub(crate) async fn open<E: Engine>(config: &Config, store: &Store) -> anyhow::Result<Roster<E::Model>> {
    let models = config.model.each();
    let found = told_apart(&models, models.iter().map(E::identify).collect());
    let offers: Vec<NewOffer> = models.iter().zip(&found).map(|(model, found)| offer(model, found)).collect();
    for failed in offers.iter().filter(|offer| offer.state == OfferState::Failed) {
        error!(weights = failed.weights, reason = failed.words, "these weights cannot be used");
    }
    store.offer_models(&offers, now()).await.context("writing which models there are")?;
    let loader = loader::<E>(config, store);
    let chosen = store.active_model().await.context("looking for the active model")?;
    let somebodys = chosen.as_ref().filter(|active| active.kind != ActivationKind::Configured);
    let active = match somebodys {
        Some(active) => match loader(active.model.clone()).await {
            Ok(model) => Some(model),
            Err(reason) => {
                hold(store, &active.model, &reason).await?;
                None
            }
        },
        None => {
            // As it always was: a daemon that cannot analyse does not open its port.
            let own = found.into_iter().next().context("no model")??;
            let model = loader(own.clone()).await.map_err(|reason| anyhow::anyhow!("model {own}: {reason}"))?;
            if chosen.is_none_or(|active| active.model != own) {
                let why = "it stands in [model], and nobody has chosen another";
                store.adopt_model(&own, why, now()).await.context("recording the active model")?;
            }
            Some(model)
        }
    };
    if let Some(model) = &active
        && let Some(notice) = &model.traits().notice
    {
        warn!(model = %model.traits().id, notice, "these weights carry a notice; it stands in every object");
    }
    Ok(Roster::new(active, loader))
}

/// Weights of an id that others have already cannot be told from them: they are not used.
fn told_apart(models: &[ModelConfig], mut found: Vec<anyhow::Result<ModelId>>) -> Vec<anyhow::Result<ModelId>> {
    for later in 1..found.len() {
        let Ok(id) = &found[later] else { continue };
        let earlier = (0..later).find(|earlier| found[*earlier].as_ref().is_ok_and(|other| other == id));
        if let Some(earlier) = earlier {
            let (id, weights) = (id.clone(), models[earlier].weights.display());
            found[later] = Err(anyhow::anyhow!(
                "these are {id}, as {weights} are: give them a name or version of their own in the manifest"
            ));
        }
    }
    found
}

fn offer(model: &ModelConfig, found: &anyhow::Result<ModelId>) -> NewOffer {
    let weights = model.weights.display().to_string();
    match found {
        Ok(id) => NewOffer { weights, model: Some(id.clone()), state: OfferState::Waiting, words: String::new() },
        Err(error) => NewOffer { weights, model: None, state: OfferState::Failed, words: chain(error.as_ref()) },
    }
}

/// Nothing is analysed until somebody says with what.
async fn hold(store: &Store, model: &ModelId, reason: &str) -> anyhow::Result<()> {
    let text = format!(
        "model {model}, which was chosen to be the active one, cannot be used: {reason}. No other takes its place: studies are \
         received and wait until it is configured again, or another is chosen (ichor model activate)"
    );
    error!("{text}");
    store.note_models("model-missing", &text, now()).await.context("recording that no model is active")
}

/// What loads a model of the configuration by its id, and says in the store what came of it.
fn loader<E: Engine>(config: &Config, store: &Store) -> Loader<E::Model> {
    let (models, priority, store) = (Arc::new(config.model.each()), config.analysis.priority(), store.clone());
    Arc::new(move |id| {
        let (models, store) = (Arc::clone(&models), store.clone());
        Box::pin(async move {
            // By the manifest as it is now: the file may have been replaced since the start.
            let named = models.iter().find(|model| E::identify(model).is_ok_and(|found| found == id));
            let Some(named) = named else { return Err(not_configured::<E>(&models)) };
            let loaded = E::load(named, priority).await.map_err(|error| chain(error.as_ref()));
            let (noted, words) = match &loaded {
                Ok((model, device)) => {
                    info!(model = %model.traits().id, device, "model ready");
                    (
                        serde_json::to_value(model_facts(model.traits())).map_err(|error| error.to_string()),
                        device.clone(),
                    )
                }
                Err(reason) => (Err(reason.clone()), String::new()),
            };
            if let Err(error) = store.note_offer(&id, noted, &words, now()).await {
                warn!(model = %id, %error, "the pages do not hear what became of a model");
            }
            loaded.map(|(model, _)| Arc::new(model))
        })
    })
}

fn not_configured<E: Engine>(models: &[ModelConfig]) -> String {
    let names: Vec<String> = models
        .iter()
        .map(|model| match E::identify(model) {
            Ok(id) => id.to_string(),
            Err(error) => format!("{} ({})", model.weights.display(), chain(error.as_ref())),
        })
        .collect();
    format!("the configuration names only {}", names.join(", "))
}

/// The active model, as the pages see it.
pub(crate) fn show<M: SliceModel>(roster: &Roster<M>) -> ActiveModel {
    let shown = ActiveModel::default();
    shown.set(facts(roster));
    shown
}

fn facts<M: SliceModel>(roster: &Roster<M>) -> Option<ModelFacts> {
    roster.active().map(|model| model_facts(model.traits()))
}

/// Starts what takes up another active model, and the process of the shadow.
pub(crate) fn start<M: SliceModel>(
    config: &Config,
    store: &Store,
    (roster, shown): (&Roster<M>, ActiveModel),
    stop: &CancellationToken,
    tasks: &mut JoinSet<&'static str>,
) -> anyhow::Result<()> {
    // Before anything can change it.
    let mut changes = roster.changes();
    let (stage_store, stage_roster, token) = (store.clone(), roster.clone(), stop.clone());
    tasks.spawn(async move {
        ichor_pipeline::models::run(stage_store, stage_roster, token).await;
        "models"
    });
    let (roster, token) = (roster.clone(), stop.clone());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = token.cancelled() => return "active model",
                changed = changes.changed() => if changed.is_err() { return "active model" },
            }
            shown.set(facts(&roster));
        }
    });
    if config.shadow.run && !config.model.also.is_empty() {
        shadow::start(config, store, stop, tasks)?;
    }
    Ok(())
}
